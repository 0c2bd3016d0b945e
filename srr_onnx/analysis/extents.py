"""ANALYZE: where the numbers of shape arithmetic come from.

A file with dynamic axes measures shapes at run time (Shape, Gather, Concat ...) and feeds them to Reshape or
Resize. Whether such a number follows by itself when channels go is read off the labels of the axis it measures.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from srr_onnx.analysis.labels import distinct
from srr_onnx.analysis.rule import Extents, Op, Source, State
from srr_onnx.graph.folding import move_elements
from srr_onnx.graph.model import Model

Tokens = np.ndarray[Any, np.dtype[np.int64]]

_ELEMENTWISE = frozenset({"Add", "And", "Div", "Equal", "Max", "Min", "Mod", "Mul", "Not", "Sub", "Where"})
# They give as many elements as they are given, or as many as constants say.
_SIZE_KEEPING = frozenset({"Cast", "Concat", "Gather", "Identity", "Squeeze", "Unsqueeze"})


def follow_extents(op: Op, state: State) -> None:
    """Set the origin of every element of a shape value, for a node that `graph.folding` has evaluated.

    Args:
        op: The node.
        state: Gets the entry for the node's output, if any element depends on channels.
    """
    node, model = op.node, op.model
    output = node.outputs[0]
    if node.op_type == "Shape":
        axes = state.values.get(node.inputs[0], [None] * len(model.shapes[node.inputs[0]]))
        axes = axes[op.attribute("start", 0) : op.attribute("end")]
        is_open = model.is_dynamic and not _has_fixed_size(model, node.inputs[0])
        nothing = np.empty(0, np.int64)
        found = [None if a is None and not is_open else Source(nothing if a is None else a, a is None) for a in axes]
        state.extents[output] = _pack(found)
        return
    incoming = [state.extents.get(name) for name in node.inputs]
    sources: list[Source] = []
    tokens = []
    for name, extents in zip(node.inputs, incoming, strict=True):
        if extents is None:
            known = model.known(name)
            tokens.append(None if known is None else np.zeros(known.shape, np.int64))
        else:
            # Only what is referred to: a Gather may have dropped the dynamic axes.
            used = distinct(extents.tokens[extents.tokens > 0])
            tokens.append(np.where(extents.tokens > 0, np.searchsorted(used, extents.tokens) + 1 + len(sources), 0))
            sources += [extents.sources[token - 1] for token in used.tolist()]
    moved = move_elements(node, tokens, [model.known(name) if name else None for name in node.inputs])
    if moved is None and node.op_type in _ELEMENTWISE and all(part is not None for part in tokens):
        state.extents[output] = _combine(op, [part for part in tokens if part is not None], sources)
    elif moved is None:
        # Other arithmetic: every element may depend on everything that came in.
        merged = Source(
            np.concatenate([source.labels for source in sources]) if sources else np.empty(0, np.int64),
            any(source.is_dynamic for source in sources),
        )
        state.extents[output] = Extents(np.full(model.shapes[output], int(bool(sources)), np.int64), (merged,))
    else:
        state.extents[output] = Extents(moved, tuple(sources))


def _has_fixed_size(model: Model, name: str) -> bool:
    """Whether a shape value, or a constant, has as many elements whatever the sizes of the inputs are."""
    node = model.producers.get(name)
    if name in model.constants or (node is not None and node.op_type == "Shape" and name in model.shape_values):
        return True
    if (
        node is None
        or name not in model.shape_values
        or node.op_type not in _SIZE_KEEPING | _ELEMENTWISE | {"Reshape", "Slice"}
    ):
        return False
    if node.op_type in ("Reshape", "Slice") and not all(
        source in model.constants for source in node.inputs[1:] if source
    ):
        return False
    return all(_has_fixed_size(model, source) for source in node.inputs if source)


def _combine(op: Op, tokens: list[Tokens], sources: list[Source]) -> Extents:
    """Every element depends on the elements at its own place; of a choice that is known on the chosen ones only."""
    shape = op.model.shapes[op.node.outputs[0]]
    columns = [np.broadcast_to(part, shape).reshape(-1) for part in tokens]
    if op.node.op_type == "Where":
        choice = op.model.known(op.node.inputs[0])
        assert choice is not None
        is_first = np.broadcast_to(choice, shape).reshape(-1)
        is_known = columns[0] == 0
        columns[1] = np.where(is_known & ~is_first, 0, columns[1])
        columns[2] = np.where(is_known & is_first, 0, columns[2])
    sources = list(sources)
    joined: dict[tuple[int, ...], int] = {(): 0}
    found = np.zeros(len(columns[0]), np.int64)
    for place, parts in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        key = tuple(sorted({token for token in parts if token}))
        if key not in joined:
            own = [sources[token - 1] for token in key]
            labels = np.concatenate([source.labels for source in own])
            sources.append(Source(labels, any(source.is_dynamic for source in own)))
            joined[key] = len(sources)
        found[place] = joined[key]
    return Extents(found.reshape(shape), tuple(sources))


def _pack(found: list[Source | None]) -> Extents:
    """Extents of a vector from one source (or none) per element."""
    tokens = np.zeros(len(found), np.int64)
    sources = []
    for place, source in enumerate(found):
        if source is not None:
            sources.append(source)
            tokens[place] = len(sources)
    return Extents(tokens, tuple(sources))
