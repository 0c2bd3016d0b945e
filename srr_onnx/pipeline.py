"""The whole flow in one place: READ THIS FIRST.

    load > analyze > calibrate > score > plan > rewrite > prove > compensate > compare > save

Each call takes frozen values and makes a new one; the model that was read is never changed, and nothing is written
before the pruned model has been proven equal to the masked original. Calibration, which needs samples, is left out
without them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from srr_onnx.analysis.find import find_groups
from srr_onnx.calibration.prepare import calibrate
from srr_onnx.data.dataset import Dataset
from srr_onnx.data.read import open_data
from srr_onnx.errors import DataError
from srr_onnx.graph.cost import count_cost
from srr_onnx.graph.load import load_model
from srr_onnx.graph.model import Model
from srr_onnx.planning.budget import Budget, parse_share
from srr_onnx.planning.make import MAX_GROUP_RATIO, find_free, make_plan
from srr_onnx.planning.obstacles import check_prunable
from srr_onnx.rewriting.compensate import Compensated, Kind, check_kind, compensate_pruned, recalibrate_norms
from srr_onnx.rewriting.distrust import rewrite_proven
from srr_onnx.rewriting.output import check_outputs, save_results
from srr_onnx.rewriting.replay import rewrite
from srr_onnx.rewriting.verify import make_feeds
from srr_onnx.scoring.criterion import ScoreOptions
from srr_onnx.scoring.sampled import score_with_samples
from srr_onnx.targets.measuring import measure_shapes
from srr_onnx.targets.target import Target
from srr_onnx.validation.judge import judge
from srr_onnx.validation.notes import collect_notes
from srr_onnx.validation.pace import choose_alignment, compare_pace, find_pace
from srr_onnx.validation.result import Pruned
from srr_onnx.validation.tryout import keep_if_closer


def prune(
    source: str | os.PathLike[str] | Model,
    output: str | os.PathLike[str] | None = None,
    *,
    flops: float | str | None = None,
    params: float | str | None = None,
    ratio: float | str | None = None,
    latency: float | str | None = None,
    memory: float | str | None = None,
    size: float | str | None = None,
    align: str | int | None = None,
    target: Target | None = None,
    criterion: str = "auto",
    options: ScoreOptions | None = None,
    allocation: str = "auto",
    max_group_ratio: float | str = MAX_GROUP_RATIO,
    freeze: Sequence[str] = (),
    only: Sequence[str] = (),
    allow_inexact: bool = False,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    data: Dataset | str | os.PathLike[str] | Iterable[Any] | None = None,
    samples: int = 512,
    compensate: Kind = "auto",
    keep_structure: bool = False,
    recalibrate: bool = False,
    verify: bool = True,
    force: bool = False,
    plan_path: str | os.PathLike[str] | None = None,
    on_stage: Callable[[str, int, int], None] | None = None,
) -> Pruned:
    """Prune a model.

    Args:
        source: ONNX file or loaded model.
        output: File to write; None writes nothing.
        flops: Share of the MACs to remove, 0.44 or "44%". Several budgets may be given; all are met then.
        params: Share of the parameters to remove.
        ratio: Share of every group's units to remove; goes with no other budget.
        latency: Share of the latency to remove, measured on the target, or what may be left: "8ms".
        memory: Share of weights and activations to remove, or what may be left: "20MB".
        size: Share of the file to remove, or what may be left: "5MB".
        align: Widths to choose from: multiples of a number of channels, those that the target likes ("auto", the
            default where a target is named or a latency asked for), or any ("off").
        target: Where the model is to run: what is measured is measured there. One thread of the CPU if only a latency
            is asked for.
        criterion: Which units go: "reconstruction", "srr", "srr+reconstruction", "l1", "l2", "fpgm", "bn_scale",
            "random" or a registered name of your own. "auto": reconstruction where there are samples, else srr.
        options: Settings of the criterion.
        allocation: How the budget is spread: "uniform", "global", "redundancy", "error", or "auto".
        max_group_ratio: No group loses more than this share of its units unless the budget needs it.
        freeze: Nodes that stay as they are.
        only: Nodes to which pruning is restricted.
        allow_inexact: Whether to prune channels that are normalized over; the result is then not proven equal.
        input_shapes: Shape per input, for files with dynamic axes.
        data: Samples, without labels if need be: a data set, or what `srr_onnx.open_data` takes.
        samples: How many to calibrate with; a quarter more is held out to compare with the original.
        compensate: What is done to the weights that stay, after the proof: see `rewriting.compensate`.
        keep_structure: Whether compensation may create no bias.
        recalibrate: Whether the statistics of BatchNormalizations are set anew from the samples in the end.
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
    check_kind(compensate)
    budget = Budget.choose(flops=flops, params=params, ratio=ratio, latency=latency, memory=memory, size=size)
    cap = parse_share(max_group_ratio, is_closed=True)
    options = options or ScoreOptions()
    check_outputs(source, output, plan_path, force=force, data=data)
    restrictions: dict[str, Any] = {"freeze": freeze, "only": only, "allow_inexact": allow_inexact}

    tell("load", 0, 1)
    model = read_model(source, input_shapes)
    tell("analyze", 0, 1)
    groups = find_groups(model)
    check_prunable(model, groups, find_free(groups, **restrictions))
    alignment = choose_alignment(align, target, budget, tell)
    with contextlib.ExitStack() as stack:
        calibration = None
        if data is not None:
            tell("read", 0, 1)
            dataset = data if isinstance(data, Dataset) else open_data(data, model)
            if recalibrate and dataset.is_made_up:
                raise DataError(
                    "--recalibrate-norms sets statistics to those of the samples, and made-up pictures have others "
                    "than real ones: give pictures of the model's domain with --data"
                )
            calibration = calibrate(model, dataset, samples, options.seed)
        scores, observation = score_with_samples(
            model,
            groups,
            criterion,
            options,
            calibration,
            with_targets=compensate in ("auto", "least-squares"),
            on_stage=tell,
        )
        if observation is not None:
            stack.callback(observation.close)

        decide = functools.partial(
            make_plan,
            model,
            groups,
            scores,
            allocation=allocation,
            max_group_ratio=cap,
            alignment=alignment,
            settings={"seed": options.seed, **(dataclasses.asdict(options.srr) if scores.redundancy else {})},
            **restrictions,
        )
        pace = find_pace(model, groups, budget, decide, alignment, target, restrictions, tell)
        decide = functools.partial(decide, pace.budget, pace.table, pace.haste)
        if verify:
            proven, plan = rewrite_proven(
                model, groups, lambda unproven: decide(unproven=unproven), lambda stage: tell(stage, 0, 1)
            )
        else:
            tell("rewrite", 0, 1)
            proven, plan = rewrite(model, groups, decide())
        found = Compensated(proven, "none")
        if compensate != "none":
            tell("compensate", 0, 1)
            found = compensate_pruned(
                model,
                proven,
                groups,
                plan.kept_positions(),
                compensate,
                observation=observation,
                keep_structure=keep_structure,
                seed=options.seed,
                on_layer=lambda done, steps: tell("compensate", done, steps),
            )
            if found.kind in ("merge", "data-free"):
                tell("try", 0, 1)
                found = keep_if_closer(model, proven, found, options.seed)
        if recalibrate:
            found = recalibrate_norms(
                found, None if calibration is None else calibration.samples, lambda *done: tell("recalibrate", *done)
            )
    judgement = None
    if calibration is not None:
        tell("compare", 0, 1)
        judgement = judge(model, found.model, calibration, options.seed)
    timed = compare_pace(model, found.model, pace, target, tell)
    plan = dataclasses.replace(
        plan,
        latency=timed,
        after=count_cost(found.model),
        compensation=found.to_json(),
        agreement={} if judgement is None else judgement.to_json(),
    )
    tell("save", 0, 1)
    save_results(found.model, plan, output, plan_path, force=force)
    tell("done", 1, 1)
    return Pruned(
        found.model,
        plan,
        model,
        None if output is None else Path(output),
        groups,
        judgement=judgement,
        notes=collect_notes(calibration, judgement, found, compensate),
        proven=proven,
        scores=scores,
    )


def read_model(
    source: str | os.PathLike[str] | Model, input_shapes: Mapping[str, Sequence[int]] | None = None
) -> Model:
    """Load a model, if it is not loaded yet, and measure the shapes that only a run tells.

    Args:
        source: ONNX file or loaded model.
        input_shapes: Shape per input, for files with dynamic axes.

    Returns:
        The model.

    Raises:
        ModelError: It cannot be loaded.
    """
    model = source if isinstance(source, Model) else load_model(source, input_shapes)
    return measure_shapes(model, make_feeds)
