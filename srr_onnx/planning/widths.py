"""PLAN: the sizes of all axes as groups lose units, and what a price of them has to offer."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np

from srr_onnx.analysis.groups import Groups, Units
from srr_onnx.planning.presence import Owners


class Price(Protocol):
    """Something that a model has less of when groups lose units: operations, bytes, time.

    Attributes:
        total: How much it has at full widths.
    """

    total: int

    def cost(self) -> int:
        """How much it has at the present widths."""

    def saving(self, group: int, count: int = 1) -> int:
        """What removing units of a group would save at the present widths; negative counts bring units back."""

    def remove(self, group: int, count: int = 1) -> None:
        """Take units of a group away; negative counts give them back."""


@contextlib.contextmanager
def without(price: Price, removed: Sequence[int]) -> Iterator[None]:
    """Take so many units of every group away, by group number, while the block runs."""
    for number, count in enumerate(removed):
        price.remove(number, count)
    yield
    for number, count in enumerate(removed):
        price.remove(number, -count)


def count_saved(price: Price, removed: Sequence[int]) -> int:
    """What goes if the groups lose so many units.

    Args:
        price: Cost at full widths; restored afterwards.
        removed: Units to remove, by group number.

    Returns:
        Cost saved; negative where there is more than before.
    """
    return price.total - cost_without(price, removed)


def cost_without(price: Price, removed: Sequence[int]) -> int:
    """What is left if the groups lose so many units, by group number; the present widths stay."""
    with without(price, removed):
        return price.cost()


class Widths:
    """Sizes of the axes along which units lie, at the present widths of the groups.

    Args:
        groups: Result of `find_groups(model)`.
    """

    def __init__(self, groups: Groups) -> None:
        self._ends = np.cumsum([group.size for group in groups]) if len(groups) else np.zeros(0, np.int64)
        self._known: dict[int, int] = {}
        self._per_group: list[list[tuple[int, int]]] = [[] for _ in groups]
        self.counts: list[dict[int, int]] = []
        self.sizes: list[int] = []
        self.lost = [0] * len(groups)

    def axis(self, units: Units | None) -> int | None:
        """Number of an axis in the table; None where none of its channels can go."""
        if units is None:
            return None
        key = id(units)  # the groups keep the arrays
        if key not in self._known:
            counts = np.bincount(np.searchsorted(self._ends, units[units >= 0], side="right"))
            per_unit = {}
            for owner in np.flatnonzero(counts).tolist():
                size = int(self._ends[owner]) - (int(self._ends[owner - 1]) if owner else 0)
                per_unit[owner] = int(counts[owner]) // size
            number = self._known[key] = len(self.sizes)
            self.counts.append(per_unit)
            self.sizes.append(len(units))
            for owner, count in per_unit.items():
                self._per_group[owner].append((number, count))
        return self._known[key]

    def owners(self, units: Units | None) -> Owners:
        """The groups whose units lie along an axis."""
        axis = self.axis(units)
        return frozenset() if axis is None else frozenset(self.counts[axis])

    def factor(self, sizes: Iterable[tuple[int, Units | None]]) -> tuple[int, tuple[int, ...]]:
        """Split a product of axis sizes.

        Args:
            sizes: Size of every axis, and the units along it.

        Returns:
            The product of the sizes that stay, and the numbers of the axes that shrink.
        """
        axes = [(size, self.axis(units)) for size, units in sizes]
        fixed = math.prod(size for size, axis in axes if axis is None)
        return fixed, tuple(axis for _, axis in axes if axis is not None)

    def multiply(self, fixed: int, axes: Iterable[int]) -> int:
        """The product that `factor` split, at the present widths."""
        return fixed * math.prod(self.sizes[axis] for axis in axes)

    def groups_along(self, axes: Iterable[int]) -> frozenset[int]:
        """The groups whose units lie along any of some axes."""
        return frozenset(group for axis in axes for group in self.counts[axis])

    def remove(self, group: int, count: int = 1) -> None:
        """Take units of a group away; negative counts give them back. All axes must be in the table."""
        self.lost[group] += count
        for axis, per_unit in self._per_group[group]:
            self.sizes[axis] -= per_unit * count
