"""Goals in latency are met on simulated machines, or the failure says what was reached."""

from __future__ import annotations

import itertools
import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srr_onnx.analysis.find import find_groups
from srr_onnx.errors import PlanError, UnknownNameError, UnsupportedError
from srr_onnx.graph.cost import count_cost
from srr_onnx.graph.load import load_model
from srr_onnx.pipeline import prune
from srr_onnx.planning.alignment import Alignment
from srr_onnx.planning.budget import Budget
from srr_onnx.planning.latency import find_sizes
from srr_onnx.planning.make import make_plan
from srr_onnx.planning.plan import Plan
from srr_onnx.rewriting.apply import prune_units
from srr_onnx.rewriting.replay import apply_plan
from srr_onnx.rewriting.verify import make_feeds
from srr_onnx.scoring.criterion import ScoreOptions
from srr_onnx.scoring.score import score_groups
from srr_onnx.targets.target import Target
from srr_onnx.validation import latency_table, pace
from srr_onnx.validation.latency_goal import CLOSE, meet_latency
from srr_onnx.validation.latency_table import measure_table
from srr_onnx.validation.node_times import Clocks, find_slower, time_models, time_nodes
from srr_onnx.validation.pace import Pace, choose_alignment, compare_pace, find_pace
from tests.builders import Graph

TARGET = Target(threads=1)


def count_work(model):
    return {name: math.prod(sizes) for name, sizes in find_sizes(model).items()}


def chain(widths=(48, 64, 64), side=8, seed=0):
    g = Graph(opset=17, seed=seed)
    value = g.input("x", (1, 3, side, side))
    for width in widths:
        value = g("Relu", g.conv(value, width, 3))
    g.output(g.conv(value, 5))
    return load_model(g.model().SerializeToString())


class Machine:
    """A machine whose convolutions take a power of their work; every run is told longer than the parts say.

    Args:
        power: Power of the work.
        overhead: Nanoseconds of a run beside the nodes.
        whole: Factor between the sum of the nodes, as the table sees it, and a run at widths it has not seen.
    """

    def __init__(self, power=1.0, overhead=0.0, whole=1.0):
        self.power, self.overhead, self.whole = power, overhead, whole
        self.measured = 0

    def nodes(self, model, feeds, target, total):
        work = count_work(model)
        times = {n.outputs[0]: work[n.outputs[0]] ** self.power for n in model.nodes if n.op_type == "Conv"}
        scale = total / sum(times.values())
        return {name: time * scale for name, time in times.items()}

    def models(self, models, feeds, target):
        self.measured += 1
        found = []
        for model in models:
            work = count_work(model)
            times = [work[node.outputs[0]] ** self.power for node in model.nodes if node.op_type == "Conv"]
            found.append(self.overhead + sum(times) * (self.whole if len(models) == 2 else 1.0))
        return found

    def clocks(self):
        return Clocks(self.models, self.nodes, lambda *_: [{"node": "n", "before_ms": 1.0, "after_ms": 2.0}])


def settle(model, machine, alignment=None, **limits):
    groups = find_groups(model)
    scores = score_groups(model, groups, "l1", ScoreOptions())

    def decide(asked, table, haste):
        return make_plan(model, groups, scores, asked, table, haste, alignment=alignment)

    budget = Budget.choose(**limits)
    found = find_pace(model, groups, budget, decide, alignment, TARGET, {}, lambda *_: None, clocks=machine.clocks())
    pruned = prune_units(model, groups, decide(found.budget, found.table, found.haste).is_kept)
    return found, pruned


@settings(max_examples=15)
@given(
    share=st.floats(0.15, 0.7),
    power=st.sampled_from([0.6, 0.8, 1.0]),
    whole=st.sampled_from([0.8, 1.0, 1.25]),
    overhead=st.sampled_from([0.0, 1e3]),
)
def test_the_goal_is_met_in_what_is_measured(share, power, whole, overhead):
    model, machine = chain(), Machine(power, overhead, whole)
    for old in Path(os.environ["XDG_CACHE_HOME"]).rglob("latency-*.json"):
        old.unlink()  # another machine
    found, pruned = settle(model, machine, latency=share)
    before, after = machine.models([model, pruned], {}, TARGET)
    assert abs(after - (1 - share) * before) <= CLOSE * (1 - share) * before
    assert found.facts["goal_share"] == share
    assert len(found.facts["rounds"]) <= 6


def test_a_goal_in_milliseconds_is_met():
    model, machine = chain(), Machine(1.0, 0.0, 1.1)
    (before,) = machine.models([model], {}, TARGET)
    found, pruned = settle(model, machine, latency=f"{0.6 * before}ns")
    measured = machine.models([model, pruned], {}, TARGET)
    assert measured[1] == pytest.approx(0.6 * before, rel=CLOSE)
    assert found.facts["rounds"][-1]["measured_ms"] == pytest.approx(measured[1] / 1e6)


