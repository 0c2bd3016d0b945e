"""REWRITE: operators that sum over channels with constant weights, in one form, and their weights with corrections.

Conv, ConvTranspose, Gemm and MatMul all read G groups of I channels and make G groups of O sums with K weights per
pair. What is corrected is kept per use, so that two readers of one weight can be corrected apart.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from srr_onnx.analysis.groups import Use
from srr_onnx.graph.model import Model, Node

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Linear:
    """One operator that sums over channels.

    Attributes:
        node: The node; input 0 holds the channels, input 1 the weight.
        axis: Axis of the input that is summed over.
        out_axis: Axis of the output that the sums lie along.
        view: Gives the weight's array in the form `(G, O, I, K)`, as a view.
        sums: Number of sums G * O.
        alpha: Factor of all products.
        bias: Where the node reads a bias, or would; None where it has none (MatMul).
        added: Where a constant can be added to the sums, None where nowhere: the bias, or an Add behind the node.
        beta: Factor of the bias.
        has_border: Whether sums near the border read fewer channels than others, or not all weights meet all channels.
    """

    node: Node
    axis: int
    out_axis: int
    view: Callable[[Array], Array]
    sums: int
    alpha: float
    bias: Use | None
    added: Use | None
    beta: float
    has_border: bool

    @property
    def weight(self) -> Use:
        """Where the node reads its weight."""
        return Use(self.node.index, 1)


class Weights:
    """The constants of a model with corrections, per use.

    Args:
        model: Loaded model; not changed.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._nodes = {node.index: node for node in model.nodes}
        self.corrected: dict[Use, Array] = {}

    def read(self, use: Use) -> Array | None:
        """A constant as a use reads it now; None where nothing or an activation is read."""
        if use in self.corrected:
            return self.corrected[use]
        return self._model.constants.get(self._nodes[use.node].input(use.slot))

    def edit(self, use: Use) -> Array:
        """A constant to write into."""
        if use not in self.corrected:
            self.corrected[use] = np.array(self.read(use), order="C")
        return self.corrected[use]

    def edit_vector(self, use: Use, size: int, dtype: np.dtype[Any]) -> Array:
        """A constant of one number per sum to write into, shape `(size,)`; zeros where the use reads nothing."""
        current = self.read(use)
        if use not in self.corrected and (current is None or current.size != size):
            filled = np.zeros(size, dtype) if current is None else np.full(size, current.reshape(-1)[0], current.dtype)
            self.corrected[use] = filled
        return self.edit(use).reshape(-1)

    def bias(self, linear: Linear) -> Array | None:
        """What is added to every sum, shape `(G * O,)` in float64; None where that is not known."""
        use = linear.bias
        if use is None or not (use in self.corrected or linear.node.input(use.slot)):
            return np.zeros(linear.sums)
        current = self.read(use)
        if current is None or not is_vector(current, linear.sums):
            return None
        return np.broadcast_to(current.reshape(-1), linear.sums).astype(np.float64) * linear.beta


def is_vector(array: Array, size: int) -> bool:
    """Whether a constant that is added along the last axis is one number per sum, or one for all."""
    return array.size == 1 or (array.size == size and array.shape[-1] == size)


def describe_linear(model: Model, node: Node) -> Linear | None:
    """Bring a node into the common form.

    Args:
        model: Loaded model.
        node: Any node.

    Returns:
        The form; None for other operators, and where the weight is not a constant (computed, or quantized).
    """
    weight = model.constants.get(node.input(1))
    if node.domain or node.captured or weight is None or node.input(0) in model.constants:
        return None
    if weight.dtype.kind != "f" and weight.dtype.name != "bfloat16":
        return None
    if any(name not in model.shapes for name in (node.inputs[0], node.outputs[0])):
        return None
    if node.op_type in ("Conv", "ConvTranspose") and weight.ndim >= 3:
        return _describe_convolution(model, node, weight)
    if node.op_type == "Gemm" and node.since_version >= 7 and weight.ndim == 2:
        return _describe_gemm(model, node, weight)
    if node.op_type == "MatMul" and weight.ndim == 2:
        return _describe_matmul(model, node, weight)
    return None


def _describe_convolution(model: Model, node: Node, weight: Array) -> Linear:
    conv_groups = node.attributes.get("group", 1)
    is_transposed = node.op_type == "ConvTranspose"
    first, second = weight.shape[0] // conv_groups, weight.shape[1]

    def view(array: Array) -> Array:
        blocks = array.reshape(conv_groups, first, second, math.prod(weight.shape[2:]))
        return blocks.transpose(0, 2, 1, 3) if is_transposed else blocks

    is_padded = any(node.attributes.get("pads", ())) or node.attributes.get("auto_pad", "NOTSET") in (
        "SAME_UPPER",
        "SAME_LOWER",
    )
    if is_transposed:  # every output meets one weight only if the kernel has one
        is_single = max(weight.shape[2:]) == 1 and max(node.attributes.get("strides", (1,))) == 1
        is_shaped = "output_shape" in node.attributes or any(node.attributes.get("output_padding", ()))
        is_padded = is_padded or not is_single or is_shaped
    bias = Use(node.index, 2)
    sums = conv_groups * (second if is_transposed else first)
    is_open = not node.input(2) or node.input(2) in model.constants
    return Linear(node, 1, 1, view, sums, 1.0, bias, bias if is_open else None, 1.0, is_padded)


def _describe_gemm(model: Model, node: Node, weight: Array) -> Linear | None:
    is_transposed = bool(node.attributes.get("transB", 0))
    sums = weight.shape[0 if is_transposed else 1]
    bias, beta = Use(node.index, 2), float(node.attributes.get("beta", 1.0))
    current = model.constants.get(node.input(2))
    is_open = beta != 0 and (not node.input(2) or (current is not None and is_vector(current, sums)))
    return Linear(
        node=node,
        axis=0 if node.attributes.get("transA", 0) else 1,
        out_axis=1,
        view=lambda array: (array if is_transposed else array.T)[None, :, :, None],
        sums=sums,
        alpha=float(node.attributes.get("alpha", 1.0)),
        bias=bias,
        added=bias if is_open else None,
        beta=beta,
        has_border=False,
    )


def _describe_matmul(model: Model, node: Node, weight: Array) -> Linear | None:
    rank = len(model.shapes[node.inputs[0]])
    if rank < 2:
        return None
    return Linear(
        node=node,
        axis=rank - 1,
        out_axis=rank - 1,
        view=lambda array: array.T[None, :, :, None],
        sums=weight.shape[1],
        alpha=1.0,
        bias=None,
        added=_find_added(model, node, weight.shape[1], rank),
        beta=1.0,
        has_border=False,
    )


def _find_added(model: Model, node: Node, sums: int, rank: int) -> Use | None:
    """The constant operand of an Add that alone reads a product."""
    output = node.outputs[0]
    readers = model.consumers.get(output, ())
    if len(readers) != 1 or output in model.outputs or output in readers[0].captured:
        return None
    add = readers[0]
    if add.op_type != "Add" or add.domain or add.since_version < 7 or add.inputs[0] == add.inputs[1]:
        return None
    slot = 1 - add.inputs.index(output)
    operand = model.constants.get(add.inputs[slot])
    if operand is None or operand.ndim > rank or not is_vector(operand, sums):
        return None
    return Use(add.index, slot)
