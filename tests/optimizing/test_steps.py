"""A budget in steps: equal factors, and in the end what was asked of the original."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from builders import Graph
from hypothesis import given
from hypothesis import strategies as st

from srr_onnx.errors import PlanError
from srr_onnx.graph.cost import count_cost
from srr_onnx.graph.load import load_model
from srr_onnx.optimizing.steps import chain, count_totals, split_budget, split_cap
from srr_onnx.pipeline import prune
from srr_onnx.planning.budget import TOLERANCE, Budget

KINDS = ("flops", "params", "memory", "size")


def wide_net():
    g = Graph(seed=0)
    x = g.input("image", (1, 3, 8, 8))
    for name in ("a", "b", "c", "d"):
        x = g("Relu", g.conv(x, 48, 3, name=name))
    g.output(g.conv(g("GlobalAveragePool", x), 4, 1, name="head"))
    return load_model(g.model())


@given(st.floats(0.01, 0.95), st.integers(1, 8), st.lists(st.floats(0, 0.02), min_size=8, max_size=8))
def test_whatever_a_step_takes_too_much_the_last_one_meets_the_budget(share, steps, excess):
    budget = Budget.choose(flops=share)
    before = now = 1e9
    for step in range(1, steps + 1):
        found = split_budget(budget, {"flops": before}, {"flops": now}, step, steps)
        if found:
            now *= (1 - found["flops"]) * (1 - excess[step - 1] * (step < steps))
        assert now <= before * (1 - share) ** (step / steps) * (1 + 1e-9)
    assert now == pytest.approx(before * (1 - share), rel=1e-6) or not found


@given(st.floats(0.01, 0.95), st.integers(1, 8))
def test_steps_take_equal_factors_and_stay_within_the_cap(share, steps):
    budget, now = Budget.choose(flops=share), 1.0
    shares = []
    for step in range(1, steps + 1):
        (found,) = split_budget(budget, {"flops": 1e9}, {"flops": now * 1e9}, step, steps).values()
        now *= 1 - found
        shares.append(found)
    assert np.ptp(shares) < 1e-6
    assert (1 - split_cap(share, steps)) ** steps == pytest.approx(1 - share)


@pytest.mark.parametrize("kind", KINDS)
def test_models_that_are_pruned_in_steps_meet_the_budget_of_the_original(kind):
    original = model = wide_net()
    budget = Budget.choose(**{kind: 0.5})
    before = count_totals(original, budget)
    for step in (1, 2, 3):
        limits = split_budget(budget, before, count_totals(model, budget), step, 3)
        model = prune(model, criterion="l1", compensate="none", verify=False, **limits).model
        # what is stored twice or in other bytes than those of weights makes the file coarser than its weights
        left = count_totals(model, budget)[kind] / before[kind]
        assert 0.5 ** (step / 3) - 2 * TOLERANCE <= left <= 0.5 ** (step / 3) + 1e-6


def test_absolute_limits_are_shared_out_like_shares():
    budget = Budget.choose(size="25MB")
    assert split_budget(budget, {"size": 1e8}, {"size": 1e8}, 1, 2)["size"] == pytest.approx(0.5)
    assert split_budget(budget, {"size": 1e8}, {"size": 5e7}, 2, 2)["size"] == pytest.approx(0.5)


def test_a_limit_that_the_original_meets_asks_nothing_of_a_step():
    totals = {"flops": 1e9, "size": 1e6}
    found = split_budget(Budget.choose(flops=0.75, size="25MB"), totals, totals, 1, 2)
    assert found == {"flops": pytest.approx(0.5)}
    with pytest.raises(PlanError, match="nothing has to go"):
        split_budget(Budget.choose(size="25MB"), totals, totals, 1, 2)


def test_chained_plans_tell_positions_of_the_original():
    original = wide_net()
    first = prune(original, criterion="random", compensate="none", verify=False, flops=0.3)
    second = prune(first.model, criterion="l1", compensate="none", verify=False, flops=0.3)
    chained = chain(first.plan, second.plan).kept_positions()
    weights = {name: value for name, value in original.constants.items() if value.ndim == 4}
    for (name, axis), keep in chained.items():
        node = next(node for node in original.nodes if name in node.outputs)
        if node.op_type != "Conv":
            continue
        weight = weights[node.input(1)]
        left = second.model.constants[node.input(1)]
        assert axis == 1 and len(keep) == left.shape[0]
        inputs = chained.get((node.input(0), 1), np.arange(weight.shape[1]))
        source = next((n for n in original.nodes if node.input(0) in n.outputs), None)
        if source is None:
            inputs = np.arange(weight.shape[1])
        assert np.array_equal(left, weight[keep][:, inputs])
    assert chain(first.plan, dataclasses.replace(second.plan, values={})).kept_positions().keys() == (
        first.plan.kept_positions().keys()
    )
    assert count_cost(second.model).macs < count_cost(first.model).macs
