"""Budgets are met, caps hold, names are found, plans survive their file."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srr_onnx.analysis.find import find_groups
from srr_onnx.errors import PlanError, UnknownNameError, UnsupportedError
from srr_onnx.graph.cost import count_cost
from srr_onnx.graph.load import load_model
from srr_onnx.pipeline import prune
from srr_onnx.planning.allocation import smallest_ratio
from srr_onnx.planning.budget import Budget, parse_share
from srr_onnx.planning.costs import CostModel
from srr_onnx.planning.plan import Plan, match_plan
from srr_onnx.rewriting.apply import prune_units
from srr_onnx.rewriting.replay import apply_plan
from tests.builders import Graph


def residual(widths=(24, 40), seed=0):
    """Two stages with a residual sum each, and a dense head."""
    g = Graph(opset=17, seed=seed)
    value = g.input("x", (1, 3, 12, 12))
    for width in widths:
        value = g("Relu", g.conv(value, width))
        inner = g("Relu", g.conv(value, width // 2))
        value = g("Relu", g("Add", g.conv(inner, width), value))
    g.output(g.conv(value, 5))
    return load_model(g.model().SerializeToString())


@pytest.mark.parametrize(
    ("text", "share"), [("0.44", 0.44), ("44%", 0.44), (" 44 % ".replace(" %", "%"), 0.44), (0.5, 0.5)]
)
def test_shares_are_read(text, share):
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "x", "0", "1", "-0.1", "100%", "nan", "inf", "44"])
def test_other_shares_are_refused(text):
    with pytest.raises(PlanError):
        parse_share(text)


def test_a_percentage_below_one_is_taken_for_a_slip():
    with pytest.raises(PlanError, match=r"0\.4% is less than one percent: did you mean 0\.4\? If not, write 0\.004"):
        parse_share("0.4%")
    assert parse_share("0.4%", is_large=False) == parse_share("0.004") == 0.004
    assert parse_share("1%") == 0.01
    assert parse_share("0%", has_zero=True) == 0


def test_a_budget_is_given_and_a_ratio_stands_alone():
    with pytest.raises(PlanError, match="none was given"):
        Budget.choose()
    with pytest.raises(PlanError, match="--params, --ratio"):
        Budget.choose(params=0.1, ratio=0.1)
    assert [limit.kind for limit in Budget.choose(flops=0.1, params=0.1).limits] == ["flops", "params"]


@settings(max_examples=25)
@given(amount=st.floats(0.05, 0.8), kind=st.sampled_from(["flops", "params"]), seed=st.integers(0, 3))
def test_a_budget_is_met_and_hardly_exceeded(amount, kind, seed):
    plan = prune(residual((48, 80), seed), verify=False, **{kind: amount}).plan
    removed = plan.macs_removed if kind == "flops" else plan.params_removed
    assert amount <= removed <= amount + 0.005


def test_a_tighter_budget_never_keeps_more():
    model = residual()
    kept = [prune(model, flops=amount, criterion="l1", verify=False).plan.after.macs for amount in (0.2, 0.4, 0.6, 0.8)]
    assert kept == sorted(kept, reverse=True)


@settings(max_examples=25)
@given(data=st.data())
def test_costs_follow_from_widths(data):
    model = residual()
    groups = find_groups(model)
    removed = [data.draw(st.integers(0, group.size - 1)) for group in groups]
    is_kept = np.ones(groups.num_units, bool)
    for group, count in zip(groups, removed, strict=True):
        is_kept[group.first_unit : group.first_unit + count] = False
    after = count_cost(prune_units(model, groups, is_kept))
    for quantity in ("macs", "params", "bytes"):
        costs = CostModel(model, groups, quantity)
        full = costs.cost()
        for number, count in enumerate(removed):
            costs.remove(number, count)
        assert costs.cost() == after.of(quantity)
        for number, count in enumerate(removed):
            costs.remove(number, -count)
        assert costs.cost() == full


def test_a_budget_in_parameters_counts_shared_tensors_once():
    g = Graph(opset=17)
    value = g.input("x", (1, 3, 8, 8))
    bias = g.constant(np.zeros(32, np.float32), "bias")
    for _ in range(12):
        weight = g.constant(g.rng.standard_normal((32, 3 if not _ else 32, 1, 1)).astype(np.float32), f"w{_}")
        value = g("Relu", g("Conv", value, weight, bias))
    g.output(g.conv(value, 4))
    plan = prune(load_model(g.model().SerializeToString()), params=0.5, criterion="l1").plan
    assert 0.5 <= plan.params_removed <= 0.505


def test_no_group_loses_more_than_the_cap_unless_the_budget_needs_it():
    model = residual()
    plan = prune(model, flops=0.5, max_group_ratio=0.6, verify=False).plan
    assert min(len(group.keep) / group.units for group in plan.groups) >= 0.4
    assert plan.budget["cap_used"] == 0.6
    tight = prune(model, flops=0.9, max_group_ratio=0.6, verify=False).plan
    assert tight.budget["cap_used"] > 0.6
    assert all(group.keep for group in tight.groups)


def test_an_unreachable_budget_says_how_much_can_go():
    with pytest.raises(PlanError, match=r"at most \d+\.\d% can"):
        prune(residual(), flops=0.999)


def test_a_frozen_node_stays_as_it_is_and_only_restricts():
    model = residual()
    names = [node.label for node in model.nodes if node.op_type == "Conv"]
    frozen = prune(model, ratio=0.5, criterion="l1", freeze=[names[1]]).model
    weight = next(node for node in frozen.nodes if node.label == names[1]).inputs[1]
    assert np.array_equal(frozen.constants[weight], model.constants[weight])
    only = prune(model, ratio=0.5, criterion="l1", only=[names[1]]).plan
    assert [member["role"] for group in only.to_json()["groups"] for member in group["members"]].count("filter") == 1
    with pytest.raises(UnknownNameError, match=names[1]):
        prune(model, ratio=0.5, freeze=[names[1] + "x"])
    with pytest.raises(UnsupportedError, match="leave nothing"):
        prune(model, ratio=0.5, freeze=["*"])


@pytest.mark.parametrize("allocation", ["uniform", "global", "redundancy"])
def test_every_allocation_meets_the_budget(allocation):
    plan = prune(residual(), flops=0.44, allocation=allocation).plan
    assert 0.44 <= plan.macs_removed <= 0.445


def test_redundancy_needs_a_criterion_that_measures_it():
    with pytest.raises(PlanError, match="measures no redundancy"):
        prune(residual(), flops=0.4, criterion="l1", allocation="redundancy")


def test_a_plan_survives_its_file_and_is_replayed():
    model = residual()
    result = prune(model, flops=0.44, compensate="none")
    plan = Plan.from_json(json.loads(json.dumps(result.plan.to_json())))
    assert plan.to_json() == result.plan.to_json()
    again, _ = apply_plan(model, plan)
    assert again.proto.SerializeToString(deterministic=True) == result.model.proto.SerializeToString(deterministic=True)
    retrained = residual(seed=1)
    with pytest.raises(PlanError, match="another file"):
        apply_plan(retrained, plan)
    assert count_cost(apply_plan(retrained, plan, force=True)[0]) == plan.after
    with pytest.raises(PlanError, match="does not fit"):
        apply_plan(residual(widths=(16, 40)), plan, force=True)


@pytest.mark.parametrize("keep", [[], [0, 0, 1], [1, 0], [-1], [10_000], [0.5], ["a"], None])
def test_a_damaged_plan_is_refused(keep):
    model = residual()
    data = prune(model, flops=0.44).plan.to_json()
    data["groups"][0]["keep"] = keep
    with pytest.raises(PlanError):
        match_plan(Plan.from_json(data), find_groups(model))


def test_a_plan_of_another_schema_is_refused():
    with pytest.raises(PlanError, match="not a plan file"):
        Plan.from_json({"schema": "other"})
    data = prune(residual(), flops=0.44).plan.to_json()
    del data["groups"]
    with pytest.raises(PlanError, match="it has no 'groups'"):
        Plan.from_json(data)


def test_an_output_without_numbers_proves_nothing_by_itself():
    g = Graph(opset=17)
    x = g.input("x", (1, 3, 8, 8))
    g.output(g("Log", g("Neg", g("Relu", g.conv(g("Relu", g.conv(x, 16)), 4)))))
    plan = prune(load_model(g.model().SerializeToString()), ratio=0.5, criterion="l1").plan
    assert plan.proof["moved"] > 0  # measured inside
    assert json.dumps(plan.to_json(), allow_nan=False)


@pytest.mark.parametrize(("ratio", "gone"), [(0.35, 4), (0.375, 5), (0.04, 0), (0.042, 1), (0.99, 11)])
def test_a_ratio_is_rounded_to_the_nearest_unit(ratio, gone):
    g = Graph(opset=17)
    g.output(g.conv(g.conv(g.input("x", (1, 3, 4, 4)), 12), 5))
    model = load_model(g.model())
    if gone:
        (group,) = prune(model, ratio=ratio).plan.groups
        assert group.units - len(group.keep) == gone
    else:
        with pytest.raises(PlanError, match=r"which has 12; the smallest ratio that removes a unit is 0.0417$"):
            prune(model, ratio=ratio)


@pytest.mark.parametrize("size", [2, 3, 7, 12, 64, 1000, 4096, 5000])
def test_the_smallest_ratio_removes_a_unit(size):
    assert int(np.floor(size * smallest_ratio(size) + 0.5)) >= 1
    assert int(np.floor(size * (smallest_ratio(size) - 1e-4) + 0.5)) == 0
