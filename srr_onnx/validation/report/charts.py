"""VALIDATE: the report's numbers as marks on a unit canvas: where each bar, dot and tick lies.

Every place is a percentage of the canvas, x from the left and y from the top, so that a chart can be stretched to any
width while its labels, which are text outside of it, stay readable. Colours are left to the style sheet.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from srr_onnx.planning.budget import NAMES
from srr_onnx.validation.report.data import Damage, Structure
from srr_onnx.wording import counted, percent, quantity

Write = Callable[[float], str]

_FEWEST_BINS, _MOST_BINS = 10, 60
# Later runs of a long tail would squeeze all others into a corner; how many are left out is told.
_SHOWN_QUANTILE = 0.99
_ORDER = "layer, in execution order"
_KINDS = ("before", "after")
# Share of its place that a column fills: what was shows beside what is, also where that has grown.
_FILLED = {"before": 0.86, "after": 0.86, "measure": 0.86, "hit": 1.0}
# Rounding must not cost the tick at the end of an axis.
_NEARLY = 1 - 1e-9


@dataclasses.dataclass(frozen=True)
class Tick:
    """A labelled place on an axis, in percent from its beginning."""

    at: float
    text: str


@dataclasses.dataclass(frozen=True)
class Mark:
    """A rectangle; `kind` is its class in the style sheet, `title` what a pointer over it shows."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    title: str = ""


