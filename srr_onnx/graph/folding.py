"""LOAD: values that follow from constants alone.

Exporters put weights behind Identity, Cast or Transpose and compute shapes from Shape, Gather and
Concat. Their results are constants at the given input shapes, and later stages read them as such.
Data movement on any tensor and arithmetic on small integers is folded here; `fold_with_reference` does the rest, for
constants only.
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from srr_onnx.graph.model import Node, Shape, is_sane

Array = np.ndarray[Any, Any]

_MAX_ARITHMETIC = 4096
# Larger values are not made: a few bytes of a file can ask for any number of elements.
_MOST_ELEMENTS = 1 << 27
# Not deterministic; to be followed as they are (a quantized weight stays quantized); or slow in the reference
# implementation, which walks over positions one by one (weights are made by none of these).
_NOT_FOLDED = frozenset(
    {"Bernoulli", "DequantizeLinear", "DynamicQuantizeLinear", "Multinomial", "QuantizeLinear"}
    | {"AveragePool", "Conv", "ConvInteger", "ConvTranspose", "DeformConv", "LpPool", "MaxPool", "QLinearConv"}
    | {"DFT", "GRU", "GridSample", "LSTM", "MaxRoiPool", "NonMaxSuppression", "RNN", "Resize", "RoiAlign", "STFT"}
)


def fold_constants(
    nodes: Sequence[Node],
    stored: Mapping[str, Array],
    shapes: dict[str, Shape],
    dtypes: dict[str, np.dtype[Any]],
    infer: Callable[[Node, Mapping[str, Array]], None] | None = None,
    compute: Callable[[Node, Mapping[str, Array]], dict[str, Array]] | None = None,
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Evaluate every node whose inputs are constants, as far as this module knows the operator.

    Args:
        nodes: All nodes in execution order.
        stored: Constants stored in the file, by name.
        shapes: Static shapes by value name; shapes of folded values are added.
        dtypes: Element types by value name; those of folded values are added.
        infer: Called for a node whose output shape is not known, with the values known so far; may add to `shapes`.
        compute: Called for a node with constant inputs that this module does not know (weights that are standardized
            in the graph, say); gives its outputs by name.

    Returns:
        The constants (stored ones and what follows from them), and apart from them the values that follow from the
        shape of an activation: those change when channels go. All read-only.
    """
    constants, shape_values = dict(stored), dict[str, Array]()
    known: Mapping[str, Array] = ChainMap(shape_values, constants)
    for node in nodes:
        if infer is not None and any(name and name not in shapes for name in node.outputs):
            infer(node, known)
        if node.captured or all(name in known for name in node.outputs if name):
            continue
        made = _fold(node, known, constants, shapes, dtypes, compute)
        measures = node.op_type == "Shape" and node.input(0) not in constants
        is_live = measures or any(source in shape_values for source in node.inputs)
        for name, value in made.items():
            value = np.asarray(value)
            if value.size > _MOST_ELEMENTS or not is_sane(value.shape):
                continue
            value.flags.writeable = False
            shapes[name], dtypes[name] = value.shape, value.dtype
            if (
                is_live
                and value.dtype.kind == "f"
                and node.op_type in _MOVERS | {"Expand"}
                and node.inputs[0] in constants
            ):
                continue  # a weight that is cut or repeated (a class token per image) is no shape arithmetic
            (shape_values if is_live else constants)[name] = value
    return constants, shape_values


def _fold(
    node: Node,
    known: Mapping[str, Array],
    constants: Mapping[str, Array],
    shapes: Mapping[str, Shape],
    dtypes: Mapping[str, np.dtype[Any]],
    compute: Callable[[Node, Mapping[str, Array]], dict[str, Array]] | None,
) -> dict[str, Array]:
    """Outputs of a node that can be evaluated, by name; empty where it cannot."""
    value: Array | None = None
    if node.op_type == "Shape" and not node.domain:
        value = _shape_of(node, shapes)
    elif node.op_type == "CastLike" and node.input(0) in known and node.input(1) in dtypes:
        value = known[node.inputs[0]].astype(dtypes[node.inputs[1]])
    elif node.op_type in _FOLDERS and not node.domain and all(name in known for name in node.inputs if name):
        value = _evaluate(node, [known[name] if name else None for name in node.inputs])
    if value is not None:
        return {node.outputs[0]: value}
    if compute is not None and node.inputs and all(name in constants for name in node.inputs if name):
        sizes = [shapes.get(name) for name in node.outputs if name]
        if all(shape is not None and math.prod(shape) <= _MOST_ELEMENTS for shape in sizes):
            return compute(node, constants)
    return {}


