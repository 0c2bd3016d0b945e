"""FINE-TUNE: samples of any reader as a torch data set, in an order that follows from seed and epoch alone.

What a sample is depends on its key, epoch and index, and on nothing that happened before: so a run that is resumed in
the middle of an epoch, in one process or in several, with any number of workers, sees what it would have seen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from srr_onnx.data.dataset import Array, BadSample, Dataset, Labels
from srr_onnx.errors import DataError
from srr_onnx.finetuning.augmentation import Augmenter
from srr_onnx.wording import counted

# Epoch, and place of the sample in the data set.
Key = tuple[int, int]

# What a random generator is for, so that no two draw alike.
_ORDER, _AUGMENT, MIX = 1, 2, 3


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingBatch:
    """A few samples on their way through training.

    Attributes:
        inputs: Tensors by name of the model's input, `(N, ...)`; those that all samples share are not among them.
        labels: Class per sample, `(N,)` int64; None where there are none.
        key: Epoch and place of the first sample: nothing else has it in this epoch.
        bad: Samples that could not be read, and in whose place others stand.
    """

    inputs: dict[str, Tensor]
    labels: Tensor | None
    key: Key
    bad: tuple[BadSample, ...]

    def to(self, device: torch.device) -> TrainingBatch:
        """The same on another device."""
        inputs = {name: value.to(device, non_blocking=True) for name, value in self.inputs.items()}
        labels = None if self.labels is None else self.labels.to(device, non_blocking=True)
        return dataclasses.replace(self, inputs=inputs, labels=labels)


@dataclasses.dataclass(frozen=True, eq=False)
class _Sample:
    inputs: dict[str, Array]
    index: int
    key: Key
    bad: tuple[BadSample, ...]


class TrainingSamples(TorchDataset[_Sample]):
    """Samples of a data set by their keys.

    Args:
        dataset: The samples.
        seed: For what happens to them.
        augmenter: Changes them; None leaves them as they are.
    """

    def __init__(self, dataset: Dataset, seed: int, augmenter: Augmenter | None = None) -> None:
        self._dataset, self._seed, self._augmenter = dataset, seed, augmenter

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, key: Key) -> _Sample:
        epoch, wanted = key
        known = len(self._dataset.bad)
        for index in (*range(wanted, len(self)), *range(wanted)):
            found = self._dataset.fetch(index)
            if found is not None:
                break
        else:
            first = self._dataset.bad[0]
            raise DataError(
                f"none of {counted(len(self), 'sample')} of {self._dataset.name!r} can be read: the first, "
                f"{first.name!r}: "
                f"{first.reason}"
            )
        inputs = dict(found)
        if self._augmenter is not None:
            name = self._augmenter.input
            rng = np.random.default_rng((self._seed, _AUGMENT, epoch, wanted))
            inputs[name] = self._augmenter.change(inputs[name], rng)
        return _Sample(inputs, index, key, tuple(self._dataset.bad[known:]))

    def feed(self, batch: TrainingBatch, names: Sequence[str]) -> list[Tensor]:
        """Inputs of a batch, and those that all samples share, in a model's order."""
        shared = self._dataset.shared
        return [batch.inputs[name] if name in batch.inputs else torch.from_numpy(shared[name]) for name in names]

    def collate(self, samples: Sequence[_Sample]) -> TrainingBatch:
        """Put samples into a batch."""
        stacked = {name: np.stack([sample.inputs[name] for sample in samples]) for name in samples[0].inputs}
        inputs = {name: torch.from_numpy(array) for name, array in stacked.items()}
        labels = self._dataset.labels
        places = [sample.index for sample in samples]
        classes = None if labels is None else torch.from_numpy(labels[places])
        return TrainingBatch(inputs, classes, samples[0].key, tuple(bad for s in samples for bad in s.bad))


