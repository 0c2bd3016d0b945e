"""Rules of attention as one operator, and of the rotation that goes before it.

Queries, keys and values hold heads of the same width, on two axes (batch, heads, tokens, width) or folded into one
(batch, tokens, heads * width). Channels of a head or whole heads can go, not both: the rest has to stay rectangular.
Who checks a result from outside puts no mask in front of Attention, so the width of queries and keys, over which it
sums, goes inexactly.

Source: ONNX operators Attention (23, 24, 25) and RotaryEmbedding (23).
"""

from __future__ import annotations

import numpy as np

from srr_onnx.analysis.labels import FreezeReason, Labels
from srr_onnx.analysis.rule import Axes, CannotFollow, Change, Op, channel_rule
from srr_onnx.analysis.splits import split_labels

_MASK, _CACHES = 3, (4, 5)


def repair_attention(change: Change) -> None:
    """Write how many heads are left; narrower heads go on with the scale of the old width."""
    shape, attributes = change.model.shapes[change.node.inputs[0]], change.node.attributes
    width = shape[-1] if len(shape) == 4 else shape[2] // attributes["q_num_heads"]
    is_narrower = change.kept(0, len(shape) - 1) is not None
    for slot, name in ((0, "q_num_heads"), (1, "kv_num_heads")):
        kept = change.kept(slot, 2) if len(shape) == 3 else None
        if kept is not None and _is_whole(kept, width):
            change.set_attribute(name, len(kept) // width)
            is_narrower = False
    if is_narrower and "scale" not in attributes:
        change.set_attribute("scale", float(width**-0.5))


def _is_whole(kept: np.ndarray, width: int) -> bool:
    """Whether heads went whole."""
    return bool((np.bincount(kept // width, minlength=1) % width == 0).all())


@channel_rule("Attention", since=(23, 24, 25), repair=repair_attention)
def attention(op: Op) -> None:
    """Width of queries and keys goes together, inexactly; width of values passes; or whole heads go, and pass.

    Several heads of queries that share one of keys and values go with it.
    """
    if any(op.has(slot) for slot in _CACHES) or any(op.node.outputs[1:]):
        raise CannotFollow(FreezeReason.COMPUTED_OPERAND, "keys and values of earlier runs, or several results")
    operands = [op.axes(slot) for slot in range(3)]
    op.freeze([labels for axes in operands for labels in (axes[0], axes[-2])], FreezeReason.FIXED_AXIS, "tokens")
    if len(operands[0]) == 4:
        heads, width = [axes[1] for axes in operands], operands[2][3]
        counts = [op.shape(slot)[1] for slot in range(2)]
        op.inexact(op.unify(operands[0][3], operands[1][3]))
    else:
        counts = [op.attribute("q_num_heads"), op.attribute("kv_num_heads")]
        heads, width = _unfold(op, [axes[2] for axes in operands], counts)
    passed = _tie_heads(op, heads, counts)
    _follow_mask(op, passed)
    if len(operands[0]) == 4:
        op.out([None, passed, None, width])
    elif passed is not None:
        op.out([None, None, np.repeat(passed, op.out_shape()[2] // counts[0])])
    else:
        op.out([None, None, None if width is None else np.tile(width, counts[0])])


def _unfold(op: Op, folded: Axes, counts: list[int]) -> tuple[Axes, Labels | None]:
    """Heads of queries, keys and values, or the width of values where more channels can go exactly that way."""
    nothing: Axes = [None, None, None]
    if any(labels is None for labels in folded):
        op.freeze(folded, FreezeReason.FIXED_AXIS)
        return nothing, None
    query, key, value = (
        labels.reshape(count, -1)
        for labels, count in zip(folded, [counts[0], counts[1], counts[1]], strict=True)
        if labels is not None
    )
    by_head = op.labels.count_free(value, value.T)
    channels = by_head * (query.size + key.size + value.size) // counts[1]
    if by_head > 1 and channels >= op.labels.count_free(value, value) * counts[1]:
        for grid in (query, key, value):
            for column in grid.T[1:]:
                op.unify(grid[:, 0], column)
        return [query[:, 0], key[:, 0], value[:, 0]], None
    for grid in (query, key, value):
        for row in grid[1:]:
            op.unify(grid[0], row)
    op.inexact(op.unify(query[0], key[0]))
    return nothing, value[0]


def _tie_heads(op: Op, heads: Axes, counts: list[int]) -> Labels | None:
    """Tie heads of queries to those of keys and values that they read; several may share one."""
    query, key, value = heads
    if query is None or key is None or value is None:
        op.freeze(heads, FreezeReason.FIXED_AXIS)
        return None
    op.unify(key, value)
    op.unify(query, np.repeat(key, counts[0] // counts[1]))
    return query


def _follow_mask(op: Op, heads: Labels | None) -> None:
    """A mask may have an axis of heads."""
    if not op.has(_MASK):
        return
    mask, shape = op.axes(_MASK), op.shape(_MASK)
    own = mask[-3] if len(mask) > 2 else None
    if len(mask) > 2 and shape[-3] > 1 and (own is not None or heads is not None):
        op.unify(heads, own)
        mask[-3] = None
    op.freeze(mask, FreezeReason.FIXED_AXIS, "mask")


def repair_rotary(change: Change) -> None:
    """Write how many heads, and how many rotated channels of a head, are left."""
    shape, attributes = change.model.shapes[change.node.inputs[0]], change.node.attributes
    kept = change.kept(0, len(shape) - 1)
    if kept is None:
        return
    count = attributes.get("num_heads", 0) or 1 if len(shape) == 3 else 1
    width = shape[-1] // count
    if _is_whole(kept, width):
        change.set_attribute("num_heads", len(kept) // width)
    elif attributes.get("rotary_embedding_dim", 0):
        change.set_attribute("rotary_embedding_dim", int((kept < attributes["rotary_embedding_dim"]).sum()))


@channel_rule("RotaryEmbedding", since=(23,), repair=repair_rotary)
def rotary_embedding(op: Op) -> None:
    """Two channels that are rotated into each other go together, with their angles; those that are not rotated pass."""
    x, shape = op.axes(0), op.shape(0)
    op.freeze([x[0], x[-2]], FreezeReason.FIXED_AXIS, "tokens")
    for slot in range(1, len(op.node.inputs)):
        op.freeze(op.axes(slot)[: 2 if slot == 3 else -1], FreezeReason.FIXED_AXIS, "tokens")
    angles = [op.axes(slot)[-1] for slot in (1, 2)]
    labels = x[-1]
    if labels is None:
        op.freeze(angles, FreezeReason.FIXED_AXIS)
    elif len(shape) == 3 and op.attribute("num_heads", 0) > 1:
        count = op.attribute("num_heads")
        place, own = split_labels(op, labels, (count, len(labels) // count))
        if place == 0:
            op.freeze(angles, FreezeReason.FIXED_AXIS)
        else:
            _tie_pairs(op, own, angles)
    else:
        _tie_pairs(op, labels, angles)
    op.out(x)


def _tie_pairs(op: Op, width: Labels, angles: Axes) -> None:
    turned = width[: op.attribute("rotary_embedding_dim", 0) or len(width)]
    pairs = turned.reshape(-1, 2).T if op.attribute("interleaved", 0) else turned.reshape(2, -1)
    op.unify(pairs[0], pairs[1])
    for own in angles:
        op.unify(pairs[0], own)
