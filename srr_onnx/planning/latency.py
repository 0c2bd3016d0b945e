"""PLAN: what a model takes at any widths, from a table of measured times.

No runtime is known here. A node's time is a function of its work: the multiply-accumulates of what sums, the elements
that others make. Between measured amounts of work it is interpolated; it never falls where work grows.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping

import numpy as np

from srr_onnx.analysis.groups import Groups, Units
from srr_onnx.graph.model import Model, Node
from srr_onnx.planning.costs import mac_sizes
from srr_onnx.planning.widths import Widths

Curve = tuple[tuple[int, float], ...]


@dataclasses.dataclass(frozen=True)
class LatencyTable:
    """Times of a model's nodes.

    Attributes:
        nodes: Work and nanoseconds, at least at the model's full widths, by name of a node's first output; nodes that
            the runtime puts into others are missing.
        error: Relative error of the table on a version of the model that it had not seen; None where there was none.
    """

    nodes: Mapping[str, Curve]
    error: float | None = None

    def add(self, work: Mapping[str, int], times: Mapping[str, float]) -> LatencyTable:
        """Make a table with one more measurement.

        Args:
            work: Work per node at the widths that were measured.
            times: Nanoseconds per node.

        Returns:
            The table; the new time stands where the work has been measured before.
        """
        added = {
            name: tuple(sorted({**dict(self.nodes.get(name, ())), work[name]: time}.items()))
            for name, time in times.items()
            if name in work
        }
        return dataclasses.replace(self, nodes={**self.nodes, **added})


def count_work(model: Model, names: Iterable[str] | None = None) -> dict[str, int]:
    """Count the work of every node of a model, by name of its first output.

    Args:
        model: Loaded model, perhaps pruned.
        names: Nodes to count; all if nothing is said.

    Returns:
        Multiply-accumulates, or elements of the output; nodes of unknown shapes are missing.
    """
    chosen = None if names is None else frozenset(names)
    nodes = (node for node in model.nodes if chosen is None or node.outputs[0] in chosen)
    found = {node.outputs[0]: _sizes(model, None, node) for node in nodes}
    return {name: math.prod(size for size, _ in sizes) for name, sizes in found.items() if sizes is not None}


def _sizes(model: Model, groups: Groups | None, node: Node) -> list[tuple[int, Units | None]] | None:
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
        self._terms: list[tuple[int, tuple[int, ...], list[int], list[float]]] = []
        self._touched: list[list[int]] = [[] for _ in groups]
        for node in model.nodes:
            curve = table.nodes.get(node.outputs[0])
            sizes = _sizes(model, groups, node)
            if not curve or sizes is None:
                continue
            fixed, shrinking = self._widths.factor(sizes)
            for group in self._widths.groups_along(shrinking):
                self._touched[group].append(len(self._terms))
            works = [0, *(work for work, _ in curve)] if curve[0][0] else [work for work, _ in curve]
            times = [0.0] * (len(works) - len(curve)) + list(itertools.accumulate((time for _, time in curve), max))
            self._terms.append((fixed, shrinking, works, times))
        self.total = self.cost()

    def cost(self) -> int:
        """Nanoseconds at the present widths."""
        return round(sum(map(self._value, range(len(self._terms)))))

    def saving(self, group: int, count: int = 1) -> int:
        """What removing units of a group would save at the present widths.

        Args:
            group: Number of the group.
            count: Number of units; negative for units that come back.

        Returns:
            Nanoseconds saved.
        """
        before = sum(map(self._value, self._touched[group]))
        self._widths.remove(group, count)
        after = sum(map(self._value, self._touched[group]))
        self._widths.remove(group, -count)
        return round(before - after)

    def remove(self, group: int, count: int = 1) -> None:
        """Take units of a group away; negative counts give them back."""
        self._widths.remove(group, count)

    def _value(self, number: int) -> float:
        fixed, axes, works, times = self._terms[number]
        return float(np.interp(self._widths.multiply(fixed, axes), works, times))
