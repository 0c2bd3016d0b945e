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
    """Find the chains Reshape, Transpose, Reshape that permute one axis and do nothing else.

    Args:
        model: Loaded model.

    Returns:
        The chains by the index of their last node. Values inside a chain have no other reader.
    """
    found = {}
    for node in model.nodes:
        if node.op_type != "Transpose" or node.domain:
            continue
        before = model.producers.get(node.inputs[0])
        readers = model.consumers.get(node.outputs[0], ())
        if before is None or before.op_type != "Reshape" or len(readers) != 1 or readers[0].op_type != "Reshape":
            continue
        after = readers[0]
        if after.inputs[0] != node.outputs[0] or len(model.consumers[before.outputs[0]]) != 1:
            continue
        if {before.outputs[0], node.outputs[0]} & set(model.outputs):
            continue
        permutation = _permutation(model, before, node, after)
        if permutation is not None:
            axis, indices = permutation
            source = before.inputs[0]
            found[after.index] = Rearrangement(source, model.shapes[source], axis, indices, (before.index, node.index))
    return found


def _permutation(model: Model, before: Node, transpose: Node, after: Node) -> tuple[int, np.ndarray] | None:
    names = (before.inputs[0], before.outputs[0], transpose.outputs[0], after.outputs[0])
    if not all(name in model.shapes for name in names):
        return None
    start, inner, _, end = (model.shapes[name] for name in names)
    if start != end or not 0 < math.prod(start) <= _MAX_ELEMENTS or len(inner) <= len(start):
        return None
    moved = np.arange(math.prod(start)).reshape(inner).transpose(transpose.attributes.get("perm")).reshape(end)
    for axis, size in enumerate(start):
        stride = math.prod(start[axis + 1 :])
        indices = moved[tuple(slice(None) if a == axis else 0 for a in range(len(end)))] // stride
        if size > 1 and sorted(indices.tolist()) == list(range(size)) and indices.tolist() != list(range(size)):
            expected = np.take(np.arange(math.prod(start)).reshape(start), indices, axis=axis)
            return (axis, indices.astype(np.int64)) if np.array_equal(expected, moved) else None
    return None
