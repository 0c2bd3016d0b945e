"""OPTIMIZE: one stage at a time: what pruning and training are given, so that they do their part of the whole.

Each writes the files of its stage and gives what the user should know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from srr_onnx.data.run_settings import SETTINGS
from srr_onnx.graph.model import Model
from srr_onnx.graph.save import save_model
from srr_onnx.optimizing.inputs import Inputs
from srr_onnx.optimizing.stages import Stage
from srr_onnx.optimizing.steps import count_totals, split_budget, split_cap
from srr_onnx.pipeline import prune
from srr_onnx.planning.budget import Budget, parse_share
from srr_onnx.planning.plan import Plan


def check_reachable(inputs: Inputs) -> None:
    """Find out before the first of several steps whether the last one can be done.

    A latency is left out: what can be reached has to be measured.

    Raises:
        PlanError: It cannot be done; says the closest that can be reached.
    """
    wanted = inputs.recipe.prune
    countable = Budget(tuple(limit for limit in wanted.budget.limits if limit.kind != "latency"))
    open_limits = wanted.budget.leave_met(count_totals(inputs.original, countable)).limits
    kinds = [limit.kind for limit in open_limits if limit.kind != "latency"]
    if kinds:
        limits: dict[str, Any] = {kind: getattr(wanted, kind) for kind in kinds}
        prune(
            inputs.original,
            criterion="l1",
            compensate="none",
            verify=False,
            freeze=wanted.freeze,
            only=wanted.only,
            allow_inexact=wanted.allow_inexact,
            **limits,
        )


def prune_step(stage: Stage, model: Model, inputs: Inputs) -> tuple[str, ...]:
    """Prune a model by what goes in one step."""
    wanted, steps = inputs.recipe.prune, inputs.recipe.steps
    budget, cap = wanted.budget, parse_share(wanted.max_group_ratio, is_closed=True)
    limits: Mapping[str, Any] = {limit.kind: getattr(wanted, limit.kind) for limit in budget.limits}
    if steps > 1:
        before, now = (count_totals(one, budget, wanted.target) for one in (inputs.original, model))
        limits, cap = split_budget(budget, before, now, stage.step, steps), split_cap(cap, steps)
    stage.plan.unlink(missing_ok=True)
    if not limits:
        save_model(model, stage.model, force=True)
        return ("nothing goes in this step: those before have taken enough",)
    return prune(
        model,
        stage.model,
        plan_path=stage.plan,
        data=inputs.learned,
        max_group_ratio=cap,
        force=True,
        on_stage=inputs.tell,
        **limits,
        **wanted.arguments(),
    ).notes


def train_step(stage: Stage, model: Model, plan: Plan | None, inputs: Inputs) -> tuple[str, ...]:
    """Train a model; a training that was stopped in the middle goes on.

    Args:
        stage: The stage.
        model: What pruning has left.
        plan: What all steps so far have left of the original's channels.
        inputs: The rest.
    """
    from srr_onnx.finetuning.finetune import fine_tune  # torch comes with it

    recipe = inputs.recipe
    is_last = stage.step == recipe.steps and recipe.final_finetune is not None
    settings = recipe.final_finetune if is_last else recipe.finetune
    assert settings is not None and inputs.learned is not None, "a recipe that trains has both"
    result = fine_tune(
        model,
        stage.model,
        data=inputs.learned,
        teacher=inputs.teacher,
        options=settings.options,
        heads=settings.heads,
        features=settings.features,
        plan=plan if inputs.teacher.sha256 == inputs.original.sha256 else None,
        run_dir=stage.run,
        resume=(stage.run / SETTINGS).exists(),
        force=True,
        input_shapes=inputs.shapes,
        on_stage=inputs.tell,
    )
    assert result is not None, "this is the only process"
    return result.notes