def fold_with_reference(
    message: onnx.NodeProto, opsets: Sequence[onnx.OperatorSetIdProto]
) -> Callable[..., Any] | None:
    """Find an evaluator for a node with constant inputs: ONNX's own reference implementation.

    Args:
        message: The node.
        opsets: Operator sets of the model.

    Returns:
        A function from input arrays to a list of outputs; None where the operator must not be folded.
    """
    if message.op_type in _NOT_FOLDED or message.op_type.startswith("Random") or message.domain not in ("", "ai.onnx"):
        return None
    if any(attribute.HasField("g") or attribute.graphs for attribute in message.attribute):
        return None
    from onnx.reference import ReferenceEvaluator  # a heavy import that few models need

    graph = onnx.GraphProto(name="constant", node=[message])
    graph.input.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(message.input) if name)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in message.output if name)
    model = onnx.ModelProto(ir_version=10, graph=graph, opset_import=list(opsets))
    evaluator = ReferenceEvaluator(model)
    return lambda feeds: evaluator.run(None, feeds)


def _shape_of(node: Node, shapes: Mapping[str, Shape]) -> Array | None:
    shape = shapes.get(node.inputs[0])
    if shape is None:
        return None
    start, end = node.attributes.get("start", 0), node.attributes.get("end")
    return np.array(shape[start:end], np.int64)


def _evaluate(node: Node, inputs: list[Array | None]) -> Array | None:
    try:
        return _FOLDERS[node.op_type](node, inputs)
    except Exception:
        return None  # a malformed constant expression is simply not folded; the runtime will judge it


def _axes(node: Node, inputs: list[Array | None]) -> tuple[int, ...] | None:
    if len(inputs) > 1 and inputs[1] is not None:
        return tuple(int(axis) for axis in inputs[1].reshape(-1))
    axes = node.attributes.get("axes")
    return None if axes is None else tuple(axes)


def _constant(node: Node, inputs: list[Array | None]) -> Array | None:
    for key, dtype in (
        ("value_float", np.float32),
        ("value_floats", np.float32),
        ("value_int", np.int64),
        ("value_ints", np.int64),
    ):
        if key in node.attributes:
            return np.array(node.attributes[key], dtype)
    return None


def _constant_of_shape(node: Node, inputs: list[Array | None]) -> Array | None:
    value = node.attributes.get("value")
    fill = np.zeros(1, np.float32) if value is None else numpy_helper.to_array(value)
    shape = tuple(int(size) for size in inputs[0])  # type: ignore[union-attr]
    # Broadcasting makes a view of one element: no memory, whatever the shape.
    return np.broadcast_to(fill.reshape(()), shape)


def _expand(node: Node, inputs: list[Array | None]) -> Array | None:
    data, target = inputs[0], inputs[1]
    assert data is not None
    assert target is not None
    return np.broadcast_to(data, np.broadcast_shapes(data.shape, tuple(int(size) for size in target)))


