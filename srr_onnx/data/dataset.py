"""DATA: samples in batches, whatever they were read from.

A reader gives samples one by one; a `Dataset` makes batches of them in the form that a model takes. A sample that
cannot be read is left out, counted and named, and never ends the run unless all are like that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from srr_onnx.errors import DataError
from srr_onnx.wording import counted

if TYPE_CHECKING:
    from srr_onnx.data.preprocessing import Preprocessing

Array = np.ndarray[Any, Any]
Labels = np.ndarray[Any, np.dtype[np.int64]]


class UnreadableError(DataError):
    """One sample cannot be read; the others may well be."""


class Samples(Protocol):
    """What a reader gives: samples by their place in reading order."""

    def __len__(self) -> int: ...

    def name_of(self, index: int) -> str:
        """What a sample is called in messages."""
        ...

    def fetch(self, index: int) -> Mapping[str, Array]:
        """Read one sample: inputs by name, in the model's element type, without batch axis; or UnreadableError."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class _Part:
    """Some of the samples of others."""

    whole: Samples
    indices: Labels

    def __len__(self) -> int:
        return len(self.indices)

    def name_of(self, index: int) -> str:
        return self.whole.name_of(int(self.indices[index]))

    def fetch(self, index: int) -> Mapping[str, Array]:
        return self.whole.fetch(int(self.indices[index]))


@dataclasses.dataclass(frozen=True)
class BadSample:
    """A sample that could not be read: its name and why."""

    name: str
    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """A few samples.

    Attributes:
        feeds: Arrays by input name, in the model's element type: `(N, ...)`, and behind them those that all samples
            share.
        labels: Class per sample, `(N,)`; None where the data have none.
        indices: Place of every sample in the data set, `(N,)`.
    """

    feeds: Mapping[str, Array]
    labels: Labels | None
    indices: Labels


