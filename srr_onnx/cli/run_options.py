"""Options of the commands that run models over data, and the table of how two models agree."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from srr_onnx.cli.options import combine, seed_option
from srr_onnx.cli.tables import show_line, show_table
from srr_onnx.errors import OutputError
from srr_onnx.graph.save import check_target
from srr_onnx.validation.agreement import Agreement
from srr_onnx.validation.measure import RunOptions
from srr_onnx.wording import interval, percent

run_options = combine(
    click.option(
        "--limit", type=click.IntRange(min=1), metavar="N", help="Use N samples, chosen at random.  [default: all]"
    ),
    click.option(
        "--batch",
        type=click.IntRange(min=1),
        metavar="N",
        help="Samples per run.  [default: what the file states, else 16 where it takes them]",
    ),
    click.option(
        "--workers",
        type=click.IntRange(1, 1024),
        metavar="N",
        help="Runs beside each other; the figures do not depend on it.  [default: one per core]",
    ),
    click.option(
        "--class-output", metavar="NAME", help="Output with one column per class.  [default: found by its shape]"
    ),
    seed_option,
)
RUN_KEYS = ("limit", "batch", "workers", "class_output", "seed")


def make_run_options(values: dict[str, Any]) -> RunOptions:
    """Take the values of `run_options` out of those of a command."""
    return RunOptions(**{key: values.pop(key) for key in RUN_KEYS})


def show_agreement(outputs: Sequence[Agreement]) -> None:
    """Print how the outputs of two models compare; nothing where nothing was compared."""
    if not outputs:
        return
    rows = []
    for found in outputs:
        figures = ((found.top1, percent), (found.cosine, "{:.4f}".format), (found.kl, "{:.3g}".format))
        cells = [f"{write(e.mean)} ({interval(e.low, e.high, write)})" if e else "-" for e, write in figures]
        rows.append((found.output, *cells, f"{found.max_abs:.3g}"))
    show_line()
    show_table(("output", "same top-1", "cosine", "KL, nats", "largest difference"), rows)


def check_written(target: Path, option: str, read: Sequence[Path | str | None], *, force: bool) -> None:
    """Check that a file beside the result may be written, before any work is done.

    Args:
        target: The file.
        option: Option that names it.
        read: What the command reads: that is not to be written over, whatever --force says.
        force: Whether an existing file may be replaced.

    Raises:
        OutputError: It may not.
    """
    if os.path.realpath(target) in {os.path.realpath(path) for path in read if path is not None}:
        raise OutputError(f"{option} {str(target)!r} is a file that is read: choose another name")
    check_target(target, force, option)
