"""Rules of reductions, of pooling over whole maps, and of operators that only measure.

Source: ONNX operators Reduce*, ArgMax, ArgMin, CumSum, TopK, Shape, Size.
"""

from __future__ import annotations

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


@channel_rule("CumSum", since=(11, 14))
def cumulative_sum(op: Op) -> None:
    """Sums along one axis; its channels stay, the others pass."""
    x = op.axes(0)
    known = op.constant(1)
    if known is None:
        raise CannotFollow(FreezeReason.COMPUTED_OPERAND, "axis")
    op.freeze(x[op.axis(int(known.reshape(-1)[0]), len(x))], FreezeReason.MIXES_CHANNELS)
    op.out(x)


@channel_rule("Size", since=(1, 13, 19, 21, 23, 24, 25))
def size(op: Op) -> None:
    """The number of elements is a result: all channels stay."""
    op.freeze(op.axes(0), FreezeReason.SHAPE_IN_USE)
    op.out([])


@channel_rule("Shape", since=(1, 13, 15, 19, 21, 23, 24, 25))
def shape(op: Op) -> None:
    """Reached only where the shape is not known at load time."""
    raise CannotFollow(FreezeReason.UNKNOWN_SHAPE)