def test_faster_than_possible_says_what_stands_in_the_way():
    (before,) = (machine := Machine()).models([chain()], {}, TARGET)
    with pytest.raises(PlanError, match=r"at most \d+\.\d% can .*however narrow they are, .*: Conv_0 [\d.]+ us, "):
        settle(chain(), machine, latency="1ns")
    with pytest.raises(PlanError, match=r"the latency is [\d.]+ ms already.* as it is"):
        settle(chain(), machine, latency=f"{2 * before}ns")


def test_what_the_widths_forbid_is_told_apart_from_what_cannot_be():
    """Groups of 48 and 64 units shrink to 16, or else to 1."""
    alignment = Alignment.given(16)
    with pytest.raises(PlanError, match=r"the narrowest width that is allowed in .* --align off takes any"):
        settle(chain(), Machine(), alignment, latency=0.97)
    with pytest.raises(PlanError, match=r"one unit left in .* however narrow they are"):
        settle(chain(), Machine(), alignment, latency="1ns")


def test_a_latency_that_is_met_leaves_the_other_budgets_alone():
    (before,) = (machine := Machine()).models([chain()], {}, TARGET)
    found, pruned = settle(chain(), machine, latency=f"{2 * before}ns", flops=0.3)
    alone, expected = settle(chain(), machine, flops=0.3)
    assert found.budget == alone.budget == Budget.choose(flops=0.3)
    assert count_work(pruned) == count_work(expected)
    assert found.facts == {"goal_share": pytest.approx(-1), "table_error": None, "rounds": []}


def test_a_machine_that_never_gets_faster_ends_in_an_honest_failure():
    machine = Machine()
    stubborn = Clocks(lambda models, *_: [5e6 for _ in models], machine.nodes)
    model = chain()
    groups = find_groups(model)
    scores = score_groups(model, groups, "l1", ScoreOptions())
    table = measure_table(model, groups, [True] * len(groups), None, {}, TARGET, machine.clocks())
    with pytest.raises(PlanError, match=r"the goal of 3 ms was not met, the closest plan takes 5 ms of the original"):
        meet_latency(
            model,
            groups,
            Budget.choose(latency=0.4),
            lambda asked: make_plan(model, groups, scores, asked, table),
            {},
            TARGET,
            clocks=stubborn,
        )


def test_another_budget_may_bind():
    found, pruned = settle(chain(), Machine(), latency=0.1, params=0.6)
    assert len(found.facts["rounds"]) == 1
    assert sum(count_work(pruned).values()) < 0.9 * sum(count_work(chain()).values())


def test_widths_stay_aligned():
    _, pruned = settle(chain(), Machine(), Alignment.given(8), latency=0.3)
    widths = [pruned.constants[node.inputs[1]].shape[0] for node in pruned.nodes if node.op_type == "Conv"]
    assert all(width % 8 == 0 for width in widths[:-1])
    assert widths[:-1] != [48, 64, 64]


def test_a_table_is_measured_once_and_a_damaged_one_again():
    model, machine = chain(), Machine(0.8)
    groups = find_groups(model)

    def measure():
        return measure_table(model, groups, [True] * len(groups), None, {}, TARGET, machine.clocks())

    first = measure()
    assert measure() == first
    assert machine.measured == 1
    assert 0 <= first.error < 0.2
    (path,) = Path(os.environ["XDG_CACHE_HOME"]).rglob("latency-*.json")
    for damage in ("nodes", "error"):
        data = json.loads(path.read_text())
        data["value"][damage] = {"y": [[["x"], 1]]} if damage == "nodes" else math.inf
        path.write_text(json.dumps(data))
        assert measure() == first
    assert machine.measured == 3


def test_a_table_has_a_time_for_every_version():
    model = chain()
    groups = find_groups(model)
    table = measure_table(model, groups, [True] * len(groups), None, {}, TARGET, Machine().clocks())
    versions = len(latency_table.RATIOS) + 1
    assert len(table.nodes) == 4
    assert {len(curve) for curve in table.nodes.values()} <= {versions, versions + 1}


def compare(after, facts=None):
    slower = [{"node": "n", "before_ms": 1.0, "after_ms": 2.0}]
    runs = iter(after if isinstance(after, list) else itertools.repeat(after))
    clocks = Clocks(lambda *_: [10e6, next(runs)], lambda *_: {}, lambda *_: slower)
    found = Pace(Budget.choose(flops=0.4), facts=facts or {})
    return compare_pace(chain(), chain(), found, TARGET, lambda *_: None, clocks)


