"""VALIDATE: how often a classifier is right on labelled samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from srr_onnx.errors import DataError
from srr_onnx.targets.onnxruntime import Session

Array = np.ndarray[Any, Any]
Batch = tuple[Mapping[str, Array], Array]


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """How many samples a classifier got right.

    Attributes:
        correct: Samples whose highest output is that of their class.
        samples: Samples in all.
    """

    correct: int
    samples: int

    @property
    def top1(self) -> float:
        """Share of the samples that are right."""
        return self.correct / self.samples


def measure_accuracy(session: Session, batches: Iterable[Batch], output: str | None = None) -> Accuracy:
    """Measure top-1 accuracy.

    Args:
        session: The model.
        batches: Inputs by name, and the class of every sample, shape `(N,)`.
        output: Output with one column per class, shape `(N, classes)`; the first by default.

    Returns:
        The counts.

    Raises:
        DataError: There are no samples, or the output does not have one row per sample and one column per class.
        ModelError: The model cannot run on the inputs.
    """
    name = output or session.outputs[0]
    correct = samples = 0
    for feeds, labels in batches:
        rows = session.run(feeds)[name]
        if rows.ndim != 2 or len(rows) != len(labels):
            raise DataError(
                f"output {name!r} has shape {list(rows.shape)} for {len(labels)} samples: accuracy needs one row per "
                "sample and one column per class"
            )
        if len(labels) and not 0 <= labels.min() <= labels.max() < rows.shape[1]:
            raise DataError(f"labels from {labels.min()} to {labels.max()}, but {name!r} has {rows.shape[1]} classes")
        correct += int((rows.argmax(axis=1) == labels).sum())
        samples += len(labels)
    if not samples:
        raise DataError("there are no labelled samples to measure accuracy on")
    return Accuracy(correct, samples)


def split_batches(name: str, inputs: Array, labels: Array, size: int = 64) -> Iterable[Batch]:
    """Cut the samples of a model with one input into batches.

    Args:
        name: Name of the input.
        inputs: Shape `(N, ...)`.
        labels: Shape `(N,)`.
        size: Samples per batch; the last one may be smaller.

    Yields:
        Input by name, and labels.
    """
    for start in range(0, len(labels), size):
        yield {name: inputs[start : start + size]}, labels[start : start + size]
