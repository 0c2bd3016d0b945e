"""CALIBRATE: what becomes of a layer's output before it is used: scales, shifts, and the sum it goes into.

An error in a layer's output matters as much as it moves that sum. A residual sum also says what the layer should give
where its other summand has become wrong.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from srr_onnx.calibration.layers import LinearLayer
from srr_onnx.graph.model import Model, Node

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Tail:
    """`inner = scale * output + shift` and `total = inner + other`, channel by channel.

    Attributes:
        scale: Shape `(O,)`.
        shift: Shape `(O,)`.
        inner: The layer's output after scale and shift.
        total: The sum it goes into; the same as `inner` where there is none.
        other: The sum's other summand, None where there is none.
        first: The first node that scales or shifts, None where none does.
    """

    scale: Array
    shift: Array
    inner: str
    total: str
    other: str | None
    first: Node | None


def find_tail(model: Model, layer: LinearLayer) -> Tail:
    """Follow a layer's output through what only scales and shifts channels, up to a sum of two activations.

    Args:
        model: Loaded model.
        layer: One of its layers.

    Returns:
        The tail; nothing is followed past a value that is read twice or is a graph output.
    """
    scale, shift = np.ones(layer.outputs), np.zeros(layer.outputs)
    value, first = layer.output, None
    while True:
        readers = model.consumers.get(value, ())
        if len(readers) != 1 or value in model.outputs or readers[0].domain:
            break
        node = readers[0]
        if node.op_type == "Add" and _is_sum(model, node):
            other = node.inputs[1] if node.inputs[0] == value else node.inputs[0]
            if other == value:
                break
            return Tail(scale, shift, value, node.outputs[0], other, first)
        if not _is_passed(node):
            step = _read_step(model, node, value, layer)
            if step is None:
                break
            scale, shift, first = scale * step[0], shift * step[0] + step[1], first or node
        value = node.outputs[0]
    return Tail(scale, shift, value, value, None, first)


def find_settled(model: Model, layers: Sequence[LinearLayer]) -> dict[str, int]:
    """Find after which layer each value is final, if the layers are settled one after the other.

    Args:
        model: Loaded model.
        layers: Its layers, in execution order.

    Returns:
        By value the place of the last layer that it follows from, -1 where it follows from none.
    """
    places = {layer.node.index: place for place, layer in enumerate(layers)}
    found: dict[str, int] = {}
    for node in model.nodes:
        last = max((found.get(name, -1) for name in (*node.inputs, *node.captured)), default=-1)
        found.update(dict.fromkeys(node.outputs, max(last, places.get(node.index, -1))))
    return found


def _is_sum(model: Model, node: Node) -> bool:
    """Whether a node adds two activations of the same shape."""
    shapes = [model.shapes.get(name) for name in node.inputs]
    is_variable = all(name not in model.constants and name not in model.shape_values for name in node.inputs)
    return is_variable and shapes[0] is not None and shapes[0] == shapes[1]


def _is_passed(node: Node) -> bool:
    """Whether a node changes nothing; a Dropout whose third input may say that it trains does."""
    return node.op_type == "Identity" or (node.op_type == "Dropout" and not node.input(2))


def _read_step(model: Model, node: Node, value: str, layer: LinearLayer) -> tuple[Array, Array] | None:
    """Scale and shift of a node, None where it does something else."""
    if node.op_type == "BatchNormalization" and node.inputs[0] == value and layer.output_axis == 1:
        return read_norm(model, node)
    if node.op_type in ("Add", "Mul") and len(node.inputs) == 2:
        operand = model.constants.get(node.inputs[1] if node.inputs[0] == value else node.inputs[0])
        vector = None if operand is None else _per_channel(operand, layer, model.rank(value) or 0)
        if vector is None:
            return None
        zeros = np.zeros(layer.outputs)
        return (zeros + 1, vector + zeros) if node.op_type == "Add" else (vector + zeros, zeros)
    return None


def read_norm(model: Model, node: Node) -> tuple[Array, Array] | None:
    """Scale and shift of a BatchNormalization in inference form.

    Args:
        model: Loaded model.
        node: The node.

    Returns:
        Two arrays of shape `(channels,)`, float64; None where its parameters are not constants.

    Source:
        Ioffe and Szegedy, "Batch Normalization", ICML 2015, arXiv:1502.03167, algorithm 2.
    """
    arrays = [np.asarray(model.constants[n], np.float64) for n in node.inputs[1:5] if n in model.constants]
    if len(arrays) < 4 or node.attributes.get("training_mode", 0) or any(node.outputs[1:]):
        return None
    gamma, beta, mean, variance = arrays
    if any(array.ndim != 1 for array in arrays):  # one number per pixel, as version 7 allowed
        return None
    scale = gamma / np.sqrt(variance + node.attributes.get("epsilon", 1e-5))
    return scale, beta - scale * mean


def _per_channel(operand: Array, layer: LinearLayer, rank: int) -> Array | None:
    """A constant operand as one number per channel (or one for all); None where it varies along another axis."""
    if operand.ndim > rank:
        return None
    if operand.size == 1:
        return operand.reshape(()).astype(np.float64)
    shape = (1,) * (rank - operand.ndim) + operand.shape
    if operand.size != layer.outputs or shape[layer.output_axis] != layer.outputs:
        return None
    return operand.reshape(-1).astype(np.float64)
