"""REWRITE: a decision or a plan to a pruned model, and its proof."""

from __future__ import annotations

import dataclasses

import srr_onnx
from srr_onnx.analysis.find import find_groups
from srr_onnx.analysis.groups import Groups
from srr_onnx.errors import PlanError, ProofError
from srr_onnx.graph.cost import count_cost, find_uncounted, is_float
from srr_onnx.graph.model import Model
from srr_onnx.planning.make import Decision
from srr_onnx.planning.plan import LOSSLESS, Plan, describe_values, match_plan
from srr_onnx.rewriting.apply import kept_positions, prune_units
from srr_onnx.rewriting.verify import verify_pruned


def rewrite(model: Model, groups: Groups, decision: Decision) -> tuple[Model, Plan]:
    """Carry out a decision.

    Args:
        model: Loaded model; not changed.
        groups: Result of `find_groups(model)`.
        decision: Result of `make_plan`.

    Returns:
        The pruned model, and the plan with the positions that remain in every activation.

    Raises:
        ProofError: The pruned model does not have the MACs that the plan promised, or more parameters.
    """
    pruned = prune_units(model, groups, decision.is_kept)
    values = describe_values(model, kept_positions(groups, decision.is_kept))
    plan = dataclasses.replace(decision.plan, values=values, version=srr_onnx.__version__)
    cost = count_cost(pruned)
    if cost.macs != plan.after.macs:
        raise ProofError(
            f"the pruned model has {cost.macs:,} MACs, the plan promised {plan.after.macs:,}: nothing was written, "
            "please report this model"
        )
    if not cost.params <= plan.after.params + _count_held(model):  # less where slices of a shared constant coincide
        raise ProofError(
            f"the pruned model has {cost.params:,} parameters, the plan promised {plan.after.params:,}: nothing was "
            "written, please report this model"
        )
    return pruned, dataclasses.replace(plan, after=cost)


def _count_held(model: Model) -> int:
    """Numbers measured at run time that a repair may have to hold as constants: what a plan cannot promise."""
    read = (model.shape_values.get(name) for node in model.nodes for name in node.inputs)
    return sum(value.size for value in read if value is not None and is_float(value))


def prove(model: Model, pruned: Model, plan: Plan) -> Plan:
    """Prove that a pruned model equals its masked original, and note it in the plan.

    Args:
        model: The original.
        pruned: The pruned model.
        plan: Its plan, with `values`.

    Returns:
        The plan with the proof.

    Raises:
        ProofError: The two disagree.
        ModelError: onnxruntime refuses one of them.
    """
    proof = verify_pruned(model, pruned, plan.kept_positions(), is_exact=all(group.exact for group in plan.groups))
    return dataclasses.replace(plan, proof=proof.to_json())


def apply_plan(model: Model, plan: Plan, *, force: bool = False) -> tuple[Model, Plan]:
    """Replay a plan.

    Args:
        model: Loaded model; not changed.
        plan: A plan, perhaps made for another file with the same initializer names and shapes.
        force: Whether the model may be another one than the plan was made for (a retrained checkpoint).

    Returns:
        The pruned model, and the plan as it holds for this model, not yet proven.

    Raises:
        PlanError: The plan was made for another model and `force` is not set, or does not fit; or it is one of
            `prune --lossless`, which holds none of the corrected weights.
    """
    if plan.criterion.get("name") == LOSSLESS:
        raise PlanError(
            "this plan was made by `prune --lossless`, which also corrects weights that stay: run "
            "`srr-onnx prune --lossless` on the model instead"
        )
    if model.sha256 != plan.sha256 and not force:
        raise PlanError(
            f"the plan was made for another file (sha256 {plan.sha256[:12]}..., this one has {model.sha256[:12]}...): "
            "give --force if it is the same network with other weights"
        )
    groups = find_groups(model)
    is_kept = match_plan(plan, groups)
    pruned = prune_units(model, groups, is_kept)
    values = describe_values(model, kept_positions(groups, is_kept))
    exact = {group.id: group.is_exact for group in groups}
    kept_groups = tuple(dataclasses.replace(group, exact=exact.get(group.id, group.exact)) for group in plan.groups)
    return pruned, dataclasses.replace(
        plan,
        sha256=model.sha256,
        inputs=dict(model.inputs),
        values=values,
        before=count_cost(model),
        after=count_cost(pruned),
        groups=kept_groups,
        proof={},
        is_inlined=model.is_inlined,
        uncounted=tuple(node.label for node in find_uncounted(model)),
        compensation={},
        agreement={},
        latency={},
        version=srr_onnx.__version__,
    )
