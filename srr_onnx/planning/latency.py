"""PLAN: what a model takes at any widths, from a table of measured times.

No runtime is known here. A node's time is a sum of terms, none negative: a constant for starting it, one for every axis
that shrinks, as input and output have to be read and written, and one for the product of all, its work. So inputs and
outputs count for what they are worth on the machine: a convolution with half its outputs still reads all its inputs.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from srr_onnx.analysis.groups import Groups, Units
from srr_onnx.graph.model import Model, Node, Shape
from srr_onnx.planning.costs import mac_sizes
from srr_onnx.planning.widths import Widths, without

Array = np.ndarray[Any, Any]

# Sizes of a node's axes, and nanoseconds.
Point = tuple[Shape, float]
# Nanoseconds per element of a product of axes, given by their numbers; no axis for a constant.
Term = tuple[float, tuple[int, ...]]

# Terms of single axes are told apart in nodes of so many axes that shrink; in others only the work counts.
_MOST_AXES = 3


@dataclasses.dataclass(frozen=True)
class LatencyTable:
    """Times of a model's nodes.

    Attributes:
        nodes: What was measured, by name of a node's first output; nodes that the runtime puts into others are missing.
        error: Relative error of the table on a version of the model that it had not seen; None where there was none.
    """

    nodes: Mapping[str, tuple[Point, ...]]
    error: float | None = None

    def add(self, sizes: Mapping[str, Shape], times: Mapping[str, float]) -> LatencyTable:
        """Make a table with one more measurement.

        Args:
            sizes: Sizes of the axes per node at the widths that were measured.
            times: Nanoseconds per node.

        Returns:
            The table; the new time stands where the sizes have been measured before.
        """
        added = {
            name: tuple({**dict(self.nodes.get(name, ())), sizes[name]: time}.items())
            for name, time in times.items()
            if name in sizes
        }
        return dataclasses.replace(self, nodes={**self.nodes, **added})

    @cached_property
    def terms(self) -> Mapping[str, tuple[Term, ...]]:
        """The terms of every node's time."""
        return {name: fit_terms(points) for name, points in self.nodes.items()}


def fit_terms(points: Sequence[Point]) -> tuple[Term, ...]:
    """Fit a sum of terms to measured times, with the least sum of squared relative errors.

    Args:
        points: Sizes of a node's axes and nanoseconds, as many axes in each.

    Returns:
        The terms whose factors are positive.
    """
    sizes, times = np.array([point[0] for point in points], float), np.array([point[1] for point in points], float)
    scale = np.maximum(sizes.max(axis=0), 1)
    shrinking = tuple(np.flatnonzero(np.ptp(sizes, axis=0)).tolist())
    singles = [(axis,) for axis in shrinking] if len(shrinking) <= _MOST_AXES else []
    products = list(dict.fromkeys([(), *singles, shrinking]))
    columns = np.stack([(sizes[:, axes] / scale[list(axes)]).prod(axis=1) for axes in map(list, products)], axis=1)
    weights = 1 / np.maximum(times, times.max(initial=0.0) * 1e-3 + 1e-9)
    factors = _fit_positive(columns * weights[:, None], times * weights)
    return tuple(
        (float(factor / scale[list(axes)].prod()), axes)
        for factor, axes in zip(factors, products, strict=True)
        if factor > 0
    )


def _fit_positive(columns: Array, values: Array) -> Array:
    """Least squares without negative factors: the best of the solutions on some of the columns that have none."""
    best, least = np.zeros(columns.shape[1]), float(values @ values)
    for count in range(1, columns.shape[1] + 1):
        for chosen in map(list, itertools.combinations(range(columns.shape[1]), count)):
            factors = np.linalg.lstsq(columns[:, chosen], values, rcond=None)[0]
            error = float(((columns[:, chosen] @ factors - values) ** 2).sum())
            if (factors >= 0).all() and error < least * (1 - 1e-9):
                best, least = np.zeros(columns.shape[1]), error
                best[chosen] = factors
    return best


def find_sizes(model: Model) -> dict[str, Shape]:
    """Find the axes of every node of a model, by name of its first output.

    Args:
        model: Loaded model, perhaps pruned.

    Returns:
        Sizes of the axes whose product are the multiply-accumulates, or the elements of the output; nodes of unknown
        shapes are missing.
    """
    found = {node.outputs[0]: _axes(model, None, node) for node in model.nodes}
    return {name: tuple(size for size, _ in axes) for name, axes in found.items() if axes is not None}


def _axes(model: Model, groups: Groups | None, node: Node) -> list[tuple[int, Units | None]] | None:
    """Axis sizes whose product is a node's work, with the units along them."""
    if sizes := mac_sizes(model, groups, node):
        return sizes
    name = node.outputs[0]
    if name not in model.sizes:
        return None
    return [
        (size, None if groups is None else groups.values.get((name, axis)))
        for axis, size in enumerate(model.sizes[name])
    ]


class LatencyPrice:
    """Predicted nanoseconds of a model at any widths; a `Price`.

    Args:
        model: Loaded model.
        groups: Result of `find_groups(model)`.
        table: Measured times.
    """

    def __init__(self, model: Model, groups: Groups, table: LatencyTable) -> None:
        self._widths = Widths(groups)
        self._terms: list[tuple[float, int, tuple[int, ...]]] = []
        self._names: list[str] = []
        self._touched: list[list[int]] = [[] for _ in groups]
        for node in model.nodes:
            axes = _axes(model, groups, node) or []
            for factor, chosen in table.terms.get(node.outputs[0], ()) if axes else ():
                fixed, shrinking = self._widths.factor(axes[axis] for axis in chosen)
                for group in self._widths.groups_along(shrinking):
                    self._touched[group].append(len(self._terms))
                self._terms.append((factor, fixed, shrinking))
                self._names.append(node.label)
        self.total = self.cost()

    def cost(self) -> int:
        """Nanoseconds at the present widths."""
        return round(self._sum(range(len(self._terms))))

    def saving(self, group: int, count: int = 1) -> int:
        """What removing units of a group would save at the present widths.

        Args:
            group: Number of the group.
            count: Number of units; negative for units that come back.

        Returns:
            Nanoseconds saved.
        """
        before = self._sum(self._touched[group])
        self._widths.remove(group, count)
        after = self._sum(self._touched[group])
        self._widths.remove(group, -count)
        return round(before - after)

    def remove(self, group: int, count: int = 1) -> None:
        """Take units of a group away; negative counts give them back."""
        self._widths.remove(group, count)

    def list_slowest(self, removed: Sequence[int], count: int) -> list[tuple[str, float]]:
        """Find the nodes that take longest where groups have lost so many units; the present widths stay.

        Args:
            removed: Units that are gone, by group number.
            count: How many nodes are listed.

        Returns:
            Labels and nanoseconds, the longest first.
        """
        times: dict[str, float] = {}
        with without(self, removed):
            for number, name in enumerate(self._names):
                times[name] = times.get(name, 0.0) + self._sum([number])
        return sorted(times.items(), key=lambda entry: -entry[1])[:count]

    def _sum(self, numbers: Iterable[int]) -> float:
        terms = (self._terms[number] for number in numbers)
        return math.fsum(factor * self._widths.multiply(fixed, axes) for factor, fixed, axes in terms)
