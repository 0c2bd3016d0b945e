"""Plots of docs/accuracy.md, as small SVG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import accuracy_grid as grid
from accuracy_rows import Rows, mean

_LINES = (
    ("reconstruction", grid.LEAST_SQUARES, "reconstruction, least squares"),
    ("l1", grid.LEAST_SQUARES, "uniform L1, least squares"),
    ("reconstruction", grid.DATA_FREE, "reconstruction, data-free"),
    ("srr", grid.DATA_FREE, "srr, data-free (no images at all)"),
    ("l1", grid.RECALIBRATED, "uniform L1, recalibrated"),
    ("l1", grid.NONE, "uniform L1, nothing"),
)


def draw_all(rows: Rows, folder: Path) -> None:
    """Draw every plot into a folder."""
    folder.mkdir(exist_ok=True)
    _draw_reductions(rows, folder / "accuracy_reductions.svg")
    _draw_images(rows, folder / "accuracy_images.svg")


def open_figure(title: str, count: int) -> tuple[Any, Any]:
    """Begin a figure of plots side by side, of one height."""
    import matplotlib as mpl

    mpl.use("svg")
    # Text stays text and ids do not change, so that the files are small and differ only where figures do.
    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "srr-onnx", "font.size": 9, "axes.grid": True}
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, count, figsize=(4.2 * count, 3.4), sharey=True, layout="constrained")
    figure.suptitle(title)
    return figure, axes


def draw_spread(
    axis: Any, points: Sequence[tuple[float, Sequence[float]]], label: str, color: str | None = None
) -> None:
    """Draw a line through the means of values, with bars from the lowest to the highest.

    Args:
        axis: Plot to draw into.
        points: Places, and the values at each.
        label: Name of the line.
        color: Its color; by default the plot's next one.
    """
    middle = [sum(values) / len(values) for _, values in points]
    low = [m - min(values) for m, (_, values) in zip(middle, points, strict=True)]
    high = [max(values) - m for m, (_, values) in zip(middle, points, strict=True)]
    places = [place for place, _ in points]
    axis.errorbar(places, middle, yerr=[low, high], label=label, color=color, marker="o", markersize=3, capsize=2)


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as SVG, and close it."""
    from matplotlib import pyplot

    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    text = path.read_text(encoding="utf-8")
    path.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n", encoding="utf-8")


def _draw_reductions(rows: Rows, path: Path) -> None:
    """Change of accuracy against the share of the MACs that went; bars from the lowest to the highest training."""
    figure, axes = open_figure("change of accuracy, points, nothing trained", 2)
    for axis, net in zip(axes, grid.CLASSIC, strict=True):
        for criterion, way, label in _LINES:
            found = rows.select(net=net, split=grid.EMOJI, domain="own", samples=512, criterion=criterion, way=way)
            parts = [(r, found.select(reduction=r)) for r in grid.REDUCTIONS]
            points = [(100 * r, [row["change"] for row in part]) for r, part in parts if part]
            if points:
                draw_spread(axis, points, label)
        axis.set(title=net, xlabel="MACs removed, %", xticks=[30, 44, 60])
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=7, loc="outside lower center", ncols=3)
    save_figure(figure, path)


def _draw_images(rows: Rows, path: Path) -> None:
    """Change of accuracy against the number of images, one training."""
    figure, axes = open_figure("change of accuracy at 44 %, points, one training", 2)
    cases = (("reconstruction", grid.LEAST_SQUARES), ("reconstruction", grid.BOTH), ("l1", grid.RECALIBRATED))
    for axis, net in zip(axes, grid.CLASSIC, strict=True):
        found = rows.select(net=net, split=grid.EMOJI, domain="own", reduction=0.44, seed=0)
        for criterion, way in cases:
            part = found.select(criterion=criterion, way=way)
            numbers = sorted({row["samples"] for row in part})
            heights = [mean(part.select(samples=number), "change") for number in numbers]
            axis.plot(numbers, heights, label=f"{criterion}, {way}", marker="o", markersize=3)
        axis.set(title=net, xlabel="images", xscale="log", xticks=sorted((*grid.NUM_IMAGES, 512)))
        axis.set_xticklabels(sorted((*grid.NUM_IMAGES, 512)))
        axis.minorticks_off()
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=7, loc="outside lower center", ncols=3)
    save_figure(figure, path)
