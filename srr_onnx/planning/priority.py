"""PLAN: which group loses its next unit: a priority per group and number of units already gone.

Source:
    "redundancy": Wang et al., "Convolutional Neural Network Pruning With Structural Redundancy Reduction",
    CVPR 2021, figure 1: remove a node from the most redundant graph, recompute its redundancy, repeat.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from srr_onnx.analysis.groups import PruningGroup
from srr_onnx.errors import PlanError
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