@dataclasses.dataclass(frozen=True)
class Path:
    """A line through points, dotted at each with a title where there are titles."""

    points: tuple[tuple[float, float], ...]
    kind: str
    titles: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        name: Identifier, unique on the page.
        y_title: What stands on the vertical axis, with its unit.
        description: The chart in a sentence, for who cannot see it.
        marks: Rectangles, the lowest first.
        paths: Lines over them.
        x_title: What stands on the horizontal axis, with its unit; empty where a chart below tells.
        x_ticks: Its ticks.
        y_ticks: Ticks of the vertical axis, from the bottom.
        legend: Class and text of every kind of mark; empty where there is one kind.
    """

    name: str
    y_title: str
    description: str
    marks: tuple[Mark, ...]
    paths: tuple[Path, ...] = ()
    x_title: str = ""
    x_ticks: tuple[Tick, ...] = ()
    y_ticks: tuple[Tick, ...] = ()
    legend: tuple[tuple[str, str], ...] = ()


def find_ticks(start: float, end: float, write: Write, most: int = 4) -> tuple[Tick, ...]:
    """Find round numbers along an axis.

    Args:
        start: The number where the axis begins.
        end: The number where it ends, above `start`.
        write: Puts a number into words.
        most: At most about so many steps.

    Returns:
        The ticks; the step is 1, 2 or 5 times a power of ten.
    """
    span = end - start
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * most >= span * _NEARLY)
    first, last = math.ceil(start / step * _NEARLY), math.floor(end / step / _NEARLY)
    return tuple(Tick(100 * (step * number - start) / span, write(step * number)) for number in range(first, last + 1))


def draw_layers(structure: Structure) -> list[Chart]:
    """Draw one chart per quantity, one column per layer, all on the same horizontal axis.

    Args:
        structure: Layers in execution order.

    Returns:
        Output channels, what the criterion says, MACs and milliseconds: those that any layer has.
    """
    layers = structure.layers
    names = [layer.name for layer in layers]
    kept, after = (("after", "kept"), ("before", "dropped")), (("after", "after"), ("before", "before"))
    channels, macs = [layer.channels for layer in layers], [layer.macs for layer in layers]
    shares = [None if pair is None else (1.0, pair[1] / pair[0]) for pair in channels]
    charts = [
        _draw_pairs("channels", "output channels", channels, quantity, names, kept),
        _draw_pairs("kept", "share of the channels", shares, _whole_percent, names, kept),
    ]
    if structure.measure is not None:
        write: Write = _whole_percent if structure.measure.form == "share" else "{:.3g}".format
        charts.append(_draw_singles(structure.measure.label, [layer.measure for layer in layers], write, names))
    charts.append(_draw_pairs("macs", "MACs", macs, quantity, names, after))
    times = [layer.latency_ms for layer in layers]
    charts.append(_draw_pairs("milliseconds", "milliseconds", times, "{:.3g} ms".format, names, after))
    charts = [chart for chart in charts if chart.marks]
    step = max(math.ceil(len(layers) / 8), 1)
    ticks = tuple(Tick(100 * (n + 0.5) / len(layers), str(n + 1)) for n in range(0, len(layers), step))
    return [*charts[:-1], *(dataclasses.replace(c, x_title=_ORDER, x_ticks=ticks) for c in charts[-1:])]


def _draw_pairs(
    name: str,
    title: str,
    pairs: Sequence[tuple[float, float] | None],
    write: Write,
    names: Sequence[str],
    legend: tuple[tuple[str, str], ...],
) -> Chart:
    """Columns of what was, with what is left in front of them."""
    known = [pair for pair in pairs if pair is not None]
    top = max((max(pair) for pair in known), default=0) or 1
    marks = []
    for number, (layer, pair) in enumerate(zip(names, pairs, strict=True)):
        if pair is not None:
            marks += [_column(number, len(names), value / top, kind) for kind, value in zip(_KINDS, pair, strict=True)]
            marks.append(
                _column(number, len(names), 1, "hit", f"{number + 1}. {layer}: {' → '.join(map(write, pair))}")
            )
    words = f"{title} of {counted(len(known), 'layer')} before and after"
    return Chart(name, title, words, tuple(marks), y_ticks=find_ticks(0, top, write), legend=legend)


def _draw_singles(title: str, values: Sequence[float | None], write: Write, names: Sequence[str]) -> Chart:
    top = max((value for value in values if value is not None), default=0) or 1
    marks = []
    for number, (layer, value) in enumerate(zip(names, values, strict=True)):
        if value is not None:
            marks.append(_column(number, len(names), max(value, 0) / top, "measure"))
            marks.append(_column(number, len(names), 1, "hit", f"{number + 1}. {layer}: {write(value)}"))
    words = f"{title} of {counted(len(marks) // 2, 'layer')}"
    return Chart("measure", title, words, tuple(marks), y_ticks=find_ticks(0, top, write))


def _column(number: int, count: int, share: float, kind: str, title: str = "") -> Mark:
    """A column that fills its place by half where it stands in front, by most of it elsewhere."""
    width, part = 100 / count, _FILLED[kind]
    return Mark(width * (number + (1 - part) / 2), 100 * (1 - share), width * part, 100 * share, kind, title)


def draw_latency(samples: Mapping[str, Sequence[float]]) -> Chart:
    """Draw how often a run took how long.

    Args:
        samples: Milliseconds of single runs by name of the model, the original first.

    Returns:
        Histograms on the same axis, with a line at every median.
    """
    shown = max(float(np.quantile(times, _SHOWN_QUANTILE)) for times in samples.values())
    low = min(min(times) for times in samples.values())
    pooled = np.concatenate([np.asarray(times, float) for times in samples.values()])
    span = (shown - low) or shown or 1.0
    start, end = max(low - span * 0.05, 0.0), shown + span * 0.05
    steps = [np.ptp(np.histogram_bin_edges(times, "fd")[:2]) for times in samples.values()]  # as fine as the finest
    bins = min(max(math.ceil((end - start) / min(steps)), _FEWEST_BINS), _MOST_BINS)
    edges = np.linspace(start, end, bins + 1)
    counts = {name: np.histogram(times, edges)[0] for name, times in samples.items()}
    top = max(int(count.max()) for count in counts.values())
    marks, paths = [], []
    for kind, (name, times) in zip(("original", "pruned"), samples.items(), strict=False):
        for number, count in enumerate(counts[name].tolist()):
            if count:
                text = f"{name}: {counted(count, 'run')} of {edges[number]:.3g} to {edges[number + 1]:.3g} ms"
                height = 100 * count / top
                marks.append(Mark(100 * number / bins, 100 - height, 100 / bins, height, kind, text))
        at = 100 * (float(np.median(times)) - start) / (end - start)
        paths.append(Path(((at, 0.0), (at, 100.0)), kind))
    beyond = int((pooled > end).sum())
    return Chart(
        "latency",
        "runs",
        f"Histogram of the milliseconds of single runs: {', '.join(samples)}",
        tuple(marks),
        tuple(paths),
        x_title="milliseconds of one run; the lines are medians"
        + (f"; {counted(beyond, 'slower run')} not shown" if beyond else ""),
        x_ticks=find_ticks(start, end, "{:.4g}".format, 8),
        y_ticks=find_ticks(0, top, quantity),
        legend=tuple(zip(("original", "pruned"), samples, strict=False)),
    )


def draw_damage(damage: Damage) -> Chart:
    """Draw what reductions cost.

    Args:
        damage: The curve, and where the result lies.

    Returns:
        Mean and largest error against reduction. The axis ends with the largest error that a reduction within the cap
        makes, since those beyond it dwarf all others; what cannot be reached is shaded.
    """
    curve, here = damage.curve, damage.chosen
    cap, end = curve.reachable_within_cap, curve.reachable
    usual = [point.worst for point in curve.points if point.reduction <= max(cap, here)]
    top = 1.1 * max(usual, default=0.0) or 1.0
    paths = [Path(((100 * here, 0.0), (100 * here, 100.0)), "chosen")]
    for kind in ("worst", "mean"):
        places, titles = [], []
        for point in curve.points:
            value = point.worst if kind == "worst" else point.error
            where = f"worst group, {point.worst_group}" if kind == "worst" else "mean of the groups"
            places.append((100 * point.reduction, 100 * (1 - value / top)))
            titles.append(f"{percent(point.reduction)} removed: error {percent(value)}, {where}")
        paths.append(Path(tuple(places), kind, tuple(titles)))
    return Chart(
        "damage",
        "predicted error",
        f"Predicted error against the share of the {NAMES[curve.kind]} removed, {len(curve.points)} points",
        (
            Mark(100 * cap, 0, 100 * (end - cap), 100, "beyond-cap", "a group loses more than the cap"),
            Mark(100 * end, 0, 100 * (1 - end), 100, "unreachable", "out of reach"),
        ),
        tuple(paths),
        x_title=f"{NAMES[curve.kind]} removed",
        x_ticks=tuple(Tick(share, f"{share} %") for share in range(0, 101, 20)),
        y_ticks=find_ticks(0, top, _whole_percent),
        legend=(
            ("mean", "mean of the groups"),
            ("worst", "worst group"),
            ("chosen", f"this result, {percent(here)}"),
            ("beyond-cap", f"beyond {percent(cap)}: a group loses more than the cap"),
            ("unreachable", f"beyond {percent(end)}: out of reach"),
        ),
    )


def _whole_percent(share: float) -> str:
    return f"{100 * share:.3g} %"
