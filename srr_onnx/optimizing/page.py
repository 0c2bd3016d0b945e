"""OPTIMIZE: the report page on a whole run: the result beside the original, and what every stage has made."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path

from srr_onnx.optimizing.recipe import Recipe
from srr_onnx.optimizing.stages import StageResult
from srr_onnx.validation.gates import describe_gates
from srr_onnx.validation.report.data import StageRow
from srr_onnx.validation.validate import Validation


def write_page(path: Path, found: Validation, rows: Sequence[StageResult], recipe: Recipe) -> None:
    """Write the page; one that exists is replaced.

    Args:
        path: HTML file.
        found: The result beside the original.
        rows: The original and all stages.
        recipe: What was done.

    Raises:
        OutputError: It cannot be written.
    """
    # loaded here: jinja2 is of no use before a run has come to its end
    from srr_onnx.validation.report.comparison import describe_comparison, name_of
    from srr_onnx.validation.report.write import write_report

    original = found.reference.model
    words = ["srr-onnx", "optimize", str(original.source or "MODEL"), "--recipe", str(recipe.path or "RECIPE")]
    data = describe_comparison(found, describe_gates(found.gates), shlex.join(words))
    assert data.reproduction is not None, "a comparison tells how it was made"
    facts = (*data.reproduction.facts, *((key, str(value)) for key, value in recipe.settle().items()))
    stages = tuple(
        StageRow(
            row.name,
            row.macs,
            row.params,
            row.size_bytes,
            None if row.accuracy is None else row.accuracy["mean"],
            None if row.agreement is None else row.agreement["mean"],
            row.seconds,
        )
        for row in rows
    )
    data = dataclasses.replace(
        data,
        title=name_of(original),
        kind="optimization report",
        stages=stages,
        reproduction=dataclasses.replace(data.reproduction, facts=facts),
    )
    write_report(path, data, force=True)
