"""VALIDATE: the report page as one HTML file that loads nothing from anywhere."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from srr_onnx.graph.save import check_target, write_atomically
from srr_onnx.validation.report.charts import draw_damage, draw_latency, draw_layers
from srr_onnx.validation.report.data import Figure, ReportData
from srr_onnx.wording import percent, printable, quantity, removed

_FOLDER = Path(__file__).parent / "templates"


def write_report(path: str | os.PathLike[str], data: ReportData, *, force: bool = False) -> None:
    """Write a report page, whole or not at all.

    Args:
        path: HTML file.
        data: What it shows.
        force: Whether an existing file may be replaced.

    Raises:
        OutputError: The file exists and `force` is not set, or it cannot be written.
    """
    check_target(Path(path), force, "--report")
    page = render(data).encode()
    with write_atomically(Path(path)) as file:
        file.write(page)


def render(data: ReportData) -> str:
    """Make the page.

    Args:
        data: What it shows.

    Returns:
        HTML. Every text from the model is escaped, and the page's policy allows no script but its own.
    """
    environment = _environment()
    style, script = (_FOLDER.joinpath(name).read_text(encoding="utf-8") for name in ("style.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html").render(
        data=data,
        script=Markup(script),
        script_hash=digest,
        style=Markup(style),
        layer_charts=draw_layers(data.structure) if data.structure else [],
        latency_chart=draw_latency(data.latency) if data.latency else None,
        timings={name: _summarize(times) for name, times in data.latency.items()},
        damage_chart=draw_damage(data.damage) if data.damage else None,
    )


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_clean,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "quantity": quantity,
        "percent": percent,
        "place": _place,
        "breakable": _break,
        "write": write_figure,
        "change": describe_change,
    }
    return environment


def _clean(value: Any) -> Any:
    """Names come from files: what is no printable character (a null, a change of direction) shows as its code."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _break(names: str) -> Markup:
    """Let a line end behind every slash of a name."""
    return Markup("/<wbr>").join(printable(part) for part in names.split("/"))


def _place(number: float) -> str:
    """A coordinate in percent, to a hundredth."""
    return f"{number:.2f}".rstrip("0").rstrip(".")


def write_figure(number: float, form: str) -> str:
    """Write a number in the form of its `Figure` or `Measure`."""
    if form == "share":
        return percent(number)
    if form == "bytes":
        return quantity(number, "B")
    if form == "ms":
        return f"{number:.2f} ms"
    return quantity(number) if form == "count" else f"{number:.3g}"


def describe_change(figure: Figure) -> str:
    """What has become of a quantity: a signed percentage, or points where it is a share itself."""
    if figure.before is None:
        return write_figure(figure.after, figure.form)
    if figure.form == "share":
        text = f"{100 * (figure.after - figure.before):+.1f} points"
    else:
        text = removed(figure.before, figure.after)
    return text.replace("-", "\N{MINUS SIGN}")


def _summarize(times: Sequence[float]) -> dict[str, float]:
    """What a table says of runs, in milliseconds."""
    return dict(zip(("fastest", "median", "p90", "p99"), np.quantile(times, (0, 0.5, 0.9, 0.99)).tolist(), strict=True))
