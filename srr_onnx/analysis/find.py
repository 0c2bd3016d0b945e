"""ANALYZE: model to pruning groups.

Runs every node's rule on labels in execution order, then reads units and groups off the classes of labels.
A node that no rule can follow freezes the channels that reach it; it never makes the result wrong.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from types import MappingProxyType

import numpy as np

from srr_onnx.analysis import rules as _rules  # noqa: F401 - fills the registry
from srr_onnx.analysis.extents import follow_extents
from srr_onnx.analysis.groups import FrozenChannels, Groups, Member, PruningGroup, Role, Units, Use
from srr_onnx.analysis.labels import ChannelLabels, Freeze, FreezeReason, Labels, distinct
from srr_onnx.analysis.rearrangements import Rearrangement, find_rearrangements
from srr_onnx.analysis.rule import CannotFollow, Op, Rule, State, rules
from srr_onnx.analysis.splits import Places, Split, choose_splits, find_doubtful
from srr_onnx.graph.model import Model, Node


def find_groups(model: Model) -> Groups:
    """Find what can be pruned: groups of units, with every axis along which they lie.

    Args:
        model: Loaded model; not changed.

    Returns:
        The groups, and what is frozen and why. Groups that can only be pruned inexactly are among them.
    """
    return choose_splits(functools.partial(_analyze, model, find_rearrangements(model)))


def _analyze(model: Model, rearrangements: dict[int, Rearrangement], places: Places) -> tuple[Groups, list[Split]]:
    """Run all rules; give the groups, and the choices of axes that led to frozen or inexact channels."""
    labels, state = ChannelLabels(), State(places)
    starts: dict[int, list[int]] = {}
    for last, found in rearrangements.items():
        starts.setdefault(found.inner[0], []).append(last)
    followed: dict[int, Rearrangement] = {}
    inner: set[int] = set()
    for node in model.nodes:
        for last in starts.get(node.index, ()) if node.index not in inner else ():
            if _permutes_channels(state, rearrangements[last]):
                followed[last] = rearrangements[last]
                inner.update(rearrangements[last].inner)
        if node.index in inner:
            followed.pop(node.index, None)  # a longer chain goes on behind it
            continue
        op = Op(node, model, labels, state)
        if node.index in followed:
            _follow_rearrangement(op, followed[node.index])
        elif any(name in model.shape_values for name in node.outputs):
            follow_extents(op, state)
        elif not all(name in model.constants for name in node.outputs if name):
            _follow(op)
            _note_origins(op, state)
            _pin_measured(op, state)
    for name in model.outputs:
        for axes in [state.values.get(name, []), *state.sequences.get(name, [])]:
            for axis in axes:
                if axis is not None:
                    labels.freeze(axis, Freeze(FreezeReason.GRAPH_OUTPUT, name))
        if name in state.extents:
            for source in state.extents[name].sources:
                labels.freeze(source.labels, Freeze(FreezeReason.SHAPE_IN_USE, name))
    return _collect(model, labels, state, followed), find_doubtful(state.splits, labels)


def _follow(op: Op) -> None:
    node = op.node
    try:
        _find_rule(node).propagate(op)
    except CannotFollow as stop:
        _freeze_inputs(op, Freeze(stop.reason, node.label, stop.detail))
    except Exception as error:
        # A node that no author thought of, or a mistake in a rule: neither may cost the user the rest of the model.
        _freeze_inputs(op, Freeze(FreezeReason.RULE_FAILED, node.label, f"{type(error).__name__}: {error}"))


def _find_rule(node: Node) -> Rule:
    rule = rules.find((node.domain, node.op_type, node.since_version))
    if node.captured:
        raise CannotFollow(FreezeReason.SUBGRAPH)
    if rule is None:
        is_known = any(key[:2] == (node.domain, node.op_type) for key in rules)
        reason = FreezeReason.UNKNOWN_VERSION if is_known else FreezeReason.UNKNOWN_OPERATOR
        raise CannotFollow(reason, f"{node.op_type} version {node.since_version}" if is_known else node.op_type)
    return rule


def _freeze_inputs(op: Op, cause: Freeze) -> None:
    node = op.node
    for name in node.inputs + node.captured:
        for axes in [op.state.values.get(name, []), *op.state.sequences.get(name, [])]:
            for axis in axes:
                if axis is not None:
                    op.labels.freeze(axis, cause)
    for slot in range(len(node.inputs)):
        for axis in op.state.uses.get(Use(node.index, slot), []):
            op.labels.freeze(axis, cause)
    for name in node.outputs:
        op.state.values.pop(name, None)


def _note_origins(op: Op, state: State) -> None:
    """Remember what a value is made of that follows from constants alone but is not folded: a quantized weight."""
    node, constants = op.node, op.model.constants
    read = [(slot, name) for slot, name in enumerate(node.inputs) if name]
    if not read or node.captured or not all(name in constants or name in state.origins for _, name in read):
        return
    uses = [use for slot, name in read for use in state.origins.get(name, [Use(node.index, slot)]) if use in state.uses]
    for name in node.outputs:
        if name in state.values:
            state.origins[name] = uses


def _pin_measured(op: Op, state: State) -> None:
    """Answer for channel counts that reach the computation in a way that no rule knows (a scale of 1 / sqrt(C), say).

    The masked original still computes with the old count, so it becomes a constant if channels go; where it also
    depends on a size that the file leaves open it cannot, and the channels stay.
    """
    for slot, name in enumerate(op.node.inputs + op.node.captured):
        if name not in state.extents or slot in op.followed_extents:
            continue
        sources = state.extents[name].sources
        if slot < len(op.node.inputs) and not any(source.is_dynamic for source in sources):
            state.pins.append(Use(op.node.index, slot))
            continue
        for source in sources:
            op.freeze(source.labels, FreezeReason.SHAPE_IN_USE)


def _permutes_channels(state: State, found: Rearrangement) -> bool:
    """Whether the axis that a chain permutes has channels; what permutes rows, say, is followed node by node.

    The sizes of an axis with channels are written in the file, so one list of indices serves at all input sizes.
    """
    return state.values.get(found.source, [None] * len(found.shape))[found.axis] is not None


def _follow_rearrangement(op: Op, found: Rearrangement) -> None:
    axes = list(op.state.values[found.source])
    labels = axes[found.axis]
    assert labels is not None
    axes[found.axis] = labels[found.indices]
    op.out(axes)


def _collect(model: Model, labels: ChannelLabels, state: State, rearrangements: dict[int, Rearrangement]) -> Groups:
    """Number the units, gather them into groups, and describe every axis in units."""
    roots = labels.classes()
    frozen, inexact = labels.frozen_classes(), labels.inexact_classes()
    by_index = {node.index: node for node in model.nodes}
    has_filter = np.zeros(len(roots), bool)
    for (use, axis), role in state.roles.items():
        if role is Role.FILTER:
            has_filter[roots[state.uses[use][axis]]] = True
    is_unit = has_filter.copy()
    is_unit[list(frozen)] = False
    value_axes = [
        ((name, axis), roots[ids])
        for name, axes in state.values.items()
        if name in model.shapes  # else nobody has read it: that would have frozen it
        for axis, ids in enumerate(axes)
        if ids is not None and is_unit[roots[ids]].any()
    ]
    use_axes = [
        ((use, axis), roots[ids])
        for use, axes in state.uses.items()
        for axis, ids in enumerate(axes)
        if is_unit[roots[ids]].any()
    ]
    members = _signatures([ids for _, ids in value_axes] + [ids for _, ids in use_axes], is_unit, inexact)
    number = np.full(len(roots), -1, np.int64)
    first = 0
    for classes in members:
        number[classes] = np.arange(first, first + len(classes))
        first += len(classes)
    values = {key: number[ids] for key, ids in value_axes}
    uses = {key: number[ids] for key, ids in use_axes}
    groups = _describe(members, values, uses, state, by_index, inexact)
    return Groups(
        groups=groups,
        values=MappingProxyType(values),
        uses=MappingProxyType(uses),
        frozen=tuple(_explain_frozen(state, roots, frozen, by_index)),
        rearrangements=MappingProxyType(rearrangements),
        pins=tuple(state.pins),
    )


def _signatures(axes: list[Labels], is_unit: np.ndarray, inexact: dict[int, str]) -> list[Labels]:
    """Sort classes into groups: those that lie along the same axes equally often. In order of the first class.

    The axes of a class are told by a sum of one scrambled 128-bit number per axis, weighted by how often it lies there.
    """
    sums = np.zeros((2, len(is_unit)), np.uint64)
    for place, ids in enumerate(axes):
        number = np.frombuffer(hashlib.blake2b(str(place).encode(), digest_size=16).digest(), np.uint64)
        found = ids[is_unit[ids]]
        if len(found):
            first = int(found.min())  # the classes of an axis lie close together
            counts = np.bincount(found - first).astype(np.uint64)
            sums[:, first : first + len(counts)] += number[:, None] * counts
    is_inexact = np.zeros(len(is_unit), bool)
    is_inexact[list(inexact)] = True
    units = np.flatnonzero(is_unit & sums.any(axis=0))
    keys = np.stack([sums[0, units], sums[1, units], is_inexact[units].astype(np.uint64)])
    order = np.lexsort(keys)
    starts = np.flatnonzero(np.any(keys[:, order[1:]] != keys[:, order[:-1]], axis=0)) + 1
    groups = [np.sort(units[part]) for part in np.split(order, starts)] if len(units) else []
    return sorted(groups, key=lambda classes: int(classes[0]))


def _describe(
    members: list[Labels],
    values: dict[tuple[str, int], Units],
    uses: dict[tuple[Use, int], Units],
    state: State,
    by_index: dict[int, Node],
    inexact: dict[int, str],
) -> tuple[PruningGroup, ...]:
    ends = np.cumsum([len(classes) for classes in members])
    group_members: list[list[Member]] = [[] for _ in members]
    group_values: list[list[tuple[str, int]]] = [[] for _ in members]
    for key, units in values.items():
        for group in distinct(np.searchsorted(ends, units[units >= 0], side="right")):
            group_values[group].append(key)
    for (use, axis), units in uses.items():
        where = np.flatnonzero(units >= 0)
        where = where[np.argsort(units[where], kind="stable")]
        owner = np.searchsorted(ends, units[where], side="right")
        role = state.roles.get((use, axis), Role.OPERAND)
        name = by_index[use.node].inputs[use.slot]
        for group in distinct(owner):
            positions = where[owner == group].reshape(len(members[group]), -1)
            group_members[group].append(Member(name, use, axis, role, positions))
    groups = []
    for index, classes in enumerate(members):
        owners = [(m, state.owners(m.use, m.axis, by_index[m.use.node])) for m in group_members[index]]
        nodes = dict.fromkeys(node.label for m, found in owners if m.role is Role.FILTER for node in found)
        groups.append(
            PruningGroup(
                id=f"g{index}",
                name=_shorten(list(nodes)),
                nodes=tuple(nodes),
                touched=tuple(dict.fromkeys(n.label for m, found in owners for n in (by_index[m.use.node], *found))),
                first_unit=int(ends[index]) - len(classes),
                size=len(classes),
                inexact_at=next((inexact[root] for root in classes.tolist() if root in inexact), None),
                members=tuple(group_members[index]),
                values=tuple(group_values[index]),
            )
        )
    return tuple(groups)


def _shorten(nodes: list[str]) -> str:
    return nodes[0] if len(nodes) == 1 else f"{nodes[0]} +{len(nodes) - 1}"


def _explain_frozen(
    state: State, roots: Labels, frozen: dict[int, Freeze], by_index: dict[int, Node]
) -> Iterable[FrozenChannels]:
    for (use, axis), role in state.roles.items():
        if role is not Role.FILTER:
            continue
        causes: dict[Freeze, int] = {}
        for root in distinct(roots[state.uses[use][axis]]).tolist():
            if root in frozen:
                causes[frozen[root]] = causes.get(frozen[root], 0) + 1
        for owner in state.owners(use, axis, by_index[use.node]):
            for cause, count in causes.items():
                yield FrozenChannels(cause, owner.label, count)
