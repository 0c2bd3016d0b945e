"""`srr-onnx score`: how redundant each group is, or the range of its scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from srr_onnx.analysis.find import find_groups
from srr_onnx.analysis.groups import Groups
from srr_onnx.calibration.prepare import calibrate
from srr_onnx.cli import options
from srr_onnx.cli.data_options import DATA_KEYS, data_options, make_dataset
from srr_onnx.cli.progress import show_progress
from srr_onnx.cli.report import note_guess
from srr_onnx.cli.tables import show_json, show_line, show_table
from srr_onnx.graph.load import load_model
from srr_onnx.planning.make import find_free
from srr_onnx.planning.obstacles import check_prunable
from srr_onnx.scoring.sampled import score_with_samples
from srr_onnx.scoring.score import Scores

Facts = dict[str, Any]


@click.command()
@options.model_argument
@options.criterion_options
@data_options
@options.input_option
@options.format_option
def score(model: Path, criterion: str, inputs: Mapping[str, Sequence[int]], output_format: str, **values: Any) -> None:
    """Show how redundant each group of channels is.

    For srr: the graph whose nodes are the N units of a group, its number of components k, the estimate N1c of its
    covering number, and the redundancy R = N / (0.35 k + 0.65 N1c). For other criteria: the range of the scores.
    """
    data_values = {key: values.pop(key) for key in DATA_KEYS}
    chosen = options.make_score_options(**values)
    with show_progress() as tell:
        loaded = load_model(model, inputs)
        tell("analyze", 0, 1)
        groups = find_groups(loaded)
        check_prunable(loaded, groups, find_free(groups, allow_inexact=True))
        dataset = make_dataset(loaded, **data_values)
        calibration = None if dataset is None else calibrate(loaded, dataset, data_values["samples"], chosen.seed)
        scores, _ = score_with_samples(loaded, groups, criterion, chosen, calibration, on_stage=tell)
    facts = collect_facts(groups, scores)
    if output_format == "json":
        show_json(facts)
    elif scores.redundancy is not None:
        _show_redundancy(facts)
    else:
        _show_range(facts)
    note_guess(loaded)


def collect_facts(groups: Groups, scores: Scores) -> Facts:
    """Everything that the command tells, in its JSON form."""
    reports = {report.group_id: report for report in scores.reports}
    found = []
    for group in groups:
        values = scores.units[group.id]
        entry: Facts = {
            "id": group.id,
            "name": group.name,
            "units": group.size,
            "scores": {
                "min": float(values.min()),
                "median": float(np.median(values)),
                "max": float(values.max()),
            },
        }
        if group.id in reports:
            report = reports[group.id]
            entry |= {
                "edge_density": report.edge_density,
                "components": report.components,
                "covering": report.covering,
                "redundancy": report.redundancy,
                "normalized": report.normalized,
                "gamma": report.gamma,
            }
        found.append(entry)
    return {"schema": "srr-onnx/score/1", "criterion": scores.criterion, "groups": found}


def _show_redundancy(facts: Facts) -> None:
    rows = [
        (
            entry["id"],
            entry["name"],
            str(entry["units"]),
            f"{entry['edge_density']:.3f}",
            str(entry["components"]),
            f"{entry['covering']:g}",
            f"{entry['redundancy']:.3f}",
            f"{entry['normalized']:.4f}",
            f"{entry['gamma']:.3f}",
        )
        for entry in facts["groups"]
    ]
    headings = ("group", "filters of", "N", "edge density", "k", "N1c", "R", "(R-1)/(N-1)", "gamma")
    show_table(headings, rows, left=2)
    show_line()
    show_line("gamma: distance between unit vectors up to which two units are neighbors")


def _show_range(facts: Facts) -> None:
    rows = [
        (entry["id"], entry["name"], str(entry["units"]), *(f"{entry['scores'][key]:.5g}" for key in entry["scores"]))
        for entry in facts["groups"]
    ]
    show_table(("group", "filters of", "N", "lowest", "median", "highest"), rows, left=2)
    show_line()
    show_line(f"scores by {facts['criterion']}: units with the lowest go first")
