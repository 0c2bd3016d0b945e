"""`srr-onnx curve`: what reductions would cost, before anybody commits to one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from srr_onnx.analysis.find import find_groups
from srr_onnx.calibration.prepare import calibrate
from srr_onnx.cli import options
from srr_onnx.cli.data_options import DATA_KEYS, data_options, make_dataset
from srr_onnx.cli.progress import show_progress
from srr_onnx.cli.report import note_guess
from srr_onnx.cli.tables import note, show_json, show_line, show_table
from srr_onnx.data.readers.synthetic import SOURCE as SYNTHETIC
from srr_onnx.graph.load import load_model
from srr_onnx.planning.budget import NAMES
from srr_onnx.planning.curve import Curve, make_curve, spread_shares
from srr_onnx.planning.make import find_free
from srr_onnx.planning.obstacles import check_prunable
from srr_onnx.rewriting.verify import make_feeds
from srr_onnx.scoring.criterion import ScoreOptions
from srr_onnx.scoring.sampled import score_with_samples
from srr_onnx.targets.measuring import measure_shapes
from srr_onnx.wording import percent

_BAR = 30


@click.command()
@options.model_argument
@data_options
@click.option(
    "--by", type=click.Choice(["flops", "params"]), default="flops", show_default=True, help="What is reduced."
)
@click.option(
    "--steps", type=click.IntRange(2, 100), default=16, show_default=True, metavar="N", help="Number of reductions."
)
@options.restriction_options
@options.seed_option
@options.input_option
@options.format_option
def curve(
    model: Path,
    by: str,
    steps: int,
    max_group_ratio: float,
    seed: int,
    inputs: Any,
    output_format: str,
    **values: Any,
) -> None:
    """Predict the damage of reductions, from samples without labels.

    Without --data from made-up pictures, which is a rougher guess.

    The error is what the layers that read pruned channels would get wrong after the rest has been fitted anew, as a
    share of the variance of what they make. It says where the model starts to suffer, not how accurate it will be.
    """
    data_values = {key: values.pop(key) for key in DATA_KEYS}
    data_values["data"] = data_values["data"] or SYNTHETIC
    with show_progress() as tell:
        loaded = measure_shapes(load_model(model, inputs), make_feeds)
        tell("analyze", 0, 1)
        groups = find_groups(loaded)
        check_prunable(loaded, groups, find_free(groups, **values))
        tell("read", 0, 1)
        dataset = make_dataset(loaded, **data_values)
        assert dataset is not None, "there is a source"
        calibration = calibrate(loaded, dataset, data_values["samples"], seed)
        chosen = ScoreOptions(seed=seed)
        scores, _ = score_with_samples(loaded, groups, "reconstruction", chosen, calibration, on_stage=tell)
        tell("plan", 0, 1)
        shares = spread_shares(steps)
        found = make_curve(loaded, groups, scores, shares, kind=by, max_group_ratio=max_group_ratio, **values)
    if output_format == "json":
        show_json(
            {
                "schema": "srr-onnx/curve/1",
                "by": found.kind,
                "points": [point.to_json() for point in found.points],
                "reachable": found.reachable,
                "reachable_within_cap": found.reachable_within_cap,
                "samples": calibration.samples.count,
                "made_up": dataset.is_made_up,
            }
        )
    else:
        _show(found)
    for text in calibration.describe():
        note(f"note: {text}")
    note_guess(loaded)


def _show(found: Curve) -> None:
    top = max((point.error for point in found.points), default=0.0) or 1.0
    rows = [
        (
            percent(point.reduction),
            f"{point.error:.2%}",
            f"{point.worst:.2%}",
            point.worst_group,
            percent(point.narrowest),
            "#" * round(_BAR * point.error / top),
        )
        for point in found.points
    ]
    headings = (f"{NAMES[found.kind]} removed", "mean error", "worst", "group", "narrowest keeps", "")
    show_table(headings, rows)
    show_line()
    show_line(
        f"reachable  {percent(found.reachable_within_cap)} with no group losing more than the cap, "
        f"{percent(found.reachable)} with one unit left in each"
    )
