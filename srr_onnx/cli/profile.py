"""`srr-onnx profile`: latency of models on a target, alone, against each other, and node by node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from srr_onnx.cli import options
from srr_onnx.cli.progress import show_progress
from srr_onnx.cli.report import note_guess
from srr_onnx.cli.tables import note, show_json, show_line, show_table
from srr_onnx.cli.target_options import describe_target, make_target, read_batches, target_options
from srr_onnx.graph.load import load_model
from srr_onnx.graph.model import Shape
from srr_onnx.targets.onnxruntime import version
from srr_onnx.validation.layers import LayerTimes
from srr_onnx.validation.profile import BUDGET_SECONDS, ROUNDS
from srr_onnx.validation.profile import profile as profile_models
from srr_onnx.validation.profiled import BatchTimes, Comparison, Profile
from srr_onnx.validation.timing import Figure, judge_speedup
from srr_onnx.wording import counted, duration, interval, percent, quantity, shape


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path, readable=False), metavar="MODEL...")
@target_options
@click.option(
    "--batch",
    "batches",
    callback=read_batches,
    metavar="N[,N...]",
    help="Rows of one run, one size after the other, where the file leaves that open.  [default: as the file says]",
)
@click.option(
    "--repeat",
    type=click.IntRange(min=1),
    default=ROUNDS,
    show_default=True,
    metavar="N",
    help="Rounds at each batch, at most; every model runs once in each.",
)
@click.option(
    "--budget-seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=BUDGET_SECONDS,
    show_default=True,
    metavar="S",
    help="Time for all rounds together.",
)
@click.option(
    "--layers",
    type=click.IntRange(min=0),
    default=15,
    show_default=True,
    metavar="N",
    help="List the N slowest nodes of every model; 0 leaves their times out.",
)
@options.input_option
@options.seed_option
@options.format_option
def profile(
    models: Sequence[Path],
    batches: Sequence[int],
    repeat: int,
    budget_seconds: float,
    layers: int,
    inputs: Mapping[str, Sequence[int]],
    seed: int,
    output_format: str,
    **values: Any,
) -> None:
    """Measure latency, throughput, memory and the time of every node; compare models.

    The models take turns on made-up inputs, after a warm-up, with the same number of threads. The first is the one that
    the others are compared with; what is in brackets is the 95 % interval. A machine that is not quiet is reported.
    """
    target = make_target(values)
    with show_progress() as tell:
        first = load_model(models[0], inputs)
        found = profile_models(
            first,
            *models[1:],
            target=target,
            batches=batches,
            rounds=repeat,
            budget_seconds=budget_seconds,
            with_layers=layers > 0,
            input_shapes=inputs,
            seed=seed,
            on_stage=tell,
        )
    if output_format == "json":
        show_json(found.to_json())
    else:
        _show(found, layers)
    for text in (*found.notes, found.noise.describe()):
        if text:
            note(f"note: {text}")
    note_guess(first)


def _show(found: Profile, most: int) -> None:
    rows = [(model.name, *_write_times(times)) for model in found.models for times in model.batches]
    columns = ("model", "batch", "fastest", "median", "p90", "p99", "rows/s", "load", "memory")
    show_table(columns, rows)
    show_line()
    first = found.models[0]
    for other in found.comparisons:
        for times, speedup in zip(first.batches, other.speedups, strict=True):
            where = f"at a batch of {times.batch}, " if len(other.speedups) > 1 else ""
            show_line(f"{'speed':<10}{where}{describe_speedup(speedup, other.name, first.name)}")
    _show_inputs(found)
    counts = sorted({len(times.latency.seconds) for model in found.models for times in model.batches})
    rounds = f"{counts[0]:,} to " * (counts[0] != counts[-1]) + counted(counts[-1], "round")
    show_line(f"{'measured':<10}{rounds} on {describe_target(found.target)}; onnxruntime {version()}")
    for model in found.models:
        if model.layers is not None:
            _show_layers(model.name, model.layers, most)
    for other in found.comparisons:
        _show_regressions(other, first.name)


def _show_inputs(found: Profile) -> None:
    """The shapes that were fed at the first batch; once where they are those of all models."""
    texts = [
        ", ".join(f"{name} {shape(sizes)}" for name, sizes in model.batches[0].inputs.items()) for model in found.models
    ]
    if len(set(texts)) > 1:
        texts = [f"{text} ({model.name})" for text, model in zip(texts, found.models, strict=True)]
    for text in dict.fromkeys(texts):
        show_line(f"{'inputs':<10}{text}")


def describe_speedup(speedup: Figure, candidate: str, reference: str) -> str:
    """Say how much faster a model is than another."""
    verdict = judge_speedup(speedup)
    if verdict == "slower":
        speedup = Figure(1 / speedup.value, 1 / speedup.high, 1 / speedup.low)
    digits = 3 if max(speedup.value, speedup.high) < 1.1 else 2
    between = interval(speedup.low, speedup.high, lambda value: f"{value:.{digits}f}")
    figure = f"{speedup.value:.{digits}f}x"
    if verdict == "not faster":
        return f"{candidate} is not faster than {reference}: {figure} ({between})"
    return f"{candidate} is {figure} {verdict} than {reference} ({between})"


def _write_times(times: BatchTimes) -> tuple[str, ...]:
    footprint = times.footprint
    peak = None if footprint is None else footprint.peak_bytes
    return (
        "-" if times.batch is None else str(times.batch),
        duration(times.latency.fastest),
        *(_write(found) for found in times.quantiles.values()),
        quantity(times.rows_per_second),
        "-" if footprint is None else duration(footprint.load_seconds),
        "-" if peak is None else quantity(peak, "B"),
    )


def _write(found: Figure | None) -> str:
    return "-" if found is None else f"{duration(found.value)} ({interval(found.low, found.high, duration)})"


def _show_layers(name: str, layers: LayerTimes, most: int) -> None:
    rows = [
        (
            row.node,
            row.op_type,
            "+".join(row.kernels),
            _write_shape(row.shape),
            duration(row.seconds),
            percent(row.seconds / layers.sum_seconds),
        )
        for row in layers.rows[:most]
    ]
    show_line()
    title = f"{name}: slowest nodes, {len(rows)} of {len(layers.rows)}"
    show_table(("node", "operator", "kernel", "output", "time", "share"), rows, title, left=4)
    show_line(
        f"{duration(layers.sum_seconds)} in all kernels, {duration(layers.run_seconds)} in a whole run while it was "
        f"recorded ({counted(layers.runs, 'run')})"
    )


def _write_shape(sizes: Shape | None) -> str:
    return "-" if sizes is None else shape(sizes)


def _show_regressions(other: Comparison, first: str) -> None:
    if not other.regressions:
        return
    rows = [
        (
            slow.node,
            slow.op_type,
            " > ".join(dict.fromkeys("+".join(names) for names in (slow.reference_kernels, slow.candidate_kernels))),
            " > ".join(dict.fromkeys(map(_write_shape, (slow.reference_shape, slow.candidate_shape)))),
            f"{duration(slow.reference_seconds)} > {duration(slow.candidate_seconds)}",
            f"{slow.candidate_seconds / slow.reference_seconds - 1:+.0%}".replace("%", " %"),
        )
        for slow in other.regressions
    ]
    show_line()
    title = f"nodes that are slower in {other.name} than in {first}"
    show_table(("node", "operator", "kernel", "output", "time", "change"), rows, title, left=4)