def _reshape(node: Node, inputs: list[Array | None]) -> Array | None:
    data, target = inputs[0], inputs[1] if len(inputs) > 1 else node.attributes.get("shape")
    assert data is not None
    sizes = [int(size) for size in target]  # type: ignore[union-attr]
    if not node.attributes.get("allowzero", 0):
        sizes = [data.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return data.reshape(sizes)


def _unsqueeze(node: Node, inputs: list[Array | None]) -> Array | None:
    axes = _axes(node, inputs)
    return None if axes is None or inputs[0] is None else np.expand_dims(inputs[0], axes)


def _squeeze(node: Node, inputs: list[Array | None]) -> Array | None:
    return None if inputs[0] is None else np.squeeze(inputs[0], _axes(node, inputs))


def _transpose(node: Node, inputs: list[Array | None]) -> Array | None:
    return None if inputs[0] is None else np.transpose(inputs[0], node.attributes.get("perm"))


def _cast(node: Node, inputs: list[Array | None]) -> Array | None:
    dtype = helper.tensor_dtype_to_np_dtype(int(node.attributes["to"]))
    return None if inputs[0] is None else inputs[0].astype(dtype)


def _concat(node: Node, inputs: list[Array | None]) -> Array | None:
    return np.concatenate([array for array in inputs if array is not None], axis=node.attributes["axis"])


def _gather(node: Node, inputs: list[Array | None]) -> Array | None:
    data, indices = inputs[0], inputs[1]
    assert data is not None
    assert indices is not None
    return np.take(data, indices, axis=node.attributes.get("axis", 0)) if _is_small(data) else None


def _slice(node: Node, inputs: list[Array | None]) -> Array | None:
    data = inputs[0]
    if data is None or not _is_small(data):
        return None
    bounds: list[Any] = [*inputs[1:], None, None]
    if len(inputs) == 1:
        bounds = [node.attributes["starts"], node.attributes["ends"], node.attributes.get("axes"), None]
    starts, ends, axes, steps = bounds[:4]
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    window = [slice(None)] * data.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        window[int(axis)] = slice(int(start), int(end) if int(end) > -data.shape[int(axis)] - 1 else None, int(step))
    part: Array = data[tuple(window)]
    return part


def _is_small(array: Array) -> bool:
    return array.size <= _MAX_ARITHMETIC


def _integers(function: Callable[..., Any]) -> Callable[[Node, list[Array | None]], Array | None]:
    """Fold an arithmetic operator, but only on small integer tensors (shape arithmetic)."""

    def fold(node: Node, inputs: list[Array | None]) -> Array | None:
        arrays = [array for array in inputs if array is not None]
        if not all(array.dtype.kind in "iub" and _is_small(array) for array in arrays):
            return None
        return np.asarray(function(*arrays))

    return fold


def _divide(a: Array, b: Array) -> Array:
    """Integer division that truncates towards zero, as ONNX defines it."""
    quotient: Array = np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))
    return quotient.astype(a.dtype)


_FOLDERS: dict[str, Callable[[Node, list[Array | None]], Array | None]] = {
    "Add": _integers(np.add),
    "And": _integers(np.logical_and),
    "Cast": _cast,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Div": _integers(_divide),
    "Equal": _integers(np.equal),
    "Expand": _expand,
    "Gather": _gather,
    "Identity": lambda node, inputs: inputs[0],
    "Max": _integers(np.maximum),
    "Min": _integers(np.minimum),
    "Mod": _integers(np.mod),
    "Mul": _integers(np.multiply),
    "Not": _integers(np.logical_not),
    "ReduceProd": _integers(lambda a: np.prod(a, keepdims=False)),
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Sub": _integers(np.subtract),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _integers(np.where),
}


_MOVERS = frozenset({"Cast", "Concat", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Unsqueeze"})


def move_elements(node: Node, tokens: Sequence[Array | None], operands: Sequence[Array | None]) -> Array | None:
    """Do to tokens what a data-moving operator does to elements.

    Args:
        node: A node that `fold_constants` can evaluate.
        tokens: One array of tokens per input, shaped like the input.
        operands: The inputs themselves: indices, axes and target shapes are taken from here.

    Returns:
        The tokens of the output; None where the operator computes instead of moving.
    """
    if node.op_type not in _MOVERS:
        return None
    if node.op_type == "Cast":
        return tokens[0]
    if node.op_type == "Concat":
        return _evaluate(node, list(tokens))
    return _evaluate(node, [tokens[0], *operands[1:]])
