"""PLAN: the last steps of an allocation: into the window of a goal, and no further than the goals need."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

from srr_onnx.planning.climb import Climb
from srr_onnx.planning.priority import Priority
from srr_onnx.planning.widths import Price

# Exchanges of up to this many steps, less one, are tried to land in the budget's window.
_MOST_EXCHANGED = 5
_MOST_TRIALS = 20_000


@dataclasses.dataclass(frozen=True, eq=False)
class Goal:
    """What has to go of one quantity.

    Attributes:
        price: Cost of the model in that quantity, at full widths.
        share: Share to be removed, in (0, 1).
        is_even: Whether every unit saves something: not so where the largest of several sums counts, or time.
    """

    price: Price
    share: float
    is_even: bool = True

    @property
    def target(self) -> float:
        """Cost that has to go."""
        return self.share * self.price.total

    @property
    def missing(self) -> float:
        """Cost that still has to go at the present widths; negative where more is gone."""
        return self.target - (self.price.total - self.price.cost())


def exchange(climb: Climb, price: Price, least: float, most: float) -> None:
    """Give back between `least` and `most` of the cost: a few steps of one group against a few of another.

    Small nets have few groups with costly units, so that the greedy loop can miss the window. The smallest exchange
    that lands in it is taken; if there is none, nothing changes.

    Args:
        climb: Where the groups stand.
        price: What is exchanged.
        least: Cost that has to come back.
        most: Cost that may come back.
    """
    numbers = range(len(climb.groups))
    amounts = sorted(itertools.product(range(1, _MOST_EXCHANGED), range(_MOST_EXCHANGED)), key=sum)
    trials = ((giver, back, taker, forth) for back, forth in amounts for giver in numbers for taker in numbers)
    for giver, back, taker, forth in itertools.islice(trials, _MOST_TRIALS):
        if taker == giver or not climb.has_next(giver, -back) or not climb.has_next(taker, forth):
            continue
        given = -price.saving(giver, climb.units(giver, -back))
        if given < least:
            continue
        climb.move(giver, -back)
        if least <= given - price.saving(taker, climb.units(taker, forth)) <= most:
            climb.move(taker, forth)
            return
        climb.move(giver, back)


def give_back(climb: Climb, goals: Sequence[Goal], priority: Priority, *, only_free: bool) -> None:
    """Let steps return that no goal needs, those first that had the least priority.

    A step may have overshot, what was taken for one goal may have been more than another one needed, and a step may
    have saved nothing: then it returns in any case.

    Args:
        climb: Where the groups stand; all goals are met.
        goals: What has to stay met.
        priority: What went first.
        only_free: Whether only those return that have saved nothing.
    """
    numbers = [number for number, at in enumerate(climb.at) if at]
    numbers.sort(key=lambda number: (climb.urgency(number, priority, goals[0].price, -1), number))
    for number in numbers:
        while climb.has_next(number, -1):
            units = climb.units(number, -1)
            losses = [-goal.price.saving(number, units) for goal in goals]
            is_needed = any(goal.missing + loss > 0 for goal, loss in zip(goals, losses, strict=True))
            if is_needed or (only_free and any(losses)):
                break
            climb.move(number, -1)
