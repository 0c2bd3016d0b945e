"""Time counts for as much as it takes for milliseconds to fall like FLOPs, on simulated machines."""

from __future__ import annotations

import dataclasses
import math

import pytest

from srr_onnx.analysis.find import find_groups
from srr_onnx.errors import PlanError
from srr_onnx.planning.alignment import Alignment, find_steps
from srr_onnx.planning.budget import Budget
from srr_onnx.planning.climb import CALM
from srr_onnx.planning.latency import find_sizes
from srr_onnx.planning.make import make_plan
from srr_onnx.scoring.criterion import ScoreOptions
from srr_onnx.scoring.score import score_groups
from srr_onnx.targets.target import Target
from srr_onnx.validation.haste import HASTES, PAR, find_haste
from srr_onnx.validation.latency_table import measure_table, time_version
from srr_onnx.validation.node_times import Clocks
from tests.validation.test_pace import chain

TARGET = Target(threads=1)


class Machine:
    """A machine on which every convolution has a price per unit of work.

    Args:
        price: Nanoseconds by place of the convolution; the last one holds for all that follow.
    """

    def __init__(self, price=(1.0,)):
        self.price = price
        self.measured = 0

    def nodes(self, model, feeds, target, total):
        return self._times(model, self.price)

    def models(self, models, feeds, target):
        self.measured += 1
        return [sum(self._times(model, self.price).values()) for model in models]

    def clocks(self):
        return Clocks(self.models, self.nodes, lambda *_: [])

    def _times(self, model, rates):
        sizes = find_sizes(model)
        names = [node.outputs[0] for node in model.nodes if node.op_type == "Conv"]
        return {name: rates[min(n, len(rates) - 1)] * math.prod(sizes[name]) for n, name in enumerate(names)}


def press(machine, seed=0, flops=0.4, cap=0.6, alignment=None):
    model = chain(widths=(32, 96, 128, 64) if alignment else (32, 48, 64, 64), seed=seed)
    groups = find_groups(model)
    scores = score_groups(model, groups, "l1", ScoreOptions())
    steps = None if alignment is None else find_steps(model, groups, alignment)
    table = measure_table(model, groups, [True] * len(groups), steps, {}, TARGET, machine.clocks())
    told = []

    def decide(known, haste):
        budget = Budget.choose(flops=flops)
        return make_plan(model, groups, scores, budget, known, haste, max_group_ratio=cap, alignment=alignment)

    def realise(found):
        decision = decide(found.table, found.haste)
        version = time_version(model, groups, decision.is_kept, {}, TARGET, machine.clocks())
        return decision.plan.after.macs / decision.plan.before.macs * version.before / version.after

    found = find_haste(model, groups, decide, table, {}, TARGET, lambda *step: told.append(step), machine.clocks())
    return found, realise, decide, told, table


def test_where_time_is_work_nothing_is_pressed():
    found, realise, _, told, _ = press(Machine())
    assert found.haste == CALM
    assert realise(found) == pytest.approx(1.0, abs=0.01)
    assert len(told) == 1


def test_where_a_layer_is_slow_time_counts_for_more():
    machine = Machine((1.0, 1.0, 1.0, 12.0, 1.0))
    found, realise, decide, _, table = press(machine)
    calm = type(found)(table, CALM, 0.0)
    assert decide(table, CALM).plan.macs_removed >= 0.4
    assert realise(found) >= min(PAR, realise(calm) + 0.01)


def test_where_no_plan_is_on_par_the_closest_one_is_taken():
    machine = Machine((60.0, 1.0, 1.0, 1.0, 1.0))  # the image has three channels whatever goes
    found, realise, _, told, table = press(machine)
    assert len(told) <= 3
    best = max(realise(type(found)(known, haste, 0.0)) for known in (table, found.table) for haste in HASTES[:1])
    assert realise(found) >= best - 1e-9


class Memory(Machine):
    """A machine that spends its time on writing the first activation, and a share of it on nothing in particular."""

    def __init__(self, idle):
        super().__init__()
        self.idle = idle

    def _times(self, model, rates):
        written = next(node for node in model.nodes if node.op_type == "Relu").outputs[0]
        return {written: 1e6 * (self.idle + (1 - self.idle) * find_sizes(model)[written][1] / 32)}


@pytest.mark.parametrize(("idle", "is_worth_it"), [(0.0, True), (0.4, True), (0.8, False)])
def test_groups_shrink_further_than_the_cap_only_where_that_gives_much(idle, is_worth_it):
    found, realise, _, _, _ = press(Memory(idle), cap=0.3)
    within = dataclasses.replace(found, haste=dataclasses.replace(found.haste, slack=0.0))
    assert bool(found.haste.slack) == is_worth_it
    assert (realise(found) > 1.05 * realise(within)) == is_worth_it


class Blocks(Machine):
    """A machine that computes in blocks of 32 channels where it has two models to run, and says so nowhere else."""

    def models(self, models, feeds, target):
        found = super().models(models, feeds, target)
        return [self._in_blocks(model) for model in models] if len(models) == 2 else found

    def _in_blocks(self, model):
        sizes = find_sizes(model)
        convs = [(node, sizes[node.outputs[0]]) for node in model.nodes if node.op_type == "Conv"]
        return sum(math.prod(s) * -(-s[1] // 32) * 32 / s[1] for _, s in convs)


def test_widths_that_cost_more_than_promised_become_coarser():
    found, _, decide, told, _ = press(Blocks(), alignment=Alignment({"spatial": 8}, "auto"))
    assert len(told) > 1
    assert found.haste.coarseness > 1
    removed = {group.units - len(group.keep) for group in decide(found.table, found.haste).plan.groups}
    assert all(count % 16 == 0 for count in removed)


def test_versions_are_measured_once():
    machine = Machine((1.0, 1.0, 1.0, 12.0, 1.0))
    first = press(machine)[0]
    before = machine.measured
    again = press(machine)[0]
    assert again.haste == first.haste
    assert machine.measured == before


def test_a_budget_out_of_reach_is_an_error_as_ever():
    with pytest.raises(PlanError):
        press(Machine(), flops=0.9999)
