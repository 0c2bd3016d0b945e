"""OPTIMIZE: what all stages of a run need: models, samples, and what the run is told apart from others by.

The samples that nothing learns from are kept apart here, once for the whole run.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from srr_onnx.data.dataset import Dataset, split_held_out
from srr_onnx.data.run_settings import identify
from srr_onnx.errors import RecipeError
from srr_onnx.graph.load import load_model
from srr_onnx.graph.model import Model
from srr_onnx.optimizing.recipe import Recipe
from srr_onnx.optimizing.sections import named
from srr_onnx.planning.budget import parse_share
from srr_onnx.validation.class_names import find_classes
from srr_onnx.validation.classes import has_classes
from srr_onnx.validation.evaluate import load_beside, read
from srr_onnx.validation.runs import open_models
from srr_onnx.validation.validate import Validation, validate

OnStage = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True, eq=False)
class Inputs:
    """What all stages need.

    Attributes:
        recipe: What is done.
        original: The model at the beginning.
        teacher: What training makes the result like.
        learned: Samples to calibrate with and to train on.
        tested: Samples that nothing learns from; None where there are none, or only made-up ones.
        shapes: Shape per input, for files with dynamic axes.
        settings: What decides the result, in plain form.
        tell: Told the name of every stage, steps done and steps in all.
    """

    recipe: Recipe
    original: Model
    teacher: Model
    learned: Dataset | None
    tested: Dataset | None
    shapes: Mapping[str, Sequence[int]]
    settings: Mapping[str, Any]
    tell: OnStage

    def load(self, path: Path) -> Model:
        """Load what a stage has made."""
        return load_beside(self.original, path, self.shapes)

    def compare(self, model: Model | Path, *, is_final: bool = False) -> Validation:
        """Compare a model with the original.

        Args:
            model: What a stage has made.
            is_final: Whether it has to pass the recipe's gates.

        Returns:
            What the samples say that nothing learns from; without any, what made-up inputs say.
        """
        limits: dict[str, Any] = self.recipe.gates.limits() if is_final else {}
        return validate(
            self.original,
            model,
            self.tested,
            target=self.recipe.prune.target if limits.get("min_speedup") else None,
            options=self.recipe.test.options,
            input_shapes=self.shapes,
            on_stage=self.tell,
            **limits,
        )


def open_inputs(
    source: str | os.PathLike[str] | Model,
    recipe: Recipe,
    input_shapes: Mapping[str, Sequence[int]] | None,
    tell: OnStage,
) -> Inputs:
    """Read models and data.

    Args:
        source: ONNX file or loaded model.
        recipe: Names the rest.
        input_shapes: Shape per input, in place of the recipe's.
        tell: Told the name of every stage, steps done and steps in all.

    Returns:
        What all stages need.

    Raises:
        RecipeError: The data are not what training or a gate needs.
        DataError: They cannot be read.
        ModelError: A model cannot be loaded.
    """
    shapes = dict(input_shapes or recipe.input)
    original = source if isinstance(source, Model) else load_model(source, shapes)
    teacher = original if recipe.teacher is None else load_beside(original, recipe.teacher, shapes)
    tell("read", 0, 1)
    learned = tested = None
    if recipe.data is not None:
        learned = read(recipe.data, original, recipe.preprocess, recipe.labels)
        if recipe.finetune is not None and learned.is_made_up:
            raise RecipeError("finetune: made-up pictures teach nothing about real ones: give some under the key data")
    settings = {
        "model": original.sha256,
        "teacher": teacher.sha256,
        "data": None if learned is None else identify(learned),
        **recipe.settle(),
    }
    if recipe.test.data is not None:
        tested = read(recipe.test.data, original, recipe.preprocess, recipe.test.labels)
        settings["test data"] = identify(tested)
    elif learned is not None and not learned.is_made_up:
        share = parse_share(recipe.test.share, is_large=False)
        kept, held_out = split_held_out(np.arange(len(learned)), share, recipe.seed)
        learned, tested = learned.select(kept), learned.select(held_out)
    _check_gates(recipe, original, tested)
    if tested is not None:  # whether labels and outputs fit is better known before hours of work than after
        named("test", find_classes, original, tested, recipe.test.class_output, is_needed=False)
    if learned is not None:
        _check_training(recipe, original, teacher, learned)
    return Inputs(recipe, original, teacher, learned, tested, shapes, settings, tell)


def _check_training(recipe: Recipe, original: Model, teacher: Model, learned: Dataset) -> None:
    """Find out, before any work is done, whether training knows what to compare."""
    if recipe.finetune is None:
        return
    from srr_onnx.finetuning.objective import make_objective  # torch comes with it
    from srr_onnx.finetuning.preparing import check_labels

    if recipe.teacher is not None:  # whose inner values need not be as large before pruning
        open_models(teacher, original)
        return
    for key, settings in (("finetune", recipe.finetune), ("final_finetune", recipe.final_finetune)):
        if settings is not None:
            pairs = {"heads": settings.heads, "features": settings.features}
            objective = named(key, make_objective, original, teacher, learned, settings.options, **pairs)
            named(key, check_labels, learned, objective)


def _check_gates(recipe: Recipe, model: Model, tested: Dataset | None) -> None:
    """Refuse, before any work is done, what cannot be measured at its end."""
    limits = recipe.gates.limits()
    for key in ("max_accuracy_drop", "min_agreement"):
        if limits[key] is not None and (tested is None or tested.is_made_up):
            raise RecipeError(f"gates: {key} is measured on real samples: name some under the key data or test")
    if limits["max_accuracy_drop"] is not None and tested is not None and tested.labels is None:
        raise RecipeError("gates: max_accuracy_drop needs labels, and the samples have none: give the key labels too")
    if limits["min_agreement"] is not None and not has_classes(model):
        raise RecipeError("gates: min_agreement compares classes, and no output of this model has any")
