"""FINE-TUNE: what is decided and read before training begins, and once more after it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from srr_onnx.data.dataset import Dataset, split_held_out
from srr_onnx.errors import DataError, TrainingError
from srr_onnx.finetuning.batch_norm import insert_norms
from srr_onnx.finetuning.bridge import from_torch
from srr_onnx.finetuning.datasets import Order, TrainingSamples
from srr_onnx.finetuning.keeper import Keeper
from srr_onnx.finetuning.objective import Objective
from srr_onnx.finetuning.options import TrainingOptions
from srr_onnx.finetuning.torch_graph import TorchGraph
from srr_onnx.graph.model import Model
from srr_onnx.planning.plan import Plan
from srr_onnx.wording import counted

# Samples that the statistics of normalizations are taken from, where these are put back.
_NORMED = 512


def put_norms_back(
    student: TorchGraph, elder: TorchGraph | None, samples: TrainingSamples, order: Order, plan: Plan | None
) -> None:
    """Put normalizations back, with statistics of the unpruned model where it is known which channels are the same."""
    reference = kept = None
    if plan is not None:
        kept = {name: keep.tolist() for (name, axis), keep in plan.kept_positions().items() if axis == 1}
        reference = elder
    feeds = read_plain(samples, order, reference or student, max(1, _NORMED // order.batch))
    insert_norms(student, feeds, reference=reference, kept=kept)


def read_plain(samples: TrainingSamples, order: Order, module: TorchGraph, batches: int) -> Iterator[list[Tensor]]:
    """Inputs of a few batches of the first epoch, in the order of a module."""
    for keys in dataclasses.replace(order, processes=1, rank=0).keys(0, min(batches, order.per_epoch)):
        yield samples.feed(samples.collate([samples[key] for key in keys]), module.inputs)


@torch.no_grad()
def recalibrate(keeper: Keeper, student: TorchGraph, feeds: Iterable[Sequence[Tensor]]) -> Model:
    """The student with statistics of its normalizations from samples that nothing was done to."""
    with keeper.applied(student):
        student.train()
        for feed in feeds:
            student(*feed)
        return from_torch(student)


def split_samples(dataset: Dataset, options: TrainingOptions) -> tuple[Dataset, Dataset]:
    """Samples to train on, and samples to judge by."""
    if dataset.is_made_up:
        raise TrainingError("made-up pictures teach nothing about real ones: give pictures with --data")
    if len(dataset) < 2:
        raise DataError(f"{dataset.name!r} holds a single sample: give at least 2, one to train on and one to judge by")
    training, held_out = split_held_out(np.arange(len(dataset)), options.held_out, options.seed)
    return dataset.select(training), dataset.select(held_out)


def check_labels(dataset: Dataset, objective: Objective) -> None:
    """Check that labels, where they are trained on, are more than one."""
    if objective.logits is None or dataset.labels is None or len(np.unique(dataset.labels)) > 1:
        return
    raise DataError(
        f"all {len(dataset):,} samples of {dataset.name!r} have the label {dataset.labels[0]}, which teaches nothing: "
        "give samples of several classes, or train with --teacher and --loss distillation"
    )


def fit_batch(options: TrainingOptions, samples: Dataset) -> int:
    """A batch that the samples can fill, of as many for every process."""
    most = len(samples) // options.processes * options.processes
    if not most:
        raise DataError(f"{counted(len(samples), 'sample')} to train on: too few for {options.processes} processes")
    return min(options.batch, most)


def count_classes(model: Model, objective: Objective) -> int:
    """Columns that labels have when samples are mixed; 0 where none are."""
    if objective.logits is None or not objective.options.mixup:
        return 0
    shape = model.shapes.get(objective.logits)
    if shape is None:
        raise TrainingError("mixup mixes labels, and the file does not tell how many classes there are: give --mixup 0")
    return max(shape[1:])
