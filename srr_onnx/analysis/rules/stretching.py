"""Rules of operators that repeat what they are given: Expand and Tile.

An axis of size 1 that is stretched holds the same number everywhere, so it may carry any channels: those whose number
the target measures, or those that it meets in the next node.

Source: ONNX operators Expand (8, 13) and Tile (6, 13).
"""

from __future__ import annotations

import numpy as np

from srr_onnx.analysis.labels import FreezeReason, Labels
from srr_onnx.analysis.rule import Axes, CannotFollow, Change, Op, channel_rule, check_length
from srr_onnx.analysis.rules.elementwise import BROADCASTING
from srr_onnx.analysis.rules.reshaping import check_target


def repair_expand(change: Change) -> None:
    """Write the new sizes into the target; 1 stands for "as it is"."""
    target = change.settled(1)
    if target is None:
        return
    sizes = target.astype(np.int64).reshape(-1).copy()
    for place in range(len(sizes)):
        if sizes[place] != 1:
            sizes[place] = change.new_out_shape()[place - len(sizes)]
    change.mend(1, sizes)


@channel_rule("Expand", since=(8, 13), repair=repair_expand)
def expand(op: Op) -> None:
    """Axes of size 1 are stretched, to channels that they meet in the next node; channels pass along the others."""
    x, before, after = op.axes(0), op.shape(0), op.out_shape()
    size = op.shape(1)[0]
    found: Axes = [None] * len(after)
    for place in range(len(after)):
        axis = place - len(after) + len(before)
        if axis >= 0 and before[axis] == after[place]:
            found[place] = x[axis]
            continue
        op.freeze(x[axis] if axis >= 0 else None, FreezeReason.FIXED_AXIS, "broadcast")
        found[place] = _stretched(op, place, place - len(after) + size)
    check_target(op, found)
    op.out(found)


def repair_tile(change: Change) -> None:
    """Write how often an axis of size 1 repeats; others repeat as often as before."""
    repeats = change.settled(1)
    if repeats is None:
        return
    before = change.model.shapes[change.node.inputs[0]]
    after = change.new_out_shape()
    change.mend(1, np.array([after[a] if before[a] == 1 else n for a, n in enumerate(repeats)], repeats.dtype))


@channel_rule("Tile", since=(6, 13), repair=repair_tile)
def tile(op: Op) -> None:
    """Channels repeat as a whole; an axis of size 1 is stretched, to channels that it meets in the next node."""
    repeats = op.model.known(op.node.input(1))
    op.settled(1, [])
    if repeats is None:
        raise CannotFollow(FreezeReason.COMPUTED_OPERAND, "repeats")
    found: Axes = []
    for axis, (labels, count) in enumerate(zip(op.axes(0), repeats.tolist(), strict=True)):
        if op.shape(0)[axis] == 1 and count != 1:
            op.freeze(labels, FreezeReason.FIXED_AXIS, "broadcast")
            found.append(_stretched(op, axis, axis))
        elif labels is not None and op.settled(1, [axis]) is None:
            op.freeze(labels, FreezeReason.COMPUTED_OPERAND, "repeats")
            found.append(None)
        elif labels is None:
            found.append(None)
        else:
            check_length(len(labels) * count)
            found.append(np.tile(labels, count))
    op.out(found)


def _stretched(op: Op, place: int, element: int) -> Labels | None:
    """Channels that an output axis may carry which repeats one number.

    Args:
        op: The node.
        place: The axis.
        element: The element of the second input that says how often.

    Returns:
        Labels; None where the axis is not known to belong to any channels.
    """
    shape = op.out_shape()
    if op.settled(1, [element]) is None:
        return None
    extents = op.state.extents.get(op.node.input(1))
    token = 0 if extents is None else int(extents.tokens.reshape(-1)[element])
    if extents is not None and token and len(extents.sources[token - 1].labels) == shape[place]:
        return extents.sources[token - 1].labels
    offset = len(shape) - place
    for reader in op.model.consumers.get(op.node.outputs[0], ()):
        for name in reader.inputs if reader.op_type in BROADCASTING and not reader.domain else ():
            axes = op.state.values.get(name, [])
            labels = axes[-offset] if offset <= len(axes) else None
            if labels is not None and len(labels) == shape[place] and name != op.node.outputs[0]:
                return labels
    return None
