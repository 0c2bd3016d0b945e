"""Rules of operators that read or write at listed positions: GatherElements, GatherND, Scatter*, Compress, OneHot.

Positions along an axis with channels have to be constant, and the same for everything beside that axis; they are
renumbered when channels go. Anything else keeps those channels. All other axes pass.

Source: the ONNX operator pages of these operators, versions as listed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from srr_onnx.analysis.labels import FreezeReason, Labels
from srr_onnx.analysis.rule import Axes, Change, Op, Positions, channel_rule
from srr_onnx.analysis.rules.picking import renumber
from srr_onnx.analysis.splits import split_labels

Array = np.ndarray[Any, Any]


def _line(indices: Array | None, axis: int) -> Array | None:
    """The positions along one axis, if they are constant and the same along every other axis."""
    if indices is None or not indices.size:
        return None
    lines = np.moveaxis(indices, axis, -1).reshape(-1, indices.shape[axis])
    return lines[0] if (lines == lines[:1]).all() else None


def _follow_line(op: Op, labels: Labels | None, axis: int) -> Labels | None:
    """The channels that are picked along an axis; where it is not known which, all of them stay."""
    if labels is None:
        return None
    indices = op.constant(1)
    line = _line(indices, axis)
    if line is None:
        if indices is None:
            op.freeze(labels, FreezeReason.COMPUTED_OPERAND, "indices")
        else:
            op.freeze(labels, FreezeReason.LAYOUT, "indices differ beside their axis")
        return None
    return labels[line]


def _tie_prefix(op: Op, slot: int, axis: int, labels: Labels | None) -> None:
    """An operand lies along the first channels of an axis; one that is constant and is rewritten needs no tie."""
    own = op.axes(slot)[axis]
    if labels is not None or (own is not None and not op.is_constant(slot)):
        op.unify(None if labels is None else labels[: op.shape(slot)[axis]], own)


def _take(change: Change, indices: Array, left: list[Positions | None]) -> Array:
    for axis, kept in enumerate(left):
        if kept is not None:
            indices = indices.take(kept, axis=axis)
    return indices


def _renumber_line(change: Change, axis: int, left: list[Positions | None]) -> None:
    """Take the indices that are left, and renumber them if they pick channels."""
    indices, kept = change.settled(1), change.kept(0, axis)
    if indices is None or (kept is None and all(part is None for part in left)):
        return
    indices = _take(change, indices, left)
    if kept is not None:
        size = change.model.shapes[change.node.inputs[0]][axis]
        indices = renumber(np.where(indices < 0, indices + size, indices), kept, None)
    change.mend(1, indices)


def _axis(op_or_change: Op | Change, rank: int) -> int:
    return int(op_or_change.node.attributes.get("axis", 0)) % rank


def repair_gather_elements(change: Change) -> None:
    """Renumber the indices that are left."""
    rank = len(change.new_shape(0))
    _renumber_line(change, _axis(change, rank), [change.kept_out(axis) for axis in range(rank)])


@channel_rule("GatherElements", since=(11, 13), repair=repair_gather_elements)
def gather_elements(op: Op) -> None:
    """Reads at listed positions along one axis, if they are the same beside it; the indices lie along all others."""
    data, size = op.axes(0), op.out_shape()
    axis = _axis(op, len(data))
    is_settled = op.constant(1) is not None
    found: Axes = []
    for place, labels in enumerate(data):
        if place == axis:
            found.append(_follow_line(op, labels, axis))
            continue
        if not is_settled:
            _tie_prefix(op, 1, place, labels)
        found.append(None if labels is None else labels[: size[place]])
    if not is_settled:
        op.freeze(op.axes(1)[axis], FreezeReason.COMPUTED_OPERAND, "indices")
    op.out(found)


def repair_scatter_elements(change: Change) -> None:
    """Renumber the indices of the updates that are left."""
    rank = len(change.new_shape(0))
    _renumber_line(change, _axis(change, rank), [change.kept(2, axis) for axis in range(rank)])


@channel_rule("ScatterElements", since=(11, 13, 16, 18), repair=repair_scatter_elements)
@channel_rule("Scatter", since=(9,), repair=repair_scatter_elements)
def scatter_elements(op: Op) -> None:
    """Writes at listed positions along one axis: updates written to a channel go with it."""
    data = op.axes(0)
    axis = _axis(op, len(data))
    is_settled = op.constant(1) is not None
    for place, labels in enumerate(data):
        if place == axis:
            labels = _follow_line(op, labels, axis)
        for slot in (2,) if is_settled else (1, 2):
            _tie_prefix(op, slot, place, labels)
    op.out(data)


def _follow_column(op: Op, picked: Axes) -> tuple[int, Labels] | None:
    """The axis of the list of positions that carries channels, and these channels; None where they stay.

    Args:
        op: The node; its second input holds positions, one column for each of the picked axes.
        picked: Labels of the picked axes.
    """
    labelled = [column for column, labels in enumerate(picked) if labels is not None]
    indices = op.constant(1) if labelled else None
    if not labelled:
        return None
    labels = picked[labelled[0]]
    assert labels is not None
    if indices is None or len(labelled) > 1:
        if indices is None:
            op.freeze(picked, FreezeReason.COMPUTED_OPERAND, "indices")
        else:
            op.freeze(picked, FreezeReason.LAYOUT, "indices along several axes with channels")
        return None
    table = labels[indices[..., labelled[0]]]
    if table.size < 2:
        op.freeze(table, FreezeReason.LAYOUT, "picked by number")
        return None
    return split_labels(op, table.reshape(-1), table.shape)


def _renumber_columns(change: Change, batch: int, kept_at: Callable[[int], Positions | None]) -> None:
    """Take the lists of positions that are left, and renumber the columns that pick channels."""
    indices = change.settled(1)
    if indices is None:
        return
    shape = change.model.shapes[change.node.inputs[0]]
    columns = {column: change.kept(0, batch + column) for column in range(indices.shape[-1])}
    left = [kept_at(place) for place in range(indices.ndim - 1)]
    if all(kept is None for kept in [*columns.values(), *left]):
        return
    indices = _take(change, indices, left).copy()
    for column, kept in columns.items():
        if kept is not None:
            own = indices[..., column]
            indices[..., column] = renumber(np.where(own < 0, own + shape[batch + column], own), kept, None)
    change.mend(1, indices)


def repair_gather_nd(change: Change) -> None:
    """Renumber the positions that are left."""
    _renumber_columns(change, int(change.node.attributes.get("batch_dims", 0)), change.kept_out)


@channel_rule("GatherND", since=(11, 12, 13), repair=repair_gather_nd)
def gather_nd(op: Op) -> None:
    """Reads at listed positions of the first axes; the others pass."""
    data, where, batch = op.axes(0), op.shape(1), op.attribute("batch_dims", 0)
    end = batch + where[-1]
    found: Axes = [None] * (len(where) - 1)
    if batch:
        op.freeze(data[:end], FreezeReason.LAYOUT, "batch of positions")
    else:
        column = _follow_column(op, data[:end])
        if column is not None:
            found[column[0]] = column[1]
    if op.constant(1) is None:
        op.freeze(op.axes(1), FreezeReason.COMPUTED_OPERAND, "indices")
    op.out(found + data[end:])


def repair_scatter_nd(change: Change) -> None:
    """Renumber the positions of the updates that are left."""
    _renumber_columns(change, 0, lambda place: change.kept(2, place))


@channel_rule("ScatterND", since=(11, 13, 16, 18), repair=repair_scatter_nd)
def scatter_nd(op: Op) -> None:
    """Writes at listed positions of the first axes; along the others updates go with what they are written to."""
    data, updates, where = op.axes(0), op.axes(2), op.shape(1)
    depth, lead = where[-1], len(where) - 1
    column = _follow_column(op, data[:depth])
    for place in range(lead):
        written = column[1] if column is not None and column[0] == place else None
        if written is not None or updates[place] is not None:
            op.unify(written, updates[place])
    for place, labels in enumerate(data[depth:], start=lead):
        if labels is not None or updates[place] is not None:
            op.unify(labels, updates[place])
    if op.constant(1) is None:
        op.freeze(op.axes(1), FreezeReason.COMPUTED_OPERAND, "indices")
    op.out(data)


@channel_rule("Compress", since=(9, 11))
def compress(op: Op) -> None:
    """Keeps what a constant condition says; the condition lies along the axis."""
    data, condition = op.axes(0), op.constant(1)
    if "axis" not in op.node.attributes:
        op.freeze(data, FreezeReason.LAYOUT, "flattened")
        op.out([None])
        return
    axis = _axis(op, len(data))
    labels = data[axis]
    if labels is not None and not op.is_constant(1):
        op.freeze(labels, FreezeReason.COMPUTED_OPERAND, "condition")
        labels = None
    if labels is not None and condition is not None:
        labels = labels[: len(condition)]
        op.unify(labels, op.axes(1)[0])
        labels = labels[condition]
    op.out([*data[:axis], labels, *data[axis + 1 :]])


@channel_rule("OneHot", since=(9, 11))
def one_hot(op: Op) -> None:
    """A new axis for the classes; what the indices lie along passes."""
    rank = len(op.out_shape())
    axis = op.axis(op.attribute("axis", -1), rank)
    found = op.axes(0)
    op.out([*found[:axis], None, *found[axis:]])
