"""Rules of operators that reorder or refold axes: Transpose, Reshape, Flatten, Squeeze, Unsqueeze.

Source: the ONNX operator pages of these operators, versions as listed.
"""

from __future__ import annotations

import math

import numpy as np

from srr_onnx.analysis.labels import FreezeReason, Labels
from srr_onnx.analysis.rule import Axes, CannotFollow, Change, Op, channel_rule
from srr_onnx.analysis.splits import split_labels
from srr_onnx.graph.model import Shape

# Values of more elements are not refolded: their labels would take a gigabyte.
_MOST_POSITIONS = 1 << 27
_RESHAPES = (1, 5, 11, 13, 14, 19, 21, 23, 24, 25)


@channel_rule("Transpose", since=_RESHAPES)
def transpose(op: Op) -> None:
    """Axes change places."""
    x = op.axes(0)
    order = op.attribute("perm", range(len(x))[::-1])
    if sorted(order) != list(range(len(x))):
        raise CannotFollow(FreezeReason.LAYOUT, "an axis is named twice, or is missing")
    op.out([x[axis] for axis in order])


@channel_rule("Unsqueeze", since=_RESHAPES)
def unsqueeze(op: Op) -> None:
    """New axes of size 1."""
    rank = len(op.out_shape())
    added = {axis % rank for axis in _axes(op)}
    rest = iter(op.axes(0))
    op.out([None if axis in added else next(rest) for axis in range(rank)])


def repair_squeeze(change: Change) -> None:
    """Where no axes are given, name those that went before: an axis down to its last channel is no axis of size 1."""
    before, after = change.model.shapes[change.node.inputs[0]], change.new_shape(0)
    if change.node.input(1) or "axes" in change.node.attributes or before == after or 1 not in after:
        return
    axes = [axis for axis, size in enumerate(before) if size == 1]
    if not axes:  # an empty list would again mean all of them
        change.replace("Identity", [change.node.inputs[0]], {})
    elif change.node.since_version < 13:
        change.set_attribute("axes", axes)
    else:
        change.mend(1, np.array(axes, np.int64))


@channel_rule("Squeeze", since=_RESHAPES, repair=repair_squeeze)
def squeeze(op: Op) -> None:
    """Axes of size 1 go."""
    x, shape = op.axes(0), op.shape(0)
    has_axes = op.has(1) or "axes" in op.node.attributes
    removed = {axis % len(x) for axis in _axes(op)} if has_axes else {a for a, size in enumerate(shape) if size == 1}
    op.freeze([x[axis] for axis in removed], FreezeReason.FIXED_AXIS)
    op.out([labels for axis, labels in enumerate(x) if axis not in removed])


def _axes(op: Op) -> list[int]:
    if not op.has(1):
        return list(op.attribute("axes", []))
    known = op.constant(1)
    if known is None:
        raise CannotFollow(FreezeReason.COMPUTED_OPERAND, "axes")
    return [int(axis) for axis in known.reshape(-1)]


@channel_rule("Flatten", since=(1, 9, 11, 13, 21, 23, 24, 25))
def flatten(op: Op) -> None:
    """All axes before `axis` become one, all from it on another."""
    x, shape = op.axes(0), op.shape(0)
    axis = op.axis(op.attribute("axis", 1), len(x))
    op.out([_merge(op, x[:axis], shape[:axis]), _merge(op, x[axis:], shape[axis:])])


def repair_reshape(change: Change) -> None:
    """Write the new sizes into the target; copied (0) and inferred (-1) sizes follow by themselves."""
    old, new = change.new_shape(0), change.new_out_shape()
    is_attribute = change.node.since_version < 5
    target = np.array(change.node.attributes["shape"]) if is_attribute else change.settled(1)
    if target is None:
        return
    allow_zero = change.node.attributes.get("allowzero", 0)
    sizes = target.reshape(-1).astype(np.int64).copy()
    for axis, size in enumerate(sizes.tolist()):
        is_copy = size == 0 and not allow_zero and old[axis : axis + 1] == new[axis : axis + 1]
        if size != -1 and not is_copy:
            sizes[axis] = new[axis]
    if is_attribute:
        change.set_attribute("shape", sizes.tolist())
    else:
        change.mend(1, sizes)


