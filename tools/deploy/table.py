"""What was found, as rows: their CSV files and their Markdown form."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.subject import Agreement


@dataclasses.dataclass(frozen=True)
class Row:
    """An original and its pruned file in one runtime.

    Attributes:
        net: The net.
        runtime: The runtime.
        version: Its version.
        kind: "float", or "int8" for the quantised copies of both.
        verdict: Whether the pruned file drops in.
        is_failure: Whether it does worse there than the original.
        error_original: Relative difference of the original's outputs from onnxruntime's.
        error_pruned: The same of the pruned file.
        top1: Share of the positions where the pruned file has the same class on top as in onnxruntime.
        original_ms: Fastest of the runs in turns.
        pruned_ms: The same of the pruned file.
        rounds: Runs of each.
    """

    net: str
    runtime: str
    version: str
    kind: str
    verdict: str
    is_failure: bool = False
    error_original: float = math.nan
    error_pruned: float = math.nan
    top1: float = math.nan
    original_ms: float = math.nan
    pruned_ms: float = math.nan
    rounds: int = 0


def write_csv(path: Path, rows: Sequence[Any]) -> None:
    """Write rows of one kind of dataclass."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [field.name for field in dataclasses.fields(rows[0])]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            entry = dataclasses.asdict(row)
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in entry.items()})


def format_rows(rows: Sequence[Row]) -> str:
    """One line per net and runtime: does the pruned file drop in, and what does it gain?"""
    lines = [
        "| net | runtime | pruned file | differences | same class | original ms | pruned ms | faster |",
        "|---|---|---|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        verdict = f"**{row.verdict}**" if row.is_failure else row.verdict
        errors = _join(_error(row.error_original), _error(row.error_pruned))
        top1 = _format(row.top1, "{:.0%}")
        lines.append(
            f"| {row.net} | {row.runtime} {row.version} | {_escape(verdict)} | {errors} | {top1} "
            f"| {_ms(row.original_ms)} | {_ms(row.pruned_ms)} | {_gain(row.original_ms, row.pruned_ms)} |"
        )
    return "\n".join(lines)


def format_gains(rows: Sequence[Row]) -> str:
    """One line per net and runtime: what pruning, quantising, and both of them gain over the original."""
    lines = ["| net | runtime | original ms | pruned | int8 | pruned and int8 |", "|---|---|--:|--:|--:|--:|"]
    quantised = {(row.net, row.runtime): row for row in rows if row.kind == "int8"}
    for row in rows:
        other = quantised.get((row.net, row.runtime))
        if row.kind == "float" and other is not None and not math.isnan(other.pruned_ms):
            gains = [_gain(row.original_ms, ms) for ms in (row.pruned_ms, other.original_ms, other.pruned_ms)]
            lines.append(f"| {row.net} | {row.runtime} | {_ms(row.original_ms)} | {' | '.join(gains)} |")
    return "\n".join(lines)


def format_agreements(rows: Sequence[Agreement]) -> str:
    """One line per file: size, and how far it agrees with the original."""
    lines = ["| net | file | MB | same class on top | cosine | pictures |", "|---|---|--:|--:|--:|--:|"]
    for row in rows:
        size = f"{row.size_bytes / 1e6:.1f}" if row.size_bytes else ""
        file = f"{row.file}: {row.note}" if row.note else row.file
        top1, cosine = _format(row.top1, "{:.1%}"), _format(row.cosine, "{:.3f}")
        lines.append(f"| {row.net} | {_escape(file)} | {size} | {top1} | {cosine} | {row.samples or ''} |")
    return "\n".join(lines)


def _format(value: float, form: str) -> str:
    return "" if math.isnan(value) else form.format(value)


def _gain(before: float, after: float) -> str:
    return _format(before / after, "{:.2f}x")


def _ms(value: float) -> str:
    return _format(value, "{:.1f}")


def _error(value: float) -> str:
    return "other shape" if math.isinf(value) else _format(value, "{:.0e}")


def _join(*texts: str) -> str:
    return ", ".join(text for text in texts if text)


def _escape(text: str) -> str:
    return text.replace("|", "\\|")
