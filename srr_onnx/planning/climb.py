"""PLAN: the widths that every group may take, and where all of them stand."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from srr_onnx.analysis.groups import PruningGroup
from srr_onnx.planning.priority import Priority
from srr_onnx.planning.widths import Price

# Where time counts too, the ratio of time to cost that a step saves is taken for so much more or less than 1 at most.
_MOST_WORTH = 16.0


@dataclasses.dataclass(frozen=True)
class Haste:
    """How much time counts in a plan for something else.

    Attributes:
        weight: Power of the ratio between a step's shares of time and of what is asked for.
        slack: By how much more than asked for a group may shrink, in shares of its units.
        coarseness: By how much wider steps are than the machine asked for.
    """

    weight: float = 1.0
    slack: float = 0.0
    coarseness: int = 1


CALM = Haste()


def rungs(size: int, limit: int, step: int) -> list[int]:
    """Find how many units a group may lose: none, or so many that a multiple of the step stays.

    Args:
        size: Units of the group.
        limit: How many it may lose at most, less than `size`.
        step: The step.

    Returns:
        Numbers of units, from 0 on, increasing.
    """
    widths = range((size - 1) // step * step, 0, -step)
    return [0, *(size - width for width in widths if size - width <= limit)]


class Climb:
    """Where every group stands on its ladder, and the prices at these widths."""

    def __init__(
        self,
        groups: Sequence[PruningGroup],
        ladders: Sequence[list[int]],
        prices: Sequence[Price],
        pace: Price | None = None,
        haste: Haste = CALM,
    ) -> None:
        self.groups = groups
        self.ladders = ladders
        self.prices = [*prices, *([] if pace is None else [pace])]
        self.pace = pace
        self.haste = haste
        self.at = [0] * len(groups)

    def removed(self, number: int) -> int:
        """Units that a group has lost."""
        return self.ladders[number][self.at[number]]

    def has_next(self, number: int, count: int = 1) -> bool:
        """Whether a group can lose so many more steps, or get them back if the number is negative."""
        return 0 <= self.at[number] + count < len(self.ladders[number])

    def units(self, number: int, count: int = 1) -> int:
        """Units of the next steps of a group; negative for steps back."""
        return self.ladders[number][self.at[number] + count] - self.removed(number)

    def move(self, number: int, count: int = 1) -> None:
        """Take the next steps of a group; negative for steps back."""
        units = self.units(number, count)
        self.at[number] += count
        for price in self.prices:
            price.remove(number, units)

    def reset(self) -> None:
        """Bring all groups back to their full widths."""
        for number, at in enumerate(self.at):
            self.move(number, -at)

    def urgency(self, number: int, priority: Priority, price: Price, count: int = 1) -> float:
        """Mean priority of the units of a group's next step, or of the last one if `count` is -1."""
        units = self.units(number, count)
        first, last = sorted((self.removed(number), self.removed(number) + units))
        is_weighed = priority.weighs_savings or self.pace is not None
        saving = abs(price.saving(number, units)) if is_weighed else 0
        values = [priority.of(self.groups[number], gone, saving // (last - first)) for gone in range(first, last)]
        value = sum(values) / len(values)
        if self.pace is None:
            return value
        time = abs(self.pace.saving(number, units)) / self.pace.total
        worth = min(max(time / max(saving / price.total, 1e-12), 1 / _MOST_WORTH), _MOST_WORTH)
        factor = float(worth**self.haste.weight)
        return value * factor if value > 0 else value / factor
