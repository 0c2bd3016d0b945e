"""VALIDATE: what pruning gains in time: the plan that meets a goal in latency, and the result beside the original."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

from srr_onnx.analysis.groups import Groups
from srr_onnx.errors import PlanError, first_line
from srr_onnx.graph.model import Model
from srr_onnx.planning.alignment import Alignment, find_steps, parse_align
from srr_onnx.planning.budget import Budget
from srr_onnx.planning.climb import CALM, Haste
from srr_onnx.planning.latency import LatencyTable
from srr_onnx.planning.make import Decision, find_free
from srr_onnx.rewriting.distrust import FAILURES
from srr_onnx.targets.staircase import probe_steps
from srr_onnx.targets.target import Target
from srr_onnx.validation.haste import find_haste
from srr_onnx.validation.latency_goal import CLOSE, meet_latency
from srr_onnx.validation.latency_table import measure_table
from srr_onnx.validation.node_times import Clocks
from srr_onnx.validation.profile import make_batch

Json = dict[str, Any]
Tell = Callable[[str, int, int], None]

# Faster by less than this is not faster: the fastest of many runs differs by as much between processes.
_NOTICED = 0.02
# A result that misses its goal was disturbed, perhaps: the same widths met it while planning.
_MOST_CHECKS = 4


def choose_alignment(
    align: str | int | None, target: Target | None, budget: Budget, tell: Tell = lambda stage, done, steps: None
) -> Alignment | None:
    """Find the widths that a plan may choose from.

    Args:
        align: "auto", "off", a number of channels, or None: "auto" where a target is named or a latency is asked for.
        target: Where the model is to run.
        budget: What has to go.
        tell: Told the stage, steps done and steps in all.

    Returns:
        The steps, measured on the target for "auto"; None for any width.

    Raises:
        PlanError: It is none of these.
        TargetError: The target is not there.
    """
    is_timed = target is not None or budget.find("latency") is not None
    chosen = parse_align(("auto" if is_timed else "off") if align is None else align)
    if chosen == "auto":
        tell("probe", 0, 1)
        return Alignment(probe_steps(target or Target(threads=1)), "auto")
    return None if isinstance(chosen, str) else Alignment.given(chosen)


@dataclasses.dataclass(frozen=True)
class Pace:
    """How a goal in latency was met, for the plan.

    Attributes:
        budget: The budget, with the share of predicted time that meets the goal.
        table: Times of the model's nodes; None where time does not count.
        haste: How much time counts beside other budgets.
        facts: Goal, error of the table, and what every round predicted and measured, in milliseconds.
    """

    budget: Budget
    table: LatencyTable | None = None
    haste: Haste = CALM
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def find_pace(
    model: Model,
    groups: Groups,
    budget: Budget,
    decide: Callable[[Budget, LatencyTable, Haste], Decision],
    alignment: Alignment | None,
    target: Target | None,
    restrictions: Mapping[str, Any],
    tell: Tell,
    clocks: Clocks | None = None,
) -> Pace:
    """Find the budget whose plan meets a goal in latency; a budget without one stays as it is.

    Where widths are chosen by the machine, the table is made for any budget, so that time counts too, by as much as it
    takes for milliseconds to fall like FLOPs.

    Args:
        model: Loaded model.
        groups: Its groups.
        budget: The budget as it was asked for.
        decide: Makes a plan for a budget and a table, in some haste.
        alignment: Widths to choose from.
        target: Where the model is to run; None for the CPU.
        restrictions: What `find_free` takes.
        tell: Told the stage, steps done and steps in all.
        clocks: What tells times.

    Returns:
        The budget, the table, and how it went.

    Raises:
        PlanError: The goal cannot be met, says what was reached; or the model meets it as it is, and that is all.
        ModelError: The runtime refuses the model.
        TargetError: The target is not there.
    """
    limit = budget.find("latency")
    is_timed = alignment is not None and alignment.source == "auto" and budget.kind != "ratio"
    if limit is None and not is_timed:
        return Pace(budget)
    tell("time", 0, 1)
    target, clocks = target or Target(threads=1), clocks or Clocks()
    feeds = make_batch(model, target.batch)
    if limit is not None and limit.most is not None:
        (before,) = clocks.models([model], feeds, target)
        if limit.is_met(before):
            others = budget.leave_met({"latency": before})
            found = find_pace(model, groups, others, decide, alignment, target, restrictions, tell, clocks)
            return dataclasses.replace(
                found, facts={"goal_share": limit.share(before), "table_error": None, "rounds": []}
            )
    steps = None if alignment is None else find_steps(model, groups, alignment)
    is_free = [cause is None for cause in find_free(groups, **restrictions)]
    try:
        table = measure_table(model, groups, is_free, steps, feeds, target, clocks)
        if limit is None:
            press = functools.partial(decide, budget)
            on_round = functools.partial(tell, "time")
            pressed = find_haste(model, groups, press, table, feeds, target, on_round, clocks)
            return Pace(budget, pressed.table, pressed.haste)
    except FAILURES as error:  # a version has groups that cannot be pruned; the proof finds out which
        if limit is None:
            return Pace(budget)
        raise PlanError(
            f"the model's narrower versions cannot be timed ({first_line(error)}), so no plan can be made for a "
            "latency: give --flops instead"
        ) from error
    settled, rounds = meet_latency(
        model,
        groups,
        budget,
        lambda asked: decide(asked, table, CALM),
        feeds,
        target,
        lambda done, most: tell("time", done, most),
        clocks,
    )
    share = limit.share(rounds[-1].before)
    told = [{"predicted_ms": entry.predicted / 1e6, "measured_ms": entry.after / 1e6} for entry in rounds]
    return Pace(settled, table, facts={"goal_share": share, "table_error": table.error, "rounds": told})


def compare_pace(
    model: Model, pruned: Model, pace: Pace, target: Target | None, tell: Tell, clocks: Clocks | None = None
) -> Json:
    """Measure the result beside the original, and name what got slower if it is not faster.

    Args:
        model: The original.
        pruned: The result.
        pace: How a goal was met.
        target: Where they run; None where the user named none.
        tell: Told the stage.
        clocks: What tells times.

    Returns:
        The plan's `latency`; empty where neither a target nor a latency was asked for.

    Raises:
        PlanError: A goal is missed after all.
        ModelError: The runtime refuses one of the models.
    """
    facts = pace.facts
    if target is None and not facts:
        return {}
    tell("time", 0, 1)
    clocks, target = clocks or Clocks(), target or Target(threads=1)
    feeds = make_batch(model, target.batch)
    for _ in range(_MOST_CHECKS):
        before, after = clocks.models([model, pruned], feeds, target)
        goal = (1 - facts["goal_share"]) * before if facts else math.inf
        if after <= (1 + CLOSE) * goal:
            break
    else:
        raise PlanError(
            f"the result takes {after / 1e6:.3g} ms of the original's {before / 1e6:.3g}, the goal was "
            f"{goal / 1e6:.3g} ms: it was met while planning, so the machine may be busy; nothing was written"
        )
    is_faster = after < (1 - _NOTICED) * before
    slower = [] if is_faster else clocks.slower(model, pruned, feeds, target, before)
    return {
        "target": target.to_json(),
        "before_ms": before / 1e6,
        "after_ms": after / 1e6,
        "is_faster": is_faster,
        "slower": slower,
        **({"goal_ms": goal / 1e6, **facts} if facts else {}),
    }
