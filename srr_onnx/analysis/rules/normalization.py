"""Rules of normalizations, of Softmax and of LRN.

Normalizing over channels mixes them: dropping channels is legal there but not equal to masking them (inexact).

Source: ONNX operators BatchNormalization, InstanceNormalization, GroupNormalization, LayerNormalization,
RMSNormalization, LpNormalization, MeanVarianceNormalization, Softmax, LogSoftmax, Hardmax, LRN.
"""

from __future__ import annotations

from srr_onnx.analysis.groups import Role
from srr_onnx.analysis.labels import FreezeReason
from srr_onnx.analysis.rule import Change, Op, channel_rule


@channel_rule("BatchNormalization", since=(7, 9, 14, 15))
def batch_normalization(op: Op) -> None:
    """Four vectors, one element per channel. In training mode statistics are taken over all other axes."""
    x = op.axes(0)
    channels = x[1]
    if op.attribute("training_mode", 0):
        for labels in [x[0], *x[2:]]:
            op.inexact(labels)
    for slot, role in ((1, Role.SCALE), (2, Role.SHIFT), (3, Role.MEAN), (4, Role.VARIANCE)):
        op.unify(channels, op.axes(slot)[0])
        op.role(slot, 0, role)
    op.out(x)
    for slot in range(1, len(op.node.outputs)):
        op.out([channels], slot)


@channel_rule("InstanceNormalization", since=(1, 6, 22))
def instance_normalization(op: Op) -> None:
    """Every channel is normalized on its own, over all axes behind it."""
    x = op.axes(0)
    for labels in x[2:]:
        op.inexact(labels)
    for slot, role in ((1, Role.SCALE), (2, Role.SHIFT)):
        op.unify(x[1], op.axes(slot)[0])
        op.role(slot, 0, role)
    op.out(x)


def repair_num_groups(change: Change) -> None:
    """Set `num_groups` to the number of whole groups that are left."""
    kept = change.kept(0, 1)
    if kept is not None:
        size = change.model.shapes[change.node.inputs[0]][1] // change.node.attributes["num_groups"]
        change.set_attribute("num_groups", len(kept) // size)


@channel_rule("GroupNormalization", since=(18, 21), repair=repair_num_groups)
def group_normalization(op: Op) -> None:
    """Whole groups go, which is exact. Scale and bias are per group (18) or per channel (21)."""
    x = op.axes(0)
    for labels in x[2:]:
        op.inexact(labels)
    channels, count = x[1], op.attribute("num_groups")
    if channels is not None:
        blocks = channels.reshape(count, -1)
        for offset in blocks.T[1:]:
            op.unify(blocks[:, 0], offset)
        for slot, role in ((1, Role.SCALE), (2, Role.SHIFT)):
            own = op.axes(slot)[0]
            op.unify(own, channels if own is None or len(own) == len(channels) else blocks[:, 0])
            op.role(slot, 0, role)
    op.out(x)


@channel_rule("LayerNormalization", "RMSNormalization", since=(17, 23))
def layer_normalization(op: Op) -> None:
    """Normalizes over all axes from `axis` on; scale and bias lie along them."""
    x = op.axes(0)
    first = op.axis(op.attribute("axis", -1), len(x))
    for labels in x[first:]:
        op.inexact(labels)
    for slot, role in ((1, Role.SCALE), (2, Role.SHIFT)):
        if not op.has(slot):
            continue
        shape, own = op.shape(slot), op.axes(slot)
        for offset in range(1, len(own) + 1):
            if shape[-offset] == op.shape(0)[-offset] and (x[-offset] is not None or own[-offset] is not None):
                op.unify(x[-offset], own[-offset])
            else:
                op.freeze(own[-offset], FreezeReason.FIXED_AXIS, "broadcast")
            op.role(slot, len(own) - offset, role)
    op.out(x)
    for slot in range(1, len(op.node.outputs)):
        op.out([*x[:first], *[None] * (len(x) - first)], slot)


@channel_rule("Softmax", "LogSoftmax", "Hardmax", since=(1, 11, 13))
def softmax(op: Op) -> None:
    """Normalizes over one axis, before version 13 over all axes from it on."""
    x = op.axes(0)
    is_old = op.node.since_version < 13
    axis = op.axis(op.attribute("axis", 1 if is_old else -1), len(x))
    for labels in x[axis:] if is_old else [x[axis]]:
        op.inexact(labels)
    op.out(x)


@channel_rule("LpNormalization", since=(1, 22))
def lp_normalization(op: Op) -> None:
    """Divides by the norm over one axis; masked channels add nothing to it, but only p = 2 is checked from outside."""
    x = op.axes(0)
    op.inexact(x[op.axis(op.attribute("axis", -1), len(x))])
    op.out(x)


@channel_rule("MeanVarianceNormalization", since=(9, 13))
def mean_variance_normalization(op: Op) -> None:
    """Normalizes over the given axes."""
    x = op.axes(0)
    for axis in op.attribute("axes", [0, 2, 3]):
        op.inexact(x[op.axis(axis, len(x))])
    op.out(x)


@channel_rule("LRN", since=(1, 13))
def local_response_normalization(op: Op) -> None:
    """Sums squares over neighbouring channels: dropping one brings others together."""
    x = op.axes(0)
    op.inexact(x[1])
    op.out(x)
