"""FINE-TUNE: how good a trained model is, measured in onnxruntime on samples that were held out."""

from __future__ import annotations

import dataclasses
import math

from srr_onnx.data.dataset import Dataset
from srr_onnx.errors import TrainingError
from srr_onnx.graph.model import Model, is_floating
from srr_onnx.validation.accuracy import Accuracy
from srr_onnx.validation.agreement import Agreement, find_main
from srr_onnx.validation.class_names import Classes, find_classes
from srr_onnx.validation.measure import RunOptions, measure_on_data
from srr_onnx.validation.runs import open_models


@dataclasses.dataclass(frozen=True, eq=False)
class Verdict:
    """What held-out samples say of a model.

    Attributes:
        figure: What counts: the share of the samples that are right, or without labels how little the model differs
            from the teacher (less the divergence, in nats, where there are classes; else the cosine). Higher is better.
        accuracy: What the model said of labelled samples; None without labels.
        agreement: How it compares with the teacher, on the output that speaks of classes, else on the first; None
            without teacher.
    """

    figure: float
    accuracy: Accuracy | None
    agreement: Agreement | None


class Judge:
    """Measures models on the same samples.

    Args:
        model: The model that is trained, as it was before.
        teacher: The model that it is to be like.
        held_out: Samples to judge by.

    Raises:
        TrainingError: There is nothing to judge by: no output holds floating-point numbers.
        DataError: Labels do not fit, or student and teacher differ in inputs or outputs.
        ModelError: The runtime refuses a model.
    """

    def __init__(self, model: Model, teacher: Model | None, held_out: Dataset) -> None:
        self._teacher, self._held_out = teacher, held_out
        self._classes: Classes = find_classes(
            model, held_out, None, is_needed=teacher is None and held_out.labels is not None
        )
        dtypes = [model.dtypes.get(name) for name in model.outputs]
        if not any(dtype is None or is_floating(dtype) for dtype in dtypes):
            raise TrainingError(
                "no output of the model holds floating-point numbers, so no epoch can be judged: make the values "
                "before them outputs too, of model and teacher"
            )
        open_models(*([model] if teacher is None else [teacher, model]))

    @property
    def figure_name(self) -> str:
        """What the figure is called."""
        return "accuracy" if self._classes.output is not None else "likeness"

    def measure(self, model: Model, *, is_final: bool = False) -> Verdict:
        """Run a model on the samples.

        Args:
            model: The model.
            is_final: Whether the teacher runs beside it although the labels say enough to choose by.

        Returns:
            What was found.

        Raises:
            TrainingError: There is nothing to judge by.
            DataError: The model gives values that are not finite, or no sample can be read.
        """
        has_labels = self._classes.output is not None
        needs_teacher = self._teacher is not None and (is_final or not has_labels)
        models = [self._teacher, model] if self._teacher is not None and needs_teacher else [model]
        found = measure_on_data(
            open_models(*models), self._held_out, RunOptions(), output=self._classes.output, tell=_say_nothing
        )
        main = find_main(found.agreement) or (found.agreement[0] if found.agreement else None)
        if found.accuracies:
            return Verdict(found.accuracies[-1].top1, found.accuracies[-1], main)
        if main is None:
            raise TrainingError("there is nothing to judge by: no labels, and no output that can be compared")
        if main.kl is not None:
            return Verdict(-main.kl.mean, None, main)
        # the cosine of single numbers tells no more than whether they have the same sign
        is_single = math.prod(model.shapes.get(main.output, (0, 0))[1:]) == 1
        return Verdict(-main.max_abs if is_single else main.cosine.mean, None, main)


def _say_nothing(stage: str, done: int, steps: int) -> None:
    """A measurement in the middle of training shows no progress of its own."""
