"""The report pages of commands: what they print, with charts, as one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from srr_onnx.cli.main import COMMAND_LINE
from srr_onnx.cli.report import Facts, describe_result, find_warnings
from srr_onnx.cli.tables import note
from srr_onnx.planning.plan import LOSSLESS
from srr_onnx.validation.profiled import Profile
from srr_onnx.validation.result import Pruned
from srr_onnx.validation.validate import Validation


def write_page(
    path: Path,
    result: Pruned,
    facts: Facts,
    restrictions: Mapping[str, Any],
    speed: Profile | None = None,
    *,
    force: bool = False,
) -> None:
    """Write the report page of `prune`, and say so on stderr.

    Args:
        path: HTML file.
        result: What pruning made.
        facts: What the command prints of it.
        restrictions: What restricted pruning; see `predict_damage`.
        speed: How fast original and result are; None where no target was named.
        force: Whether an existing file may be replaced.

    Raises:
        OutputError: It cannot be written.
    """
    # Loaded here: jinja2 is of use to nobody who asks for no report.
    from srr_onnx.validation.report.build import describe_making, list_figures, predict_damage
    from srr_onnx.validation.report.comparison import list_runs, name_of, pair_layers
    from srr_onnx.validation.report.data import ReportData
    from srr_onnx.validation.report.structure import describe_structure
    from srr_onnx.validation.report.write import write_report

    plan, size = result.plan, facts["file_bytes"]
    timed = () if speed is None else speed.models
    names = name_of(result.original), result.path.name if result.path else "pruned"
    if names[0] == names[1]:  # files of one name in two folders
        names = str(result.original.source), str(result.path)
    latency = dict(zip(names, list_runs(timed).values(), strict=False))
    structure = describe_structure(
        result.original,
        result.model,
        result.groups,
        plan,
        scores=result.scores,
        gains=result.gains,
        latency_ms=pair_layers(timed),
    )
    damage = predict_damage(result.original, result.groups, result.scores, plan, restrictions)
    missing = []
    if not plan.agreement:
        missing.append("Nothing was compared on samples: --data gives agreement with the original, and accuracy.")
    if damage is None and result.gains is None:
        missing.append(f"The criterion {plan.criterion['name']} predicts no damage: reconstruction does, with --data.")
    data = ReportData(
        title=name_of(result.original),
        figures=list_figures(plan.before, plan.after, (size["before"], size["after"]), plan.agreement, latency),
        facts=(*describe_result(facts), *(("note", text) for text in result.notes)),
        proof=_proof_text(facts),
        warnings=(*find_warnings(facts), *(() if plan.proof else ("The result is not proven, as asked.",))),
        structure=structure,
        latency=latency,
        damage=damage,
        missing=tuple(missing),
        reproduction=describe_making(click.get_current_context().meta[COMMAND_LINE], plan),
    )
    write_report(path, data, force=force)
    note(f"report: {path}")


def write_comparison(path: Path, found: Validation, gates: Sequence[Mapping[str, Any]]) -> None:
    """Write the report page of `compare`, and say so on stderr.

    Args:
        path: HTML file; replaced where it exists.
        found: What was found.
        gates: Entries of `describe_gates`.

    Raises:
        OutputError: It cannot be written.
    """
    from srr_onnx.validation.report.comparison import describe_comparison
    from srr_onnx.validation.report.write import write_report

    data = describe_comparison(found, gates, click.get_current_context().meta[COMMAND_LINE])
    write_report(path, data, force=True)
    note(f"report: {path}")


def _proof_text(facts: Facts) -> str:
    """What was proven, for the head of the page; empty where outputs were not compared."""
    proof, done = facts["proof"], facts["compensation"]
    if proof is None or not proof["is_exact"]:
        return ""
    other = "the original" if proof.get("kind") == LOSSLESS else "the masked original"
    after = ", before its weights were fitted" if done and done["kind"] != "none" else ""
    return f"Proven in onnxruntime: the same outputs as {other} to {proof['relative_error']:.0e}{after}"
