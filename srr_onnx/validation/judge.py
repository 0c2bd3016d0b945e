"""VALIDATE: the result beside the original on samples that were held out."""

from __future__ import annotations

import dataclasses
from typing import Any

from srr_onnx.calibration.prepare import Calibration
from srr_onnx.data.dataset import Dataset
from srr_onnx.errors import DataError
from srr_onnx.graph.model import Model
from srr_onnx.targets.onnxruntime import Session
from srr_onnx.validation.accuracy import Accuracy, AccuracyCount
from srr_onnx.validation.agreement import Agreement, AgreementCount, find_main
from srr_onnx.validation.class_names import Classes, find_classes
from srr_onnx.validation.classes import find_class_axis


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What held-out samples say.

    Attributes:
        outputs: Agreement per output.
        accuracy: Accuracy of the original and of the result; None without labels that fit.
        note: What could not be compared, and why; what is doubtful about the labels.
        is_made_up: Whether the samples were, so that nothing of this speaks of real ones.
    """

    outputs: tuple[Agreement, ...]
    accuracy: tuple[Accuracy, Accuracy] | None
    note: str = ""
    is_made_up: bool = False

    @property
    def main(self) -> Agreement | None:
        """The output that speaks of classes: the first of probabilities, else the first that has any."""
        return find_main(self.outputs)

    def to_json(self) -> dict[str, Any]:
        """Plain form, as in plan files."""
        accuracy = None
        if self.accuracy is not None:
            before, after = self.accuracy
            accuracy = {"before": before.top1, "after": after.top1, "samples": before.samples}
        return {
            "outputs": [found.to_json() for found in self.outputs],
            "accuracy": accuracy,
            "made_up": self.is_made_up,
        }


def judge(model: Model, candidate: Model, calibration: Calibration, seed: int = 0) -> Judgement:
    """Compare a model with the original on the samples that were held out.

    Args:
        model: The original.
        candidate: The pruned model.
        calibration: The samples.
        seed: For the intervals.

    Returns:
        The judgement.

    Raises:
        DataError: The candidate gives values that are not finite.
        ModelError: A model cannot run on the samples.
    """
    as_float32 = calibration.as_float32
    sessions = Session(model, as_float32=as_float32), Session(candidate, as_float32=as_float32)
    try:
        batches = list(calibration.judge())
    except DataError:  # not one of them can be read
        batches = []
    if not batches:
        return Judgement((), None, "nothing was compared with the original: no sample that was held out can be used")
    if not any(model.dtypes[name].kind == "f" for name in model.outputs if name in model.dtypes):
        return Judgement((), None, "nothing was compared with the original: no output holds floating-point numbers")
    agreement = AgreementCount(model.outputs, {name: find_class_axis(model, name) for name in model.outputs})
    classes = _find_classes(model, calibration.dataset)
    accuracies = [] if classes.output is None else [AccuracyCount(classes.output) for _ in sessions]
    for batch in batches:
        runs = sessions[0].run(batch.feeds), sessions[1].run(batch.feeds)
        agreement.add(*runs, len(batch.indices))
        try:
            for count, outputs in zip(accuracies, runs, strict=False):
                assert batch.labels is not None, "there is an output of classes with labels only"
                count.add(outputs, batch.labels)
        except DataError as error:  # the outputs have other shapes than the file says
            accuracies, classes = [], _without_accuracy(error)
    accuracy = (accuracies[0].summarize(), accuracies[1].summarize()) if accuracies else None
    return Judgement(tuple(agreement.summarize(seed)), accuracy, classes.note, calibration.dataset.is_made_up)


def _find_classes(model: Model, dataset: Dataset) -> Classes:
    try:
        return find_classes(model, dataset, None, is_needed=False)
    except DataError as error:  # labels of something else than the model's classes
        return _without_accuracy(error)


def _without_accuracy(error: DataError) -> Classes:
    return Classes(None, note=f"no accuracy is told: {error}")
