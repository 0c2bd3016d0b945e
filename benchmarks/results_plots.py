"""Plots of docs/results.md, as small SVG files."""

from __future__ import annotations

from pathlib import Path

import results_grid as grid
from accuracy_grid import LEAST_SQUARES, NONE, RECALIBRATED, REDUCTIONS
from accuracy_plots import draw_spread, open_figure, save_figure
from accuracy_rows import Rows

_PANELS = (
    (NONE, RECALIBRATED, "recalibrated only"),
    (NONE, grid.LABELS, "fine-tuned on labels"),
    (LEAST_SQUARES, NONE, "least squares, not trained"),
    (LEAST_SQUARES, grid.LABELS, "least squares, fine-tuned on labels"),
)
_LINES = (*grid.CRITERIA, *grid.MAIN_RIVALS)


def draw_net(rows: Rows, net: str, folder: Path) -> str:
    """Draw what a network loses against what was removed of it.

    Args:
        rows: What was measured of the network on the test images.
        net: What it is called.
        folder: Made where there is none.

    Returns:
        What shows the plot on a page beside the folder; empty where it was not measured at every reduction.
    """
    if not all(rows.select(reduction=reduction) for reduction in REDUCTIONS):
        return ""
    folder.mkdir(exist_ok=True)
    figure, axes = open_figure(f"{net}: change of accuracy, points", len(_PANELS))
    for number, criterion in enumerate(_LINES):
        for axis, (compensation, training, _) in zip(axes, _PANELS, strict=True):
            found = rows.select(criterion=criterion, compensation=compensation, training=training)
            parts = [(r, found.select(reduction=r)) for r in REDUCTIONS]
            points = [(100 * r, [row["change"] for row in part]) for r, part in parts if part]
            if points:
                draw_spread(axis, points, criterion, f"C{number}")
    for axis, (*_, title) in zip(axes, _PANELS, strict=True):
        axis.set(title=title, xlabel="MACs removed, %", xticks=[30, 44, 60])
    handles = {name: line for axis in axes for line, name in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), fontsize=7, loc="outside lower center", ncols=5)
    name = f"results_{net}.svg"
    save_figure(figure, folder / name)
    return f"![{net}: change of accuracy against the share of MACs removed]({folder.name}/{name})"
