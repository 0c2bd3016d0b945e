"""PLAN: how a budget is spread over the groups.

An allocation says which group loses its next unit: a priority per group and number of units already gone. One greedy
loop serves all of them: it takes the unit of highest priority until the budget is met.

Source:
    "redundancy": Wang et al., "Convolutional Neural Network Pruning With Structural Redundancy Reduction",
    CVPR 2021, figure 1: remove a node from the most redundant graph, recompute its redundancy, repeat.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from srr_onnx.analysis.groups import PruningGroup
from srr_onnx.errors import PlanError
from srr_onnx.planning.budget import TOLERANCE, Budget
from srr_onnx.planning.costs import CostModel
from srr_onnx.registry import Registry
from srr_onnx.scoring.criterion import UnitScores
from srr_onnx.scoring.score import Scores


@dataclasses.dataclass(frozen=True)
class Priority:
    """How urgently a group loses its next unit.

    Attributes:
        of: Given a group, how many of its units are gone, and what its next one would save at the present widths; never
            increasing in what is gone, and not in how little is saved.
        weighs_savings: Whether it depends on what is saved.
    """

    of: Callable[[PruningGroup, int, int], float]
    weighs_savings: bool = False


allocations: Registry[str, Callable[[Scores], Priority]] = Registry("allocation")


@allocations.register("uniform")
def uniform(scores: Scores) -> Priority:
    """The group that has lost the smallest share of its units comes next."""
    return Priority(lambda group, gone, saving: -(gone + 1) / group.size)


@allocations.register("global")
def ranked_together(scores: Scores) -> Priority:
    """The unit with the lowest score of all comes next, scores being divided by their group's mean.

    Dividing by an l2 norm instead would favour wide groups, whose scores shrink like one over the root of the width.
    """
    sorted_scores = {}
    for name, values in scores.units.items():
        mean = float(np.abs(values).mean()) or 1.0
        sorted_scores[name] = values[scores.order(name)] / mean
    return Priority(lambda group, gone, saving: -float(sorted_scores[group.id][gone]))


@allocations.register("redundancy")
def most_redundant(scores: Scores) -> Priority:
    """The group whose graph is the most redundant comes next."""
    if scores.redundancy is None:
        raise PlanError(f"criterion {scores.criterion!r} measures no redundancy: choose --allocation uniform or global")
    trajectories = scores.redundancy
    return Priority(lambda group, gone, saving: trajectories[group.id].redundancy(gone))


@allocations.register("error")
def least_error(scores: Scores) -> Priority:
    """The group that saves most for the error that its next unit adds comes next.

    Where a unit costs less than the one before it, the units are taken as a block with one error each, so that a group
    is not passed over because of its first unit.
    """
    if scores.errors is None:
        raise PlanError(
            f"criterion {scores.criterion!r} knows no errors: choose another --allocation, or reconstruction"
        )
    slopes = {name: _convex_steps(errors) for name, errors in scores.errors.items()}
    return Priority(lambda group, gone, saving: -slopes[group.id][gone] / max(saving, 1), weighs_savings=True)


def _convex_steps(errors: UnitScores) -> list[float]:
    """Steps of the largest convex curve below an error curve (pool adjacent violators)."""
    pools: list[tuple[float, int]] = []
    for step in np.diff(errors, prepend=0.0).tolist():
        total, count = step, 1
        while pools and pools[-1][0] / pools[-1][1] >= total / count:
            before = pools.pop()
            total, count = total + before[0], count + before[1]
        pools.append((total, count))
    return [total / count for total, count in pools for _ in range(count)]


# Exchanges of up to this many units, less one, are tried to land in the budget's window.
_MOST_EXCHANGED = 5
_MOST_TRIALS = 20_000


@dataclasses.dataclass(frozen=True)
class Allocation:
    """How many units every group loses.

    Attributes:
        removed: Units to remove, by group number.
        reduction: Share of the quantity that goes with them.
        cap: Largest share of its units that any group was allowed to lose.
    """

    removed: tuple[int, ...]
    reduction: float
    cap: float


def allocate_ratio(groups: Sequence[PruningGroup], is_free: Sequence[bool], ratio: float) -> tuple[int, ...]:
    """Take the same share of every group that may lose units, rounded to the nearest unit; the last unit stays.

    Raises:
        PlanError: No group loses a unit; says from which ratio on one does.
    """
    sizes = [group.size if free else 1 for group, free in zip(groups, is_free, strict=True)]
    removed = tuple(min(int(np.floor(size * ratio + 0.5)), size - 1) for size in sizes)
    if not any(removed):
        raise PlanError(
            f"--ratio {ratio:g} removes nothing: it is less than half a unit of the largest group that may shrink, "
            f"which has {max(sizes)}; the smallest ratio that removes a unit is {smallest_ratio(max(sizes)):g}"
        )
    return removed


def smallest_ratio(size: int) -> float:
    """The smallest ratio, rounded up to four digits, at which a group of this size loses a unit."""
    return math.ceil(5000 / size) / 10000


def allocate(
    groups: Sequence[PruningGroup],
    is_free: Sequence[bool],
    costs: CostModel,
    priority: Priority,
    budget: Budget,
    max_group_ratio: float,
) -> Allocation:
    """Spread a budget over the groups. The budget must be within `reach` at a cap of 1.

    Args:
        groups: All groups.
        is_free: Which of them may lose units.
        costs: Cost of the model in the budget's quantity, at full widths; restored afterwards.
        priority: Which group comes next.
        budget: What has to go.
        max_group_ratio: Largest share of its units that a group may lose; relaxed only as far as the budget needs.

    Returns:
        The allocation; it removes at least the budget, and at most half a percentage point more where the sizes of
        the groups allow it.
    """
    target = budget.amount * costs.total
    cap = max_group_ratio
    if reach(groups, is_free, costs, cap) < target:
        cap = _relax(groups, is_free, costs, target, cap)
    limits = [_limit(group, cap) if free else 0 for group, free in zip(groups, is_free, strict=True)]
    removed = _greedy(groups, limits, costs, priority, target)
    saved = costs.total - costs.cost()
    for number, count in enumerate(removed):
        costs.remove(number, -count)
    return Allocation(tuple(removed), saved / costs.total, cap)


def reach(groups: Sequence[PruningGroup], is_free: Sequence[bool], costs: CostModel, cap: float) -> int:
    """What goes if every free group loses all that a cap allows.

    Args:
        groups: All groups.
        is_free: Which of them may lose units.
        costs: Cost model at full widths; restored afterwards.
        cap: Largest share of its units that a group may lose; one unit always stays.

    Returns:
        Cost saved.
    """
    limits = [_limit(group, cap) if free else 0 for group, free in zip(groups, is_free, strict=True)]
    for number, count in enumerate(limits):
        costs.remove(number, count)
    saved = costs.total - costs.cost()
    for number, count in enumerate(limits):
        costs.remove(number, -count)
    return max(saved, 0)


def _limit(group: PruningGroup, cap: float) -> int:
    return min(int(group.size * cap + 1e-9), group.size - 1)


def _relax(
    groups: Sequence[PruningGroup], is_free: Sequence[bool], costs: CostModel, target: float, cap: float
) -> float:
    """The smallest cap at which the budget can be met."""
    low, high = cap, 1.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if reach(groups, is_free, costs, middle) >= target else (middle, high)
    return high


def _greedy(
    groups: Sequence[PruningGroup], limits: Sequence[int], costs: CostModel, priority: Priority, target: float
) -> list[int]:
    """Remove the unit of highest priority until the target is met, without overshooting where that can be avoided.

    Ties go to the group with the largest share left, then to the first. A unit that would overshoot the window is
    left, and its group with it; units of other groups are smaller. If none fits, the one that overshoots least goes.
    """
    removed = [0] * len(groups)
    missing, window = target - (costs.total - costs.cost()), TOLERANCE * costs.total

    def entry(number: int) -> tuple[float, float, int]:
        group = groups[number]
        saving = costs.saving(number) if priority.weighs_savings else 0
        return -priority.of(group, removed[number], saving), removed[number] / group.size, number

    heap = [entry(number) for number, limit in enumerate(limits) if limit > 0]
    heapq.heapify(heap)
    too_large: list[tuple[int, int]] = []
    while heap and missing > 0:
        number = heapq.heappop(heap)[-1]
        if priority.weighs_savings and heap:
            present = entry(number)  # savings shrink as other groups do
            if present > heap[0]:
                heapq.heappush(heap, present)
                continue
        saving = costs.saving(number)
        if saving > missing + window:
            too_large.append((saving, number))
            continue
        costs.remove(number)
        removed[number] += 1
        missing -= saving
        if removed[number] < limits[number]:
            heapq.heappush(heap, entry(number))
    while missing > 0 and too_large:
        # Savings shrink as other groups do, so they are measured again.
        sizes = sorted((costs.saving(number), number) for _, number in too_large if removed[number] < limits[number])
        too_large = sizes
        if not sizes:
            break
        saving, number = next((size for size in sizes if size[0] >= missing), sizes[-1])
        costs.remove(number)
        removed[number] += 1
        missing -= saving
    if missing < -window:
        _exchange(removed, limits, costs, -missing - window, -missing)
    return removed


def _exchange(removed: list[int], limits: Sequence[int], costs: CostModel, least: float, most: float) -> None:
    """Give back between `least` and `most` of the cost: a few units of one group against a few of another.

    Small nets have few groups with costly units, so that the greedy loop can miss the window. The smallest exchange
    that lands in it is taken; if there is none, nothing changes.
    """
    numbers = range(len(removed))
    amounts = sorted(itertools.product(range(1, _MOST_EXCHANGED), range(_MOST_EXCHANGED)), key=sum)
    trials = ((giver, back, taker, forth) for back, forth in amounts for giver in numbers for taker in numbers)
    for giver, back, taker, forth in itertools.islice(trials, _MOST_TRIALS):
        if removed[giver] < back or taker == giver or removed[taker] + forth > limits[taker]:
            continue
        given = -costs.saving(giver, -back)
        if given < least:
            continue
        costs.remove(giver, -back)
        if least <= given - costs.saving(taker, forth) <= most:
            costs.remove(taker, forth)
            removed[giver] -= back
            removed[taker] += forth
            return
        costs.remove(giver, back)
