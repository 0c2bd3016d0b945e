"""REWRITE: units that can go without any change of the outputs, and what puts their part into the weights that stay.

A unit vanishes from the outputs only where an operator sums over it. So every such place is looked at: there the
unit's channels are zero or meet weights of zero (nothing to do), are constant (the constant goes into the bias), or
equal a channel that stays up to a factor (its weights take them over). If all places agree, the unit goes.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from srr_onnx.analysis.groups import Groups, Units
from srr_onnx.graph.model import Model
from srr_onnx.planning.plan import Kept
from srr_onnx.rewriting.exact import functions as _functions  # noqa: F401 - they fill the registry
from srr_onnx.rewriting.exact import moves as _moves  # noqa: F401
from srr_onnx.rewriting.exact import sums as _sums  # noqa: F401
from srr_onnx.rewriting.exact.facts import Facts, Knowledge
from srr_onnx.rewriting.exact.follow import follow
from srr_onnx.rewriting.exact.gains import ExactGains, ExactUnit, Reason, count_units
from srr_onnx.rewriting.exact.linear import Array, Linear, Weights, describe_linear
from srr_onnx.rewriting.trial import SUMMING_OPERATORS

# Every round but the last removes a unit; this only bounds the time.
_MOST_ROUNDS = 20
# What merging may change in a sum, relative to a usual weight; a tenth of what the proof allows in an output.
_HARMLESS = 1e-6
# Merged weights are rounded, and equal filters need not give equal sums: half a unit in the last place of float32.
_ROUNDING = 2.0**-24


def find_exact(model: Model, groups: Groups, stays: Kept | None = None) -> ExactGains:
    """Find the units whose removal changes no output: dead, constant and duplicate ones.

    What goes can make others redundant, so the search is repeated on the corrected weights until nothing is found.
    Groups that can only be pruned inexactly stay, and every group keeps a unit.

    Args:
        model: Loaded model; not changed.
        groups: Result of `find_groups(model)`.
        stays: Shape `(groups.num_units,)`: units that are not looked at; none by default.

    Returns:
        Which units go and why, and the corrected constants.
    """
    weights = Weights(model)
    places = _find_places(model, groups)
    is_kept = np.ones(groups.num_units, bool)
    may_go = np.zeros(groups.num_units, bool)
    for group in groups:
        may_go[group.units] = group.is_exact
    if stays is not None:
        may_go &= ~stays
    found: list[ExactUnit] = []
    for _ in range(_MOST_ROUNDS):
        before = len(found)
        knowledge = follow(model, weights, groups.rearrangements)
        for place in places:
            place.look(knowledge, weights, is_kept)
        for is_merging in (False, True):
            hopeful = may_go & is_kept
            for place in places:
                place.rule_out(hopeful, is_merging=is_merging)
            for group in groups:
                for unit in (group.first_unit + np.flatnonzero(hopeful[group.units])[::-1]).tolist():
                    if is_kept[group.units].sum() == 1:
                        break
                    entry = _try_unit(unit, places, weights, is_kept, is_merging=is_merging)
                    if entry is not None:
                        is_kept[unit] = False
                        found.append(entry)
        if len(found) == before:
            break
    return ExactGains(is_kept, tuple(found), weights.corrected, count_units(groups, found))


def _find_places(model: Model, groups: Groups) -> list[_Place]:
    """Every axis with units of an input of an operator that sums."""
    places = []
    axes: dict[str, list[int]] = {}
    for name, axis in groups.values:
        axes.setdefault(name, []).append(axis)
    for node in model.nodes:
        if node.op_type not in SUMMING_OPERATORS or all(name in model.constants for name in node.outputs):
            continue
        for slot, name in enumerate(node.inputs if node.op_type == "Einsum" else node.inputs[:2]):
            linear = describe_linear(model, node) if slot == 0 else None
            for axis in axes.get(name, []):
                is_summed = linear is not None and axis == linear.axis
                sums = groups.values.get((node.outputs[0], linear.out_axis)) if linear is not None else None
                places.append(_Place(name, axis, groups.values[name, axis], linear if is_summed else None, sums))
    return places


def _try_unit(
    unit: int, places: list[_Place], weights: Weights, is_kept: Kept, *, is_merging: bool
) -> ExactUnit | None:
    """Remove a unit if every place allows it, and correct the weights there; None where one does not."""
    changes = []
    for place in places:
        for position in place.positions(unit):
            change = place.find_change(position, weights, is_kept, is_merging=is_merging)
            if change is None:
                return None
            changes.append((place, change))
    reason, like = Reason.DEAD, None
    for place, change in changes:
        place.make(change, weights)
        if change.target >= 0:
            other = int(place.units[change.target])
            reason, like = Reason.DUPLICATE, other if other >= 0 else None
        elif change.is_pushed and reason is Reason.DEAD:
            reason = Reason.CONSTANT
    return ExactUnit(unit, reason, like)


@dataclasses.dataclass(frozen=True)
class _Change:
    """What is done about one channel at one place: nothing, or its part goes into the bias or to another channel."""

    position: int
    is_pushed: bool = False
    target: int = -1


class _Place:
    """One axis with units that an operator sums over.

    Args:
        name: The value.
        axis: The axis.
        units: Shape `(C,)`: the units along it.
        linear: The operator, None where only zeros are known to make no difference.
        sums: Units along the sums, None where they all stay.
    """

    def __init__(self, name: str, axis: int, units: Units, linear: Linear | None, sums: Units | None) -> None:
        self.name = name
        self.axis = axis
        self.units = units
        self.linear = linear
        self.sums = sums
        self._positions: dict[int, list[int]] = {}
        for position, unit in enumerate(units.tolist()):
            self._positions.setdefault(unit, []).append(position)
        self.facts: Facts
        self.slack: Array
        self.silent: Array
        self.pushable: Array
        self.twins: dict[tuple[int, int], list[int]]
        self.width = len(units)
        self._usual: dict[int, Array] = {}  # per group the median size of the weights of every sum

    def positions(self, unit: int) -> list[int]:
        """Where a unit lies along the axis."""
        return self._positions.get(unit, [])

    def look(self, knowledge: Knowledge, weights: Weights, is_kept: Kept) -> None:
        """Find out what can be done about every channel."""
        self.facts = knowledge.about(self.name, self.axis)
        self.slack = knowledge.slack(self.facts.ids)
        self.silent = self.facts.is_constant & (self.facts.factors == 0)
        self.pushable = np.zeros(len(self.units), bool)
        self.twins = {}
        self._usual = {}
        weight = None if self.linear is None else weights.read(self.linear.weight)
        if self.linear is None or weight is None:
            return
        view = self.linear.view(weight)  # (G, O, I, K)
        self.width = view.shape[2]
        sums = np.full(view.shape[:2], -1) if self.sums is None else self.sums.reshape(view.shape[:2])
        stays = np.append(is_kept, True)[sums]  # (G, O)
        if view.shape[0] == 1:
            is_read = ((view[0] if stays.all() else view[0][stays[0]]) != 0).any(axis=(0, 2))[None]
        else:
            is_met = stays[:, :, None] & (sums[:, :, None] != self.units.reshape(-1, 1, self.width))
            is_read = ((view != 0).any(axis=3) & is_met).any(axis=1)
        self.silent |= ~is_read.reshape(-1)
        is_finite = np.isfinite(view).all(axis=(1, 3)).reshape(-1)
        if not self.linear.has_border and self.linear.added is not None and weights.bias(self.linear) is not None:
            self.pushable = self.facts.is_constant & is_finite
        # Constants too are multiples of one another, which helps where they cannot go into a bias.
        for position in np.flatnonzero(is_finite & (self.facts.factors != 0)).tolist():
            key = (position // self.width, int(self.facts.ids[position]))
            self.twins.setdefault(key, []).append(position)

    def rule_out(self, hopeful: Kept, *, is_merging: bool) -> None:
        """Strike the units of which a channel can certainly not be done without."""
        is_open = self.silent | self.pushable
        if is_merging:
            for twins in self.twins.values():
                if len(twins) > 1:
                    is_open[twins] = True
        struck = self.units[~is_open]
        hopeful[struck[struck >= 0]] = False

    def find_change(self, position: int, weights: Weights, is_kept: Kept, *, is_merging: bool) -> _Change | None:
        """What is to be done about a channel if its unit goes; None where nothing can be."""
        if self.silent[position]:
            return _Change(position)
        if self.pushable[position]:
            return _Change(position, is_pushed=True)
        if not is_merging:
            return None
        group, base = position // self.width, int(self.facts.ids[position])
        for target in self.twins.get((group, base), []):
            other = self.units[target]
            is_there = other != self.units[position] and (other < 0 or is_kept[other])
            if is_there and self._is_harmless(position, target, weights):
                return _Change(position, target=target)
        return None

    def _is_harmless(self, position: int, target: int, weights: Weights) -> bool:
        """Whether what two channels differ by is lost in every sum, channels taken to be about equally large.

        Large weights of opposite signs can make of the difference of two channels all that there is of a sum.
        """
        assert self.linear is not None, "only weights have twins"
        weight = weights.read(self.linear.weight)
        assert weight is not None, "only weights have twins"
        group, offset = divmod(position, self.width)
        block = self.linear.view(weight)[group]  # (O, I, K)
        if group not in self._usual:
            sizes = np.abs(block).max(axis=2).astype(np.float64)
            self._usual[group] = np.array([np.median(row[row > 0]) if row.any() else 0.0 for row in sizes])
        part = block[:, offset].astype(np.float64) * (self.facts.factors[position] / self.facts.factors[target])
        merged = np.abs(block[:, target - group * self.width] + part).max(axis=1)
        error = np.abs(part).max(axis=1) * max(_ROUNDING, self.slack[position])
        return bool((error <= _HARMLESS * np.maximum(merged, self._usual[group])).all())

    def make(self, change: _Change, weights: Weights) -> None:
        """Correct the weights for a channel that goes."""
        if self.linear is None or not (change.is_pushed or change.target >= 0):
            return
        view = self.linear.view(weights.edit(self.linear.weight))
        group, offset = divmod(change.position, self.width)
        part = view[group, :, offset].astype(np.float64)  # (O, K)
        factor = self.facts.factors[change.position]
        if change.is_pushed:
            assert self.linear.added is not None
            bias = weights.edit_vector(self.linear.added, self.linear.sums, view.dtype)
            block = slice(group * len(part), (group + 1) * len(part))
            shift = part.sum(axis=1) * factor * self.linear.alpha / self.linear.beta
            bias[block] = (bias[block].astype(np.float64) + shift).astype(bias.dtype)
        else:
            place = change.target - group * self.width
            ratio = factor / self.facts.factors[change.target]
            view[group, :, place] = (view[group, :, place].astype(np.float64) + ratio * part).astype(view.dtype)
            self.silent[change.target] = False
        view[group, :, offset] = 0
