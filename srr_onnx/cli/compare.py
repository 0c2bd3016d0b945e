"""`srr-onnx compare`: a candidate beside its reference, with gates for CI."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from srr_onnx.cli import options
from srr_onnx.cli.data_options import SOURCE_KEYS, make_dataset, source_options
from srr_onnx.cli.gates import end_with_gates
from srr_onnx.cli.page import write_comparison
from srr_onnx.cli.progress import show_progress
from srr_onnx.cli.report import note_guess
from srr_onnx.cli.run_options import check_written, make_run_options, run_options, show_agreement
from srr_onnx.cli.tables import note, show_json, show_line, show_table
from srr_onnx.cli.target_options import describe_target, is_given, make_target, target_options
from srr_onnx.graph.cost import CONVENTION
from srr_onnx.graph.load import load_model
from srr_onnx.validation.gates import describe_gates
from srr_onnx.validation.profiled import Profile
from srr_onnx.validation.validate import Validation, validate
from srr_onnx.wording import counted, duration, interval, percent, points, quantity, removed


@click.command()
@click.argument("reference", type=click.Path(path_type=Path, readable=False))
@click.argument("candidate", type=click.Path(path_type=Path, readable=False))
@source_options
@run_options
@click.option(
    "--max-accuracy-drop",
    callback=options.read_gate,
    metavar="SHARE",
    help="Gate: accuracy may be lower by this share of the samples, 0.01 or 1%.",
)
@click.option(
    "--min-agreement",
    callback=options.read_gate,
    metavar="SHARE",
    help="Gate: share of the samples on which both find the same class.",
)
@click.option(
    "--max-size", callback=options.read_size, metavar="SIZE", help="Gate: size of the candidate's file, 10MB."
)
@click.option(
    "--min-speedup",
    callback=options.read_factor,
    metavar="FACTOR",
    help="Gate: how many times as fast a run has to be, 1.2; both are timed for it, see `srr-onnx profile`.",
)
@target_options
@options.input_option
@options.import_option
@options.report_option
@click.option("--force", is_flag=True, help="Replace a --report that exists.")
@options.format_option
def compare(
    reference: Path,
    candidate: Path,
    max_accuracy_drop: float | None,
    min_agreement: float | None,
    max_size: int | None,
    min_speedup: float | None,
    inputs: Mapping[str, Sequence[int]],
    report_path: Path | None,
    force: bool,
    output_format: str,
    **values: Any,
) -> None:
    """Compare a model with its reference: cost, accuracy, agreement.

    Without --data both run on made-up random inputs. --provider says where, --min-speedup times them there. Gates make
    it a test for CI: where one fails, the command says so and ends with exit code 3.
    """
    for value, option in ((max_accuracy_drop, "--max-accuracy-drop"), (min_agreement, "--min-agreement")):
        if value is not None and values["data"] is None:
            raise click.UsageError(f"{option} is measured on samples: give --data too")
    if report_path is not None:
        check_written(report_path, "--report", (reference, candidate, values["data"], values["labels"]), force=force)
    if min_speedup is None and is_given("threads"):
        raise click.UsageError("--threads says how models are timed: give --min-speedup too")
    run, target = make_run_options(values), make_target(values)
    with show_progress() as tell:
        loaded = load_model(reference, inputs)
        found = validate(
            loaded,
            candidate,
            make_dataset(loaded, **{key: values[key] for key in SOURCE_KEYS}),
            max_accuracy_drop=max_accuracy_drop,
            min_agreement=min_agreement,
            max_size=max_size,
            min_speedup=min_speedup,
            target=target,
            options=run,
            input_shapes=inputs,
            on_stage=tell,
        )
    gates = describe_gates(found.gates)
    if output_format == "json":
        show_json({"schema": "srr-onnx/compare/1", "convention": CONVENTION, **found.to_json(), "gates": gates})
    else:
        _show(found, gates)
    if report_path is not None:
        write_comparison(report_path, found, gates)
    for text in found.notes:
        note(f"note: {text}")
    note_guess(loaded)
    end_with_gates(gates)


def _show(found: Validation, gates: Sequence[Mapping[str, Any]]) -> None:
    sides = found.reference, found.candidate
    rows = [
        _row("MACs", [side.cost.macs for side in sides], quantity),
        _row("parameters", [side.cost.params for side in sides], quantity),
        _row("file size", [side.size_bytes for side in sides], lambda size: quantity(size, "B")),
    ]
    if found.accuracy_drop is not None:
        shares = [side.accuracy.top1 for side in sides if side.accuracy is not None]
        drop = found.accuracy_drop
        between = interval(-drop.high, -drop.low, points)
        rows.append(("accuracy", *map(percent, shares), f"{points(-drop.mean)} points ({between})"))
    if found.speed is not None:
        rows.append(_write_speed(found.speed))
    show_table(("", "reference", "candidate", "change"), rows)
    show_agreement(found.agreement)
    show_line()
    kind = "made-up random inputs" if found.is_made_up else "samples"
    show_line(f"{'measured':<10}on {found.samples:,} {kind}; intervals of 95 % in brackets")
    if found.speed is not None:
        rounds = len(found.speed.models[0].batches[0].latency.seconds)
        show_line(
            f"{'timed':<10}{counted(rounds, 'round')} on {describe_target(found.speed.target)}, on made-up inputs"
        )
    show_line(f"{'counted':<10}{CONVENTION}")
    for gate in gates:
        show_line(f"{'passed' if gate['passed'] else 'FAILED':<10}{gate['text']}")


def _write_speed(speed: Profile) -> tuple[str, ...]:
    """Medians, and how many times as fast the candidate is."""
    medians = [duration(model.batches[0].latency.median) for model in speed.models]
    factor = speed.comparisons[0].speedups[0]
    between = interval(factor.low, factor.high, "{:.3f}".format)
    return "latency", *medians, f"{factor.value:.3f}x as fast ({between})"


def _row(label: str, values: Sequence[float], write: Callable[[float], str]) -> tuple[str, ...]:
    return label, *map(write, values), removed(*values)
