"""VALIDATE: what plans are judged by: the time of whole models, and of every node so that the sum is that of the whole.

The fastest of many runs counts: what else a machine does only ever makes a run longer.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from srr_onnx.calibration.runs import needs_float32, open_session
from srr_onnx.graph.model import Model
from srr_onnx.targets.profiling import record_kernels
from srr_onnx.targets.target import Target
from srr_onnx.validation.latency import measure_latency
from srr_onnx.validation.layers import find_owners, find_regressions, time_layers

Array = np.ndarray[Any, Any]
Feeds = Mapping[str, Array]

# Seconds per model that a measurement may take, and that a recording may; runs of each model.
_PATIENCE, _RECORDED_PATIENCE = 1.5, 2.0
_MOST_RUNS = 240
# Runs that are recorded, node by node.
_LEAST, _MOST = 5, 60
# On a busy machine the fastest run may still be a disturbed one: it counts when so many runs came as close to it, else
# the measurement is repeated, so often at most.
_CONFIRMED, _SAME = 3, 1.02
_REPEATS = 4


def time_models(models: Sequence[Model], feeds: Feeds, target: Target) -> list[float]:
    """Time models in turns; the fastest run of each counts.

    Args:
        models: Models with the same inputs.
        feeds: One array per input.
        target: Where they run.

    Returns:
        Nanoseconds of a run, by model.

    Raises:
        ModelError: The runtime refuses one of them.
        TargetError: The target is not there.
    """
    runners = [open_session(model, target=target)[0].make_runner(feeds) for model in models]
    seconds = np.zeros((len(models), 0))
    for _ in range(_REPEATS):
        found = measure_latency(runners, rounds=_MOST_RUNS, budget_seconds=_PATIENCE * len(models))
        seconds = np.concatenate([seconds, [latency.seconds for latency in found]], axis=1)
        fastest = seconds.min(axis=1, keepdims=True)
        if ((seconds <= _SAME * fastest).sum(axis=1) >= _CONFIRMED).all():
            break
    return [1e9 * float(time) for time in fastest[:, 0]]


def time_nodes(model: Model, feeds: Feeds, target: Target, total: float) -> dict[str, float]:
    """Time every node of a model.

    Args:
        model: Loaded model.
        feeds: One array per input.
        target: Where it runs.
        total: Nanoseconds of a run without recording, which the times are to sum up to: what belongs to no node is
            spread over all of them.

    Returns:
        Nanoseconds by name of a node's first output; nodes that are done as part of others are missing.

    Raises:
        ModelError: The runtime refuses the model.
        TargetError: The target is not there.
    """
    as_float32 = [needs_float32(model, target)]
    (recording,) = record_kernels([model], target, [feeds], _count_runs(total), as_float32=as_float32)
    found: dict[str, float] = {}
    for kernel, node in find_owners(model, recording).items():
        if node is not None:
            name = node.outputs[0]
            found[name] = found.get(name, 0.0) + 1e9 * float(kernel.seconds.min())
    recorded = math.fsum(found.values())
    return {name: time * total / recorded for name, time in found.items()} if recorded else {}


def find_slower(model: Model, candidate: Model, feeds: Feeds, target: Target, total: float) -> list[dict[str, Any]]:
    """Name the nodes that take longer in a candidate.

    Args:
        model: The original.
        candidate: The model that is not faster.
        feeds: One array per input.
        target: Where they run.
        total: Nanoseconds of a run of the original.

    Returns:
        Label and milliseconds before and after, the largest loss first.

    Raises:
        ModelError: The runtime refuses one of them.
        TargetError: The target is not there.
    """
    models = [model, candidate]
    as_float32 = [needs_float32(one, target) for one in models]
    recordings = record_kernels(models, target, [feeds, feeds], _count_runs(total), as_float32=as_float32)
    before, after = (time_layers(*pair) for pair in zip(models, recordings, strict=True))
    return [
        {"node": found.node, "before_ms": 1e3 * found.reference_seconds, "after_ms": 1e3 * found.candidate_seconds}
        for found in find_regressions(before, after)
    ]


def _count_runs(total: float) -> int:
    return max(_LEAST, min(_MOST, int(_RECORDED_PATIENCE * 1e9 / max(total, 1.0))))


@dataclasses.dataclass(frozen=True)
class Clocks:
    """What tells times; a simulation may stand in for a machine.

    Attributes:
        models: Times of whole models.
        nodes: Times of nodes.
        slower: Nodes that take longer than they did.
    """

    models: Callable[[Sequence[Model], Feeds, Target], list[float]] = time_models
    nodes: Callable[[Model, Feeds, Target, float], dict[str, float]] = time_nodes
    slower: Callable[[Model, Model, Feeds, Target, float], list[dict[str, Any]]] = find_slower
