"""VALIDATE: from a goal in milliseconds to a budget whose plan meets it when it is measured.

The table predicts, the run decides: a plan is made for what the table says, carried out, measured beside the original
in turns, and what is asked of the table next is corrected by what came out of the last rounds.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from srr_onnx.analysis.groups import Groups
from srr_onnx.errors import PlanError
from srr_onnx.graph.model import Model
from srr_onnx.planning.budget import Budget, Limit
from srr_onnx.planning.make import Decision
from srr_onnx.rewriting.apply import prune_units
from srr_onnx.targets.target import Target
from srr_onnx.validation.node_times import Clocks

Array = np.ndarray[Any, Any]

# A goal is met to within this share of its value. Plans aim at less, as times differ between processes.
CLOSE, _AIM = 0.05, 0.02
_ROUNDS = 6
# The table is never asked for less or more than this to be left.
_LEAST_LEFT, _MOST_LEFT = 0.005, 0.995


@dataclasses.dataclass(frozen=True)
class Round:
    """One plan that was measured.

    Attributes:
        before: Nanoseconds of the original, measured in turns with the candidate.
        after: Nanoseconds of the candidate.
        predicted: What the table said of the candidate.
    """

    before: float
    after: float
    predicted: float


def meet_latency(
    model: Model,
    groups: Groups,
    budget: Budget,
    decide: Callable[[Budget], Decision],
    feeds: Mapping[str, Array],
    target: Target,
    on_round: Callable[[int, int], None] = lambda done, steps: None,
    clocks: Clocks | None = None,
) -> tuple[Budget, list[Round]]:
    """Find the budget in predicted time whose plan meets a goal in measured time.

    Args:
        model: Loaded model.
        groups: Its groups.
        budget: Budget with a limit in latency, perhaps with others beside it.
        decide: Makes a plan for a budget, by the table.
        feeds: One array per input.
        target: Where it runs.
        on_round: Told the rounds that are done, and how many there can be.
        clocks: What tells times.

    Returns:
        The budget for `decide`, and the rounds up to the one that met the goal.

    Raises:
        PlanError: The goal is not met; says what was reached, and what stands in the way.
    """
    limit = budget.find("latency")
    assert limit is not None, "asked for with a limit in latency only"
    clocks = clocks or Clocks()
    (before,) = clocks.models([model], feeds, target)
    left = 1 - limit.share(before)
    rounds: list[Round] = []
    closest: tuple[float, Budget, list[Round]] = (math.inf, budget, [])
    seen: set[tuple[int, ...]] = set()
    for number in range(_ROUNDS):
        on_round(number, _ROUNDS)
        asked = budget.replace(Limit("latency", 1 - left))
        try:
            decision = decide(asked)
        except PlanError as error:
            if closest[0] <= CLOSE:
                break
            raise PlanError(f"{_reached(limit, rounds)}{error}") from None
        removed = tuple(groups.count_removed(decision.is_kept))
        if removed in seen and closest[0] <= CLOSE:
            break  # steps are too large to come any closer
        seen.add(removed)
        found = next(entry for entry in decision.plan.budget["limits"] if entry["kind"] == "latency")
        candidate = prune_units(model, groups, decision.is_kept)
        before, after = clocks.models([model, candidate], feeds, target)
        rounds.append(Round(before, after, (1 - found["reached"]) * before))
        goal = (1 - limit.share(before)) * before
        is_binding = decision.plan.budget["kind"] == "latency"
        off = abs(after - goal) / goal if is_binding or after > goal else 0.0
        closest = min(closest, (off, asked, list(rounds)), key=lambda entry: entry[0])
        if off <= _AIM:
            break
        # The table errs by about the same factor at similar widths; the median keeps a disturbed round from counting.
        factor = statistics.median(entry.after / entry.predicted for entry in rounds[-3:])
        left = min(max(goal / before / factor, _LEAST_LEFT), _MOST_LEFT)
    if closest[0] <= CLOSE:
        return closest[1], closest[2]
    raise PlanError(
        f"{_reached(limit, rounds)}{_ROUNDS} plans were measured and none came within {CLOSE:.0%}: the machine may be "
        "busy, or the groups shrink in steps that are too large (--align off takes any width)"
    )


def _reached(limit: Limit, rounds: list[Round]) -> str:
    """What the closest round came to, in words."""
    if not rounds:
        return ""
    goals = [(1 - limit.share(entry.before)) * entry.before for entry in rounds]
    best, goal = min(zip(rounds, goals, strict=True), key=lambda pair: abs(pair[0].after - pair[1]) / pair[1])
    return (
        f"the goal of {goal / 1e6:.3g} ms was not met, the closest plan takes {best.after / 1e6:.3g} ms of the "
        f"original's {best.before / 1e6:.3g}: "
    )
