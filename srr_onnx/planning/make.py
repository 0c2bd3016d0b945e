"""PLAN: scores and a budget to a plan."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from srr_onnx.analysis.groups import Groups
from srr_onnx.analysis.labels import Freeze, FreezeReason
from srr_onnx.errors import PlanError, UnknownNameError
from srr_onnx.graph.cost import find_uncounted
from srr_onnx.graph.model import Model
from srr_onnx.planning.alignment import Alignment, find_steps
from srr_onnx.planning.allocation import allocate, allocate_ratio, reach
from srr_onnx.planning.budget import QUANTITIES, Budget
from srr_onnx.planning.climb import CALM, Haste
from srr_onnx.planning.costs import CostModel
from srr_onnx.planning.landing import Goal
from srr_onnx.planning.latency import LatencyPrice, LatencyTable
from srr_onnx.planning.memory import FilePrice, MemoryPrice
from srr_onnx.planning.obstacles import check_prunable, describe_frozen, explain_reach
from srr_onnx.planning.plan import Kept, Plan, plan_groups
from srr_onnx.planning.priority import allocations
from srr_onnx.planning.widths import Price, count_saved
from srr_onnx.scoring.score import Scores

MAX_GROUP_RATIO = 0.6


@dataclasses.dataclass(frozen=True, eq=False)
class Decision:
    """A plan together with what the rewriting needs of it.

    Attributes:
        plan: The plan, without `values` and proof, which the rewriting adds.
        is_kept: Shape `(groups.num_units,)`: which units stay.
        cap: Largest share of its units that a group was allowed to lose.
    """

    plan: Plan
    is_kept: Kept
    cap: float


def find_free(
    groups: Groups,
    *,
    freeze: Sequence[str] = (),
    only: Sequence[str] = (),
    allow_inexact: bool = False,
    unproven: Collection[str] = (),
) -> list[Freeze | None]:
    """Find which groups may lose units.

    Args:
        groups: Result of `find_groups(model)`.
        freeze: Node names, globs of them, or group ids; a frozen node stays as it is, inputs and outputs.
        only: Node names, globs or group ids: no other filters go.
        allow_inexact: Whether groups may go whose pruning is not equal to masking.
        unproven: Ids of groups whose pruning failed its proof.

    Returns:
        Per group None where it may lose units, else why not.

    Raises:
        UnknownNameError: A name matches nothing; carries near matches.
    """
    frozen = _match(groups, freeze, "node to freeze", by_filters=False)
    chosen = _match(groups, only, "node to prune", by_filters=True)
    found: list[Freeze | None] = []
    for group in groups:
        if group.id in unproven:
            found.append(Freeze(FreezeReason.UNPROVEN, group.name))
        elif group.id in frozen:
            found.append(Freeze(FreezeReason.USER, frozen[group.id]))
        elif only and group.id not in chosen:
            found.append(Freeze(FreezeReason.USER, group.name, "not among --only"))
        elif group.inexact_at is not None and not allow_inexact:
            found.append(Freeze(FreezeReason.INEXACT, group.inexact_at))
        else:
            found.append(None)
    return found


def _match(groups: Groups, patterns: Sequence[str], kind: str, *, by_filters: bool) -> dict[str, str]:
    """Groups that a pattern matches, by id, with the node or id that matched."""
    found: dict[str, str] = {}
    names = {group.id: (group.id, *(group.nodes if by_filters else group.touched)) for group in groups}
    for pattern in patterns:
        is_known = False
        for group_id, candidates in names.items():
            hit = next((name for name in candidates if name == pattern or fnmatch.fnmatchcase(name, pattern)), None)
            if hit is not None:
                is_known = True
                found.setdefault(group_id, hit)
        if not is_known and not (not by_filters and pattern in groups.frozen_nodes):
            raise UnknownNameError(kind, pattern, {name for known in names.values() for name in known})
    return found


def make_plan(
    model: Model,
    groups: Groups,
    scores: Scores,
    budget: Budget,
    table: LatencyTable | None = None,
    haste: Haste = CALM,
    *,
    allocation: str = "auto",
    max_group_ratio: float = MAX_GROUP_RATIO,
    freeze: Sequence[str] = (),
    only: Sequence[str] = (),
    allow_inexact: bool = False,
    unproven: Collection[str] = (),
    settings: Mapping[str, Any] | None = None,
    alignment: Alignment | None = None,
) -> Decision:
    """Decide which units go.

    Args:
        model: Loaded model.
        groups: Result of `find_groups(model)`.
        scores: Result of `score_groups(model, groups, ...)`.
        budget: How much has to go.
        table: What the model's nodes take; needed for a budget in latency. Others go by it too where it is given: of
            what is worth the same to them, that goes first which takes more time.
        haste: How much time counts then.
        allocation: A registered name, or "auto": see `default_allocation`.
        max_group_ratio: Largest share of its units that a group may lose; relaxed only as far as the budget needs.
        freeze: Nodes that stay as they are.
        only: Nodes to which pruning is restricted.
        allow_inexact: Whether groups may go whose pruning is not equal to masking.
        unproven: Ids of groups whose pruning failed its proof: they stay.
        settings: Settings of the criterion, to be recorded in the plan.
        alignment: Widths to choose from; None for any.

    Returns:
        The decision.

    Raises:
        UnsupportedError: Nothing can be pruned at all; says why.
        PlanError: The budget cannot be met; says how much can go and what stands in the way.
        UnknownNameError: A name matches nothing.
    """
    causes = find_free(groups, freeze=freeze, only=only, allow_inexact=allow_inexact, unproven=unproven)
    is_free = [cause is None for cause in causes]
    check_prunable(model, groups, causes)
    cap = max_group_ratio
    costs = CostModel(model, groups, "macs")
    steps = None if alignment is None else find_steps(model, groups, alignment.coarsen(haste.coarseness))
    limits: list[dict[str, Any]] = []
    if budget.kind == "ratio":
        removed = allocate_ratio(groups, is_free, budget.amount, steps)
        cap = max(cap, budget.amount)
    else:
        kind = default_allocation(scores) if allocation == "auto" else allocation
        priority = allocations.get(kind)(scores)
        prices = {limit.kind: make_price(model, groups, limit.kind, table) for limit in budget.limits}
        goals = []
        for limit in budget.leave_met({kind: price.total for kind, price in prices.items()}).limits:
            price = prices[limit.kind]
            goals.append(Goal(price, limit.share(price.total), is_even=limit.kind in (*QUANTITIES, "size")))
            most = reach(groups, is_free, price, 1.0, steps)
            if most < goals[-1].target:
                unaligned = reach(groups, is_free, price, 1.0)
                in_steps = unaligned >= goals[-1].target
                share = (most if in_steps else unaligned) / price.total
                raise PlanError(
                    explain_reach(groups, causes, limit.kind, goals[-1].share, share, in_steps=in_steps, price=price)
                )
        has_times = table is not None and table.nodes and budget.find("latency") is None
        pace = make_price(model, groups, "latency", table) if has_times else None
        found = allocate(groups, is_free, goals, priority, max_group_ratio, steps, pace, haste)
        removed, cap = found.removed, found.cap
        limits = [
            {
                **limit.to_json(),
                "amount": max(limit.share(price.total), 0.0),
                "reached": count_saved(price, removed) / price.total,
            }
            for limit, price in zip(budget.limits, prices.values(), strict=True)
        ]
    is_kept = np.ones(groups.num_units, bool)
    for number, (group, count) in enumerate(zip(groups, removed, strict=True)):
        is_kept[group.first_unit + scores.order(group.id)[:count]] = False
        costs.remove(number, count)
    plan = Plan(
        sha256=model.sha256,
        inputs=dict(model.inputs),
        criterion={"name": scores.criterion, **(settings or {})},
        budget={
            **_name_binding(budget, limits),
            "allocation": allocation,
            "max_group_ratio": max_group_ratio,
            "cap_used": cap,
            "limits": limits,
            "alignment": None if alignment is None else alignment.to_json(),
        },
        before=costs.original,
        after=costs.all_costs(),
        groups=plan_groups(groups, is_kept),
        values={},
        frozen=tuple(describe_frozen(groups, causes)),
        is_inlined=model.is_inlined,
        uncounted=tuple(node.label for node in find_uncounted(model)),
    )
    return Decision(plan, is_kept, cap)


def make_price(model: Model, groups: Groups, kind: str, table: LatencyTable | None = None) -> Price:
    """Make what tells a budget's quantity at any widths.

    Args:
        model: Loaded model.
        groups: Its groups.
        kind: "flops", "params", "latency", "memory" or "size".
        table: What the nodes take; needed for "latency".

    Returns:
        The price, at full widths.

    Raises:
        PlanError: A latency is asked for without a table.
    """
    if kind in QUANTITIES:
        return CostModel(model, groups, QUANTITIES[kind])
    if kind == "memory":
        return MemoryPrice(model, groups)
    if kind == "size":
        return FilePrice(model, groups)
    if table is None:
        raise PlanError("a budget in latency needs measured times: srr_onnx.prune measures them")
    return LatencyPrice(model, groups, table)


def _name_binding(budget: Budget, limits: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The limit that stands for the budget: the one that was met most narrowly, of those that were not met anyway."""
    asked = [limit for limit in limits if limit["amount"]]
    binding = min(asked, key=lambda limit: limit["reached"] - limit["amount"], default=budget.limits[0].to_json())
    return {"kind": binding["kind"], "amount": binding["amount"]}


def default_allocation(scores: Scores) -> str:
    """The allocation that goes with what a criterion measures: redundancy, errors, or nothing between groups."""
    if scores.redundancy is not None:
        return "redundancy"
    return "uniform" if scores.errors is None else "error"
