"""OPTIMIZE: a budget in several steps: equal factors, so that the last one meets what was asked of the original.

Every step is counted from what the model has then, so that what one step has taken too much, the next ones leave.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from srr_onnx.analysis.find import find_groups
from srr_onnx.graph.cost import count_cost
from srr_onnx.graph.model import Model
from srr_onnx.planning.budget import QUANTITIES, Budget
from srr_onnx.planning.memory import FilePrice, MemoryPrice
from srr_onnx.planning.plan import Plan
from srr_onnx.targets.target import Target
from srr_onnx.validation.node_times import time_models
from srr_onnx.validation.profile import make_batch


def count_totals(model: Model, budget: Budget, target: Target | None = None) -> dict[str, float]:
    """Count what a model has of everything that a budget limits.

    Args:
        model: Loaded model.
        budget: The budget.
        target: Where a latency is measured.

    Returns:
        MACs, parameters, bytes or nanoseconds by kind of limit.
    """
    kinds = [limit.kind for limit in budget.limits]
    cost = count_cost(model)
    found: dict[str, float] = {kind: getattr(cost, QUANTITIES[kind]) for kind in kinds if kind in QUANTITIES}
    if "size" in kinds or "memory" in kinds:
        groups = find_groups(model)
        prices: dict[str, type[FilePrice | MemoryPrice]] = {"size": FilePrice, "memory": MemoryPrice}
        found |= {kind: price(model, groups).total for kind, price in prices.items() if kind in kinds}
    if "latency" in kinds:
        where = target or Target(threads=1)
        (found["latency"],) = time_models([model], make_batch(model, where.batch), where)
    return found


def split_budget(
    budget: Budget, before: Mapping[str, float], now: Mapping[str, float], step: int, steps: int
) -> dict[str, float]:
    """Find what has to go in one of several steps.

    Args:
        budget: What has to go in all.
        before: Totals of the original, by `count_totals`.
        now: Totals of the model that is pruned next.
        step: Number of the step, from 1.
        steps: How many there are.

    Returns:
        Share of the present total by kind of limit; a limit that is met so far is left out.

    Raises:
        PlanError: The original meets every limit as it is.
    """
    shares = {}
    for limit in budget.leave_met(before).limits:
        left = 1 - limit.share(before[limit.kind])
        share = 1 - left ** (step / steps) * before[limit.kind] / now[limit.kind]
        if share > 0:
            shares[limit.kind] = share
    return shares


def split_cap(cap: float, steps: int) -> float:
    """Find the share of a group that may go in every step, so that no more than `cap` goes in all of them."""
    return 1 - float((1 - cap) ** (1 / steps))


def chain(first: Plan, second: Plan) -> Plan:
    """Tell what two plans, one after the other, leave of the values of the model that the first was made for.

    Args:
        first: The first plan, itself chained perhaps.
        second: The plan of the next step.

    Returns:
        The second plan, with positions of the first one's model under `values`. It says what training asks of a plan,
        which channels of a teacher a model has; it cannot be replayed, since it names no groups.
    """
    early = first.kept_positions()
    values: dict[str, list[dict[str, object]]] = {
        name: [dict(entry) for entry in entries] for name, entries in first.values.items()
    }
    for name, entries in second.values.items():
        for entry in entries:
            before = early.get((name, int(entry["axis"])))
            known = next((e for e in values.setdefault(name, []) if e["axis"] == entry["axis"]), None)
            if before is None or known is None:
                values[name].append(dict(entry))
            else:
                known["keep"] = before[np.asarray(entry["keep"], np.int64)].tolist()
    return dataclasses.replace(
        second, sha256=first.sha256, inputs=first.inputs, before=first.before, groups=(), values=values
    )
