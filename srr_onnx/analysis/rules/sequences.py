"""Rules of operators on sequences of values. A sequence has labels for each of its values.

Source: the ONNX operator pages of these operators, versions as listed.
"""

from __future__ import annotations

import numpy as np

from srr_onnx.analysis.labels import FreezeReason, Labels
from srr_onnx.analysis.rule import Axes, CannotFollow, Change, Op, channel_rule
from srr_onnx.analysis.rules.joining import split_axis


def repair_split_to_sequence(change: Change) -> None:
    """Write the sizes of the parts that are left, one by one."""
    shape = change.model.shapes[change.node.inputs[0]]
    axis = split_axis(change.node.attributes, len(shape))
    kept = change.kept(0, axis)
    if kept is not None:
        bounds = np.concatenate([[0], np.cumsum(_part_sizes(change, shape[axis]))])
        change.mend(1, np.diff(np.searchsorted(kept, bounds)).astype(np.int64))


def _part_sizes(op_or_change: Op | Change, size: int) -> list[int]:
    """Sizes of the parts of SplitToSequence: listed, or all equal but for the last."""
    sizes = op_or_change.settled(1)
    if sizes is None:
        return [1] * size
    if sizes.ndim:
        return [int(part) for part in sizes]
    step = int(sizes)
    return [min(step, size - start) for start in range(0, size, step)]


@channel_rule("SplitToSequence", since=(11, 24), repair=repair_split_to_sequence)
def split_to_sequence(op: Op) -> None:
    """Split, into one sequence instead of several outputs."""
    x, shape = op.axes(0), op.shape(0)
    axis = split_axis(op.node.attributes, len(x))
    if (op.has(1) and op.settled(1) is None) or not (op.has(1) or op.attribute("keepdims", 1)):
        raise CannotFollow(FreezeReason.COMPUTED_OPERAND, "sizes of the parts")
    parts: list[Axes] = []
    start = 0
    for size in _part_sizes(op, shape[axis]):
        labels = x[axis]
        parts.append([*x[:axis], None if labels is None else labels[start : start + size], *x[axis + 1 :]])
        start += size
    op.out_sequence(parts)


@channel_rule("SequenceAt", since=(11,))
def sequence_at(op: Op) -> None:
    """One value of a sequence; where it is not known which, all of them stay."""
    index = op.settled(1)
    if index is None:
        raise CannotFollow(FreezeReason.COMPUTED_OPERAND, "position")
    op.out(op.sequence(0)[int(index)])


@channel_rule("SequenceConstruct", since=(11,))
def sequence_construct(op: Op) -> None:
    """Several values become one sequence."""
    op.out_sequence([op.axes(slot) for slot in range(len(op.node.inputs))])


@channel_rule("SequenceEmpty", since=(11,))
def sequence_empty(op: Op) -> None:
    """A sequence without values."""
    op.out_sequence([])


def _place(op: Op, slot: int, default: int) -> int:
    """A position in a sequence; where it is not known, all values stay."""
    if not op.has(slot):
        return default
    known = op.constant(slot)
    if known is None:
        raise CannotFollow(FreezeReason.COMPUTED_OPERAND, "position")
    return int(known)


@channel_rule("SequenceInsert", since=(11,))
def sequence_insert(op: Op) -> None:
    """One more value, behind the others where no position is given."""
    parts = list(op.sequence(0))
    place = _place(op, 2, len(parts))
    parts.insert(place, op.axes(1))
    op.out_sequence(parts)


@channel_rule("SequenceErase", since=(11,))
def sequence_erase(op: Op) -> None:
    """One value less, the last where no position is given."""
    parts = list(op.sequence(0))
    del parts[_place(op, 1, -1)]
    op.out_sequence(parts)


@channel_rule("SequenceLength", since=(11,))
def sequence_length(op: Op) -> None:
    """How many values: channels do not count."""
    op.out([])


@channel_rule("ConcatFromSequence", since=(11,))
def concat_from_sequence(op: Op) -> None:
    """Concat of the values; or, with a new axis, one beside the other."""
    parts, shape = op.sequence(0), op.out_shape()
    joined = op.axis(op.attribute("axis"), len(shape))
    if op.attribute("new_axis", 0):
        parts = [[*part[:joined], None, *part[joined:]] for part in parts]
    found: Axes = []
    for axis in range(len(shape)):
        own = [part[axis] for part in parts]
        whole = [labels for labels in own if labels is not None]
        if axis != joined:
            found.append(own[0] if not whole else _tie(op, own))
        elif len(whole) == len(own) > 0:
            found.append(np.concatenate(whole))
        else:  # how much room a value without channels takes is not known
            op.freeze(own, FreezeReason.FIXED_AXIS)
            found.append(None)
    op.out(found)


def _tie(op: Op, parts: list[Labels | None]) -> Labels | None:
    tied = parts[0]
    for part in parts[1:]:
        tied = op.unify(tied, part)
    return tied
