"""The whole flow in one place: READ THIS FIRST.

    load > analyze > score > plan > rewrite > save

Each call takes frozen values and makes a new one; the model that was read is never changed, and nothing is written
before the pruned model has been proven equal to the masked original.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from srr_onnx.analysis.find import find_groups
from srr_onnx.graph.load import load_model
from srr_onnx.graph.model import Model
from srr_onnx.planning.budget import Budget, parse_share
from srr_onnx.planning.make import MAX_GROUP_RATIO, Decision, check_prunable, find_free, make_plan
from srr_onnx.planning.plan import Plan
from srr_onnx.rewriting.distrust import rewrite_proven
from srr_onnx.rewriting.output import check_outputs, save_results
from srr_onnx.rewriting.replay import rewrite
from srr_onnx.rewriting.verify import make_feeds
from srr_onnx.scoring.criterion import ScoreOptions
from srr_onnx.scoring.score import score_groups
from srr_onnx.targets.measuring import measure_shapes


@dataclasses.dataclass(frozen=True, eq=False)
class Pruned:
    """The result of pruning.

    Attributes:
        model: The pruned model.
        plan: What was decided, what it costs, and the proof.
        original: The model that was pruned.
        path: File written, None where nothing was.
    """

    model: Model
    plan: Plan
    original: Model
    path: Path | None


def prune(
    source: str | os.PathLike[str] | Model,
    output: str | os.PathLike[str] | None = None,
    *,
    flops: float | str | None = None,
    params: float | str | None = None,
    ratio: float | str | None = None,
    criterion: str = "srr",
    options: ScoreOptions | None = None,
    allocation: str = "auto",
    max_group_ratio: float | str = MAX_GROUP_RATIO,
    freeze: Sequence[str] = (),
    only: Sequence[str] = (),
    allow_inexact: bool = False,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    verify: bool = True,
    force: bool = False,
    plan_path: str | os.PathLike[str] | None = None,
    on_stage: Callable[[str, int, int], None] | None = None,
) -> Pruned:
    """Prune a model.

    Args:
        source: ONNX file or loaded model.
        output: File to write; None writes nothing.
        flops: Share of the MACs to remove, 0.44 or "44%". Exactly one of `flops`, `params`, `ratio` is given.
        params: Share of the parameters to remove.
        ratio: Share of every group's units to remove.
        criterion: Which units go: "srr", "l1", "l2", "fpgm", "bn_scale", "random" or a registered name of your own.
        options: Settings of the criterion.
        allocation: How the budget is spread: "uniform", "global", "redundancy", or "auto".
        max_group_ratio: No group loses more than this share of its units unless the budget needs it.
        freeze: Nodes that stay as they are.
        only: Nodes to which pruning is restricted.
        allow_inexact: Whether to prune channels that are normalized over; the result is then not proven equal.
        input_shapes: Shape per input, for files with dynamic axes.
        verify: Whether to prove the result.
        force: Whether existing files may be replaced.
        plan_path: File for the plan.
        on_stage: Told the name of every stage, steps done and steps in all, for a progress display.

    Returns:
        The pruned model and the plan.

    Raises:
        SrrError: Anything that the user can cure; nothing is written then.
    """
    tell = on_stage or (lambda stage, done, steps: None)
    budget = Budget.choose(flops=flops, params=params, ratio=ratio)
    cap = parse_share(max_group_ratio, is_closed=True)
    options = options or ScoreOptions()
    check_outputs(source, output, plan_path, force=force)

    tell("load", 0, 1)
    model = source if isinstance(source, Model) else load_model(source, input_shapes)
    model = measure_shapes(model, make_feeds)
    tell("analyze", 0, 1)
    groups = find_groups(model)
    check_prunable(model, groups, find_free(groups, freeze=freeze, only=only, allow_inexact=allow_inexact))
    tell("score", 0, len(groups))
    scores = score_groups(model, groups, criterion, options, lambda done, steps: tell("score", done, steps))

    def decide(unproven: Sequence[str] = ()) -> Decision:
        return make_plan(
            model,
            groups,
            scores,
            budget,
            allocation=allocation,
            max_group_ratio=cap,
            freeze=freeze,
            only=only,
            allow_inexact=allow_inexact,
            unproven=unproven,
            settings={"seed": options.seed, **(dataclasses.asdict(options.srr) if scores.redundancy else {})},
        )

    if verify:
        pruned, plan = rewrite_proven(model, groups, decide, lambda stage: tell(stage, 0, 1))
    else:
        tell("rewrite", 0, 1)
        pruned, plan = rewrite(model, groups, decide())
    tell("save", 0, 1)
    save_results(pruned, plan, output, plan_path, force=force)
    tell("done", 1, 1)
    return Pruned(pruned, plan, model, None if output is None else Path(output))
