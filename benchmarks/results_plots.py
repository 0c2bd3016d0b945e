"""Plots of docs/results.md, as small SVG files."""

from __future__ import annotations

from pathlib import Path

import results_grid as grid
from accuracy_grid import EMOJI, LEAST_SQUARES, NONE, RECALIBRATED, REDUCTIONS
from accuracy_plots import draw_spread, open_figure, save_figure
from accuracy_rows import Rows

_PANELS = (
    (NONE, RECALIBRATED, "recalibrated only"),
    (NONE, grid.LABELS, "fine-tuned on labels"),
    (LEAST_SQUARES, NONE, "least squares, not trained"),
    (LEAST_SQUARES, grid.LABELS, "least squares, fine-tuned on labels"),
)
_LINES = (*grid.CRITERIA, *grid.MAIN_RIVALS)


def draw_all(rows: Rows, folder: Path) -> str:
    """Draw the plot of the network that was measured at every reduction, if it was.

    Args:
        rows: What was measured on the test images.
        folder: Made where there is none.

    Returns:
        What shows the plot on a page beside the folder; empty where there is nothing to draw.
    """
    whole = Rows(row for row in rows.select(net="resnet20", split=EMOJI) if row["reduction"])
    if not whole:
        return ""
    folder.mkdir(exist_ok=True)
    figure, axes = open_figure("resnet20: change of accuracy, points", len(_PANELS))
    for number, criterion in enumerate(_LINES):
        for axis, (compensation, training, _) in zip(axes, _PANELS, strict=True):
            found = whole.select(criterion=criterion, compensation=compensation, training=training)
            parts = [(r, found.select(reduction=r)) for r in REDUCTIONS]
            points = [(100 * r, [row["change"] for row in part]) for r, part in parts if part]
            if points:
                draw_spread(axis, points, criterion, f"C{number}")
    for axis, (*_, title) in zip(axes, _PANELS, strict=True):
        axis.set(title=title, xlabel="MACs removed, %", xticks=[30, 44, 60])
    handles = {name: line for axis in axes for line, name in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), fontsize=7, loc="outside lower center", ncols=5)
    save_figure(figure, folder / "results_trained.svg")
    return f"![Change of accuracy against the share of MACs removed]({folder.name}/results_trained.svg)"
