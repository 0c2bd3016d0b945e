"""PLAN: how budgets are spread over the groups.

A priority says which group comes next. One greedy loop serves all of them: it takes a step of the group of highest
priority until every budget is met. A step is one unit, or as many as lie between two widths that are allowed.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections.abc import Sequence

import numpy as np

from srr_onnx.analysis.groups import PruningGroup
from srr_onnx.errors import PlanError
from srr_onnx.planning.budget import TOLERANCE
from srr_onnx.planning.climb import CALM, Climb, Haste, rungs
from srr_onnx.planning.landing import Goal, exchange, give_back
from srr_onnx.planning.priority import Priority
from srr_onnx.planning.widths import Price, count_saved


@dataclasses.dataclass(frozen=True)
class Allocation:
    """How many units every group loses.

    Attributes:
        removed: Units to remove, by group number.
        cap: Largest share of its units that any group was allowed to lose.
    """

    removed: tuple[int, ...]
    cap: float


def allocate_ratio(
    groups: Sequence[PruningGroup], is_free: Sequence[bool], ratio: float, steps: Sequence[int] | None = None
) -> tuple[int, ...]:
    """Take the same share of every group that may lose units, rounded to the nearest step; the last unit stays.

    Args:
        groups: All groups.
        is_free: Which of them may lose units.
        ratio: Share of the units to remove.
        steps: Units by which every group's width is a multiple; 1 where nothing is said.

    Returns:
        Units to remove, by group number.

    Raises:
        PlanError: No group loses a unit, or a step; says from which ratio on one does.
    """
    sizes = [group.size if free else 1 for group, free in zip(groups, is_free, strict=True)]
    removed = tuple(min(int(np.floor(size * ratio + 0.5)), size - 1) for size in sizes)
    if not any(removed):
        raise PlanError(
            f"--ratio {ratio:g} removes nothing: it is less than half a unit of the largest group that may shrink, "
            f"which has {max(sizes)}; the smallest ratio that removes a unit is {smallest_ratio(max(sizes)):g}"
        )
    if steps is None:
        return removed
    ladders = [rungs(size, size - 1, step) for size, step in zip(sizes, steps, strict=True)]
    removed = tuple(
        min(ladder, key=lambda rung: (abs(rung - size * ratio), rung))
        for ladder, size in zip(ladders, sizes, strict=True)
    )
    if not any(removed):
        halves = (ladder[1] / size for ladder, size in zip(ladders, sizes, strict=True) if len(ladder) > 1)
        raise PlanError(
            f"--ratio {ratio:g} removes nothing: of the widths that the alignment allows, every group's own is the "
            f"nearest; a group shrinks from {smallest_ratio(1 / min(halves)) + 1e-4:g} on, --align off takes any width"
        )
    return removed


def smallest_ratio(size: float) -> float:
    """The smallest ratio, rounded up to four digits, at which a group of so many steps loses one."""
    return math.ceil(5000 / size) / 10000


def allocate(
    groups: Sequence[PruningGroup],
    is_free: Sequence[bool],
    goals: Sequence[Goal],
    priority: Priority,
    max_group_ratio: float,
    steps: Sequence[int] | None = None,
    pace: Price | None = None,
    haste: Haste = CALM,
) -> Allocation:
    """Spread budgets over the groups. Each must be within `reach` at a cap of 1.

    Args:
        groups: All groups.
        is_free: Which of them may lose units.
        goals: What has to go; their prices are restored afterwards.
        priority: Which group comes next.
        max_group_ratio: Largest share of its units that a group may lose; relaxed only as far as the goals need.
        steps: Units of which every group keeps a multiple; 1 where nothing is said.
        pace: Time of the model: of what is worth the same to the goals, that goes first which saves more of it.
        haste: How much time counts beside the goals.

    Returns:
        The allocation; it meets every goal. A single one is exceeded by at most half a percentage point where the
        sizes of the groups and of their steps allow it.
    """
    steps = [1] * len(groups) if steps is None else steps
    cap = min(max_group_ratio + haste.slack, 1.0)
    for goal in goals:
        if reach(groups, is_free, goal.price, cap, steps) < goal.target:
            cap = _relax(groups, is_free, goal, cap, steps)
    ladders = _ladders(groups, is_free, cap, steps)
    climb = Climb(groups, ladders, [goal.price for goal in goals], pace, haste)
    for goal in goals:
        _take(climb, goal, priority)
    is_coarse = len(goals) > 1 or max(steps, default=1) > 1
    if is_coarse or not goals[0].is_even:
        give_back(climb, goals, priority, only_free=not is_coarse)
    removed = tuple(climb.removed(number) for number in range(len(groups)))
    climb.reset()
    return Allocation(removed, cap)


def reach(
    groups: Sequence[PruningGroup],
    is_free: Sequence[bool],
    price: Price,
    cap: float,
    steps: Sequence[int] | None = None,
) -> int:
    """What goes if every free group loses all that a cap allows.

    Args:
        groups: All groups.
        is_free: Which of them may lose units.
        price: Cost at full widths; restored afterwards.
        cap: Largest share of its units that a group may lose; one unit always stays.
        steps: Units of which every group keeps a multiple; 1 where nothing is said.

    Returns:
        Cost saved.
    """
    ladders = _ladders(groups, is_free, cap, [1] * len(groups) if steps is None else steps)
    return max(count_saved(price, [ladder[-1] for ladder in ladders]), 0)


def _ladders(
    groups: Sequence[PruningGroup], is_free: Sequence[bool], cap: float, steps: Sequence[int]
) -> list[list[int]]:
    return [
        rungs(group.size, min(int(group.size * cap + 1e-9), group.size - 1) if free else 0, step)
        for group, free, step in zip(groups, is_free, steps, strict=True)
    ]


def _relax(
    groups: Sequence[PruningGroup], is_free: Sequence[bool], goal: Goal, cap: float, steps: Sequence[int]
) -> float:
    """The smallest cap at which the goal can be met."""
    low, high = cap, 1.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        is_enough = reach(groups, is_free, goal.price, middle, steps) >= goal.target
        low, high = (low, middle) if is_enough else (middle, high)
    return high


def _take(climb: Climb, goal: Goal, priority: Priority) -> None:
    """Take the step of highest priority until the goal is met, without overshooting where that can be avoided.

    Ties go to the group with the largest share left, then to the first. A step that would overshoot the window is
    left, and its group with it; steps of other groups are smaller. If none fits, the one that overshoots least goes.
    """
    price = goal.price
    missing, window = goal.missing, TOLERANCE * price.total
    is_weighed = priority.weighs_savings or climb.pace is not None

    def entry(number: int) -> tuple[float, float, int]:
        share = climb.removed(number) / climb.groups[number].size
        return -climb.urgency(number, priority, price), share, number

    heap = [entry(number) for number in range(len(climb.groups)) if climb.has_next(number)] if missing > 0 else []
    heapq.heapify(heap)
    too_large: list[tuple[int, int]] = []
    while heap and missing > 0:
        number = heapq.heappop(heap)[-1]
        if is_weighed and heap:
            present = entry(number)  # savings shrink as other groups do
            if present > heap[0]:
                heapq.heappush(heap, present)
                continue
        saving = price.saving(number, climb.units(number))
        if saving > missing + window:
            too_large.append((saving, number))
            continue
        climb.move(number)
        missing -= saving
        if climb.has_next(number):
            heapq.heappush(heap, entry(number))
    while missing > 0 and too_large:
        # Savings shrink as other groups do, so they are measured again.
        too_large = sorted(
            (price.saving(number, climb.units(number)), number) for _, number in too_large if climb.has_next(number)
        )
        if not too_large:
            break
        saving, number = next((size for size in too_large if size[0] >= missing), too_large[-1])
        climb.move(number)
        missing -= saving
    if missing < -window and len(climb.prices) == (1 if climb.pace is None else 2):
        exchange(climb, price, -missing - window, -missing)
