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
from srr_onnx.graph.model import Model, Shape
from srr_onnx.planning.climb import rungs
from srr_onnx.planning.latency import LatencyPrice, LatencyTable, find_sizes
from srr_onnx.planning.plan import Kept
from srr_onnx.planning.widths import cost_without
from srr_onnx.rewriting.apply import prune_units
from srr_onnx.targets.cache import machine_key, read_cache, write_cache
from srr_onnx.targets.target import Target
from srr_onnx.validation.node_times import Clocks

Array = np.ndarray[Any, Any]

# Shares of every group that the versions lose. In further versions every group loses a share of its own, so that inputs
# and outputs of a layer can be told apart; the last one is for judging the table.
RATIOS = (0.25, 0.5, 0.75)
MIXED = 3


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
    key = {
        **_key(model, feeds, target),
        "free": list(map(int, is_free)),
        "steps": None if steps is None else list(steps),
        "ratios": [*RATIOS, MIXED],
    }
    known = _read(read_cache("latency", key))
    if known is not None:
        return known
    clocks = clocks or Clocks()
    removed = [[0] * len(groups), *(_shrink(groups, is_free, steps, [ratio] * len(groups)) for ratio in RATIOS)]
    mixed = np.random.default_rng(0).choice((0.0, *RATIOS), (MIXED, len(groups))).tolist()
    removed += [_shrink(groups, is_free, steps, shares) for shares in mixed]
    versions = [prune_units(model, groups, _keep_first(groups, counts)) for counts in removed]
    totals = clocks.models(versions, feeds, target)
    table = LatencyTable({})
    for version, total in zip(versions[:-1], totals, strict=False):
        table = table.add(find_sizes(version), clocks.nodes(version, feeds, target, total))
    predicted = cost_without(LatencyPrice(model, groups, table), removed[-1])
    error = abs(predicted - totals[-1]) / totals[-1]
    table = table.add(find_sizes(versions[-1]), clocks.nodes(versions[-1], feeds, target, totals[-1]))
    table = dataclasses.replace(table, error=error)
    write_cache("latency", key, {"nodes": {name: list(points) for name, points in table.nodes.items()}, "error": error})
    return table


@dataclasses.dataclass(frozen=True)
class Version:
    """A narrower version of a model, measured beside it.

    Attributes:
        before: Nanoseconds of the model.
        after: Nanoseconds of the version.
        sizes: Sizes of every node's axes, by name of its first output.
        nodes: Nanoseconds of every node.
    """

    before: float
    after: float
    sizes: Mapping[str, Shape]
    nodes: Mapping[str, float]


def time_version(
    model: Model,
    groups: Groups,
    is_kept: Kept,
    feeds: Mapping[str, Array],
    target: Target,
    clocks: Clocks | None = None,
) -> Version:
    """Measure a version of a model beside it, or find it in the cache; only widths count, not which units stay.

    Args:
        model: Loaded model.
        groups: Its groups.
        is_kept: Shape `(groups.num_units,)`: which units stay.
        feeds: One array per input.
        target: Where it runs.
        clocks: What tells times.

    Returns:
        The times.

    Raises:
        ModelError: The runtime refuses the model or the version.
        TargetError: The target is not there.
    """
    key = {**_key(model, feeds, target), "removed": groups.count_removed(is_kept)}
    version = prune_units(model, groups, is_kept)
    known = read_cache("version", key)
    if not _is_timed(known):
        clocks = clocks or Clocks()
        before, after = clocks.models([model, version], feeds, target)
        known = {"before": before, "after": after, "nodes": clocks.nodes(version, feeds, target, after)}
        write_cache("version", key, known)
    return Version(known["before"], known["after"], find_sizes(version), known["nodes"])


def _is_timed(data: Any) -> bool:
    """Whether a version's times are there and not damaged."""
    try:
        times = [data["before"], data["after"], *data["nodes"].values()]
        return all(math.isfinite(time) and time >= 0 for time in times) and min(times[:2]) > 0
    except (AttributeError, KeyError, TypeError):
        return False


def _key(model: Model, feeds: Mapping[str, Array], target: Target) -> dict[str, Any]:
    """What times of a model and its versions depend on."""
    shapes = {name: list(np.shape(array)) for name, array in feeds.items()}
    return {**machine_key(target), "model": model.sha256, "inputs": shapes}


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


def _keep_first(groups: Groups, removed: Sequence[int]) -> Kept:
    is_kept = np.ones(groups.num_units, bool)
    for group, count in zip(groups, removed, strict=True):
        is_kept[group.first_unit + group.size - count : group.first_unit + group.size] = False
    return is_kept


def _read(data: Any) -> LatencyTable | None:
    """A table from its cached form, None where that is damaged."""
    try:
        nodes = {
            str(name): tuple((tuple(map(int, sizes)), float(time)) for sizes, time in points)
            for name, points in data["nodes"].items()
        }
        error = float(data["error"])
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    times = [time for points in nodes.values() for _, time in points]
    is_whole = all(len({len(sizes) for sizes, _ in points}) == 1 for points in nodes.values())
    if not times or not is_whole or not all(math.isfinite(time) and time >= 0 for time in (*times, error)):
        return None
    return LatencyTable(nodes, error)
