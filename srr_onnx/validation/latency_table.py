"""VALIDATE: a model's latency table, measured on versions of it that were made narrower.

Whole models are measured, so that fusions, changes of layout and caches are in the times. The channels that are left
are the first ones: what a version computes is no matter.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from srr_onnx.analysis.groups import Groups
from srr_onnx.graph.model import Model
from srr_onnx.planning.climb import rungs
from srr_onnx.planning.latency import LatencyPrice, LatencyTable, count_work
from srr_onnx.rewriting.apply import prune_units
from srr_onnx.targets.cache import machine_key, read_cache, write_cache
from srr_onnx.targets.target import Target
from srr_onnx.validation.node_times import Clocks

Array = np.ndarray[Any, Any]

# Shares of every group that the versions lose. One more version, of different shares, is for judging the table.
RATIOS = (0.25, 0.5, 0.75)


def measure_table(
    model: Model,
    groups: Groups,
    is_free: Sequence[bool],
    steps: Sequence[int] | None,
    feeds: Mapping[str, Array],
    target: Target,
    clocks: Clocks | None = None,
) -> LatencyTable:
    """Measure what a model's nodes take at several widths, or find it in the cache.

    Args:
        model: Loaded model.
        groups: Its groups.
        is_free: Which of them may lose units.
        steps: Units of which every group keeps a multiple; None for any.
        feeds: One array per input.
        target: Where it runs.
        clocks: What tells times.

    Returns:
        The table, with its error on a version that no entry of it came from.

    Raises:
        ModelError: The runtime refuses the model or a version of it.
        TargetError: The target is not there.
    """
    shapes = {name: list(np.shape(array)) for name, array in feeds.items()}
    key = {
        **machine_key(target),
        "model": model.sha256,
        "inputs": shapes,
        "free": list(map(int, is_free)),
        "steps": None if steps is None else list(steps),
        "ratios": list(RATIOS),
    }
    known = _read(read_cache("latency", key))
    if known is not None:
        return known
    clocks = clocks or Clocks()
    removed = [[0] * len(groups), *(_shrink(groups, is_free, steps, [ratio] * len(groups)) for ratio in RATIOS)]
    mixed = np.random.default_rng(0).choice(RATIOS, len(groups)).tolist()
    removed.append(_shrink(groups, is_free, steps, mixed))
    versions = [prune_units(model, groups, _keep_first(groups, counts)) for counts in removed]
    totals = clocks.models(versions, feeds, target)
    table = LatencyTable({})
    for version, total in zip(versions[:-1], totals, strict=False):
        table = table.add(count_work(version), clocks.nodes(version, feeds, target, total))
    price = LatencyPrice(model, groups, table)
    for number, count in enumerate(removed[-1]):
        price.remove(number, count)
    error = abs(price.cost() - totals[-1]) / totals[-1]
    table = table.add(count_work(versions[-1]), clocks.nodes(versions[-1], feeds, target, totals[-1]))
    table = dataclasses.replace(table, error=error)
    write_cache(
        "latency", key, {"nodes": {name: list(map(list, c)) for name, c in table.nodes.items()}, "error": error}
    )
    return table


def _shrink(groups: Groups, is_free: Sequence[bool], steps: Sequence[int] | None, ratios: Sequence[float]) -> list[int]:
    """Units that go so that every group loses about its share."""
    steps = [1] * len(groups) if steps is None else steps
    ladders = [
        rungs(group.size, group.size - 1 if free else 0, step)
        for group, free, step in zip(groups, is_free, steps, strict=True)
    ]
    wanted = [group.size * ratio for group, ratio in zip(groups, ratios, strict=True)]
    pairs = zip(ladders, wanted, strict=True)
    return [ladder[int(np.argmin(np.abs(np.array(ladder) - count)))] for ladder, count in pairs]


def _keep_first(groups: Groups, removed: Sequence[int]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    is_kept = np.ones(groups.num_units, bool)
    for group, count in zip(groups, removed, strict=True):
        is_kept[group.first_unit + group.size - count : group.first_unit + group.size] = False
    return is_kept


def _read(data: Any) -> LatencyTable | None:
    """A table from its cached form, None where that is damaged."""
    try:
        nodes = {
            str(name): tuple((int(work), float(time)) for work, time in curve) for name, curve in data["nodes"].items()
        }
        error = float(data["error"])
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    times = [time for curve in nodes.values() for _, time in curve]
    if not times or not all(math.isfinite(time) and time >= 0 for time in (*times, error)):
        return None
    return LatencyTable(nodes, error)
