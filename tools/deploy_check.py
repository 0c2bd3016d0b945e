"""Does a pruned file drop into whatever runs the original? Run both in every runtime, and write docs/deployment.md.

    python tools/deploy_check.py resnet50.onnx mobilenet_v2.onnx --flops 0.44 --data pictures.npz --write

`make deploy-check` installs the runtimes first. The exit code is 1 where a pruned file does worse in a runtime than
the original does; a runtime that is not here is a row that says how to install it.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click
from deploy.check import (
    INT8_TOLERANCE,
    TOLERANCE,
    Outcome,
    Outputs,
    Settings,
    find_reference,
    judge,
    measure_top1,
    run_file,
    time_files,
)
from deploy.runtimes import PROVIDER, RUNTIMES, Runtime
from deploy.subject import Agreement, Subject, prepare
from deploy.table import Row, format_agreements, format_gains, format_rows, write_csv
from markers import replace_between

from srr_onnx.errors import SrrError
from srr_onnx.planning.budget import parse_share

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
from machine import describe_machine  # noqa: E402

FACTS = ("date", "commit", "processor", "cores", "python", "load", "srr-onnx")
PAGE, CSV = ROOT / "docs/deployment.md", ROOT / "docs/data/deployment.csv"


def check_subject(
    subject: Subject, wanted: Mapping[Path, Outputs], runtimes: Sequence[Runtime], settings: Settings
) -> Iterator[Row]:
    """Run the files of a net in every runtime.

    Args:
        subject: The net.
        wanted: The reference's outputs per file.
        runtimes: The runtimes.
        settings: How they are run.

    Yields:
        One row per runtime and kind of file.
    """
    files = list(wanted)
    for runtime in runtimes:
        found = {path: run_file(runtime, path, subject.samples, settings) for path in files}
        running = [path for path in files if found[path].is_running]
        timed = time_files(runtime, running, subject.samples[0], settings) if len(running) > 1 else Outcome()
        times = dict(zip(running, timed.milliseconds, strict=False))
        for kind, (original, pruned) in subject.pairs.items():
            tolerance = INT8_TOLERANCE if kind == "int8" else TOLERANCE
            pair = found[original], found[pruned]
            verdict = judge(runtime, *pair, (wanted[original], wanted[pruned]), tolerance)
            row = Row(
                subject.net, runtime.name, pair[0].version or pair[1].version, kind, **dataclasses.asdict(verdict)
            )
            if pair[1].is_running:
                top1 = measure_top1(wanted[pruned], pair[1].outputs, subject.class_axes)
                row = dataclasses.replace(row, top1=top1)
            if original in times and pruned in times:
                best = {"original_ms": min(times[original]), "pruned_ms": min(times[pruned])}
                row = dataclasses.replace(row, rounds=len(times[pruned]), **best)
            yield (
                row
                if not timed.problem
                else dataclasses.replace(row, verdict=f"{row.verdict}; not timed: {timed.problem}")
            )


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--flops", default="0.44", show_default=True, help="Share of the MACs to remove.")
@click.option("--align", default="8", show_default=True, help="Widths to choose from, as `srr-onnx prune` takes them.")
@click.option("--data", default="synthetic", show_default=True, help="Pictures: whatever srr-onnx reads.")
@click.option(
    "--data-for",
    "data_for",
    multiple=True,
    type=(str, str),
    metavar="NET DATA",
    help="Other pictures for one net, by the stem of its file. May be repeated.",
)
@click.option(
    "--samples", default=64, show_default=True, help="Pictures to calibrate with; a quarter more is held out."
)
@click.option("--threads", default=2, show_default=True, help="Threads, and cores, of every runtime.")
@click.option("--seconds", default=3.0, show_default=True, help="Seconds in which the files of a net take turns.")
@click.option("--provider-python", metavar="PYTHON", help="Interpreter whose onnxruntime has another provider.")
@click.option("--keep", type=click.Path(path_type=Path), metavar="FOLDER", help="Keep the files that are made.")
@click.option("--write", is_flag=True, help="Write docs/deployment.md and docs/data/deployment.csv.")
def main(
    models: Sequence[Path],
    flops: str,
    align: str,
    data: str,
    data_for: Sequence[tuple[str, str]],
    samples: int,
    threads: int,
    seconds: float,
    provider_python: str | None,
    keep: Path | None,
    write: bool,
) -> None:
    """Prune MODELS, quantise the results, and run all of it in every runtime."""
    settings = Settings(threads=threads, seconds=seconds)
    runtimes = [
        dataclasses.replace(runtime, python=provider_python) if provider_python and runtime is PROVIDER else runtime
        for runtime in RUNTIMES
    ]
    machine = describe_machine()
    facts = {fact: machine[fact] for fact in FACTS} | {
        "pictures": ", ".join([Path(data).name, *(f"{Path(other).name} for {net}" for net, other in data_for)]),
        "to calibrate with": str(samples),
        "align": align,
    }
    rows: list[Row] = []
    agreements: list[Agreement] = []
    with tempfile.TemporaryDirectory(prefix="deploy-") as name:
        folder = keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        for model in models:
            try:
                own = dict(data_for).get(model.stem, data)
                subject = prepare(model, folder, own, flops=parse_share(flops), align=align, samples=samples)
                agreements += subject.agreements
                files = [path for pair in subject.pairs.values() for path in pair]
                wanted = {path: find_reference(path, subject.samples, settings) for path in files}
                for row in check_subject(subject, wanted, runtimes, settings):
                    rows.append(row)
                    click.echo(f"{row.net}  {row.runtime} {row.version} {row.kind}: {row.verdict}", err=True)
            except (SrrError, RuntimeError) as error:
                rows.append(Row(model.stem, "none", "", "float", f"FAILS before any runtime: {error}", True))
                click.echo(f"{model.stem}: {error}", err=True)
    texts = {
        "machine": "; ".join(f"{fact} {text}" for fact, text in facts.items()),
        "float": format_rows([row for row in rows if row.kind != "int8"]),
        "int8": format_rows([row for row in rows if row.kind == "int8"]),
        "gains": format_gains(rows),
        "agreement": format_agreements(agreements),
    }
    click.echo("\n\n".join(texts.values()))
    if write:
        write_csv(CSV, rows)
        write_csv(CSV.with_name("deployment_agreement.csv"), agreements)
        for marker, text in texts.items():
            replace_between(PAGE, marker, text)
    failures = [row for row in rows if row.is_failure]
    for row in failures:
        click.echo(f"{row.net} in {row.runtime}: {row.verdict}", err=True)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
