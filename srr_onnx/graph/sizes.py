"""LOAD: sizes for pictures that a file leaves open.

Pruning needs static shapes, but which channels go hardly depends on the size of the picture, so where only height and
width are open a common size is taken that the graph has nothing against.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx

from srr_onnx.errors import ModelError
from srr_onnx.graph.cost import mac_factors
from srr_onnx.graph.model import Model, Shape
from srr_onnx.graph.nodes import COUNTED
from srr_onnx.graph.shapes import infer_shapes, resolve_inputs

# Usual sizes of classifiers, detectors and segmenters, then small ones; multiples of 32 come first, for nets that
# halve the picture five times and join the halves again.
_SIZES = (224, 256, 320, 640, 32, 64, 96, 128, 48, 28, 299, 512)


def guess_inputs(proto: onnx.ModelProto, given: Mapping[str, Sequence[int]]) -> Iterator[dict[str, Shape]]:
    """Find sizes for pictures whose height and width are open and not given.

    Args:
        proto: Model whose large payloads may be detached; not changed.
        given: Shapes by input name.

    Yields:
        Shape of every input that is fed, one size after another at which shape inference finds no contradiction.
        Nothing where no picture is open, or where more than pictures is.

    Raises:
        ModelError: A given shape contradicts the file.
    """
    pictures = {name: axes for name, axes in open_pictures(proto.graph) if name not in given and "" not in given}
    for size in _SIZES if pictures else ():
        wanted = {name: tuple(size if axis is None else axis for axis in axes) for name, axes in pictures.items()}
        try:
            inputs = resolve_inputs(proto.graph, {**given, **wanted})
            infer_shapes(proto, inputs, is_strict=True)
        except ModelError:
            continue
        yield inputs


def open_pictures(graph: onnx.GraphProto) -> Iterator[tuple[str, tuple[int | None, ...]]]:
    """Find inputs with axes for height and width of which at least one is open, and a known number of channels.

    Args:
        graph: The main graph of a model.

    Yields:
        Name and sizes, None where open; an open batch is 1.
    """
    stored = {init.name for init in graph.initializer}
    for value in graph.input:
        dims = [dim.dim_value if dim.dim_value > 0 else None for dim in value.type.tensor_type.shape.dim]
        if value.name in stored or len(dims) != 4:
            continue
        dims[0] = dims[0] or 1
        missing = {axis for axis, size in enumerate(dims) if size is None}
        if missing and (missing <= {2, 3} or missing == {1, 2}):
            yield value.name, tuple(dims)


def is_followed(model: Model) -> bool:
    """Whether the shapes of all convolutions and products are known at the model's input shapes."""
    return all(mac_factors(node, model.shapes) for node in model.nodes if node.op_type in COUNTED and not node.domain)
