"""The report pages of commands: what they print, with charts, as one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from srr_onnx.cli.main import COMMAND_LINE
from srr_onnx.cli.report import Facts, describe_result, find_warnings
from srr_onnx.cli.tables import note
from srr_onnx.graph.model import Model
from srr_onnx.planning.plan import LOSSLESS
from srr_onnx.validation.profiled import Profile, Profiled
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
    from srr_onnx.validation.report.data import ReportData
    from srr_onnx.validation.report.structure import describe_structure
    from srr_onnx.validation.report.write import write_report

    plan, size = result.plan, facts["file_bytes"]
    timed = () if speed is None else speed.models
    names = _name(result.original), result.path.name if result.path else "pruned"
    latency = dict(zip(names, _list_runs(timed).values(), strict=False))
    structure = describe_structure(
        result.original,
        result.model,
        result.groups,
        plan,
        scores=result.scores,
        gains=result.gains,
        latency_ms=_pair_layers(timed),
    )
    damage = predict_damage(result.original, result.groups, result.scores, plan, restrictions)
    missing = []
    if not plan.agreement:
        missing.append("Nothing was compared on samples: --data gives agreement with the original, and accuracy.")
    if damage is None and result.gains is None:
        missing.append(f"The criterion {plan.criterion['name']} predicts no damage: reconstruction does, with --data.")
    data = ReportData(
        title=_name(result.original),
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
    from srr_onnx.validation.report.build import list_figures, list_versions
    from srr_onnx.validation.report.data import ReportData, Reproduction
    from srr_onnx.validation.report.structure import describe_structure
    from srr_onnx.validation.report.write import write_report

    first, second = found.reference, found.candidate
    shares = [side.accuracy for side in (first, second) if side.accuracy is not None]
    judged = {
        "accuracy": {"before": shares[0].top1, "after": shares[1].top1, "samples": shares[0].samples}
        if shares
        else None,
        "outputs": [output.to_json() for output in found.agreement],
    }
    passed = [gate for gate in gates if gate["passed"]]
    sizes = first.size_bytes, second.size_bytes
    timed = () if found.speed is None else found.speed.models
    latency = _list_runs(timed)
    kind = "made-up random inputs" if found.is_made_up else "samples"
    data = ReportData(
        title=f"{_name(second.model)} beside {_name(first.model)}",
        figures=list_figures(first.cost, second.cost, sizes, judged, latency, samples=kind),
        facts=(*(("gate passed", gate["text"]) for gate in passed), *(("note", text) for text in found.notes)),
        warnings=tuple(f"gate failed: {gate['text']}" for gate in gates if not gate["passed"]),
        structure=describe_structure(first.model, second.model, latency_ms=_pair_layers(timed)),
        latency=latency,
        reproduction=Reproduction(
            click.get_current_context().meta[COMMAND_LINE],
            (
                ("reference", f"sha256 {first.model.sha256}"),
                ("candidate", f"sha256 {second.model.sha256}"),
                ("versions", list_versions()),
            ),
        ),
        kind="comparison",
    )
    write_report(path, data, force=True)
    note(f"report: {path}")


def _list_runs(timed: Sequence[Profiled]) -> dict[str, list[float]]:
    """Milliseconds of single runs by name of the model."""
    return {model.name: [1e3 * time for time in model.batches[0].latency.seconds] for model in timed}


def _name(model: Model) -> str:
    return model.source.name if model.source else "model"


def _proof_text(facts: Facts) -> str:
    """What was proven, for the head of the page; empty where outputs were not compared."""
    proof, done = facts["proof"], facts["compensation"]
    if proof is None or not proof["is_exact"]:
        return ""
    other = "the original" if proof.get("kind") == LOSSLESS else "the masked original"
    after = ", before its weights were fitted" if done and done["kind"] != "none" else ""
    return f"Proven in onnxruntime: the same outputs as {other} to {proof['relative_error']:.0e}{after}"


def _pair_layers(timed: Sequence[Profiled]) -> dict[str, tuple[float, float]]:
    """Milliseconds in both models by name of the node, as far as both have it."""
    times = [{row.node: 1e3 * row.seconds for row in model.layers.rows} for model in timed if model.layers is not None]
    return {node: (before, times[1][node]) for node, before in times[0].items() if node in times[1]} if times else {}
