"""VALIDATE: how fast models are on a target, alone and against each other.

Models take turns in one process, on made-up inputs; what is said of a pair rests on the same rounds of both.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from srr_onnx.calibration.runs import is_batch_open, open_session
from srr_onnx.errors import DataError, ModelError
from srr_onnx.graph.model import Model
from srr_onnx.rewriting.verify import make_feeds
from srr_onnx.targets.footprint import Footprint, measure_footprint
from srr_onnx.targets.onnxruntime import Session
from srr_onnx.targets.profiling import record_kernels
from srr_onnx.targets.target import Target
from srr_onnx.validation.evaluate import Source, load, load_beside
from srr_onnx.validation.latency import Latency, measure_latency
from srr_onnx.validation.layers import LayerTimes, find_regressions, time_layers
from srr_onnx.validation.measure import OnStage
from srr_onnx.validation.noise import NoiseWatch
from srr_onnx.validation.profiled import BatchTimes, Comparison, Profile, Profiled
from srr_onnx.validation.runs import count_cores
from srr_onnx.validation.timing import Figure, estimate_quantile, estimate_speedup, find_drift
from srr_onnx.wording import counted

Array = np.ndarray[Any, Any]

ROUNDS, BUDGET_SECONDS = 1000, 10.0
_SHARES = {"median": 0.5, "p90": 0.9, "p99": 0.99}
# Recorded runs of each model.
_RECORDED, _FEWEST_RECORDED, _RECORDED_SHARE = 100, 8, 0.2
_FEW_ROUNDS = 10
_ASYNCHRONOUS = frozenset({"cuda", "tensorrt", "dml", "migraphx", "webgpu"})


def profile(
    *sources: Source,
    target: Target | None = None,
    batches: Sequence[int] = (),
    rounds: int = ROUNDS,
    budget_seconds: float = BUDGET_SECONDS,
    with_layers: bool = True,
    with_footprint: bool = True,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
    on_stage: OnStage | None = None,
) -> Profile:
    """Measure how fast models are, and how much faster than the first.

    Args:
        sources: ONNX files or loaded models; the first is the reference of the others.
        target: Where they run; the CPU with one thread by default.
        batches: Rows per run, where the files leave the batch open; by default that of the target, else of the file.
        rounds: Rounds at each batch, at most; in each, every model runs once.
        budget_seconds: Time for all rounds together; those of the first three rounds are run in any case.
        with_layers: Whether to measure the time of every node too.
        with_footprint: Whether to open every file in a process of its own too, for its memory and time to load.
        input_shapes: Shape per input, for files with dynamic axes.
        seed: For the made-up inputs and the intervals.
        on_stage: Told the name of every stage, steps done and steps in all, for a progress display.

    Returns:
        What was measured.

    Raises:
        DataError: A batch is not possible; there is nothing to measure.
        ModelError: A model cannot be loaded or run.
        TargetError: The target is not there, or takes no node of a model.
    """
    if not sources:
        raise DataError("there is no model to measure: give at least one")
    tell, target = on_stage or (lambda stage, done, steps: None), target or Target(threads=1)
    tell("load", 0, 1)
    first = load(sources[0], input_shapes)
    models = [first, *(load_beside(first, source, input_shapes) for source in sources[1:])]
    sizes: Sequence[int | None] = list(dict.fromkeys(batches)) or [target.batch]
    feeds = [[make_batch(model, size, seed) for model in models] for size in sizes]
    opened = [open_session(model, target=target) for model in models]
    watch = NoiseWatch(target.threads, count_cores())
    timed: list[list[Latency]] = []
    for place, size in enumerate(sizes):
        runners = [
            _make_runner(session, arrays, size) for (session, _), arrays in zip(opened, feeds[place], strict=True)
        ]

        def on_round(done: int, place: int = place) -> None:
            watch.look()
            tell("measure", place * rounds + done, len(sizes) * rounds)

        timed.append(measure_latency(runners, rounds, budget_seconds=budget_seconds / len(sizes), on_round=on_round))
    noise = watch.summarize([find_drift(np.array(found.seconds)) for each in timed for found in each])
    layers: list[LayerTimes | None] = [None for _ in models]
    if with_layers:
        tell("record", 0, 1)
        runs = int(_RECORDED_SHARE * budget_seconds / sum(found.median for found in timed[0]))
        runs = max(_FEWEST_RECORDED, min(_RECORDED, runs))
        as_float32 = [is_replaced for _, is_replaced in opened]
        recordings = record_kernels(models, target, feeds[0], runs, as_float32=as_float32)
        layers = [time_layers(*pair) for pair in zip(models, recordings, strict=True)]
    names = _name(models)
    notes = _describe(models, names, opened)
    if with_footprint:
        tell("open", 0, 1)
    batch_times: list[list[BatchTimes]] = [[] for _ in models]
    for arrays, latencies in zip(feeds, timed, strict=True):
        for place, (model, latency) in enumerate(zip(models, latencies, strict=True)):
            footprint = _find_footprint(model, arrays[place], target, notes) if with_footprint else None
            shapes = {name: array.shape for name, array in arrays[place].items()}
            batch_times[place].append(BatchTimes(shapes, latency, _find_quantiles(latency, seed), footprint))
    profiled = [Profiled(name, tuple(batch_times[place]), layers[place]) for place, name in enumerate(names)]
    done = len(timed[-1][0].seconds)
    if done < min(rounds, _FEW_ROUNDS):
        notes.append(f"the time was enough for {counted(done, 'round')} only: give more with --budget-seconds")
    if with_layers and target.provider in _ASYNCHRONOUS:
        notes.append("times of nodes are those of their launch where the device computes on its own")
    return Profile(target, tuple(profiled), _compare(profiled, seed), noise, tuple(dict.fromkeys(notes)))


def make_batch(model: Model, batch: int | None = None, seed: int = 0) -> dict[str, Array]:
    """Make random inputs for one run.

    Args:
        model: Loaded model.
        batch: Rows; None takes the model's shapes.
        seed: Seed.

    Returns:
        One array per graph input.

    Raises:
        DataError: The file states another batch.
    """
    if batch is None:
        return make_feeds(model, seed)
    shapes = dict(model.inputs)
    named = [name for name in shapes if is_batch_open(model, name)]
    stated = sorted({shapes[name][0] for name in shapes if shapes[name]} - {batch})
    if not named and stated:
        raise DataError(
            f"a batch of {batch} is not possible: {_name([model])[0]!r} takes {stated[0]} in one run, as "
            "its file says; export it with an open batch"
        )
    shapes.update({name: (batch, *shapes[name][1:]) for name in named})
    return make_feeds(model, seed, shapes)


def _make_runner(session: Session, feeds: Mapping[str, Array], size: int | None) -> Any:
    try:
        return session.make_runner(feeds)
    except ModelError as error:
        why = "random inputs may not be what it wants" if size is None else f"with a batch of {size}"
        raise ModelError(f"{error} ({why})") from error


def _find_footprint(model: Model, feeds: Mapping[str, Array], target: Target, notes: list[str]) -> Footprint | None:
    if model.source is None:
        return None
    try:
        return measure_footprint(model.source, target, feeds)
    except ModelError as error:
        notes.append(str(error))
        return None


def _find_quantiles(latency: Latency, seed: int) -> dict[str, Figure | None]:
    seconds = np.array(latency.seconds)
    return {name: estimate_quantile(seconds, share, seed) for name, share in _SHARES.items()}


def _compare(models: Sequence[Profiled], seed: int) -> tuple[Comparison, ...]:
    first = models[0]
    found = []
    for model in models[1:]:
        speedups = [
            estimate_speedup(np.array(before.latency.seconds), np.array(after.latency.seconds), seed)
            for before, after in zip(first.batches, model.batches, strict=True)
        ]
        slower = find_regressions(first.layers, model.layers) if first.layers and model.layers else ()
        found.append(Comparison(model.name, tuple(speedups), slower))
    return tuple(found)


def _name(models: Sequence[Model]) -> list[str]:
    """Names of files; what is the same in all paths is left out, and a number tells repeated ones apart."""
    paths = [Path("model") if model.source is None else model.source for model in models]
    names = [path.name for path in paths]
    if len(set(names)) < len(set(map(str, paths))):
        names = [os.fspath(path) for path in paths]
    seen: Counter[str] = Counter()
    for place, name in enumerate(names):
        seen[name] += 1
        names[place] = name if seen[name] == 1 else f"{name} ({seen[name]})"
    return names


def _describe(
    models: Sequence[Model],
    names: Sequence[str],
    opened: Sequence[tuple[Session, bool]],
) -> list[str]:
    notes = []
    for name, (session, as_float32) in zip(names, opened, strict=True):
        if text := session.assignment.describe():
            notes.append(f"{name}: {text}")
        if as_float32:
            notes.append(f"{name} runs in float32: onnxruntime does not take its own element type")
    for first, other in itertools.pairwise(models):
        if dict(first.inputs) != dict(other.inputs):
            notes.append("the models take different inputs: a ratio of their times compares different work")
            break
    return notes
