"""Allocation by error: what saves most for the damage it does goes first."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srr_onnx.errors import PlanError
from srr_onnx.planning import priority as priority_module
from srr_onnx.planning.allocation import allocate
from srr_onnx.planning.budget import TOLERANCE
from srr_onnx.planning.landing import Goal
from srr_onnx.planning.priority import Priority, allocations
from srr_onnx.planning.widths import count_saved
from srr_onnx.scoring.score import Scores


class Products:
    """Cost of a chain of layers: the sum of products of neighboring widths. Or, apart, one layer per group."""

    def __init__(self, widths, is_chain=True):
        self.widths = list(widths)
        self.is_chain = is_chain
        self.total = self.cost()

    def cost(self):
        sizes = [3, *self.widths, 5]
        if not self.is_chain:
            return sum(self.widths)
        return sum(a * b for a, b in itertools.pairwise(sizes))

    def remove(self, number, count=1):
        self.widths[number] -= count

    def saving(self, number, count=1):
        before = self.cost()
        self.remove(number, count)
        after = self.cost()
        self.remove(number, -count)
        return before - after


def make_groups(sizes):
    return [SimpleNamespace(id=f"g{number}", size=size) for number, size in enumerate(sizes)]


def by_error(curves):
    scores = Scores("reconstruction", {}, errors={f"g{n}": np.asarray(curve) for n, curve in enumerate(curves)})
    return allocations.get("error")(scores)


def convex(rng, size):
    return np.cumsum(np.sort(rng.uniform(0.1, 2, size)))


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(2, 30), min_size=1, max_size=5),
    amount=st.floats(0.05, 0.7),
    seed=st.integers(0, 999),
)
def test_the_budget_is_met(sizes, amount, seed):
    rng = np.random.default_rng(seed)
    groups, costs = make_groups(sizes), Products(sizes)
    curves = [np.cumsum(rng.exponential(size=size)) for size in sizes]
    smallest = Products([1] * len(sizes)).total
    if costs.total - smallest < amount * costs.total:
        return
    found = allocate(groups, [True] * len(groups), [Goal(costs, amount)], by_error(curves), 1.0)
    assert costs.widths == sizes  # restored
    assert all(0 <= gone < size for gone, size in zip(found.removed, sizes, strict=True))
    after = Products([size - gone for size, gone in zip(sizes, found.removed, strict=True)])
    saved = count_saved(costs, found.removed)
    assert costs.widths == sizes  # restored
    assert saved == costs.total - after.total
    assert saved >= (amount - 1e-9) * costs.total


@settings(max_examples=40)
@given(sizes=st.lists(st.integers(2, 6), min_size=2, max_size=3), seed=st.integers(0, 999), data=st.data())
def test_convex_curves_are_spread_as_well_as_can_be(sizes, seed, data):
    rng = np.random.default_rng(seed)
    curves = [convex(rng, size) for size in sizes]
    wanted = data.draw(st.integers(1, sum(sizes) - len(sizes)))
    costs = Products(sizes, is_chain=False)
    goals = [Goal(costs, wanted / costs.total)]
    found = allocate(make_groups(sizes), [True] * len(sizes), goals, by_error(curves), 1.0)
    assert sum(found.removed) == wanted

    def error(removed):
        return sum(float(curve[gone - 1]) if gone else 0.0 for curve, gone in zip(curves, removed, strict=True))

    every = itertools.product(*(range(size) for size in sizes))
    assert error(found.removed) == pytest.approx(min(error(removed) for removed in every if sum(removed) == wanted))


@settings(max_examples=40)
@given(sizes=st.lists(st.integers(2, 20), min_size=2, max_size=5), amount=st.floats(0.1, 0.6), seed=st.integers(0, 999))
def test_what_is_looked_up_late_is_what_is_looked_up_each_time(sizes, amount, seed):
    rng = np.random.default_rng(seed)
    groups, costs = make_groups(sizes), Products(sizes)
    priority = by_error([np.cumsum(rng.exponential(size=size)) for size in sizes])
    target, window = amount * costs.total, TOLERANCE * costs.total
    limits = [size - 1 for size in sizes]
    removed = list(allocate(groups, [True] * len(sizes), [Goal(costs, amount)], priority, 1.0).removed)
    eager = Products(sizes)
    taken, left = [0] * len(sizes), set(range(len(sizes)))
    while left and costs.total - eager.cost() < target:
        best = min(
            left,
            key=lambda n: (-priority.of(groups[n], taken[n], eager.saving(n)), taken[n] / groups[n].size, n),
        )
        if eager.saving(best) > target - (costs.total - eager.cost()) + window:
            return  # from here on it is about landing in the window
        eager.remove(best)
        taken[best] += 1
        if taken[best] == limits[best]:
            left.discard(best)
    assert removed == taken


def test_a_costly_first_unit_does_not_hide_the_cheap_ones_behind_it():
    groups, costs = make_groups([6, 6]), Products([6, 6], is_chain=False)
    curves = [[2.0, 2.1, 2.2, 2.3, 2.4, 9], [1.0, 2.0, 3.0, 4.0, 5.0, 9]]
    found = allocate(groups, [True, True], [Goal(costs, 5 / 12)], by_error(curves), 1.0)
    assert found.removed == (5, 0)


@given(errors=st.lists(st.floats(0, 10), min_size=1, max_size=30).map(np.cumsum))
def test_the_convex_curve_lies_below_and_touches(errors):
    steps = priority_module._convex_steps(errors)
    curve = np.cumsum(steps)
    assert len(steps) == len(errors)
    assert (np.diff(steps) >= -1e-9).all()
    assert (curve <= errors + 1e-6).all()
    assert curve[-1] == pytest.approx(errors[-1])
    # Every corner of the curve lies on the errors: there is no larger one.
    corners = [n for n in range(len(steps) - 1) if steps[n + 1] > steps[n] + 1e-6]
    assert all(math.isclose(curve[n], errors[n], abs_tol=1e-6) for n in corners)


def test_a_saving_of_nothing_is_no_division_by_zero():
    priority = by_error([[0.5, 1.0]])
    assert priority.weighs_savings
    assert priority.of(SimpleNamespace(id="g0"), 1, 0) == priority.of(SimpleNamespace(id="g0"), 1, 1) == -0.5


def test_errors_are_needed():
    with pytest.raises(PlanError, match="'l1' knows no errors"):
        allocations.get("error")(Scores("l1", {}))
    assert isinstance(by_error([[1.0]]), Priority)
