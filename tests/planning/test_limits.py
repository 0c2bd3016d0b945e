"""Budgets in time, memory and file size, alone and together."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srr_onnx.analysis.find import find_groups
from srr_onnx.errors import PlanError
from srr_onnx.graph.cost import count_cost, is_constant_node
from srr_onnx.graph.load import load_model
from srr_onnx.graph.save import save_model
from srr_onnx.pipeline import prune
from srr_onnx.planning.budget import Budget, Limit, parse_limit
from srr_onnx.planning.climb import CALM, Haste
from srr_onnx.planning.latency import LatencyPrice, LatencyTable, find_sizes, fit_terms
from srr_onnx.planning.make import make_plan, make_price
from srr_onnx.planning.memory import MemoryPrice
from srr_onnx.scoring.criterion import ScoreOptions
from srr_onnx.scoring.score import score_groups
from tests.builders import Graph
from tests.random_models import build, recipes


def branched(widths=(24, 40), seed=0):
    """Two stages of two branches each, side by side and summed."""
    g = Graph(opset=17, seed=seed)
    value = g.input("x", (1, 3, 16, 16))
    for width in widths:
        left, right = g("Relu", g.conv(value, width, 3)), g("Relu", g.conv(value, width, 1))
        value = g("Concat", g("Add", left, right), g("Relu", g.conv(right, width // 2)), axis=1)
        value = g("MaxPool", value, kernel_shape=[2, 2], strides=[2, 2])
    g.output(g.conv(value, 5))
    return load_model(g.model().SerializeToString())


def made_table(model, price):
    """A table by which nodes take a price for their work, whatever its shape; as if all axes had been halved once."""
    nodes = {
        name: tuple((taken, price(name) * math.prod(taken)) for taken in (sizes, tuple((s + 1) // 2 for s in sizes)))
        for name, sizes in find_sizes(model).items()
    }
    return LatencyTable({name: points for name, points in nodes.items() if price(name)})


def table_of_macs(model):
    """A table by which a multiply-accumulate takes a nanosecond, and nothing else takes time."""
    names = {node.outputs[0] for node in model.nodes if node.op_type == "Conv"}
    return made_table(model, lambda name: float(name in names))


@pytest.mark.parametrize("amount", [0.1, 0.44, 0.7])
@pytest.mark.parametrize("criterion", ["l1", "srr"])
def test_where_time_is_macs_the_plan_is_that_of_the_macs(amount, criterion):
    model = branched()
    groups = find_groups(model)
    scores = score_groups(model, groups, criterion, ScoreOptions())
    plan = functools.partial(make_plan, model, groups, scores)
    by_macs = plan(Budget.choose(flops=amount))
    by_time = plan(Budget.choose(latency=amount), table_of_macs(model))
    assert np.array_equal(by_macs.is_kept, by_time.is_kept)
    assert by_time.plan.budget["kind"] == "latency"


@settings(max_examples=25)
@given(data=st.data(), recipe=recipes())
def test_prices_add_up_and_are_restored(data, recipe):
    model = load_model(build(recipe).proto, build(recipe).inputs)
    groups = find_groups(model)
    table = made_table(model, lambda name: 1.0 + len(name))
    for price in (
        MemoryPrice(model, groups),
        LatencyPrice(model, groups, table),
        make_price(model, groups, "size"),
    ):
        assert price.cost() == price.total
        counts = [data.draw(st.integers(0, group.size - 1)) for group in groups]
        for number, count in enumerate(counts):
            before, saving = price.cost(), price.saving(number, count)
            assert price.cost() == before
            price.remove(number, count)
            assert abs(before - price.cost() - saving) <= 2  # nanoseconds are rounded
        for number, count in enumerate(counts):
            price.remove(number, -count)
        assert price.cost() == price.total


def walk(model):
    """Peak memory, by keeping what has been made until nobody reads it any more."""
    alive = {name: math.prod(sizes) * model.dtypes[name].itemsize for name, sizes in model.inputs.items()}
    nodes = [node for node in model.nodes if not is_constant_node(model, node)]
    peak = 0
    for step, node in enumerate(nodes):
        for name in node.outputs:
            if name in model.sizes:
                alive[name] = math.prod(model.sizes[name]) * model.dtypes[name].itemsize
        peak = max(peak, sum(alive.values()))
        later = {name for other in nodes[step + 1 :] for name in other.inputs} | set(model.outputs)
        alive = {name: size for name, size in alive.items() if name in later}
    return peak + count_cost(model).size_bytes


@pytest.mark.parametrize("amount", [0.2, 0.5])
def test_memory_is_what_a_walk_through_the_written_file_finds(tmp_path, amount):
    model = branched()
    assert MemoryPrice(model, find_groups(model)).total == walk(model)
    path = tmp_path / "small.onnx"
    plan = prune(model, path, memory=amount, criterion="l1", compensate="none").plan
    written = load_model(path)
    assert walk(written) <= (1 - amount) * walk(model)
    (limit,) = plan.budget["limits"]
    assert limit["reached"] == pytest.approx(1 - walk(written) / walk(model))


def test_a_file_is_as_small_as_asked(tmp_path):
    path = tmp_path / "big.onnx"
    save_model(branched((48, 80)), path)
    most = int(0.6 * path.stat().st_size)
    small = tmp_path / "small.onnx"
    plan = prune(path, small, size=f"{most} B", criterion="l1", compensate="none").plan
    assert 0.95 * most < small.stat().st_size <= 1.01 * most
    assert plan.budget["kind"] == "size"


def test_several_budgets_are_met_and_the_narrowest_is_named():
    model = branched()
    plan = prune(model, flops=0.2, params=0.5, criterion="l1", verify=False, compensate="none").plan
    assert plan.macs_removed >= 0.2
    assert 0.5 <= plan.params_removed <= 0.51
    assert plan.budget["kind"] == "params"
    assert [limit["kind"] for limit in plan.budget["limits"]] == ["flops", "params"]
    turned = prune(model, flops=0.6, params=0.1, criterion="l1", verify=False, compensate="none").plan
    assert turned.budget["kind"] == "flops"


@settings(max_examples=20)
@given(flops=st.floats(0.05, 0.6), params=st.floats(0.05, 0.6), memory=st.floats(0.05, 0.5), seed=st.integers(0, 3))
def test_all_budgets_hold(flops, params, memory, seed):
    model = branched(seed=seed)
    result = prune(model, flops=flops, params=params, memory=memory, criterion="l1", verify=False, compensate="none")
    assert result.plan.macs_removed >= flops - 1e-9
    assert result.plan.params_removed >= params - 1e-9
    assert walk(result.model) <= (1 - memory) * walk(model) + 1


def test_a_table_learns_and_never_falls():
    table = LatencyTable({"y": (((10,), 5.0),)})
    table = table.add({"y": (20,)}, {"y": 8.0, "gone": 1.0}).add({"y": (10,)}, {"y": 6.0})
    assert table.nodes == {"y": (((10,), 6.0), ((20,), 8.0))}
    model = branched()
    groups = find_groups(model)
    bumpy = {
        name: tuple(
            (tuple(max(s * part // 6, 1) for s in sizes), time) for part, time in ((6, 99.0), (3, 40.0), (2, 90.0))
        )
        for name, sizes in find_sizes(model).items()
    }
    price = LatencyPrice(model, groups, LatencyTable(bumpy))
    savings = [price.saving(number, count) for number in range(len(groups)) for count in (1, 3, 7)]
    assert min(savings) >= 0
    assert max(savings) > 0


def test_where_time_counts_too_more_goes_where_it_is_spent():
    model = branched((32, 32))
    groups = find_groups(model)
    scores = score_groups(model, groups, "l1", ScoreOptions())
    slow = groups[0]
    touched = {node.outputs[0] for node in model.nodes if node.label in slow.nodes}
    table = made_table(model, lambda name: 3.0 if name in touched else 1.0)
    haste = (CALM, Haste(4.0))
    plans = [
        make_plan(model, groups, scores, Budget.choose(flops=0.3), *known)
        for known in ((), *((table, h) for h in haste))
    ]
    assert all(0.3 <= found.plan.macs_removed <= 0.31 for found in plans)
    kept = [int(found.is_kept[slow.units].sum()) for found in plans]
    assert kept[0] > kept[1] > kept[2]


def test_slack_lets_groups_shrink_further_and_is_told():
    model = branched((32, 32))
    groups = find_groups(model)
    scores = score_groups(model, groups, "l1", ScoreOptions())
    touched = {node.outputs[0] for node in model.nodes if node.label in groups[0].nodes}
    table = made_table(model, lambda name: 9.0 if name in touched else 1.0)
    largest = []
    for slack in (0.0, 0.2):
        found = make_plan(
            model, groups, scores, Budget.choose(flops=0.45), table, Haste(8.0, slack), max_group_ratio=0.5
        )
        counts = groups.count_removed(found.is_kept)
        largest.append(max(count / group.size for group, count in zip(groups, counts, strict=True)))
        assert found.plan.budget["cap_used"] == pytest.approx(0.5 + slack)
    assert largest[0] <= 0.5 < largest[1] <= 0.7


@settings(max_examples=60)
@given(
    factors=st.lists(st.floats(0, 100), min_size=4, max_size=4),
    widths=st.lists(st.tuples(st.integers(1, 64), st.integers(1, 64)), min_size=6, max_size=9, unique=True),
)
def test_times_that_are_sums_of_terms_are_found_again(factors, widths):
    def time(inputs, outputs):
        start, read, write, work = factors
        return 1 + start + read * inputs + write * outputs + work * inputs * outputs

    points = [((inputs, outputs, 3), time(inputs, outputs)) for inputs, outputs in widths]
    terms = fit_terms(points)
    assert all(factor > 0 for factor, _ in terms)
    for sizes, expected in points:
        assert sum(factor * math.prod(sizes[axis] for axis in axes) for factor, axes in terms) == pytest.approx(
            expected
        )


def test_a_table_of_nothing_changes_nothing():
    model = branched()
    groups = find_groups(model)
    scores = score_groups(model, groups, "l1", ScoreOptions())
    plans = [make_plan(model, groups, scores, Budget.choose(flops=0.3), known) for known in (None, LatencyTable({}))]
    assert np.array_equal(plans[0].is_kept, plans[1].is_kept)


def test_a_latency_without_a_table_is_refused():
    model = branched()
    groups = find_groups(model)
    scores = score_groups(model, groups, "l1", ScoreOptions())
    with pytest.raises(PlanError, match="measured times"):
        make_plan(model, groups, scores, Budget.choose(latency=0.3))


@pytest.mark.parametrize(
    ("kind", "text", "most"),
    [("latency", "8ms", 8e6), ("latency", "1.5 s", 1.5e9), ("memory", "20MB", 2e7), ("size", "2mib", 2 * 2**20)],
)
def test_what_may_be_left_is_read(kind, text, most):
    assert parse_limit(kind, text) == Limit(kind, 0.0, most)
    assert parse_limit(kind, text).share(int(2 * most)) == pytest.approx(0.5)
    assert parse_limit(kind, text).is_met(most)
    assert not parse_limit(kind, text).is_met(most + 1)


def test_a_limit_that_is_met_changes_nothing():
    model = branched()
    plans = [
        prune(model, flops=0.3, criterion="l1", verify=False, compensate="none", **more).plan
        for more in ({}, {"size": "5MB", "memory": "1 GB"})
    ]
    assert plans[0].groups == plans[1].groups
    assert plans[1].budget["kind"] == "flops"
    met = {limit["kind"]: limit for limit in plans[1].budget["limits"]}
    assert [met[kind]["amount"] for kind in ("flops", "memory", "size")] == [0.3, 0.0, 0.0]
    assert 0 < met["size"]["reached"] < 1
    assert met["size"]["most"] == 5e6


def test_where_every_limit_is_met_nothing_has_to_go():
    with pytest.raises(PlanError, match=r"--memory 1\.00 GB \(the memory is [\d.]+ kB already\), --size 5\.00 MB"):
        prune(branched(), size="5MB", memory="1GB", criterion="l1")
    budget = Budget.choose(flops=0.3, size="5MB")
    assert budget.leave_met({"size": 4e6}) == Budget.choose(flops=0.3)
    assert budget.leave_met({"size": 6e6}) == budget


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("latency", "0"),
        ("latency", "100%"),
        ("latency", "8 apples"),
        ("latency", "8 MB"),
        ("latency", "0 ms"),
        ("latency", "-3ms"),
        ("latency", "nan ms"),
        ("latency", "1e999s"),
        ("memory", "20"),
        ("size", ""),
        ("flops", "8ms"),
    ],
)
def test_other_limits_are_refused(kind, text):
    with pytest.raises(PlanError):
        parse_limit(kind, text)