class Dataset:
    """Samples that a model can be fed with.

    Args:
        samples: Where they come from.
        name: What the data are called.
        text: What was read and how, in one line.
        labels: Class per sample, `(N,)`.
        classes: Names of the classes, by class.
        shared: Inputs that are the same for all samples, by name, in the shape that the model takes.
        is_made_up: Whether they are drawn, so that what a model makes of them says nothing of its quality.
        preprocessing: What is done to the first input, if it is.

    Attributes:
        name: What the data are called.
        is_made_up: As given.
        labels: Class per sample, `(N,)` int64, known without reading the samples; None where there are none.
        classes: Names of the classes; empty where unknown.
        shared: Inputs that are the same for all samples, by name.
        preprocessing: What is done to the first input, with layout and color named; None where arrays pass as they are.
        bad: Samples that could not be read, in the order in which they were met; grows while batches are made.
    """

    def __init__(
        self,
        samples: Samples,
        name: str,
        text: str,
        labels: Labels | None = None,
        classes: Sequence[str] = (),
        shared: Mapping[str, Array] | None = None,
        is_made_up: bool = False,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        if not len(samples):
            raise DataError(f"{name!r} holds no samples")
        if labels is not None and len(labels) != len(samples):
            found = counted(len(labels), "label")
            raise DataError(f"{name!r} has {counted(len(samples), 'sample')}, but there are {found}")
        self.name, self.labels, self.classes = name, labels, tuple(classes)
        self.shared = dict(shared or {})
        self.is_made_up = is_made_up
        self.preprocessing = preprocessing
        self.bad: list[BadSample] = []
        self._samples, self._text = samples, text
        self._bad_indices: dict[int, BadSample] = {}

    def __len__(self) -> int:
        return len(self._samples)

    def describe(self) -> str:
        """Say in one line what was read and which preprocessing is used."""
        return self._text if self.labels is not None else f"{self._text}; no labels"

    def describe_bad(self) -> str:
        """Say in one line how many samples could not be read so far, and why the first; empty where all could."""
        if not self.bad:
            return ""
        first = self.bad[0]
        return f"{counted(len(self.bad), 'sample')} could not be read, the first is {first.name!r}: {first.reason}"

    def name_of(self, index: int) -> str:
        """Say what a sample is called."""
        return self._samples.name_of(index)

    def with_labels(self, labels: Labels, classes: Sequence[str] = ()) -> Dataset:
        """Make the same data set with other labels.

        Args:
            labels: Class per sample, `(N,)`.
            classes: Names of the classes; empty keeps those that are known.

        Returns:
            The data set; it counts bad samples anew.

        Raises:
            DataError: There are more or fewer labels than samples.
        """
        return Dataset(
            self._samples,
            self.name,
            self._text,
            labels,
            classes or self.classes,
            self.shared,
            self.is_made_up,
            self.preprocessing,
        )

    def select(self, indices: Sequence[int] | Labels) -> Dataset:
        """Make a data set of some of the samples.

        Args:
            indices: Which, in this order.

        Returns:
            The data set; it counts bad samples anew.

        Raises:
            DataError: There are none.
        """
        chosen = np.asarray(indices, np.int64)
        return Dataset(
            _Part(self._samples, chosen),
            self.name,
            self._text,
            None if self.labels is None else self.labels[chosen],
            self.classes,
            self.shared,
            self.is_made_up,
            self.preprocessing,
        )

    def batches(self, size: int, indices: Sequence[int] | Labels | None = None) -> Iterator[Batch]:
        """Read samples in batches.

        Args:
            size: Samples per batch; where some are bad, later ones take their places, so only the last is smaller.
            indices: Which samples, in this order; all by default.

        Yields:
            The batches.

        Raises:
            DataError: Not one sample can be read (carries the first reason), or an index is out of range.
        """
        if size < 1:
            raise DataError(f"a batch of {size} samples is none: give at least 1")
        wanted = np.arange(len(self)) if indices is None else np.asarray(indices, np.int64).reshape(-1)
        if len(wanted) and not 0 <= wanted.min() <= wanted.max() < len(self):
            raise DataError(f"samples {wanted.min()} to {wanted.max()} were asked for, {self.name!r} has {len(self)}")
        waiting: list[tuple[int, Mapping[str, Array]]] = []
        count = 0
        for index in map(int, wanted):
            sample = self.fetch(index)
            if sample is None:
                continue
            waiting.append((index, sample))
            count += 1
            if len(waiting) == size:
                yield self._stack(waiting)
                waiting = []
        if waiting:
            yield self._stack(waiting)
        if len(wanted) and not count:
            first = self._bad_indices[int(wanted[0])]
            rest = f" that were chosen from {len(self)}" if len(wanted) < len(self) else ""
            raise DataError(
                f"none of {counted(len(wanted), 'sample')}{rest} of {self.name!r} can be read: the first, "
                f"{first.name!r}: "
                f"{first.reason}"
            )

    def fetch(self, index: int) -> Mapping[str, Array] | None:
        """Read one sample: inputs by name, without batch axis; None where it cannot be read, which `bad` then tells."""
        if index in self._bad_indices:
            return None
        try:
            return self._samples.fetch(index)
        except UnreadableError as error:
            self._bad_indices[index] = BadSample(self._samples.name_of(index), str(error))
            self.bad.append(self._bad_indices[index])
            return None

    def _stack(self, samples: Sequence[tuple[int, Mapping[str, Array]]]) -> Batch:
        indices = np.array([index for index, _ in samples], np.int64)
        feeds = {name: np.stack([sample[name] for _, sample in samples]) for name in samples[0][1]}
        return Batch({**feeds, **self.shared}, None if self.labels is None else self.labels[indices], indices)


def choose(dataset: Dataset, samples: int, seed: int) -> Labels:
    """Choose samples at random, none twice.

    Args:
        dataset: The data.
        samples: How many; all where there are fewer.
        seed: The same seed chooses the same.

    Returns:
        Sorted indices, `(S,)`.

    Raises:
        DataError: Fewer than one is asked for.
    """
    if samples < 1:
        raise DataError(f"{samples} samples were asked for: give at least 1")
    count = min(samples, len(dataset))
    return np.sort(np.random.default_rng(seed).choice(len(dataset), count, replace=False)).astype(np.int64)


def split_held_out(indices: Sequence[int] | Labels, share: float, seed: int) -> tuple[Labels, Labels]:
    """Part samples at random into those to calibrate on and those to judge by.

    Args:
        indices: The samples.
        share: Part that is held out, in (0, 1); each side gets at least one sample.
        seed: The same seed parts alike.

    Returns:
        Calibration and held-out indices, both sorted.

    Raises:
        DataError: The share is not between 0 and 1, or there are fewer than two samples.
    """
    chosen = np.asarray(indices, np.int64)
    if not 0 < share < 1:
        raise DataError(f"a held-out share of {share} is not between 0 and 1")
    if len(chosen) < 2:
        raise DataError(f"{counted(len(chosen), 'sample')} cannot be parted into two sets: give at least 2")
    count = min(max(1, round(share * len(chosen))), len(chosen) - 1)
    order = np.random.default_rng(seed).permutation(len(chosen))
    return np.sort(chosen[order[count:]]), np.sort(chosen[order[:count]])
