"""VALIDATE: along which axis of an output the classes lie."""

from __future__ import annotations

from srr_onnx.graph.model import Model, Node, Shape

# Axis of the sums or shares that an operator makes; counted from the end where negative.
_AXES = {"Conv": 1, "ConvTranspose": 1, "MatMul": -1, "Gemm": -1, "LayerNormalization": -1}
_SHARES = frozenset({"Softmax", "LogSoftmax"})


def find_class_axis(model: Model, name: str, seen: Shape = ()) -> int | None:
    """Find the axis along which an output has one score per class; all other axes are positions.

    It is the second of (N, C) and of maps (N, C, H, W). Three axes are (N, T, C) or (N, C, T): there the operator tells
    that made the scores, followed back through what keeps the shape, or turns it. A softmax works along the classes, a
    convolution sums up along the second axis, a matrix product along the last; where none is met it is the last.

    Args:
        model: Loaded model.
        name: One of its outputs.
        seen: Shape that a run gave it, for where the file does not tell.

    Returns:
        The axis, None where there is none with more than one class.
    """
    shape = model.shapes.get(name, seen)
    if len(shape) < 2:
        return None
    axis = 1 if len(shape) != 3 else _follow_back(model, name)
    return axis if shape[axis] > 1 else None


def has_classes(model: Model) -> bool:
    """Whether some output of a model can be read as scores of classes; one of unknown shape may be."""
    floats = [name for name in model.outputs if name in model.dtypes and model.dtypes[name].kind == "f"]
    return any(name not in model.shapes or find_class_axis(model, name) is not None for name in floats)


def _follow_back(model: Model, name: str) -> int:
    """Axis of a value of three axes along which the operator worked that made it."""
    places = [0, 1, 2]  # where the axes of the value at hand are in the output
    while (node := model.producers.get(name)) is not None and not node.domain:
        axis = node.attributes.get("axis", -1) if node.op_type in _SHARES else _AXES.get(node.op_type)
        if axis is not None:
            return places[axis]
        if node.op_type == "Transpose":
            before = node.attributes.get("perm", (2, 1, 0))
            places = [places[list(before).index(axis)] for axis in range(3)]
        source = _find_source(model, node)
        if source is None:
            break
        name = source
    return 2


def _find_source(model: Model, node: Node) -> str | None:
    """The only activation that a node reads, if it has the shape of the result, or is turned into it."""
    read = [name for name in node.inputs if name and name not in model.constants]
    before, after = (model.shapes.get(part) for part in (read[0] if read else "", node.outputs[0]))
    is_same = before == after or node.op_type == "Transpose"
    return read[0] if len(read) == 1 and before is not None and len(before) == 3 and is_same else None
