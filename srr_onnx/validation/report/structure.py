"""VALIDATE: layers, pruning groups and what is frozen, for the report page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from srr_onnx.analysis.groups import Groups, PruningGroup
from srr_onnx.analysis.labels import FreezeReason
from srr_onnx.graph.cost import LayerCost, count_layers, is_constant_node
from srr_onnx.graph.model import Model, Node
from srr_onnx.graph.nodes import COUNTED
from srr_onnx.planning.costs import CostModel
from srr_onnx.planning.plan import LOSSLESS, Plan
from srr_onnx.rewriting.exact.gains import ExactGains
from srr_onnx.scoring.score import Scores
from srr_onnx.validation.report.data import FrozenRow, GroupRow, LayerRow, Measure, Structure

# Why a whole group stays, in a plan; every other reason is one of single filters.
_GROUP_REASONS = {FreezeReason.USER.value, FreezeReason.INEXACT.value, FreezeReason.UNPROVEN.value}


def describe_structure(
    original: Model,
    result: Model,
    groups: Groups | None = None,
    plan: Plan | None = None,
    *,
    scores: Scores | None = None,
    gains: ExactGains | None = None,
    latency_ms: Mapping[str, tuple[float, float]] | None = None,
) -> Structure:
    """Describe the layers of two models, the groups that tie them, and what stays.

    Args:
        original: The model.
        result: The other one; its values have the same names.
        groups: Pruning groups of the original.
        plan: What happened to them.
        scores: What the criterion said of them.
        gains: What went without changing any output.
        latency_ms: Milliseconds before and after by name of the node.

    Returns:
        Layers that both models have; groups where there are groups and a plan.
    """
    measure, values = _measure_groups(scores, plan)
    return Structure(
        tuple(_list_layers(original, result, groups, values, latency_ms or {})),
        tuple(_list_groups(original, groups, plan, values, gains)) if groups is not None and plan else (),
        tuple(_list_frozen(plan)) if plan else (),
        measure,
    )


def _measure_groups(scores: Scores | None, plan: Plan | None) -> tuple[Measure | None, Mapping[str, float]]:
    """What the criterion says of whole groups, with its meaning."""
    if scores is None:
        return None, {}
    if scores.redundancy is not None:
        text = "how alike the filters of a group were, (R - 1) / (N - 1): 0 where no two are, 1 where all are."
        found = {report.group_id: report.normalized for report in scores.reports}
        return Measure("redundancy", text, "number"), found
    gone = {group.id: group.units - len(group.keep) for group in plan.groups} if plan else {}
    if scores.errors is not None:
        text = (
            "what the layers that read a group get wrong at its new width, as a share of the variance of their outputs."
        )
        found = {name: float(errors[gone[name] - 1]) if name in gone else 0.0 for name, errors in scores.errors.items()}
        return Measure("predicted error", text, "share"), found
    text = f"mean score of the group's units by the criterion {scores.criterion}: units with the lowest went first."
    return Measure("score", text, "number"), {name: float(units.mean()) for name, units in scores.units.items()}


def _list_layers(
    original: Model,
    result: Model,
    groups: Groups | None,
    values: Mapping[str, float],
    latency_ms: Mapping[str, tuple[float, float]],
) -> Iterable[LayerRow]:
    after = {layer.node.outputs[0]: layer for layer in count_layers(result)}
    for layer in count_layers(original):
        node = layer.node
        if not _has_filters(original, node) or (other := after.get(node.outputs[0])) is None:
            continue
        owners = _find_owners(original, node, groups)
        weights = [owner.size for owner in owners if owner.id in values]
        weighted = sum(values[owner.id] * owner.size for owner in owners if owner.id in values)
        yield LayerRow(
            name=node.label,
            op_type=node.op_type,
            groups=tuple(owner.id for owner in owners),
            channels=_count_channels(node, original, result),
            measure=weighted / sum(weights) if weights else None,
            macs=_both(layer, other),
            params=(layer.params, other.params),
            latency_ms=latency_ms.get(node.label),
        )


def _has_filters(model: Model, node: Node) -> bool:
    """Whether a node is a layer with weights: a product of two activations is none, nor one of two constants."""
    is_layer = node.op_type in COUNTED and not node.domain and not is_constant_node(model, node)
    return is_layer and any(name in model.constants for name in node.inputs[:2])


def _both(layer: LayerCost, other: LayerCost) -> tuple[int, int] | None:
    return None if layer.macs is None or other.macs is None else (layer.macs, other.macs)


def _find_axis(model: Model, node: Node) -> int | None:
    """The axis of a layer's output along which its filters lie; None where the shape is not known."""
    sizes = model.sizes.get(node.outputs[0])
    return None if sizes is None else len(sizes) - 1 if node.op_type == "MatMul" else 1


def _count_channels(node: Node, original: Model, result: Model) -> tuple[int, int] | None:
    axis, after = _find_axis(original, node), result.sizes.get(node.outputs[0])
    return None if axis is None or after is None else (original.sizes[node.outputs[0]][axis], after[axis])


def _find_owners(model: Model, node: Node, groups: Groups | None) -> list[PruningGroup]:
    """The groups that a layer's output channels belong to."""
    axis = _find_axis(model, node)
    units = None if groups is None or axis is None else groups.values.get((node.outputs[0], axis))
    if groups is None or units is None:
        return []
    present = set(units.tolist())
    return [group for group in groups if not present.isdisjoint(range(group.units.start, group.units.stop))]


def _list_groups(
    original: Model, groups: Groups, plan: Plan, values: Mapping[str, float], gains: ExactGains | None
) -> Iterable[GroupRow]:
    kept = {group.id: len(group.keep) for group in plan.groups}
    causes = {entry["filters"]: entry for entry in plan.frozen if entry["reason"] in _GROUP_REASONS}
    costs = CostModel(original, groups, "macs")
    for number, group in enumerate(groups):
        left = kept.get(group.id, group.size)
        if left < group.size:
            outcome = "pruned"
            if gains is not None:
                counts = gains.counts[group.id].items()
                outcome = ", ".join(f"{count} {reason.value}" for reason, count in counts if count)
        elif group.name in causes:
            outcome = _reason(causes[group.name])
        elif plan.budget["kind"] == LOSSLESS:
            outcome = "whole: nothing is dead, constant or a duplicate"
        else:
            outcome = "whole: the budget was met elsewhere"
        yield GroupRow(
            id=group.id,
            nodes=group.nodes,
            units=(group.size, left),
            is_exact=group.is_exact,
            measure=values.get(group.id),
            macs_per_unit=costs.saving(number),
            outcome=outcome,
        )


def _list_frozen(plan: Plan) -> Iterable[FrozenRow]:
    for entry in plan.frozen:
        yield FrozenRow(entry["filters"], entry["units"], _reason(entry), entry["node"])


def _reason(entry: Mapping[str, Any]) -> str:
    text = FreezeReason(entry["reason"]).text
    return f"{text} ({entry['detail']})" if entry["detail"] else text
