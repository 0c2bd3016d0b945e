"""ANALYZE: channel permutations that are written as Reshape, Transpose, Reshape.

A channel shuffle only changes the order of channels, so any subset of them can go; written out in three nodes it
forces a rectangle. Such a chain is followed as one permutation, and rewritten to one Gather if channels go.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from srr_onnx.graph.model import Model, Node, Shape

# Indices are moved to see what a chain does; chains on larger values are followed node by node.
_MAX_ELEMENTS = 1 << 22


@dataclasses.dataclass(frozen=True, eq=False)
class Rearrangement:
    """A chain of nodes that permutes one axis.

    Attributes:
        source: The value that enters the chain.
        shape: Its shape.
        axis: The axis that is permuted.
        indices: Output channel i is input channel `indices[i]`.
        inner: Indices of the chain's nodes except the last.
    """

    source: str
    shape: Shape
    axis: int
    indices: np.ndarray[Any, np.dtype[np.int64]]
    inner: tuple[int, ...]


def find_rearrangements(model: Model) -> dict[int, Rearrangement]:
    """Find chains from a Reshape over a Transpose to a Reshape that permute one axis and do nothing else.

    Args:
        model: Loaded model.

    Returns:
        The chains by the index of their last node. Values inside a chain have no other reader.
    """
    found = {}
    for node in model.nodes:
        if not _moves(node, "Reshape"):
            continue
        chain = _chain_to(model, node)
        for start, first in enumerate(chain[:-1]):
            permutation = _permutation(model, chain[start:]) if _moves(first, "Reshape") else None
            if permutation is not None:
                axis, indices = permutation
                inner = tuple(part.index for part in chain[start:-1])
                found[node.index] = Rearrangement(first.inputs[0], model.shapes[first.inputs[0]], axis, indices, inner)
                break
    return found


def _moves(node: Node, *op_types: str) -> bool:
    return node.op_type in op_types and not node.domain


def _chain_to(model: Model, last: Node) -> list[Node]:
    """The nodes that lead to a node, each the only reader of the one before, as far back as they only move elements."""
    chain = [last]
    while True:
        name = chain[0].inputs[0]
        before = model.producers.get(name)
        if before is None or not _moves(before, "Reshape", "Transpose", "Identity"):
            return chain
        if len(model.consumers[name]) != 1 or name in model.outputs:
            return chain
        chain.insert(0, before)


def _permutation(model: Model, chain: list[Node]) -> tuple[int, np.ndarray[Any, np.dtype[np.int64]]] | None:
    """The axis that a chain permutes, and the input channel of every output channel."""
    shapes = [model.shapes.get(name) for name in (chain[0].inputs[0], *(node.outputs[0] for node in chain))]
    start, end = shapes[0], shapes[-1]
    if start is None or start != end or not 0 < math.prod(start) <= _MAX_ELEMENTS:
        return None
    if not any(_moves(node, "Transpose") for node in chain):
        return None
    if any(shape is None or math.prod(shape) != math.prod(start) for shape in shapes):
        return None  # a damaged target; the runtime will judge it
    origin = np.arange(math.prod(start)).reshape(start)
    moved = origin
    for node, shape in zip(chain, shapes[1:], strict=True):
        if _moves(node, "Transpose"):
            order = node.attributes.get("perm", range(moved.ndim)[::-1])
            if sorted(order) != list(range(moved.ndim)):
                return None
            moved = moved.transpose(order)
        moved = moved.reshape(shape)
    for axis, size in enumerate(start):
        stride = math.prod(start[axis + 1 :])
        indices = moved[tuple(slice(None) if a == axis else 0 for a in range(len(end)))] // stride
        if size > 1 and sorted(indices.tolist()) == list(range(size)) and indices.tolist() != list(range(size)):
            is_pure = np.array_equal(np.take(origin, indices, axis=axis), moved)
            return (axis, indices.astype(np.int64)) if is_pure else None
    return None
