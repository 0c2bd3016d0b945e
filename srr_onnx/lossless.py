"""The flow of `prune --lossless`: no scores and no budget, since only that goes which changes no output.

load > analyze > find what is dead, constant or a duplicate > rewrite > prove > save
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import srr_onnx
from srr_onnx.analysis.find import find_groups
from srr_onnx.analysis.groups import Groups
from srr_onnx.graph.cost import count_cost, find_uncounted
from srr_onnx.graph.model import Model
from srr_onnx.pipeline import read_model
from srr_onnx.planning.make import find_free
from srr_onnx.planning.obstacles import describe_frozen
from srr_onnx.planning.plan import LOSSLESS, Plan, describe_values, plan_groups
from srr_onnx.rewriting.apply import kept_positions
from srr_onnx.rewriting.output import check_outputs, save_results
from srr_onnx.rewriting.taking_back import Removal, remove_proven
from srr_onnx.validation.result import Pruned
from srr_onnx.wording import counted

# Groups that a note names.
_MOST_NAMED = 5


def prune_lossless(
    source: str | os.PathLike[str] | Model,
    output: str | os.PathLike[str] | None = None,
    *,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    force: bool = False,
    plan_path: str | os.PathLike[str] | None = None,
    on_stage: Callable[[str, int, int], None] | None = None,
) -> Pruned:
    """Make a model smaller without changing its outputs.

    Removes channels that are provably zero, constant or equal to others up to a factor, and puts their part into the
    weights that stay. The result is compared with the original, not with a masked one.

    Args:
        source: ONNX file or loaded model.
        output: File to write; None writes nothing. Where nothing can go, the same model is written.
        input_shapes: Shape per input, for files with dynamic axes.
        force: Whether existing files may be replaced.
        plan_path: File for the plan. It says what went; it cannot be replayed, since it holds no weights.
        on_stage: Told the name of every stage, steps done and steps in all, for a progress display.

    Returns:
        The smaller model, the plan, under `gains` which units went and why, and under `notes` how many stay because
        the proof failed without them.

    Raises:
        SrrError: Anything that the user can cure; nothing is written then.
    """
    tell = on_stage or (lambda stage, done, steps: None)
    check_outputs(source, output, plan_path, force=force)
    tell("load", 0, 1)
    model = read_model(source, input_shapes)
    tell("analyze", 0, 1)
    groups = find_groups(model)
    tell("rewrite", 0, 1)
    found = remove_proven(model, groups)
    plan = _make_plan(model, groups, found)
    tell("save", 0, 1)
    save_results(found.model, plan, output, plan_path, force=force)
    tell("done", 1, 1)
    path = None if output is None else Path(output)
    return Pruned(found.model, plan, model, path, groups, found.gains, notes=_describe_taken_back(found))


def _describe_taken_back(found: Removal) -> tuple[str, ...]:
    if not found.taken_back:
        return ()
    listed = ", ".join(f"{count} of {name}" for name, count in list(found.taken_back.items())[:_MOST_NAMED])
    more = f" and {len(found.taken_back) - _MOST_NAMED} more" if len(found.taken_back) > _MOST_NAMED else ""
    return (
        f"{counted(sum(found.taken_back.values()), 'unit')} kept that could go in exact arithmetic ({listed}{more}): "
        "without them rounding changes the outputs by more than the proof allows",
    )


def _make_plan(model: Model, groups: Groups, found: Removal) -> Plan:
    is_kept = found.is_kept
    most = max((1 - is_kept[group.units].mean() for group in groups), default=0.0)
    return Plan(
        sha256=model.sha256,
        inputs=dict(model.inputs),
        criterion={"name": LOSSLESS},
        budget={
            "kind": LOSSLESS,
            "amount": 0.0,
            "allocation": LOSSLESS,
            "max_group_ratio": 1.0,
            "cap_used": float(most),
            "limits": [],
            "alignment": None,
        },
        before=count_cost(model),
        after=count_cost(found.model),
        groups=plan_groups(groups, is_kept),
        values=describe_values(model, kept_positions(groups, is_kept)),
        frozen=tuple(describe_frozen(groups, find_free(groups))),
        proof=found.proof.to_json(),
        version=srr_onnx.__version__,
        is_inlined=model.is_inlined,
        uncounted=tuple(node.label for node in find_uncounted(model)),
    )
