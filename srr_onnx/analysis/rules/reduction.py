"""Rules of reductions, of operators that need an axis whole, and of those that only measure.

Source: ONNX operators Reduce*, ArgMax, ArgMin, TopK, NonZero, NonMaxSuppression, Unique, CumSum, CumProd, Trilu,
ReverseSequence, Det, DFT, EyeLike, Shape, Size, all versions listed.
"""

from __future__ import annotations

from collections.abc import Iterable

from srr_onnx.analysis.labels import FreezeReason
from srr_onnx.analysis.rule import CannotFollow, Op, channel_rule

# A masked channel adds nothing to these, so pruned equals masked.
_SUMS = frozenset({"ReduceSum", "ReduceL2", "ReduceSumSquare"})


@channel_rule(
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare", since=(1, 11, 12, 13, 18, 20),
)  # fmt: skip
def reduce(op: Op) -> None:
    """Axes that are reduced end here; reducing over channels is exact for sums only."""
    x = op.axes(0)
    axes = _axes(op)
    if axes is None:
        raise CannotFollow(FreezeReason.COMPUTED_OPERAND, "axes")
    if not axes:
        axes = [] if op.attribute("noop_with_empty_axes", 0) else list(range(len(x)))
    reduced = {op.axis(axis, len(x)) for axis in axes}
    if op.node.op_type not in _SUMS:
        for axis in reduced:
            op.inexact(x[axis])
    if op.attribute("keepdims", 1):
        op.out([None if axis in reduced else labels for axis, labels in enumerate(x)])
    else:
        op.out([labels for axis, labels in enumerate(x) if axis not in reduced])


def _axes(op: Op) -> list[int] | None:
    if op.has(1):
        known = op.constant(1)
        return None if known is None else [int(axis) for axis in known.reshape(-1)]
    return list(op.attribute("axes", []))


@channel_rule("ArgMax", "ArgMin", since=(1, 11, 12, 13))
def arg_reduce(op: Op) -> None:
    """The result is a position: channels along that axis stay."""
    x = op.axes(0)
    reduced = op.axis(op.attribute("axis", 0), len(x))
    op.freeze(x[reduced], FreezeReason.MIXES_CHANNELS, "the result is a channel number")
    kept = [None] if op.attribute("keepdims", 1) else []
    op.out([*x[:reduced], *kept, *x[reduced + 1 :]])


@channel_rule("TopK", since=(1, 10, 11, 24))
def top_k(op: Op) -> None:
    """Positions along the chosen axis are part of the result: its channels stay."""
    x = op.axes(0)
    axis = op.axis(op.attribute("axis", -1), len(x))
    op.freeze(x[axis], FreezeReason.MIXES_CHANNELS, "the result is a channel number")
    for slot in range(2):
        op.out([*x[:axis], None, *x[axis + 1 :]], slot)


@channel_rule("NonMaxSuppression", since=(10, 11))
@channel_rule("NonZero", since=(9, 13))
@channel_rule("Unique", since=(11,))
def positions(op: Op) -> None:
    """The result is positions, or depends on all elements at once: all channels stay."""
    for slot in range(len(op.node.inputs)):
        if op.has(slot):
            op.freeze(op.axes(slot), FreezeReason.MIXES_CHANNELS, "the result is a list of positions or elements")


def _keep_whole(op: Op, axes: Iterable[int]) -> None:
    """Channels along these axes stay; the others pass."""
    x = op.axes(0)
    whole = {op.axis(axis, len(x)) for axis in axes}
    op.freeze([x[axis] for axis in whole], FreezeReason.MIXES_CHANNELS)
    size = op.out_shape()
    op.out([labels if size[axis] == op.shape(0)[axis] else None for axis, labels in enumerate(x)])


def _constant_axis(op: Op, slot: int) -> int:
    known = op.constant(slot)
    if known is None:
        raise CannotFollow(FreezeReason.COMPUTED_OPERAND, "axis")
    return int(known.reshape(-1)[0])


@channel_rule("CumSum", since=(11, 14))
@channel_rule("CumProd", since=(26,))
def cumulate(op: Op) -> None:
    """Sums or multiplies along one axis; its channels stay, the others pass."""
    _keep_whole(op, [_constant_axis(op, 1)])


@channel_rule("Trilu", since=(14,))
def triangle(op: Op) -> None:
    """Zeroes one side of the diagonal of the last two axes; the others pass."""
    _keep_whole(op, [-2, -1])


@channel_rule("ReverseSequence", since=(10,))
def reverse_sequence(op: Op) -> None:
    """Reverses along the time axis, as far as is said for each element of the batch axis; the other axes pass."""
    _keep_whole(op, [op.attribute("batch_axis", 1), op.attribute("time_axis", 0)])


@channel_rule("DFT", since=(17, 20))
def fourier_transform(op: Op) -> None:
    """Transforms one axis of complex numbers, which lie along the last; the other axes pass."""
    default = op.attribute("axis", 1) if op.node.since_version < 20 else -2
    _keep_whole(op, [_constant_axis(op, 2) if op.has(2) else default, -1])


@channel_rule("Det", since=(11, 22))
def determinant(op: Op) -> None:
    """The last two axes end here; the others pass."""
    x = op.axes(0)
    op.freeze(x[-2:], FreezeReason.MIXES_CHANNELS)
    op.out(x[:-2])


@channel_rule("EyeLike", since=(9, 22))
def eye_like(op: Op) -> None:
    """Ones on the diagonal of a matrix of the input's sizes: its channels stay."""
    op.freeze(op.axes(0), FreezeReason.SHAPE_IN_USE)
    op.out([None, None])


@channel_rule("Size", since=(1, 13, 19, 21, 23, 24, 25))
def size(op: Op) -> None:
    """The number of elements is a result: all channels stay."""
    op.freeze(op.axes(0), FreezeReason.SHAPE_IN_USE)
    op.out([])


@channel_rule("Shape", since=(1, 13, 15, 19, 21, 23, 24, 25))
def shape(op: Op) -> None:
    """Reached only where the shape is not known at load time."""
    raise CannotFollow(FreezeReason.UNKNOWN_SHAPE)
