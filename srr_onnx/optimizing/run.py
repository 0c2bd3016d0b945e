"""OPTIMIZE: the whole of it: a model and a recipe to a smaller model, through stages that are kept as files.

    check > (prune > fine-tune) as often as there are steps > compare with the original > report > save

What is finished is not done again: a run that was stopped anywhere goes on, and comes to the same weights.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from srr_onnx.data.run_settings import SETTINGS, begin_run
from srr_onnx.errors import OutputError, RecipeError
from srr_onnx.graph.model import Model
from srr_onnx.graph.save import check_target, save_model
from srr_onnx.optimizing.inputs import OnStage, open_inputs
from srr_onnx.optimizing.making import check_reachable, prune_step, train_step
from srr_onnx.optimizing.page import write_page
from srr_onnx.optimizing.recipe import Recipe, load_recipe, make_recipe
from srr_onnx.optimizing.stages import StageResult, carry_out, describe_side, find_result, list_stages
from srr_onnx.optimizing.steps import chain
from srr_onnx.planning.plan import load_plan
from srr_onnx.validation.validate import Validation

SCHEMA = "srr-onnx/optimize-run/1"
REPORT = "report.html"
# Name of a stage's folder.
_STAGE = re.compile(r"\d{2,}-(prune|finetune)")


@dataclasses.dataclass(frozen=True, eq=False)
class Optimized:
    """What a recipe has made.

    Attributes:
        model: The result.
        original: The model that it was made of.
        path: Where it was written; None where it was not.
        stages: The original, and what every stage has made of it.
        validation: The result beside the original, with the recipe's gates.
        folder: Files of all stages.
        report: The report page.
        notes: What the user should know.
    """

    model: Model
    original: Model
    path: Path | None
    stages: tuple[StageResult, ...]
    validation: Validation
    folder: Path
    report: Path
    notes: tuple[str, ...]


def optimize(
    source: str | os.PathLike[str] | Model,
    output: str | os.PathLike[str] | None = None,
    *,
    recipe: Recipe | Mapping[str, Any] | str | os.PathLike[str],
    run_dir: str | os.PathLike[str],
    resume: bool = False,
    force: bool = False,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    on_stage: OnStage | None = None,
) -> Optimized:
    """Prune, train and judge a model as a recipe says.

    Args:
        source: ONNX file or loaded model.
        output: File to write; None writes none besides those of the stages.
        recipe: YAML file, its keys as a mapping, or a recipe that was read.
        run_dir: Folder for the files of all stages.
        resume: Whether the run that is in this folder goes on.
        force: Whether an existing file, or a run in the folder, may be replaced.
        input_shapes: Shape per input, for files with dynamic axes, in place of the recipe's `input`.
        on_stage: Told the name of every stage, steps done and steps in all, for a progress display.

    Returns:
        The result; a gate that fails is no error.

    Raises:
        RecipeError: Something is wrong with the recipe, or the run in the folder was started with another.
        OutputError: A file cannot be written.
        SrrError: Whatever a stage cannot do.
    """
    tell = on_stage or (lambda stage, done, steps: None)
    if not isinstance(recipe, Recipe):
        recipe = make_recipe(recipe) if isinstance(recipe, Mapping) else load_recipe(recipe)
    if recipe.finetune is not None:  # what is not installed is better known before hours of work than after
        importlib.import_module("srr_onnx.finetuning.finetune")
    folder = Path(run_dir)
    report = Path(recipe.report) if recipe.report is not None else folder / REPORT
    _check_outputs(source, output, report, folder, recipe, force=force, resume=resume)
    tell("load", 0, 1)
    try:
        inputs = open_inputs(source, recipe, input_shapes, tell)
    except RecipeError as error:
        if recipe.path is None:
            raise
        raise RecipeError(f"{str(recipe.path)!r}: {error}") from error
    if recipe.steps > 1 and not resume:
        check_reachable(inputs)
    _claim = begin_run(  # held until this returns
        folder,
        SCHEMA,
        inputs.settings,
        resume=resume,
        force=force,
        left=_find_stages(folder),
        clear=functools.partial(_clear, folder),
        kind=RecipeError,
    )
    model, plan, results = inputs.original, None, list[StageResult]()
    for stage in list_stages(folder, recipe.steps, trains=recipe.finetune is not None):
        result = find_result(stage, inputs.load)
        if result is None:
            make = prune_step if stage.kind == "prune" else functools.partial(train_step, plan=plan)
            result = carry_out(stage, functools.partial(make, stage, model, inputs=inputs), inputs.compare)
        results.append(result)
        model = inputs.load(stage.model)
        if stage.plan.exists():
            made = load_plan(stage.plan)
            plan = made if plan is None else chain(plan, made)
    found = inputs.compare(model, is_final=True)
    tell("save", 0, 1)
    rows = (describe_side("original", found, found.reference), *results)
    write_page(report, found, rows, recipe)
    if output is not None:
        save_model(model, output, force=force)
    tell("done", 1, 1)
    return Optimized(
        model,
        inputs.original,
        None if output is None else Path(output),
        rows,
        found,
        folder,
        report,
        (*found.notes, *_gather_notes(results, found.notes)),
    )


def _gather_notes(results: Sequence[StageResult], known: Sequence[str]) -> Iterator[str]:
    """What stages have to say, each thing once, with the first stage that says it."""
    told = set(known)
    for result in results:
        for text in result.notes:
            if text not in told:
                yield f"{result.name}: {text}"
            told.add(text)


def _check_outputs(
    source: Any, output: Any, report: Path, folder: Path, recipe: Recipe, *, force: bool, resume: bool
) -> None:
    """Refuse, before any work is done, to write over what is read or over files of others.

    The page may be there already where a run goes on: it is written just before the result, with which the run ends.
    """
    origin = source.source if isinstance(source, Model) else source
    read_from = [origin, recipe.path, recipe.data, recipe.labels, recipe.teacher, recipe.test.data, recipe.test.labels]
    taken = {os.path.realpath(path) for path in read_from if path is not None}
    home = Path(os.path.realpath(folder))
    if output is not None and os.path.realpath(output) == os.path.realpath(report):
        raise OutputError(f"{str(output)!r} would be the report too: choose another name with -o")
    for place in taken:
        if _is_of_stage(Path(place), home):
            raise OutputError(
                f"{place!r} is a file that is read, and a run's own: choose another folder with --run-dir"
            )
    for target, how, may_exist in (
        (output, "-o", force),
        (recipe.report, "the key report", force or resume),
    ):
        if target is None:
            continue
        if os.path.realpath(target) in taken:
            raise OutputError(f"{str(target)!r} is a file that is read: choose another name with {how}")
        final = Path(os.path.realpath(target))
        if final in (home, home / SETTINGS) or _is_of_stage(final, home):
            raise OutputError(f"{str(target)!r} is a place of the run's own: choose another with {how} or --run-dir")
        check_target(Path(target), may_exist, how)


def _find_stages(folder: Path) -> list[Path]:
    """Folders of the stages that a run has left."""
    return [path for path in folder.glob("[0-9]*-*") if _STAGE.fullmatch(path.name)]


def _is_of_stage(path: Path, home: Path) -> bool:
    """Whether a path lies where a run keeps what its stages make."""
    return path.is_relative_to(home) and path != home and bool(_STAGE.fullmatch(path.relative_to(home).parts[0]))


def _clear(folder: Path) -> None:
    """Remove what a run has left; nothing else that lies in the folder."""
    for path in _find_stages(folder):
        shutil.rmtree(path)
    for name in (REPORT, SETTINGS):
        (folder / name).unlink(missing_ok=True)
