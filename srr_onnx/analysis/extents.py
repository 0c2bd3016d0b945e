"""ANALYZE: where the numbers of shape arithmetic come from.

A file with dynamic axes measures shapes at run time (Shape, Gather, Concat ...) and feeds them to Reshape or
Resize. Whether such a number follows by itself when channels go is read off the labels of the axis it measures.
"""

from __future__ import annotations

import numpy as np

from srr_onnx.analysis.labels import distinct
from srr_onnx.analysis.rule import Extents, Op, Source, State
from srr_onnx.graph.folding import move_elements


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
        nothing = np.empty(0, np.int64)
        found = [
            None if a is None and not model.is_dynamic else Source(nothing if a is None else a, a is None) for a in axes
        ]
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
    if moved is None:
        # Arithmetic: every element may depend on everything that came in.
        merged = Source(
            np.concatenate([source.labels for source in sources]) if sources else np.empty(0, np.int64),
            any(source.is_dynamic for source in sources),
        )
        state.extents[output] = Extents(np.full(model.shapes[output], int(bool(sources)), np.int64), (merged,))
    else:
        state.extents[output] = Extents(moved, tuple(sources))


def _pack(found: list[Source | None]) -> Extents:
    """Extents of a vector from one source (or none) per element."""
    tokens = np.zeros(len(found), np.int64)
    sources = []
    for place, source in enumerate(found):
        if source is not None:
            sources.append(source)
            tokens[place] = len(sources)
    return Extents(tokens, tuple(sources))
