"""Rules of Conv, DeformConv and ConvTranspose: dense, grouped and depthwise.

Source: ONNX operators Conv (1, 11, 22), DeformConv (19, 22) and ConvTranspose (1, 11, 22); the versions differ in
element types only.
"""

from __future__ import annotations

import numpy as np

from srr_onnx.analysis.groups import Role
from srr_onnx.analysis.labels import FreezeReason, Labels, distinct
from srr_onnx.analysis.rule import Change, Op, channel_rule


def repair_conv_groups(change: Change) -> None:
    """Set `group` to the number of groups that are left."""
    conv_groups = change.node.attributes.get("group", 1)
    kept = change.kept(0, 1)
    if conv_groups == 1 or kept is None:
        return
    block = change.model.shapes[change.node.inputs[0]][1] // conv_groups
    if change.kept(1, 0 if change.node.op_type == "ConvTranspose" else 1) is None or _whole_groups(kept, block):
        change.set_attribute("group", len(kept) // block)


def _whole_groups(kept: np.ndarray, block: int) -> bool:
    """Whether channels went in whole groups, not at the same offset in every group."""
    return len(distinct(kept // block)) * block == len(kept)


@channel_rule("Conv", since=(1, 11, 22), repair=repair_conv_groups)
def conv(op: Op) -> None:
    """Filters are new channels; the weight's input axis is the input's channels.

    A grouped convolution stays rectangular in one of two ways: the same offsets go in every group, or whole
    groups go. The way that leaves more free units is taken; depthwise is the case of one channel per group.
    Channels that are folded into the batch pass: every sample is convolved on its own.
    """
    _convolve(op, bias=2)


@channel_rule("DeformConv", since=(19, 22), repair=repair_conv_groups)
def deform_conv(op: Op) -> None:
    """As Conv; what says where to look stays. The same channels go in every group that shares its offsets.

    Channels that it sums over go inexactly: who checks a result from outside puts no mask in front of it.
    """
    x, shared = op.axes(0)[1], op.attribute("offset_group", 1)
    for slot in (2, 4):
        if op.has(slot):
            op.freeze(op.axes(slot), FreezeReason.FIXED_AXIS, "places to look at")
    if shared > 1 and op.attribute("group", 1) > 1:
        op.freeze(x, FreezeReason.LAYOUT, "groups of channels and of offsets")
    elif shared > 1 and x is not None:
        _tie_offsets(op, x, shared)
    op.freeze(op.axes(0)[0], FreezeReason.FIXED_AXIS, "batch axis")
    _convolve(op, bias=3, is_checked=False)


def _convolve(op: Op, bias: int, *, is_checked: bool = True) -> None:
    weight, x = op.axes(1), op.axes(0)
    conv_groups = op.attribute("group", 1)
    filters, taken = weight[0], weight[1]
    op.freeze(weight[2:], FreezeReason.FIXED_AXIS)
    op.freeze(x[2:], FreezeReason.FIXED_AXIS, "spatial axis")
    op.role(1, 0, Role.FILTER)
    if conv_groups == 1:
        op.unify(x[1], taken)
        op.role(1, 1, Role.INPUT)
        if not is_checked:
            op.inexact(taken)
    elif x[1] is None or filters is None:
        op.freeze([x[1], filters, taken], FreezeReason.FIXED_AXIS)
    elif _offsets_leave_more(op, x[1], filters, conv_groups, is_checked):
        _tie_offsets(op, x[1], conv_groups)
        _tie_offsets(op, filters, conv_groups)
        op.unify(x[1][: len(x[1]) // conv_groups], taken)
        op.role(1, 1, Role.INPUT)
        if not is_checked:
            op.inexact(taken)
    else:
        _tie_groups(op, x[1], x[1], conv_groups)
        _tie_groups(op, x[1], filters, conv_groups)
        op.freeze(taken, FreezeReason.FIXED_AXIS)
    _bias(op, bias, filters)
    op.out([op.samples(x[0]), filters, *[None] * (len(op.out_shape()) - 2)])


@channel_rule("ConvTranspose", since=(1, 11, 22), repair=repair_conv_groups)
def conv_transpose(op: Op) -> None:
    """As Conv with the weight's first two axes exchanged: (input channels, filters per group, ...)."""
    weight, x = op.axes(1), op.axes(0)
    conv_groups = op.attribute("group", 1)
    taken, filters = weight[0], weight[1]
    op.freeze(weight[2:], FreezeReason.FIXED_AXIS)
    op.freeze(x[2:], FreezeReason.FIXED_AXIS, "spatial axis")
    made = filters
    if conv_groups == 1:
        op.unify(x[1], taken)
        op.role(1, 0, Role.INPUT)
        op.role(1, 1, Role.FILTER)
    elif x[1] is None or filters is None or taken is None:
        op.freeze([x[1], filters, taken], FreezeReason.FIXED_AXIS)
        made = None
    else:
        op.unify(x[1], taken)
        per_group = len(filters)
        by_offset = op.labels.count_free(x[1], x[1].reshape(conv_groups, -1)) + per_group
        by_group = op.labels.count_free(x[1], x[1].reshape(conv_groups, -1).T)
        if by_offset > by_group:
            _tie_offsets(op, x[1], conv_groups)
            made = np.tile(filters, conv_groups)
            op.role(1, 0, Role.INPUT)
            op.role(1, 1, Role.FILTER)
        else:
            _tie_groups(op, x[1], x[1], conv_groups)
            made = np.repeat(x[1].reshape(conv_groups, -1)[:, 0], per_group)
            op.freeze(filters, FreezeReason.FIXED_AXIS)
            op.role(1, 0, Role.FILTER)
    _bias(op, 2, made)
    op.out([op.samples(x[0]), made, *[None] * (len(op.out_shape()) - 2)])


def _bias(op: Op, slot: int, filters: Labels | None) -> None:
    if op.has(slot):
        op.unify(op.axes(slot)[0], filters)
        op.role(slot, 0, Role.SHIFT)


def _offsets_leave_more(op: Op, x: Labels, filters: Labels, conv_groups: int, is_checked: bool) -> bool:
    blocks = x.reshape(conv_groups, -1)
    by_group = op.labels.count_free(x, blocks.T)
    if by_group >= (len(x) + len(filters)) // conv_groups:
        return False  # no more than one class per offset could be left
    by_offset = op.labels.count_free(filters, filters.reshape(conv_groups, -1))
    if is_checked:
        by_offset += op.labels.count_free(x, blocks)
    return by_offset > by_group


def _tie_offsets(op: Op, labels: Labels, conv_groups: int) -> None:
    blocks = labels.reshape(conv_groups, -1)
    for block in blocks[1:]:
        op.unify(blocks[0], block)


def _tie_groups(op: Op, leaders: Labels, labels: Labels, conv_groups: int) -> None:
    first = leaders.reshape(conv_groups, -1)[:, 0]
    for offset in labels.reshape(conv_groups, -1).T:
        op.unify(first, offset)
