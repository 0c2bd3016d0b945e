"""The report page of a command: what it prints, with charts, as one HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from srr_onnx.cli.main import COMMAND_LINE
from srr_onnx.cli.report import Facts, describe_result, find_warnings
from srr_onnx.cli.tables import note
from srr_onnx.pipeline import Pruned
from srr_onnx.planning.plan import LOSSLESS


def write_page(
    path: Path, result: Pruned, facts: Facts, restrictions: Mapping[str, Any], *, force: bool = False
) -> None:
    """Write the report page of `prune`, and say so on stderr.

    Args:
        path: HTML file.
        result: What pruning made.
        facts: What the command prints of it.
        restrictions: What restricted pruning; see `predict_damage`.
        force: Whether an existing file may be replaced.

    Raises:
        OutputError: It cannot be written.
    """
    # Loaded here: jinja2 is of use to nobody who asks for no report.
    from srr_onnx.validation.report.build import describe_making, list_figures, predict_damage
    from srr_onnx.validation.report.data import ReportData
    from srr_onnx.validation.report.structure import describe_structure
    from srr_onnx.validation.report.write import write_report

    plan, size = result.plan, facts["file_bytes"]
    structure = describe_structure(
        result.original, result.model, result.groups, plan, scores=result.scores, gains=result.gains
    )
    damage = predict_damage(result.original, result.groups, result.scores, plan, restrictions)
    missing = []
    if not plan.agreement:
        missing.append("Nothing was compared on samples: --data gives agreement with the original, and accuracy.")
    if damage is None and result.gains is None:
        missing.append(f"The criterion {plan.criterion['name']} predicts no damage: reconstruction does, with --data.")
    source = result.original.source
    data = ReportData(
        title=source.name if source else "model",
        figures=list_figures(plan.before, plan.after, (size["before"], size["after"]), plan.agreement),
        facts=(*describe_result(facts), *(("note", text) for text in result.notes)),
        proof=_proof_text(facts),
        warnings=(*find_warnings(facts), *(() if plan.proof else ("The result is not proven, as asked.",))),
        structure=structure,
        damage=damage,
        missing=tuple(missing),
        reproduction=describe_making(click.get_current_context().meta[COMMAND_LINE], plan),
    )
    write_report(path, data, force=force)
    note(f"report: {path}")


def _proof_text(facts: Facts) -> str:
    """What was proven, for the head of the page; empty where outputs were not compared."""
    proof, done = facts["proof"], facts["compensation"]
    if proof is None or not proof["is_exact"]:
        return ""
    other = "the original" if proof.get("kind") == LOSSLESS else "the masked original"
    after = ", before its weights were fitted" if done and done["kind"] != "none" else ""
    return f"Proven in onnxruntime: the same outputs as {other} to {proof['relative_error']:.0e}{after}"