@channel_rule("Reshape", since=(1, 5, 13, 14, 19, 21, 23, 24, 25), repair=repair_reshape)
def reshape(op: Op) -> None:
    """Axes are merged and split block by block; a split axis stays rectangular along one of its parts.

    Of the parts the one that leaves most units free carries the channels.
    """
    x, before, after = op.axes(0), op.shape(0), op.out_shape()
    if 0 in before:
        raise CannotFollow(FreezeReason.LAYOUT, "empty value")
    found: Axes = [None] * len(after)
    blocks = _blocks(before, after)
    placed = {axis for inner, _ in blocks for axis in inner}
    op.freeze([x[axis] for axis in range(len(x)) if axis not in placed], FreezeReason.LAYOUT, "axis of size 1")
    for inner, outer in blocks:
        if len(inner) == len(outer) == 1:
            found[outer[0]] = x[inner[0]]
            continue
        flat = _merge(op, [x[axis] for axis in inner], tuple(before[axis] for axis in inner))
        if flat is not None:
            place, labels = split_labels(op, flat, tuple(after[axis] for axis in outer))
            found[outer[place]] = labels
    if op.has(1):
        check_target(op, found)
    op.out(found)


def _blocks(before: Shape, after: Shape) -> list[tuple[list[int], list[int]]]:
    """Smallest runs of input and output axes with the same number of elements; axes of size 1 are left out."""
    inner = [axis for axis, size in enumerate(before) if size != 1]
    outer = [axis for axis, size in enumerate(after) if size != 1]
    blocks = []
    i = j = 0
    while i < len(inner) and j < len(outer):
        first, second = [inner[i]], [outer[j]]
        a, b = before[inner[i]], after[outer[j]]
        i, j = i + 1, j + 1
        while a != b:
            if a < b and i < len(inner):
                first.append(inner[i])
                a *= before[inner[i]]
                i += 1
            elif b < a and j < len(outer):
                second.append(outer[j])
                b *= after[outer[j]]
                j += 1
            else:
                raise CannotFollow(FreezeReason.UNKNOWN_SHAPE, "sizes do not match")
        blocks.append((first, second))
    return blocks


def _merge(op: Op, axes: Axes, shape: Shape) -> Labels | None:
    """Labels of several axes folded into one: each label repeats over the other axes.

    Where two axes have channels only the one with more free units keeps them.
    """
    labelled = [index for index, labels in enumerate(axes) if labels is not None]
    if not labelled:
        return None
    if len(labelled) > 1:
        free = [op.labels.count_free(axes[index], axes[index][None]) for index in labelled]  # type: ignore[arg-type,index]
        best = labelled[int(np.argmax(free))]
        op.freeze([axes[index] for index in labelled if index != best], FreezeReason.LAYOUT, "two axes merge")
        labelled = [best]
    index = labelled[0]
    form = [1] * len(shape)
    form[index] = shape[index]
    labels = axes[index]
    assert labels is not None
    if math.prod(shape) > _MOST_POSITIONS:
        raise CannotFollow(FreezeReason.LAYOUT, f"{math.prod(shape)} positions")
    return np.broadcast_to(labels.reshape(form), shape).reshape(-1)


def check_target(op: Op, found: Axes) -> None:
    """Freeze channels whose size in the target shape is not known in advance.

    Args:
        op: A node whose second input is the shape of its output.
        found: Labels of the output's axes.
    """
    op.settled(1, [])
    size = len(op.out_shape())
    for axis, labels in enumerate(found):
        place = axis - size + op.shape(1)[0]
        if labels is not None and place >= 0 and op.settled(1, [place]) is None:
            op.freeze(labels, FreezeReason.COMPUTED_OPERAND, "target shape")
