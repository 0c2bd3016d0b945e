"""LOAD: what QuantizeLinear and DequantizeLinear mean in floating point.

Scoring reads quantized weights as the numbers they stand for. The proof can leave the rounding of activations out: a
sum in another order then shifts a value by a rounding error of floating point, not by a whole step of eight bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from srr_onnx.graph.model import Model, Node

Array = np.ndarray[Any, Any]

# These compute with integers, or are made for operators that do.
INTEGER_OPERATORS = frozenset(
    {"ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QGemm", "QLinearConv", "QLinearMatMul"}
)


def read_parameter(model: Model, name: str, node: int, slot: int) -> Array:
    """Read a constant as one of its readers means it.

    Args:
        model: Loaded model.
        name: Name of the constant.
        node: Index of the node that reads it.
        slot: Input slot that reads it.

    Returns:
        The constant; what it stands for, in float32, where the node dequantizes it with constant scales.
    """
    array = model.constants[name]
    reader = model.dequantizers.get(node)
    if reader is None or slot != 0:
        return array
    scale, zero = (_spread(model.constants.get(reader.input(place)), reader, array.ndim) for place in (1, 2))
    if scale is None or (zero is None and reader.input(2)):
        return array
    block = reader.attributes.get("block_size", 0)
    if block:
        axis = reader.attributes.get("axis", 1) % array.ndim
        places = np.arange(array.shape[axis]) // block
        scale, zero = scale.take(places, axis=axis), None if zero is None else zero.take(places, axis=axis)
    values = array.astype(np.float32)
    return (values if zero is None else values - zero.astype(np.float32)) * scale.astype(np.float32)


def _spread(array: Array | None, node: Node, rank: int) -> Array | None:
    """Scales or zero points in a shape that broadcasts to the value; those in blocks have its rank already."""
    if array is None or array.ndim == rank:
        return array
    if array.size == 1:
        return array.reshape(())
    axis = node.attributes.get("axis", 1) % rank
    return array.reshape([-1 if place == axis else 1 for place in range(rank)])


def unrounded_pairs(model: Model, outputs: frozenset[str]) -> dict[int, tuple[Node, Node | None]]:
    """Find activations that are quantized and dequantized at once, with constant scales.

    Args:
        model: Loaded model.
        outputs: Values that have to stay as they are.

    Returns:
        By index of either node: the QuantizeLinear, and the DequantizeLinear (None for the first of the two).
    """
    found: dict[int, tuple[Node, Node | None]] = {}
    for node in model.nodes:
        if node.op_type != "QuantizeLinear" or node.domain or node.inputs[0] in model.constants:
            continue
        made = node.outputs[0]
        readers = model.consumers.get(made, ())
        if made in outputs or not all(_is_plain(model, n) for n in (node, *readers)):
            continue
        if model.dtypes.get(made, np.dtype(np.uint8)).kind in "iu" and all(
            reader.index in model.dequantizers and reader.inputs[0] == made for reader in readers
        ):
            found[node.index] = (node, None)
            found |= {reader.index: (node, reader) for reader in readers}
    return found


def _is_plain(model: Model, node: Node) -> bool:
    """Whether scale and zero point are constants, one for all or one per channel."""
    given = [name for name in node.inputs[1:3] if name]
    rank = model.rank(node.inputs[0])
    return rank is not None and not node.attributes.get("block_size", 0) and all(n in model.constants for n in given)


def without_rounding(
    model: Model, graph: onnx.GraphProto, quantize: Node, dequantize: Node
) -> Iterator[onnx.NodeProto]:
    """Write a quantization and its inverse without the rounding between them: scaled, shifted, clipped, and back.

    Args:
        model: Loaded model.
        graph: Gets the constants.
        quantize: A QuantizeLinear.
        dequantize: A DequantizeLinear that reads it.

    Yields:
        Nodes that take the place of the DequantizeLinear; the other one is not needed any more.
    """
    source, target = quantize.inputs[0], dequantize.outputs[0]
    rank, dtype = model.rank(source) or 0, model.dtypes.get(source, np.dtype(np.float32))
    bounds = np.iinfo(model.dtypes.get(quantize.outputs[0], np.dtype(np.uint8)))
    operands = {
        "Div": _operand(model, quantize, 1, rank),
        "Add": _operand(model, quantize, 2, rank),
        "Max": np.array(bounds.min),
        "Min": np.array(bounds.max),
        "Sub": _operand(model, dequantize, 2, rank),
        "Mul": _operand(model, dequantize, 1, rank),
    }
    name = source
    for op_type, operand in operands.items():
        label = f"srr_onnx_unrounded_{dequantize.index}_{op_type}"
        made = target if op_type == "Mul" else f"{label}_out"
        graph.initializer.append(numpy_helper.from_array(operand.astype(dtype), label))
        yield helper.make_node(op_type, [name, label], [made])
        name = made


def _operand(model: Model, node: Node, slot: int, rank: int) -> Array:
    array = _spread(model.constants.get(node.input(slot)), node, rank)
    return np.array(0) if array is None else array
