"""VALIDATE: the report page on two models, from how they compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from srr_onnx.graph.model import Model
from srr_onnx.validation.profiled import Profiled
from srr_onnx.validation.report.build import list_figures, list_versions
from srr_onnx.validation.report.data import ReportData, Reproduction
from srr_onnx.validation.report.structure import describe_structure
from srr_onnx.validation.validate import Validation


def describe_comparison(found: Validation, gates: Sequence[Mapping[str, Any]], command: str) -> ReportData:
    """Make the page on a candidate beside its reference.

    Args:
        found: What was found.
        gates: Entries of `describe_gates`.
        command: The command line as a shell would take it.

    Returns:
        Costs, accuracy and agreement, gates, every layer before and after.
    """
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
    latency = list_runs(timed)
    kind = "made-up random inputs" if found.is_made_up else "samples"
    return ReportData(
        title=f"{name_of(second.model)} beside {name_of(first.model)}",
        figures=list_figures(first.cost, second.cost, sizes, judged, latency, samples=kind),
        facts=(*(("gate passed", gate["text"]) for gate in passed), *(("note", text) for text in found.notes)),
        warnings=tuple(f"gate failed: {gate['text']}" for gate in gates if not gate["passed"]),
        structure=describe_structure(first.model, second.model, latency_ms=pair_layers(timed)),
        latency=latency,
        reproduction=Reproduction(
            command,
            (
                ("reference", f"sha256 {first.model.sha256}"),
                ("candidate", f"sha256 {second.model.sha256}"),
                ("versions", list_versions()),
            ),
        ),
        kind="comparison",
    )


def list_runs(timed: Sequence[Profiled]) -> dict[str, list[float]]:
    """Milliseconds of single runs by name of the model."""
    return {model.name: [1e3 * time for time in model.batches[0].latency.seconds] for model in timed}


def name_of(model: Model) -> str:
    """What a model is called on a page: its file's name."""
    return model.source.name if model.source else "model"


def pair_layers(timed: Sequence[Profiled]) -> dict[str, tuple[float, float]]:
    """Milliseconds in both models by name of the node, as far as both have it."""
    times = [{row.node: 1e3 * row.seconds for row in model.layers.rows} for model in timed if model.layers is not None]
    return {node: (before, times[1][node]) for node, before in times[0].items() if node in times[1]} if times else {}
