"""VALIDATE: one model on data: accuracy where there are labels, agreement where there is a reference."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from srr_onnx.data.dataset import BadSample, Dataset
from srr_onnx.data.preprocessing import Preprocessing
from srr_onnx.data.read import open_data
from srr_onnx.errors import DataError
from srr_onnx.graph.load import load_model
from srr_onnx.graph.model import Model
from srr_onnx.targets.target import Target
from srr_onnx.validation.accuracy import Accuracy
from srr_onnx.validation.agreement import Agreement
from srr_onnx.validation.class_names import Classes, find_classes
from srr_onnx.validation.estimates import estimate_share
from srr_onnx.validation.gates import Gate, at_least
from srr_onnx.validation.measure import OnStage, RunOptions, measure_on_data
from srr_onnx.validation.runs import open_models

Source = str | os.PathLike[str] | Model
Data = Dataset | str | os.PathLike[str] | Iterable[Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """What data say of a model.

    Attributes:
        samples: How many were run.
        accuracy: What the model said of labelled samples; None without labels.
        classes: The output that the accuracy is read off, and names of its classes.
        agreement: How the model compares with the reference, per output; empty without reference.
        bad: Samples that could not be read.
        preprocessing: What was done to the first input; None where arrays were passed on as they are.
        gates: What was asked for.
        notes: What the user should know.
    """

    samples: int
    accuracy: Accuracy | None
    classes: Classes
    agreement: tuple[Agreement, ...]
    bad: tuple[BadSample, ...]
    preprocessing: Preprocessing | None
    gates: tuple[Gate, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain form; docs/evaluating.md describes it."""
        return {
            "samples": self.samples,
            "unreadable": [dataclasses.asdict(sample) for sample in self.bad],
            "preprocessing": None if self.preprocessing is None else dataclasses.asdict(self.preprocessing),
            "accuracy": None if self.accuracy is None else self._describe_accuracy(self.accuracy),
            "agreement": [found.to_json() for found in self.agreement],
        }

    def _describe_accuracy(self, found: Accuracy) -> dict[str, Any]:
        return {
            "output": self.classes.output,
            **describe_accuracy(found),
            "classes": [
                {
                    "class": label,
                    "name": self.classes.name_of(label),
                    "correct": right,
                    "samples": count,
                    "accuracy": share.to_json(),
                }
                for label, (right, count, share) in found.estimate_classes().items()
            ],
            "confusion": [
                {"class": label, "predicted": predicted, "samples": count}
                for (label, predicted), count in found.count_confusions().items()
            ],
        }


def describe_accuracy(found: Accuracy) -> dict[str, Any]:
    """Give the shares of an accuracy in plain form."""
    top5 = found.correct_top5
    return {
        "samples": found.samples,
        "correct": found.correct,
        "top1": estimate_share(found.correct, found.samples).to_json(),
        "top5": None if top5 is None else estimate_share(top5, found.samples).to_json(),
    }


def evaluate(
    model: Source,
    data: Data,
    *,
    reference: Source | None = None,
    labels: str | os.PathLike[str] | None = None,
    preprocessing: Preprocessing | None = None,
    options: RunOptions | None = None,
    min_accuracy: float | None = None,
    target: Target | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    on_stage: OnStage | None = None,
) -> Evaluation:
    """Measure accuracy on labelled data, and agreement with another model on any.

    Args:
        model: ONNX file or loaded model.
        data: Samples: a data set, or what `srr_onnx.open_data` takes.
        reference: Model to compare with, with the same inputs and outputs.
        labels: File with one label per sample; not for a data set that is open already.
        preprocessing: What is done to pictures; by default what the model's metadata say, else a usual one.
        options: Number of samples, batch, workers, seed.
        min_accuracy: Share of the samples that have to be right, a gate.
        target: Execution provider that runs the models; the CPU by default.
        input_shapes: Shape per input, for files with dynamic axes.
        on_stage: Told the name of every stage, steps done and steps in all, for a progress display.

    Returns:
        What was found; a gate that fails is no error.

    Raises:
        DataError: There are neither labels nor a reference; labels do not fit the model; nothing can be read.
        ModelError: A model cannot be loaded or run.
        TargetError: The target is not there, or takes no node of a model.
    """
    tell, options = on_stage or (lambda stage, done, steps: None), options or RunOptions()
    tell("load", 0, 1)
    loaded = load(model, input_shapes)
    models = [loaded] if reference is None else [load_beside(loaded, reference, input_shapes), loaded]
    opened = open_models(*models, target=target)
    tell("read", 0, 1)
    dataset = read(data, loaded, preprocessing, labels)
    if dataset.labels is None and reference is None:
        raise DataError(
            f"{dataset.name!r} has no labels, so no accuracy can be measured: give --labels FILE, or --reference "
            "OTHER.onnx to measure how far two models agree"
        )
    is_needed = reference is None or min_accuracy is not None
    classes = find_classes(loaded, dataset, options.class_output, is_needed=is_needed)
    measured = measure_on_data(opened, dataset, options, output=classes.output, tell=tell)
    accuracy = measured.accuracies[-1] if measured.accuracies else None
    gates = () if min_accuracy is None or accuracy is None else (at_least("accuracy", accuracy.top1, min_accuracy),)
    texts = dataset.describe(), dataset.describe_bad(), classes.note, *opened.notes, *measured.notes
    return Evaluation(
        samples=measured.samples,
        accuracy=accuracy,
        classes=classes,
        agreement=measured.agreement,
        bad=tuple(dataset.bad),
        preprocessing=dataset.preprocessing,
        gates=gates,
        notes=tuple(filter(None, texts)),
    )


def load(source: Source, input_shapes: Mapping[str, Sequence[int]] | None = None) -> Model:
    """Load a model, if it is not loaded yet."""
    return source if isinstance(source, Model) else load_model(source, input_shapes)


def load_beside(other: Model, source: Source, input_shapes: Mapping[str, Sequence[int]] | None = None) -> Model:
    """Load a model that is run on the samples of another: sizes of pictures that it leaves open are the other's."""
    model = load(source, input_shapes)
    if model.guessed and not isinstance(source, Model) and set(model.inputs) == set(other.inputs):
        sizes = {name: other.inputs[name] for name in model.guessed}
        return load_model(source, {**(input_shapes or {}), **sizes})
    return model


def read(
    data: Data,
    model: Model,
    preprocessing: Preprocessing | None = None,
    labels: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Open data, if they are not open yet.

    Raises:
        DataError: They cannot be read, or are open already and a preprocessing or labels are given all the same.
    """
    if not isinstance(data, Dataset):
        return open_data(data, model, preprocessing=preprocessing, labels=labels)
    if preprocessing is not None or labels is not None:
        raise DataError("the data set is open already: give preprocessing and labels to srr_onnx.open_data")
    return data
