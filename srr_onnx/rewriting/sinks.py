"""REWRITE: where a layer's weights and an offset of its output are kept, so that they can be changed.

A weight must be a stored constant that nobody else reads. An offset goes into the layer's bias, into the mean of the
normalization behind it, into the constant that is added behind it, or into a new bias.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

import numpy as np

from srr_onnx.calibration.layers import LinearLayer, find_layers
from srr_onnx.calibration.tails import find_tail
from srr_onnx.graph.edit import Edits, NewNames, apply_edits
from srr_onnx.graph.model import Model

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class Sink:
    """Where an offset of a layer's output goes.

    Attributes:
        constant: Name of the constant, of O elements in the order of the channels.
        factor: What an offset is multiplied with before it is added to the constant.
    """

    constant: str
    factor: float

    def add(self, array: Array, offset: Array) -> Array:
        """The constant's new content, in its own element type.

        Args:
            array: Its content.
            offset: What the layer's outputs are to be moved by, O elements.
        """
        moved = array.astype(np.float64) + self.factor * offset.reshape(array.shape)
        return np.asarray(moved.astype(array.dtype))


def prepare(
    model: Model, wanted: Collection[str], offsets: Collection[str], *, keep_structure: bool = False
) -> tuple[Model, int]:
    """Give layers weights and biases of their own.

    Args:
        model: The pruned model; not changed.
        wanted: Outputs of the layers that are to be changed.
        offsets: Those of them whose output is to be moved by a constant too.
        keep_structure: Whether no bias may be created.

    Returns:
        A model that computes the same, and how many biases were created in it.
    """
    edits, created = Edits(), 0
    names = NewNames(model)
    for layer in find_layers(model):
        if layer.output not in wanted or not is_changeable(model, layer):
            continue
        if layer.weight not in model.stored:
            _own(edits, layer, 1, model.constants[layer.weight], names)
        if layer.output not in offsets or layer.bias_scale == 0:
            continue
        if layer.bias and _is_vector(model, layer.bias, layer) and not is_own(model, layer.bias):
            _own(edits, layer, 2, model.constants[layer.bias], names)
        elif not (keep_structure or layer.bias or layer.node.op_type == "MatMul" or find_sink(model, layer)):
            dtype = model.constants[layer.weight].dtype
            _own(edits, layer, 2, np.zeros(layer.outputs, dtype), names, f"{layer.weight}_bias")
            created += 1
    return (apply_edits(model, edits) if edits.nodes else model), created


def _own(edits: Edits, layer: LinearLayer, slot: int, array: Array, names: NewNames, wish: str = "") -> None:
    """Let a layer read a constant of its own."""
    name = names.take(wish or f"{layer.node.input(slot)}_own")
    edits.added[name] = np.ascontiguousarray(array)
    edits.node(layer.node.index).inputs[slot] = name


def is_changeable(model: Model, layer: LinearLayer) -> bool:
    """Whether a layer's weight may be changed: nobody else reads it, and it does not stand for other numbers."""
    readers = model.consumers.get(layer.weight, ())
    return (
        len(readers) == 1
        and readers[0].inputs.count(layer.weight) == 1
        and layer.weight not in model.outputs
        and layer.weight not in model.quantized
    )


def find_sink(model: Model, layer: LinearLayer) -> Sink | None:
    """Find where an offset of a layer's output can go, None where it cannot."""
    if layer.bias:
        is_usable = _is_vector(model, layer.bias, layer) and is_own(model, layer.bias) and layer.bias_scale != 0
        return Sink(layer.bias, 1 / layer.bias_scale) if is_usable else None
    first = find_tail(model, layer).first
    if first is not None and first.op_type == "BatchNormalization" and is_own(model, first.inputs[3]):
        return Sink(first.inputs[3], -1.0)
    if first is not None and first.op_type == "Add":
        constant = next(name for name in first.inputs if name in model.constants)
        if model.constants[constant].size == layer.outputs and is_own(model, constant):
            return Sink(constant, 1.0)
    return None


def _is_vector(model: Model, name: str, layer: LinearLayer) -> bool:
    """Whether a bias is a constant with a number for every output."""
    array = model.constants.get(name)
    return array is not None and array.size == layer.outputs and layer.read_bias(model.constants) is not None


def is_own(model: Model, name: str) -> bool:
    """Whether a constant is stored, and read once in the whole graph.

    Args:
        model: Loaded model.
        name: Name of a value.

    Returns:
        False for anything else, no constant included.
    """
    readers = model.consumers.get(name, ())
    return (
        name in model.stored and len(readers) == 1 and readers[0].inputs.count(name) == 1 and name not in model.outputs
    )
