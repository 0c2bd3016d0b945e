"""Rules of operators that pick along an axis by number: Slice, Gather.

Source: the ONNX operator pages of these operators, versions as listed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from srr_onnx.analysis.labels import FreezeReason, Labels
from srr_onnx.analysis.rule import CannotFollow, Change, Op, Positions, channel_rule
from srr_onnx.analysis.splits import split_labels

Array = np.ndarray[Any, Any]


def _bounds(op_or_change: Op | Change) -> tuple[list[int], list[int], list[int], list[int]] | None:
    """Starts, ends, axes and steps of a Slice as they are written; None where one is computed."""
    node = op_or_change.node
    starts: list[int] | None
    if node.since_version < 10:
        starts, ends, axes = (node.attributes.get(name) for name in ("starts", "ends", "axes"))
        steps = None
    else:
        bounds = [op_or_change.settled(slot) for slot in range(1, 5)]
        if any(bound is None and node.input(slot) for slot, bound in enumerate(bounds, start=1)):
            return None
        starts, ends, axes, steps = (None if bound is None else bound.reshape(-1).tolist() for bound in bounds)
    if starts is None or ends is None:
        return None
    return starts, ends, axes or list(range(len(starts))), steps or [1] * len(starts)


def _window(op_or_change: Op | Change, data_shape: tuple[int, ...]) -> dict[int, tuple[int, int, int]] | None:
    """Start, end and step of a Slice by axis, none of them counted from the end; None where a bound is computed."""
    bounds = _bounds(op_or_change)
    if bounds is None:
        return None
    window = {}
    for start, end, axis, step in zip(*bounds, strict=True):
        axis = int(axis) % len(data_shape)
        size = data_shape[axis]
        # ONNX counts from the end like Python, but an end far below zero means "before the first" for negative steps.
        last = None if step < 0 and end < -size else int(end)
        window[axis] = (*slice(int(start), last, int(step)).indices(size),)
    return window


def repair_slice(change: Change) -> None:
    """Move the bounds on axes that lost channels; a strided or reversed slice becomes a Gather."""
    shape = change.model.shapes[change.node.inputs[0]]
    window, bounds = _window(change, shape), _bounds(change)
    if window is None or bounds is None:
        return
    changed = [axis for axis in window if change.kept(0, axis) is not None]
    if not changed:
        return
    if any(window[axis][2] != 1 for axis in changed):
        axis = changed[0]
        selected = np.arange(shape[axis])[slice(*_closed(window[axis]))]
        _replace_by_gather(change, axis, selected)
        return
    # Other axes keep what is written: their sizes may be open, and bounds that count from the end follow them.
    starts, ends = list(bounds[0]), list(bounds[1])
    for place, (axis, (start, end, _)) in enumerate(window.items()):
        kept = change.kept(0, axis)
        if kept is not None:
            starts[place], ends[place] = int((kept < start).sum()), int((kept < max(start, end)).sum())
    if change.node.since_version < 10:
        change.set_attribute("starts", starts)
        change.set_attribute("ends", ends)
    else:
        bound = change.settled(1)
        assert bound is not None
        change.mend(1, np.array(starts, bound.dtype))
        change.mend(2, np.array(ends, bound.dtype))


def _closed(bounds: tuple[int, int, int]) -> tuple[int, int | None, int]:
    """Bounds as Python's slice takes them: an end before the first element is None."""
    start, end, step = bounds
    return start, None if end < 0 else end, step


@channel_rule("Slice", since=(1, 10, 11, 13), repair=repair_slice)
def slice_axis(op: Op) -> None:
    """Picks a range of every axis it names."""
    x, shape = op.axes(0), op.shape(0)
    window = _window(op, shape)
    if window is None:
        known = op.settled(3)
        if known is None:
            raise CannotFollow(FreezeReason.COMPUTED_OPERAND, "bounds")
        cut = {int(axis) % len(x) for axis in known.reshape(-1)}
        op.freeze([x[axis] for axis in cut], FreezeReason.COMPUTED_OPERAND, "bounds")
        op.out([None if axis in cut else labels for axis, labels in enumerate(x)])
        return
    strided = [axis for axis in window if x[axis] is not None and window[axis][2] != 1]
    if strided and (len(window) > 1):
        op.freeze([x[axis] for axis in strided], FreezeReason.LAYOUT, "strided slice over several axes")
    op.out(
        [
            labels[slice(*_closed(window[axis]))] if labels is not None and axis in window else labels
            for axis, labels in enumerate(x)
        ]
    )


def _replace_by_gather(change: Change, axis: int, selected: Array) -> None:
    """Pick channels by number instead, those that are left."""
    indices = renumber(selected, change.kept(0, axis), change.kept_out(axis))
    change.replace("Gather", [change.node.inputs[0], indices], {"axis": axis})


def renumber(selected: Array, kept: Positions | None, kept_out: Positions | None) -> Array:
    """Old channel numbers to new ones.

    Args:
        selected: Channel numbers before the change, one per output position.
        kept: Channels that are left in the input; None for all.
        kept_out: Output positions that are left; None for all.

    Returns:
        Channel numbers after the change, of the same kind as `selected`.
    """
    if kept_out is not None:
        selected = selected[kept_out]
    return selected if kept is None else np.searchsorted(kept, selected).astype(selected.dtype)


def repair_gather(change: Change) -> None:
    """Renumber the indices; of a table of indices take the rows or columns that are left."""
    shape = change.model.shapes[change.node.inputs[0]]
    axis = int(change.node.attributes.get("axis", 0)) % len(shape)
    indices = change.settled(1)
    if indices is None:
        return
    kept, kept_out = change.kept(0, axis), [change.kept_out(axis + place) for place in range(indices.ndim)]
    if kept is None and all(part is None for part in kept_out):
        return  # other axes lost channels; indices that count from the end of an open axis must stay as they are
    selected = np.where(indices < 0, indices + shape[axis], indices)
    for place, part in enumerate(kept_out):
        if part is not None:
            selected = selected.take(part, axis=place)
    change.mend(1, renumber(selected, kept, None))


@channel_rule("Gather", since=(1, 11, 13), repair=repair_gather)
def gather(op: Op) -> None:
    """Picks channels by number along one axis. A single number keeps what it picks; a table stays rectangular."""
    data, rank = op.axes(0), len(op.shape(0))
    axis = op.axis(op.attribute("axis", 0), rank)
    labels, indices = data[axis], op.settled(1)
    picked: list[Labels | None] = [None] * len(op.shape(1))
    if labels is not None and indices is None:
        op.freeze(labels, FreezeReason.COMPUTED_OPERAND, "indices")
    elif labels is not None and indices is not None:
        table = labels[indices.reshape(-1)]
        if indices.size == 1:
            op.freeze(table, FreezeReason.LAYOUT, "picked by number")
        elif indices.size:
            place, row = split_labels(op, table, indices.shape)
            picked[place] = row
    op.out([*data[:axis], *picked, *data[axis + 1 :]])
