"""VALIDATE: how much time counts in a plan for FLOPs, so that milliseconds fall like FLOPs.

Where widths are chosen by the machine, a plan is made, carried out and measured beside the original. If the
milliseconds fell by less than the multiply-accumulates did, time counts for more in the next plan, and what was
measured goes into the table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from srr_onnx.analysis.groups import Groups
from srr_onnx.graph.model import Model
from srr_onnx.planning.climb import CALM, Haste
from srr_onnx.planning.latency import LatencyPrice, LatencyTable
from srr_onnx.planning.make import Decision
from srr_onnx.planning.widths import cost_without
from srr_onnx.targets.target import Target
from srr_onnx.validation.latency_table import time_version
from srr_onnx.validation.node_times import Clocks

Array = np.ndarray[Any, Any]

# What counts as falling alike: the speed-up divided by the factor by which the multiply-accumulates shrank.
PAR = 0.97
# What is tried, the least that does is taken: time counts for more, and in the end groups may shrink further too. With
# more haste than this, scores hardly count any more.
HASTES = (CALM, *(Haste(weight) for weight in (2.0, 3.0, 4.0)), Haste(4.0, 0.1), Haste(4.0, 0.2))
_ROUNDS = 3
# Where a plan falls so far short of its prediction, widths cost more than the steps between them promise: wider steps.
_BELIEVED = 0.98
# Haste takes units that would better stay, so it has to give so much more to be taken: less where it brings time on
# par, more where groups shrink further than they should. On the bundled ResNet-20, at 44 % with samples, the last step
# costs two points of accuracy for 2 % of the time (docs/latency.md).
_LEAST_GAIN, _LEAST_GAIN_TO_PAR, _LEAST_GAIN_OF_SLACK = 1.03, 1.01, 1.05


@dataclasses.dataclass(frozen=True)
class Pressed:
    """A plan that was measured.

    Attributes:
        table: The table that it was made by.
        haste: How much time counted.
        realised: Speed-up divided by the factor by which the multiply-accumulates shrank.
    """

    table: LatencyTable
    haste: Haste
    realised: float


def find_haste(
    model: Model,
    groups: Groups,
    decide: Callable[[LatencyTable, Haste], Decision],
    table: LatencyTable,
    feeds: Mapping[str, Array],
    target: Target,
    on_round: Callable[[int, int], None] = lambda done, steps: None,
    clocks: Clocks | None = None,
) -> Pressed:
    """Find the least haste with which milliseconds fall like FLOPs, or the one that came closest.

    Args:
        model: Loaded model.
        groups: Its groups.
        decide: Makes a plan by a table, in some haste.
        table: Times of the model's nodes.
        feeds: One array per input.
        target: Where it runs.
        on_round: Told the plans that are measured, and how many there can be.
        clocks: What tells times.

    Returns:
        The table and the haste to plan with, and what that was measured to give.

    Raises:
        PlanError: The budget cannot be met.
        ModelError: The runtime refuses a version of the model.
    """
    tried: list[Pressed] = []
    widths: set[tuple[int, ...]] = set()
    least, coarseness = 0, 1
    while len(tried) < _ROUNDS:
        on_round(len(tried), _ROUNDS)
        plans = [dataclasses.replace(haste, coarseness=coarseness) for haste in HASTES[least:]]
        chosen = _choose(model, groups, decide, table, plans)
        least += chosen.place
        removed = tuple(groups.count_removed(chosen.decision.is_kept))
        if removed in widths:
            break
        widths.add(removed)
        version = time_version(model, groups, chosen.decision.is_kept, feeds, target, clocks)
        # Both were timed in turns: what else the machine did then has made both longer.
        realised = _share_left(chosen.decision) * version.before / version.after
        tried.append(Pressed(table, plans[chosen.place], realised))
        if realised >= PAR:
            break
        if realised < _BELIEVED * chosen.realised:
            coarseness *= 2
        table = table.add(version.sizes, version.nodes)
    best = tried[0]
    for found in tried[1:]:
        best = found if _is_worth_it(found.haste, found.realised, best.realised) else best
    return best


def _is_worth_it(haste: Haste, realised: float, best: float) -> bool:
    """Whether a haste that gives this much is to be taken in place of the best one before it."""
    least = _LEAST_GAIN_TO_PAR if realised >= PAR else _LEAST_GAIN
    return realised > best * (_LEAST_GAIN_OF_SLACK if haste.slack else least)


@dataclasses.dataclass(frozen=True)
class _Chosen:
    """A plan that is to be measured: its place in the list, what the table says of it, and what goes."""

    place: int
    realised: float
    decision: Decision


def _choose(
    model: Model,
    groups: Groups,
    decide: Callable[[LatencyTable, Haste], Decision],
    table: LatencyTable,
    hastes: Sequence[Haste],
) -> _Chosen:
    """The first plan that is predicted to do, else the first of those with the best prediction."""
    best: _Chosen | None = None
    price = LatencyPrice(model, groups, table)
    for place, haste in enumerate(hastes):
        decision = decide(table, haste)
        after = cost_without(price, groups.count_removed(decision.is_kept))
        realised = _share_left(decision) * price.total / max(after, 1)
        if best is None or _is_worth_it(haste, realised, best.realised):
            best = _Chosen(place, realised, decision)
        if realised >= PAR:
            break
    assert best is not None, "there is a haste to choose"
    return best


def _share_left(decision: Decision) -> float:
    return decision.plan.after.macs / decision.plan.before.macs