@dataclasses.dataclass(frozen=True)
class Order:
    """Which samples make which batch.

    Every batch is full; what is left over in one epoch comes in others.

    Attributes:
        samples: How many there are.
        batch: How many of them make a batch, over all processes.
        seed: For the order.
        processes: Processes that share each batch.
        rank: Which of them this is.
    """

    samples: int
    batch: int
    seed: int
    processes: int = 1
    rank: int = 0

    @property
    def per_epoch(self) -> int:
        """Batches in an epoch."""
        return max(1, self.samples // self.batch)

    def shuffle(self, epoch: int) -> Labels:
        """Order of all samples in an epoch, `(N,)`."""
        return np.random.default_rng((self.seed, _ORDER, epoch)).permutation(self.samples)

    def keys(self, start: int, stop: int) -> Iterator[list[Key]]:
        """Keys of this process's part of the batches from `start` to `stop`, counted through all epochs."""
        epoch, indices = -1, np.empty(0, np.int64)
        for number in range(start, stop):
            if number // self.per_epoch != epoch:
                epoch = number // self.per_epoch
                indices = self.shuffle(epoch)
            first = number % self.per_epoch * self.batch
            part = indices[first : first + self.batch][self.rank :: self.processes]
            yield [(epoch, int(index)) for index in part]


class Course(Sampler[list[Key]]):
    """All batches of a training that are still to come, for a loader.

    Args:
        order: Which samples make which batch.
        stop: Batches in all.
        count_done: Tells how many are done.
    """

    def __init__(self, order: Order, stop: int, count_done: Callable[[], int]) -> None:
        self._order, self._stop, self._count_done = order, stop, count_done

    def __len__(self) -> int:
        return self._stop

    def __iter__(self) -> Iterator[list[Key]]:
        return self._order.keys(self._count_done(), self._stop)


def make_loader(samples: TrainingSamples, course: Course, workers: int) -> DataLoader[_Sample]:
    """Make what reads the batches of a course.

    Args:
        samples: The samples.
        course: Which of them, in which order.
        workers: Processes that read; 0 reads in this one.

    Returns:
        A loader of `TrainingBatch`.
    """
    return DataLoader(
        samples,
        batch_sampler=course,
        num_workers=workers,
        collate_fn=samples.collate,
        # what readers make of files need not survive being pickled
        multiprocessing_context="fork" if workers else None,
    )


def make_mixing_rng(seed: int, key: Key) -> np.random.Generator:
    """The generator that decides how the samples of a batch are mixed."""
    return np.random.default_rng((seed, MIX, *key))


def mix(batch: TrainingBatch, parameter: float, rng: np.random.Generator, classes: int) -> TrainingBatch:
    """Mix every sample with another one of its batch, and their labels alike.

    Args:
        batch: The batch.
        parameter: Of the beta distribution that the share of the first is drawn from.
        rng: Draws.
        classes: Columns of the labels; 0 where nobody reads them, and they stay as they are.

    Returns:
        A batch of the same size, with shares of classes as labels, `(N, classes)`.

    Source:
        Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, arXiv:1710.09412. Deviates: the first
        sample's share is at least a half, which is the same but for the order.
    """
    drawn = float(rng.beta(parameter, parameter))
    share = max(drawn, 1 - drawn)
    order = torch.from_numpy(rng.permutation(len(next(iter(batch.inputs.values())))))
    inputs = {name: _lerp(value[order.to(value.device)], value, share) for name, value in batch.inputs.items()}
    labels = batch.labels
    if labels is not None and classes:
        rows = torch.nn.functional.one_hot(labels, classes).float()
        labels = torch.lerp(rows[order.to(rows.device)], rows, share)
    return dataclasses.replace(batch, inputs=inputs, labels=labels)


def _lerp(start: Tensor, end: Tensor, share: float) -> Tensor:
    """What lies between; of whole numbers only pictures have anything there, rounded: (N, C, H, W) or (N, H, W, C)."""
    if end.is_floating_point():
        return torch.lerp(start, end, share)
    return torch.lerp(start.float(), end.float(), share).round().to(end.dtype) if end.ndim == 4 else end
