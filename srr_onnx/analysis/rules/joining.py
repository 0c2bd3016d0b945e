"""Rules of operators that join and part along an axis: Concat, Split, Pad.

Source: the ONNX operator pages of these operators, versions as listed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from srr_onnx.analysis.labels import FreezeReason, Labels
from srr_onnx.analysis.rule import CannotFollow, Change, Op, channel_rule, fresh_labels

Array = np.ndarray[Any, Any]


@channel_rule("Concat", since=(1, 4, 11, 13))
def concat(op: Op) -> None:
    """Side by side along the joined axis; one and the same along every other axis."""
    slots = range(len(op.node.inputs))
    rank = len(op.out_shape())
    joined = op.axis(op.attribute("axis", 1), rank)
    parts = [op.axes(slot) for slot in slots]
    found: list[Labels | None] = []
    for axis in range(rank):
        labels = [part[axis] for part in parts]
        if all(part is None for part in labels):
            found.append(None)
        elif axis == joined:
            found.append(
                np.concatenate(
                    [_or_fixed(op, part, op.shape(slot)[axis]) for slot, part in zip(slots, labels, strict=True)]
                )
            )
        else:
            tied = labels[0]
            for part in labels[1:]:
                tied = op.unify(tied, part)
            found.append(tied)
    op.out(found)


def _or_fixed(op: Op, labels: Labels | None, size: int) -> Labels:
    """The labels, or new ones that stay, for a part without channels."""
    if labels is None:
        labels = fresh_labels(op.labels, size)
        op.freeze(labels, FreezeReason.FIXED_AXIS)
    return labels


def repair_split(change: Change) -> None:
    """Write the sizes of the parts that are left."""
    axis = split_axis(change.node.attributes, len(change.new_shape(0)))
    if change.kept(0, axis) is None:
        return
    sizes = [change.new_out_shape(slot)[axis] for slot in range(len(change.node.outputs))]
    if change.node.since_version >= 13:
        change.set_attribute("num_outputs", None)
        change.mend(1, np.array(sizes, np.int64))
    else:
        change.set_attribute("split", sizes)


def split_axis(attributes: Any, rank: int) -> int:
    """The axis of Split and SplitToSequence."""
    return int(attributes.get("axis", 0)) % rank


@channel_rule("Split", since=(2, 11, 13, 18), repair=repair_split)
def split(op: Op) -> None:
    """Consecutive parts along one axis; along the others every part has all channels."""
    x = op.axes(0)
    axis = split_axis(op.node.attributes, len(x))
    if op.has(1) and x[axis] is not None and op.settled(1) is None:
        raise CannotFollow(FreezeReason.COMPUTED_OPERAND, "sizes of the parts")
    start = 0
    for slot, name in enumerate(op.node.outputs):
        if not name:
            raise CannotFollow(FreezeReason.UNKNOWN_SHAPE, "a part is left out")
        size = op.out_shape(slot)[axis]
        labels = x[axis]
        part = [*x[:axis], None if labels is None else labels[start : start + size], *x[axis + 1 :]]
        start += size
        op.out(part, slot)


def _pads(op_or_change: Op | Change, rank: int) -> tuple[list[int], list[int]] | None:
    """Padding per axis, as (axes, begins then ends); None where it is computed."""
    node = op_or_change.node
    if node.since_version < 11:
        return list(range(rank)), list(node.attributes.get("pads", node.attributes.get("paddings", [])))
    pads = op_or_change.settled(1)
    axes = op_or_change.settled(3)
    if pads is None or (node.input(3) and axes is None):
        return None
    return [int(a) % rank for a in axes.reshape(-1)] if axes is not None else list(range(rank)), pads.reshape(
        -1
    ).tolist()


def repair_pad(change: Change) -> None:
    """Write how many padded channels are left on an axis with channels."""
    shape = change.model.shapes[change.node.inputs[0]]
    found = _pads(change, len(shape))
    if found is None:
        return
    axes, pads = found
    is_changed = False
    for place, axis in enumerate(axes):
        kept = change.kept_out(axis)
        begin, end = pads[place], pads[place + len(axes)]
        if kept is None or (begin <= 0 and end <= 0):
            continue
        pads[place] = int((kept < begin).sum())
        pads[place + len(axes)] = int((kept >= begin + shape[axis]).sum())
        is_changed = True
    if is_changed and change.node.since_version < 11:
        change.set_attribute("pads", pads)
    elif is_changed:
        change.mend(1, np.array(pads, np.int64))


@channel_rule("Pad", since=(2, 11, 13, 18, 19, 21, 23, 24, 25), repair=repair_pad)
def pad(op: Op) -> None:
    """New channels of a constant before and behind; they have no filters of their own."""
    x = op.axes(0)
    found = _pads(op, len(x))
    if found is None:
        raise CannotFollow(FreezeReason.COMPUTED_OPERAND, "pads")
    axes, pads = found
    is_constant = op.attribute("mode", "constant") == "constant"
    result = list(x)
    for place, axis in enumerate(axes):
        begin, end = pads[place], pads[place + len(axes)]
        labels = x[axis]
        if labels is None or (begin == 0 and end == 0):
            continue
        if not is_constant or begin < 0 or end < 0:
            op.freeze(labels, FreezeReason.LAYOUT, "padded axis")
            result[axis] = None
        else:
            result[axis] = np.concatenate([fresh_labels(op.labels, begin), labels, fresh_labels(op.labels, end)])
    op.out(result)
