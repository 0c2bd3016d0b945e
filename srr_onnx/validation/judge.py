"""VALIDATE: the result beside the original on samples that were held out."""

from __future__ import annotations

import dataclasses
from typing import Any

from srr_onnx.calibration.prepare import Calibration, open_session
from srr_onnx.errors import DataError
from srr_onnx.graph.model import Model
from srr_onnx.validation.accuracy import Accuracy, measure_accuracy
from srr_onnx.validation.agreement import Agreement, measure_agreement


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What held-out samples say.

    Attributes:
        outputs: Agreement per output.
        accuracy: Accuracy of the original and of the result; None without labels.
    """

    outputs: tuple[Agreement, ...]
    accuracy: tuple[Accuracy, Accuracy] | None

    @property
    def top1(self) -> float | None:
        """Top-1 agreement of the first output that has classes; None where none has."""
        return next((found.top1.mean for found in self.outputs if found.top1 is not None), None)

    def to_json(self) -> dict[str, Any]:
        """Plain form, as in plan files."""
        accuracy = None
        if self.accuracy is not None:
            before, after = self.accuracy
            accuracy = {"before": before.top1, "after": after.top1, "samples": before.samples}
        return {"outputs": [found.to_json() for found in self.outputs], "accuracy": accuracy}


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
        DataError: No output can be compared.
        ModelError: A model cannot run on the samples.
    """
    sessions = open_session(model)[0], open_session(candidate)[0]
    outputs = measure_agreement(*sessions, (batch.feeds for batch in calibration.judge()), seed)
    accuracy = None
    if calibration.dataset.labels is not None:
        try:
            before, after = (
                measure_accuracy(
                    session,
                    ((batch.feeds, batch.labels) for batch in calibration.judge() if batch.labels is not None),
                )
                for session in sessions
            )
            accuracy = before, after
        except DataError:  # labels of something else than the model's classes: the agreement is what can be said
            accuracy = None
    return Judgement(tuple(outputs), accuracy)
