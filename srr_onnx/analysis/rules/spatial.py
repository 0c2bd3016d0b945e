"""Rules of operators on maps: pooling, resizing, and moving space into channels and back.

Source: ONNX operators MaxPool, AveragePool, LpPool, Global*Pool, MaxUnpool, GridSample, RoiAlign, MaxRoiPool, Resize,
Upsample, CenterCropPad, Col2Im, DepthToSpace, SpaceToDepth, all versions listed.
"""

from __future__ import annotations

import numpy as np

from srr_onnx.analysis.labels import FreezeReason
from srr_onnx.analysis.rule import Axes, CannotFollow, Change, Op, channel_rule
from srr_onnx.graph.model import Model, Node


@channel_rule(
    "AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool",
    since=(1, 2, 7, 8, 10, 11, 12, 18, 19, 22),
)  # fmt: skip
def pool(op: Op) -> None:
    """Channels pass; the positions that MaxPool can also return count channels in: only MaxUnpool may read them."""
    x = op.axes(0)
    if len(op.node.outputs) > 1 and op.node.outputs[1]:
        if not _is_undone(op.model, op.node):
            raise CannotFollow(FreezeReason.SHAPE_IN_USE, "returned indices count channels in")
        op.freeze(x[0], FreezeReason.SHAPE_IN_USE, "returned indices count samples in")
        op.out([None, x[1], *[None] * (len(x) - 2)], 1)
    op.freeze(x[2:], FreezeReason.FIXED_AXIS, "spatial axis")
    op.out([op.samples(x[0]), x[1], *[None] * (len(x) - 2)])


def _is_undone(model: Model, pool: Node) -> bool:
    """Whether a pooling's positions go nowhere but into MaxUnpools that give maps of the size that was pooled.

    Then both count the same channels, before and after some go. Other sizes of the map could give other maps.
    """
    name, shape = pool.outputs[1], model.shapes.get(pool.inputs[0])
    return (
        name not in model.outputs
        and not model.is_dynamic
        and shape is not None
        and all(
            node.op_type == "MaxUnpool" and node.inputs[0] != name and model.shapes.get(node.outputs[0]) == shape
            for node in model.consumers[name]
        )
    )


def repair_unpool(change: Change) -> None:
    """Write the new channel count into the output's shape."""
    if change.settled(2) is not None:
        change.mend(2, np.array(change.new_out_shape(), np.int64))


@channel_rule("MaxUnpool", since=(9, 11, 22), repair=repair_unpool)
def max_unpool(op: Op) -> None:
    """Channels pass, if the positions come from the MaxPool that is undone."""
    pool = op.model.producers.get(op.node.inputs[1])
    if pool is None or pool.op_type != "MaxPool" or not _is_undone(op.model, pool):
        raise CannotFollow(FreezeReason.SHAPE_IN_USE, "indices count channels in")
    x, where = op.axes(0), op.axes(1)
    if op.has(2) and op.settled(2) is None:
        op.freeze(x[1], FreezeReason.COMPUTED_OPERAND, "shape of the output")
    op.freeze([x[0], *x[2:]], FreezeReason.FIXED_AXIS, "spatial axis")
    op.out([None, op.unify(x[1], where[1]), *[None] * (len(x) - 2)])


@channel_rule("GridSample", since=(16, 20, 22))
@channel_rule("MaxRoiPool", since=(1, 22))
@channel_rule("RoiAlign", since=(10, 16, 22))
def sample(op: Op) -> None:
    """Channels pass; the operands that say where to look stay as they are."""
    x = op.axes(0)
    op.freeze([x[0], *x[2:]], FreezeReason.FIXED_AXIS, "spatial axis")
    for slot in range(1, len(op.node.inputs)):
        op.freeze(op.axes(slot), FreezeReason.FIXED_AXIS, "places to look at")
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


def repair_center_crop_pad(change: Change) -> None:
    """Write the new channel count into the target shape."""
    target = change.settled(1)
    if target is None:
        return
    sizes = target.copy()
    for place, axis in enumerate(change.node.attributes.get("axes", range(len(sizes)))):
        sizes[place] = change.new_out_shape()[axis]
    change.mend(1, sizes)


@channel_rule("CenterCropPad", since=(18,), repair=repair_center_crop_pad)
def center_crop_pad(op: Op) -> None:
    """Channels pass along axes whose size does not change."""
    x, before, after = op.axes(0), op.shape(0), op.out_shape()
    axes = [op.axis(axis, len(x)) for axis in op.attribute("axes", range(len(x)))]
    found: Axes = list(x)
    for place, axis in enumerate(axes):
        if before[axis] != after[axis]:
            op.freeze(x[axis], FreezeReason.FIXED_AXIS, "cropped or padded axis")
            found[axis] = None
        elif x[axis] is not None and op.settled(1, [place]) is None:
            op.freeze(x[axis], FreezeReason.COMPUTED_OPERAND, "target shape")
    op.settled(1, [])
    op.out(found)


@channel_rule("Col2Im", since=(18,))
def columns_to_image(op: Op) -> None:
    """Each output channel is made of one block of input rows, which go together."""
    x, shape = op.axes(0), op.out_shape()
    labels = x[1]
    op.freeze([x[0], x[2]], FreezeReason.FIXED_AXIS)
    if labels is not None:
        rows = labels.reshape(shape[1], -1)  # (C, block)
        for offset in rows.T[1:]:
            op.unify(rows[:, 0], offset)
        labels = rows[:, 0]
    op.out([None, labels, *[None] * (len(shape) - 2)])


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
