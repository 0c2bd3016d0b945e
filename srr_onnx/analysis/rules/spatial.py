"""Rules of operators on maps: pooling, resizing, and moving space into channels and back.

Source: ONNX operators MaxPool, AveragePool, LpPool, Global*Pool, Resize, Upsample, DepthToSpace, SpaceToDepth.
"""

from __future__ import annotations

import numpy as np

from srr_onnx.analysis.labels import FreezeReason
from srr_onnx.analysis.rule import Axes, CannotFollow, Change, Op, channel_rule


@channel_rule(
    "AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool",
    since=(1, 2, 7, 8, 10, 11, 12, 18, 19, 22),
)  # fmt: skip
def pool(op: Op) -> None:
    """Channels pass; the positions that MaxPool can also return count channels in."""
    if len(op.node.outputs) > 1 and op.node.outputs[1]:
        raise CannotFollow(FreezeReason.SHAPE_IN_USE, "returned indices count channels in")
    x = op.axes(0)
    op.freeze([x[0], *x[2:]], FreezeReason.FIXED_AXIS, "spatial axis")
    op.out([None, x[1], *[None] * (len(x) - 2)])


def repair_resize(change: Change) -> None:
    """Write the new channel count into `sizes`."""
    if change.node.op_type != "Resize" or change.node.since_version < 11:
        return
    sizes = change.settled(3)
    if sizes is None or sizes.size == 0:
        return
    sizes = sizes.copy()
    for place, axis in enumerate(change.node.attributes.get("axes", range(len(sizes)))):
        sizes[place] = change.new_out_shape()[axis]
    change.mend(3, sizes)


@channel_rule("Resize", since=(10, 11, 13, 18, 19), repair=repair_resize)
@channel_rule("Upsample", since=(7, 9, 10))
def resize(op: Op) -> None:
    """Channels pass along axes whose size does not change."""
    x, before, after = op.axes(0), op.shape(0), op.out_shape()
    if op.attribute("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise CannotFollow(FreezeReason.UNKNOWN_OPERATOR, "crop while resizing")
    axes = [op.axis(axis, len(x)) for axis in op.attribute("axes", range(len(x)))]
    has_sizes = op.node.op_type == "Resize" and op.node.since_version > 10 and op.has(3)
    found: Axes = []
    for axis, labels in enumerate(x):
        if labels is not None and before[axis] != after[axis]:
            op.freeze(labels, FreezeReason.FIXED_AXIS, "resized axis")
            labels = None
        if labels is not None and has_sizes and axis in axes and op.settled(3, [axes.index(axis)]) is None:
            op.freeze(labels, FreezeReason.COMPUTED_OPERAND, "sizes")
        found.append(labels)
    if has_sizes:
        op.settled(3, [])
    op.out(found)


@channel_rule("DepthToSpace", since=(1, 11, 13))
def depth_to_space(op: Op) -> None:
    """Each output channel is made of block*block input channels, which go together."""
    x = op.axes(0)
    labels, area = x[1], op.attribute("blocksize") ** 2
    op.freeze([x[0], *x[2:]], FreezeReason.FIXED_AXIS)
    if labels is not None:
        is_crd = op.attribute("mode", "DCR") == "CRD"
        parts = labels.reshape(-1, area) if is_crd else labels.reshape(area, -1).T  # (C, area)
        for offset in parts.T[1:]:
            op.unify(parts[:, 0], offset)
        labels = parts[:, 0]
    op.out([None, labels, None, None])


@channel_rule("SpaceToDepth", since=(1, 13))
def space_to_depth(op: Op) -> None:
    """Each input channel becomes block*block output channels, the block's position running slowest."""
    x = op.axes(0)
    op.freeze([x[0], *x[2:]], FreezeReason.FIXED_AXIS)
    op.out([None, None if x[1] is None else np.tile(x[1], op.attribute("blocksize") ** 2), None, None])
