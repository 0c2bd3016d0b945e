"""PLAN: predicted damage against reduction, before anything is pruned."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from srr_onnx.analysis.groups import Groups
from srr_onnx.errors import PlanError
from srr_onnx.graph.model import Model
from srr_onnx.planning.allocation import reach
from srr_onnx.planning.budget import QUANTITIES, Budget
from srr_onnx.planning.costs import CostModel
from srr_onnx.planning.make import MAX_GROUP_RATIO, find_free, make_plan
from srr_onnx.scoring.score import Scores


@dataclasses.dataclass(frozen=True)
class Point:
    """One reduction.

    Attributes:
        reduction: Share of the quantity that goes.
        error: Mean error, over the groups, of what the layers make that read them, after the rest is fitted anew;
            relative to the variance of what they make.
        worst: The largest error of a group.
        worst_group: Id of that group.
        narrowest: Smallest share of its units that a group keeps.
        exceeds_cap: Whether a group had to lose more than the cap allows at first.
    """

    reduction: float
    error: float
    worst: float
    worst_group: str
    narrowest: float
    exceeds_cap: bool

    def to_json(self) -> dict[str, Any]:
        """Plain form."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Curve:
    """Predicted damage at several reductions.

    Attributes:
        kind: What is reduced: "flops" or "params".
        points: One per reduction that can be reached.
        reachable: Largest reduction, one unit left in every group.
        reachable_within_cap: Largest reduction with no group losing more than the cap.
    """

    kind: str
    points: tuple[Point, ...]
    reachable: float
    reachable_within_cap: float


def make_curve(
    model: Model,
    groups: Groups,
    scores: Scores,
    reductions: Sequence[float],
    *,
    kind: str = "flops",
    max_group_ratio: float = MAX_GROUP_RATIO,
    freeze: Collection[str] = (),
    only: Collection[str] = (),
    allow_inexact: bool = False,
) -> Curve:
    """Predict what reductions cost.

    Args:
        model: Loaded model.
        groups: Result of `find_groups(model)`.
        scores: Scores of a criterion that knows errors.
        reductions: Shares to remove, in (0, 1); those that cannot be reached are left out.
        kind: "flops" or "params".
        max_group_ratio: Largest share of its units that a group may lose; relaxed only as far as a reduction needs.
        freeze: Nodes that stay as they are.
        only: Nodes to which pruning is restricted.
        allow_inexact: Whether groups may go whose pruning is not equal to masking.

    Returns:
        The curve.

    Raises:
        PlanError: The scores know no errors.
    """
    if scores.errors is None:
        raise PlanError(f"criterion {scores.criterion!r} predicts no errors: choose reconstruction")
    causes = find_free(groups, freeze=list(freeze), only=list(only), allow_inexact=allow_inexact)
    is_free = [cause is None for cause in causes]
    costs = CostModel(model, groups, QUANTITIES[kind])
    limits = [reach(groups, is_free, costs, cap) / costs.total for cap in (1.0, max_group_ratio)]
    points = []
    for reduction in sorted(reductions):
        if reduction > limits[0]:
            break
        decision = make_plan(
            model,
            groups,
            scores,
            Budget.choose(**{"flops": None, "params": None, "ratio": None, kind: reduction}),
            max_group_ratio=max_group_ratio,
            freeze=list(freeze),
            only=list(only),
            allow_inexact=allow_inexact,
        )
        removed = decision.plan.macs_removed if kind == "flops" else decision.plan.params_removed
        points.append(_measure(groups, scores.errors, decision.is_kept, removed, decision.cap > max_group_ratio))
    return Curve(kind, tuple(points), limits[0], limits[1])


def _measure(
    groups: Groups, errors: Mapping[str, Any], is_kept: np.ndarray[Any, Any], reduction: float, exceeds_cap: bool
) -> Point:
    found, narrowest = {}, 1.0
    for group in groups:
        left = int(is_kept[group.units].sum())
        gone = group.size - left
        found[group.id] = float(errors[group.id][gone - 1]) if gone else 0.0
        narrowest = min(narrowest, left / group.size)
    worst = max(found, key=found.__getitem__)
    mean = sum(found.values()) / len(found)
    return Point(reduction, mean, found[worst], worst, narrowest, exceeds_cap)


def spread_shares(steps: int) -> list[float]:
    """Reductions at equal distances between nothing and everything, both left out."""
    return [(step + 1) / (steps + 1) for step in range(steps)]