def test_what_is_not_faster_is_called_so():
    assert compare(5e6)["is_faster"]
    assert compare(5e6)["slower"] == []
    assert not compare(9.9e6)["is_faster"]
    assert [entry["node"] for entry in compare(12e6)["slower"]] == ["n"]


def test_a_goal_that_is_missed_in_the_end_is_an_error():
    facts = {"goal_share": 0.4, "table_error": 0.0, "rounds": [{"predicted_ms": 6.0, "measured_ms": 6.0}]}
    assert compare(6.2e6, facts)["goal_ms"] == pytest.approx(6.0)
    with pytest.raises(PlanError, match="the goal was 6 ms"):
        compare(6.6e6, facts)
    assert compare([7e6, 6.6e6, 6.1e6], facts)["after_ms"] == pytest.approx(6.1)  # the machine was busy for a while


def test_nothing_is_timed_unless_asked():
    assert compare_pace(chain(), chain(), Pace(Budget.choose(flops=0.4)), None, lambda *_: None) == {}
    assert choose_alignment(None, None, Budget.choose(flops=0.4)) is None
    assert choose_alignment("off", TARGET, Budget.choose(latency=0.4)) is None
    assert choose_alignment(8, None, Budget.choose(flops=0.4)) == Alignment.given(8)


def test_a_target_or_a_latency_asks_for_the_machine_s_own_widths(monkeypatch):
    monkeypatch.setattr(pace, "probe_steps", lambda target: {"dense": target.threads})
    for target, limits in ((Target(threads=3), {"flops": 0.4}), (Target(threads=3), {"latency": 0.4})):
        assert choose_alignment(None, target, Budget.choose(**limits)) == Alignment({"dense": 3}, "auto")
    assert choose_alignment(None, None, Budget.choose(latency=0.4)) == Alignment({"dense": 1}, "auto")


def test_nothing_is_probed_for_a_model_that_cannot_be_pruned(monkeypatch):
    monkeypatch.setattr(pace, "probe_steps", lambda target: pytest.fail("seconds of measuring for nothing"))
    g = Graph(opset=17)
    g.output(g("Relu", g.input("x", (1, 3, 8, 8))))
    with pytest.raises(UnsupportedError):
        prune(load_model(g.model()), latency=0.4)
    with pytest.raises(UnknownNameError):
        prune(chain(), latency=0.4, freeze=["nowhere"])


def test_a_run_is_timed_node_by_node():
    model = chain()
    feeds = make_feeds(model)
    (total,) = time_models([model], feeds, TARGET)
    times = time_nodes(model, feeds, TARGET, total)
    convolutions = [node.outputs[0] for node in model.nodes if node.op_type == "Conv"]
    assert set(convolutions) <= set(times)
    assert sum(times.values()) == pytest.approx(total)
    assert isinstance(find_slower(model, model, feeds, TARGET, total), list)


def test_versions_that_cannot_be_made_only_stop_a_latency(monkeypatch):
    def fail(*_):
        raise ValueError("no such width")

    monkeypatch.setattr(pace, "measure_table", fail)
    alignment = Alignment({"spatial": 4}, "auto")
    found, pruned = settle(chain(), Machine(), alignment, flops=0.3)
    assert found.table is None
    assert sum(count_work(pruned).values()) < sum(count_work(chain()).values())
    with pytest.raises(PlanError, match=r"cannot be timed \(no such width\)"):
        settle(chain(), Machine(), alignment, latency=0.3)


def test_a_plan_with_a_latency_is_written_and_replayed(monkeypatch, tmp_path):
    machine = Machine()
    monkeypatch.setattr(pace, "Clocks", machine.clocks)
    monkeypatch.setattr(pace, "probe_steps", lambda target: {"spatial": 4})
    model = chain()
    result = prune(model, tmp_path / "small.onnx", latency=0.4, criterion="l1", compensate="none")
    assert result.plan.latency["goal_ms"] == pytest.approx(0.6 * result.plan.latency["before_ms"])
    assert result.plan.budget["alignment"]["source"] == "auto"
    again, _ = apply_plan(model, Plan.from_json(json.loads(json.dumps(result.plan.to_json()))))
    assert count_cost(again) == count_cost(load_model(tmp_path / "small.onnx"))


def test_plans_come_closer_than_the_goal_demands():
    for share in (0.2, 0.35, 0.5):
        model, machine = chain(widths=(64, 96, 128)), Machine(0.8, whole=1.04)
        _, pruned = settle(model, machine, latency=share)
        before, after = machine.models([model, pruned], {}, TARGET)
        assert abs(after / before - (1 - share)) <= 0.02 * (1 - share)
