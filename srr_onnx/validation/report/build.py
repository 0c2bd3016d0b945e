"""VALIDATE: the parts of a report page from costs, scores and the plan; `structure` makes layers and groups.

Each function makes one part, so that whatever compares two models can use those that it has something for.
"""

from __future__ import annotations

import importlib.metadata
import platform
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import srr_onnx
from srr_onnx.analysis.groups import Groups
from srr_onnx.graph.cost import Cost
from srr_onnx.graph.model import Model
from srr_onnx.planning.curve import make_curve, spread_shares
from srr_onnx.planning.plan import Plan
from srr_onnx.scoring.score import Scores
from srr_onnx.validation.report.data import (
    Damage,
    Figure,
    Reproduction,
)
from srr_onnx.wording import shape

_STEPS = 24
_LIBRARIES = ("numpy", "onnx", "onnxruntime")


def list_figures(
    before: Cost,
    after: Cost,
    file_bytes: tuple[int, int] | None,
    agreement: Mapping[str, Any],
    latency: Mapping[str, Sequence[float]] | None = None,
    *,
    samples: str = "held-out samples",
) -> tuple[Figure, ...]:
    """List the quantities of original and result.

    Args:
        before: Cost of the original.
        after: Cost of the result.
        file_bytes: Bytes of the two files; None where none was written: then the weights are told.
        agreement: What samples say, in the plan's form; empty without samples.
        latency: Milliseconds of single runs by name of the model, the original first; None where not measured.
        samples: What the samples are called.

    Returns:
        Costs, then latency, accuracy and agreement.
    """
    sizes, label = (file_bytes, "file size") if file_bytes else ((before.size_bytes, after.size_bytes), "weights")
    figures = [
        Figure("MACs", before.macs, after.macs, "count"),
        Figure("parameters", before.params, after.params, "count"),
        Figure(label, *sizes, "bytes"),
    ]
    if latency:
        medians = [statistics.median(times) for times in latency.values()]
        figures.append(Figure("latency", medians[0], medians[-1], "ms", "median of single runs"))
    if accuracy := agreement.get("accuracy"):
        detail = f"top-1 on {accuracy['samples']:,} {samples}"
        figures.append(Figure("accuracy", accuracy["before"], accuracy["after"], "share", detail))
    able = [output for output in agreement.get("outputs", ()) if output["top1"]]
    for output in able:
        label = "same class" if len(able) == 1 else f"same class, {output['output']}"
        detail = f"as the original on {output['samples']:,} {samples}"
        figures.append(Figure(label, None, output["top1"]["mean"], "share", detail))
    return tuple(figures)


def predict_damage(
    original: Model, groups: Groups, scores: Scores | None, plan: Plan, restrictions: Mapping[str, Any]
) -> Damage | None:
    """Predict what other reductions would have cost.

    Args:
        original: The model.
        groups: Its groups.
        scores: What the criterion said of them.
        plan: The plan; its budget says what is reduced.
        restrictions: What restricted pruning: `max_group_ratio`, `freeze`, `only` and `allow_inexact` of `make_curve`.

    Returns:
        Curve and place of the plan on it; None where the criterion predicts no errors.
    """
    if scores is None or scores.errors is None:
        return None
    kind = "params" if plan.budget["kind"] == "params" else "flops"
    curve = make_curve(original, groups, scores, spread_shares(_STEPS), kind=kind, **restrictions)
    return Damage(curve, plan.params_removed if kind == "params" else plan.macs_removed)


def describe_making(command: str, plan: Plan) -> Reproduction:
    """Say how a result can be made again.

    Args:
        command: The command line as a shell would take it.
        plan: The plan of the result.

    Returns:
        Command, seed, versions, hash of the model, input shapes.
    """
    facts = [
        ("model", f"sha256 {plan.sha256}"),
        ("inputs", ", ".join(f"{name} {shape(sizes)}" for name, sizes in plan.inputs.items())),
        ("criterion", str(plan.criterion["name"])),
        ("versions", list_versions()),
    ]
    if "seed" in plan.criterion:
        facts.insert(3, ("seed", str(plan.criterion["seed"])))
    return Reproduction(command, tuple(facts))


def list_versions() -> str:
    """Versions of this program and of what it computes with."""
    versions = [f"srr-onnx {srr_onnx.__version__}", f"Python {platform.python_version()}"]
    return ", ".join([*versions, *(f"{name} {importlib.metadata.version(name)}" for name in _LIBRARIES)])
