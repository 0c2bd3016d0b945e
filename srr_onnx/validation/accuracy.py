"""VALIDATE: how often a classifier is right on labelled samples, and what it takes for what."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from srr_onnx.errors import DataError
from srr_onnx.targets.onnxruntime import Session
from srr_onnx.validation.estimates import Estimate, estimate_share
from srr_onnx.wording import counted

Array = np.ndarray[Any, Any]
Batch = tuple[Mapping[str, Array], Array]

# Among so many of the highest outputs the right class is looked for, where there are more classes than that.
TOP = 5


@dataclasses.dataclass(frozen=True, eq=False)
class Accuracy:
    """What a classifier said of labelled samples.

    Attributes:
        labels: Class of every sample, `(N,)`.
        predicted: Class with the highest output, `(N,)`; the first of several.
        ranks: Place of the right class among the outputs, `(N,)`; 0 is the highest.
        classes: Number of classes.
    """

    labels: Array
    predicted: Array
    ranks: Array
    classes: int

    @property
    def samples(self) -> int:
        """Samples in all."""
        return len(self.labels)

    @property
    def is_right(self) -> Array:
        """Whether each sample is right, `(N,)` bool."""
        return np.asarray(self.ranks == 0)

    @property
    def correct(self) -> int:
        """Samples whose highest output is that of their class."""
        return int(self.is_right.sum())

    @property
    def top1(self) -> float:
        """Share of the samples that are right."""
        return self.correct / self.samples

    @property
    def correct_top5(self) -> int | None:
        """Samples whose class is among the five highest outputs; None with five classes or fewer."""
        return int((self.ranks < TOP).sum()) if self.classes > TOP else None

    def estimate_classes(self) -> dict[int, tuple[int, int, Estimate]]:
        """Say how the classes fare: samples that are right, samples in all, and their share; classes with samples."""
        found = {}
        for label in map(int, np.unique(self.labels)):
            is_right = self.is_right[self.labels == label]
            right, count = int(is_right.sum()), len(is_right)
            found[label] = right, count, estimate_share(right, count)
        return found

    def count_confusions(self) -> dict[tuple[int, int], int]:
        """Count what was taken for what: samples by class and predicted class, without the pairs that never occur.

        A dense matrix of 20,000 classes would take gigabytes.
        """
        pairs, counts = np.unique(np.stack([self.labels, self.predicted]), axis=1, return_counts=True)
        rows = zip(*pairs.tolist(), counts.tolist(), strict=True)
        return {(label, predicted): count for label, predicted, count in rows}


class AccuracyCount:
    """Collects what a classifier says, a few samples at a time.

    Args:
        output: Name of the output with one column per class.
    """

    def __init__(self, output: str) -> None:
        self._output = output
        self._found: list[tuple[Array, Array, Array]] = []
        self._classes = 0

    def add(self, outputs: Mapping[str, Array], labels: Array) -> None:
        """Compare outputs with labels.

        Args:
            outputs: What the model gave, by name.
            labels: Class of every sample, `(N,)`.

        Raises:
            DataError: The output has not one row per sample and one column per class, holds NaN, or a label is not
                among its classes.
        """
        rows = _to_rows(np.asarray(outputs[self._output]), self._output, len(labels))
        check_labels_fit(labels, rows.shape[1], self._output)
        if np.isnan(rows).any():
            count = int(np.isnan(rows).any(axis=1).sum())
            raise DataError(
                f"output {self._output!r} is NaN on {count} of {counted(len(rows), 'sample')}, so no class can be read "
                "off it: check the preprocessing and the model's element type"
            )
        right = rows[np.arange(len(rows)), labels][:, None]  # (N, 1)
        is_before = np.arange(rows.shape[1]) < labels[:, None]  # of equal outputs the first counts, as in argmax
        ranks = ((rows > right) | ((rows == right) & is_before)).sum(axis=1)
        self._found.append((labels, rows.argmax(axis=1), ranks))
        self._classes = rows.shape[1]

    def summarize(self) -> Accuracy:
        """Put everything together.

        Returns:
            The accuracy.

        Raises:
            DataError: There were no samples.
        """
        if not sum(len(labels) for labels, _, _ in self._found):
            raise DataError("there are no labelled samples to measure accuracy on")
        labels, predicted, ranks = (np.concatenate(parts) for parts in zip(*self._found, strict=True))
        return Accuracy(labels, predicted, ranks, self._classes)


def measure_accuracy(session: Session, batches: Iterable[Batch], output: str | None = None) -> Accuracy:
    """Measure what a classifier says of labelled samples.

    Args:
        session: The model.
        batches: Inputs by name, and the class of every sample, shape `(N,)`.
        output: Output with one column per class, shape `(N, classes)`; the first by default.

    Returns:
        The accuracy.

    Raises:
        DataError: There are no samples, or the output does not have one row per sample and one column per class.
        ModelError: The model cannot run on the inputs.
    """
    counts = AccuracyCount(output or session.outputs[0])
    for feeds, labels in batches:
        counts.add(session.run(feeds), labels)
    return counts.summarize()


def check_labels_fit(labels: Array, classes: int, output: str) -> None:
    """Check that every label is a class of an output.

    Args:
        labels: `(N,)`.
        classes: Columns of the output.
        output: Its name.

    Raises:
        DataError: One is not.
    """
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise DataError(
            f"labels from {labels.min()} to {labels.max()}, but {output!r} has "
            f"{counted(classes, 'class', 'classes')}, 0 to {classes - 1}: give labels that count as the model does"
        )


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


def _to_rows(values: Array, name: str, count: int) -> Array:
    """One row per sample, `(N, classes)`; axes of size 1 beside the classes are left out."""
    columns = [size for size in values.shape[1:] if size > 1] if values.ndim else []
    if values.ndim < 2 or values.shape[0] != count or len(columns) > 1 or math.prod(values.shape[1:]) < 1:
        raise DataError(
            f"output {name!r} has shape {list(values.shape)} for {counted(count, 'sample')}: accuracy needs one row "
            "per sample and one column per class"
        )
    return values.reshape(count, -1)
