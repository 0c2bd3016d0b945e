"""Groups keep widths that are allowed, and the budget is met all the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srr_onnx.analysis.find import find_groups
from srr_onnx.errors import PlanError, UnsupportedError
from srr_onnx.graph.load import load_model
from srr_onnx.pipeline import prune
from srr_onnx.planning.alignment import Alignment, find_steps, kind_of, parse_align
from srr_onnx.planning.allocation import allocate_ratio
from srr_onnx.planning.climb import rungs
from srr_onnx.rewriting.replay import apply_plan
from tests.builders import Graph
from tests.random_models import build, recipes


def by_filters(model, alignment):
    groups = find_groups(model)
    return {group.nodes: step for group, step in zip(groups, find_steps(model, groups, alignment), strict=True)}


def chain(widths, side=12):
    g = Graph(opset=17)
    value = g.input("x", (1, 3, side, side))
    for width in widths:
        value = g("Relu", g.conv(value, width, 3))
    g.output(g.conv(value, 5))
    return load_model(g.model())


@given(size=st.integers(1, 70), data=st.data())
def test_rungs_leave_multiples_of_the_step(size, data):
    limit, step = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, 16))
    found = rungs(size, limit, step)
    assert found[0] == 0
    assert found == sorted(set(found))
    assert set(found[1:]) == {gone for gone in range(1, limit + 1) if (size - gone) % step == 0}


@settings(max_examples=40)
@given(recipe=recipes(), step=st.sampled_from([2, 3, 4, 8]), amount=st.sampled_from([0.2, 0.4]))
def test_what_is_pruned_keeps_an_allowed_width_and_the_budget_is_met(recipe, step, amount):
    model = load_model(build(recipe).proto, build(recipe).inputs)
    try:
        plan = prune(model, flops=amount, align=step, criterion="l1", verify=False, compensate="none").plan
    except (PlanError, UnsupportedError):
        return  # so little can go, in such steps
    groups = find_groups(model)
    steps = dict(zip([group.id for group in groups], find_steps(model, groups, Alignment.given(step)), strict=True))
    assert plan.macs_removed >= amount - 1e-9
    assert all(len(group.keep) % steps[group.id] == 0 for group in plan.groups)


def test_no_step_is_taken_that_the_budget_does_not_need():
    model = chain([64, 64, 64])
    plan = prune(model, flops=0.3, align=8, criterion="l1", verify=False, compensate="none").plan
    loosest = min(
        prune(model, flops=0.3, align=1, criterion="l1", verify=False, compensate="none").plan.macs_removed, 0.3
    )
    assert loosest <= plan.macs_removed < 0.3 + 2 * 8 / 64


def test_every_kind_of_layer_has_its_step():
    g = Graph(opset=17)
    x = g.input("x", (1, 3, 8, 8))
    wide = g("Relu", g.conv(x, 64, 1))
    deep = g("Relu", g.conv(wide, 64, 3, group=64))
    rows = g("Flatten", g("GlobalAveragePool", g("Relu", g.conv(deep, 48, 3))))
    rows = g("Relu", g("MatMul", rows, g.weight(48, 40)))
    g.output(g("MatMul", rows, g.weight(40, 5)))
    model = load_model(g.model())
    assert [kind_of(model, node) for node in model.nodes if node.op_type in ("Conv", "MatMul")] == [
        "pointwise",
        "depthwise",
        "spatial",
        "dense",
        "dense",
    ]
    steps = by_filters(model, Alignment({"pointwise": 4, "depthwise": 8, "spatial": 16, "dense": 2}, "auto"))
    # The first group is read by the spatial convolution; what a product sums over is in no block.
    assert sorted(steps.values()) == [2, 16, 16]


def test_a_narrow_group_has_a_finer_step():
    assert sorted(by_filters(chain([6, 20, 64]), Alignment.given(16)).values()) == [2, 8, 16]


def test_a_unit_of_several_channels_counts_as_many():
    g = Graph(opset=17)
    value = g("Relu", g.conv(g.input("x", (1, 3, 8, 8)), 32, 1))
    value = g("Relu", g.conv(value, 32, 3, group=2))  # the same offset in both groups
    g.output(g.conv(value, 5))
    model = load_model(g.model())
    groups = find_groups(model)
    for group, step in zip(groups, find_steps(model, groups, Alignment.given(4)), strict=True):
        shares = {member.positions.shape[1] for member in group.members}
        assert shares <= {1, 2}
        assert step == 4  # channels of every group are computed by themselves


def test_groups_that_share_an_axis_are_aligned_one_by_one():
    g = Graph(opset=17)
    x = g.input("x", (1, 3, 8, 8))
    joined = g("Concat", g("Relu", g.conv(x, 24, 3)), g("Relu", g.conv(x, 40, 3)), axis=1)
    g.output(g.conv(joined, 5))
    plan = prune(load_model(g.model()), ratio=0.4, align=8, criterion="l1").plan
    assert [len(group.keep) for group in plan.groups] == [16, 24]


def test_a_ratio_takes_the_nearest_width():
    model = chain([64, 40])
    groups = find_groups(model)
    assert allocate_ratio(groups, [True, True], 0.3, [8, 8]) == (16, 8)
    assert allocate_ratio(groups, [True, True], 0.3) == (19, 12)


def test_a_ratio_that_no_step_comes_near_says_from_which_one_does():
    model = chain([64, 40])
    groups = find_groups(model)
    with pytest.raises(PlanError, match=r"nearest.*from 0\.1001 on") as caught:
        allocate_ratio(groups, [True, True], 0.05, [32, 16])
    assert "--align off" in str(caught.value)
    assert allocate_ratio(groups, [True, True], 0.1001, [32, 16]) == (0, 8)
    with pytest.raises(PlanError):
        prune(model, ratio=0.05, align=32)


def test_a_budget_that_only_the_steps_forbid_says_so():
    with pytest.raises(PlanError, match="--align off"):
        prune(chain([32, 32]), flops=0.995, align=16)


@pytest.mark.parametrize("value", ["0", 0, -8, "8.5", "many", "", 257, "٨"])
def test_other_alignments_are_refused(value):
    with pytest.raises(PlanError, match="no alignment"):
        parse_align(value)


def test_alignments_are_read():
    assert [parse_align(value) for value in ("auto", " off", "8", 16)] == ["auto", "off", 8, 16]


def test_an_aligned_plan_is_replayed():
    model = chain([32, 48])
    result = prune(model, flops=0.4, align=8, criterion="l1", compensate="none")
    assert result.plan.budget["alignment"] == Alignment.given(8).to_json()
    again, _ = apply_plan(model, result.plan)
    names = [name for name in result.model.stored if name in again.constants]
    assert names
    assert all(np.array_equal(again.constants[name], result.model.constants[name]) for name in names)
