"""LOAD: what a model costs: multiply-accumulates, parameters, bytes.

MACs are those of Conv, ConvTranspose, Gemm and MatMul at the given input shapes, bias not counted; one MAC is two
floating-point operations. Every other operator counts as zero. Percentages of MACs and of FLOPs are the same. Products
of constants that the file computes count as well, although a runtime may compute them once and for all.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from srr_onnx.graph.model import Model, Node, Shape
from srr_onnx.graph.nodes import COUNTED

CONVENTION = "MACs of Conv, ConvTranspose, Gemm and MatMul, without bias"


@dataclasses.dataclass(frozen=True)
class Cost:
    """Cost of one model.

    Attributes:
        macs: Multiply-accumulates of one run at the given input shapes.
        params: Elements of all stored floating-point constants, and of quantized ones.
        size_bytes: Bytes of the same.
    """

    macs: int
    params: int
    size_bytes: int

    def of(self, quantity: str) -> int:
        """One of the three: "macs", "params" or "bytes"."""
        return self.to_json()[quantity]

    def to_json(self) -> dict[str, int]:
        """Plain form, as in plan files."""
        return {"macs": self.macs, "params": self.params, "bytes": self.size_bytes}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Cost:
        """Inverse of `to_json`."""
        return cls(int(data["macs"]), int(data["params"]), int(data["bytes"]))


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """Cost of one node.

    Attributes:
        node: The node.
        macs: Multiply-accumulates of one run; None where a shape is not known.
        params: Elements of the stored floating-point constants that it is the first to read.
    """

    node: Node
    macs: int | None
    params: int


@dataclasses.dataclass(frozen=True)
class Factor:
    """One axis whose size multiplies a node's MACs: of an output, or of an input."""

    is_output: bool
    slot: int
    axis: int


def mac_factors(node: Node, shapes: Mapping[str, Shape]) -> tuple[Factor, ...]:
    """Name the axes whose sizes, multiplied, are a node's MACs.

    Args:
        node: Any node.
        shapes: Static shapes by value name.

    Returns:
        The factors; empty for operators that count as zero or whose shapes are unknown.

    Source:
        ONNX operators Conv, ConvTranspose, Gemm, MatMul: multiply-adds of the defining sums.
    """
    if node.domain or node.op_type not in COUNTED:
        return ()
    a, b, y = (shapes.get(name) for name in (node.inputs[0], node.input(1), node.outputs[0]))
    if a is None or b is None or y is None:
        return ()
    if node.op_type == "Conv":
        return _all(True, 0, range(len(y))) + _all(False, 1, range(1, len(b)))
    if node.op_type == "ConvTranspose":
        return _all(False, 0, range(len(a))) + _all(False, 1, range(1, len(b)))
    inner = 0 if node.attributes.get("transA", 0) else len(a) - 1
    return (*_all(True, 0, range(len(y))), Factor(False, 0, inner))


def is_constant_node(model: Model, node: Node) -> bool:
    """Whether a node computes from constants alone: it can be replaced by what it makes."""
    return all(name in model.constants for name in node.outputs if name)


def is_float(array: np.ndarray[Any, Any]) -> bool:
    """Whether an array holds floating-point numbers (bfloat16 and float8 among them): these count as parameters."""
    return array.dtype.kind == "f" or "float" in array.dtype.name


def is_parameter(model: Model, name: str) -> bool:
    """Whether a constant counts as parameters: floating-point numbers, and integers that stand for such."""
    return name in model.constants and (is_float(model.constants[name]) or name in model.quantized)


def find_uncounted(model: Model) -> list[Node]:
    """Find the nodes whose MACs should count, but cannot: a shape is not known.

    Args:
        model: Loaded model.

    Returns:
        In execution order.
    """
    counted = [node for node in model.nodes if node.op_type in COUNTED and not node.domain]
    return [node for node in counted if not mac_factors(node, model.sizes)]


def _all(is_output: bool, slot: int, axes: range) -> tuple[Factor, ...]:
    return tuple(Factor(is_output, slot, axis) for axis in axes)


def count_macs(node: Node, shapes: Mapping[str, Shape]) -> int:
    """Count one node's MACs.

    Args:
        node: Any node.
        shapes: Static shapes by value name.

    Returns:
        Multiply-accumulates; 0 for operators that do not count.
    """
    factors = mac_factors(node, shapes)
    if not factors:
        return 0
    return math.prod(shapes[(node.outputs if f.is_output else node.inputs)[f.slot]][f.axis] for f in factors)


def count_cost(model: Model) -> Cost:
    """Count a model's cost at its input shapes.

    Args:
        model: Loaded model.

    Returns:
        MACs, and elements and bytes of its stored floating-point constants.
    """
    stored = [model.constants[name] for name in model.stored if is_parameter(model, name)]
    return Cost(
        macs=sum(count_macs(node, model.sizes) for node in model.nodes),
        params=sum(array.size for array in stored),
        size_bytes=sum(array.nbytes for array in stored),
    )


def count_layers(model: Model) -> list[LayerCost]:
    """Count the cost of every node that has one.

    Args:
        model: Loaded model.

    Returns:
        In execution order. A constant that several nodes read counts for the first of them, so the sums are those of
        `count_cost`, but for constants that no node reads.
    """
    sizes = {name: model.constants[name].size for name in model.stored if name in model.constants}
    origins = {name: {name} for name in sizes if is_parameter(model, name)}
    uncounted = {node.index for node in find_uncounted(model)}
    layers, counted = [], set[str]()
    macs: int | None
    for node in model.nodes:
        read = set[str]().union(*(origins.get(name, ()) for name in (*node.inputs, *node.captured)))
        if is_constant_node(model, node):  # only passes constants on; its product may count, though
            for name in node.outputs:
                origins.setdefault(name, read)
            if macs := count_macs(node, model.sizes):
                layers.append(LayerCost(node, macs, 0))
            continue
        macs = None if node.index in uncounted else count_macs(node, model.sizes)
        layer = LayerCost(node, macs, sum(sizes[name] for name in read - counted))
        counted |= read
        if layer.macs != 0 or layer.params:
            layers.append(layer)
    return layers
