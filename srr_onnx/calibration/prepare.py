"""CALIBRATE: samples in runs of a size that the model takes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from srr_onnx.calibration.observe import Samples
from srr_onnx.calibration.runs import (
    RUN,
    find_chunk_size,
    find_run_size,
    has_fixed_batch,
    has_halves,
    has_other_floats,
    open_session,
    take,
)
from srr_onnx.calibration.stream import count_live_bytes
from srr_onnx.data.dataset import Batch, Dataset, Labels, choose, split_held_out
from srr_onnx.errors import DataError
from srr_onnx.graph.model import Model
from srr_onnx.targets.onnxruntime import Session
from srr_onnx.wording import counted

Array = np.ndarray[Any, Any]

# Activations of all samples at one layer; more samples than fit are left out.
_MOST_LIVE = 6 << 30
# Inputs of all samples, which stay in memory.
_MOST_INPUT = 1 << 30
_FEWEST = 16
# Below this the result suffers; more than 512 hardly help.
_FEW = 64
HELD_OUT = 0.2


def _read(dataset: Dataset, indices: Labels) -> tuple[dict[str, Array], int]:
    """Read samples into one array per input, without shared ones; gives these and how many could be read."""
    whole: dict[str, Array] = {}
    count = 0
    for batch in dataset.batches(RUN, indices):
        for name, array in batch.feeds.items():
            if name in dataset.shared:
                continue
            if name not in whole:
                whole[name] = np.empty((len(indices), *array.shape[1:]), array.dtype)
            whole[name][count : count + len(array)] = array
        count += len(batch.indices)
    return {name: array[:count] for name, array in whole.items()}, count


def _overflows(model: Model, session: Session, feeds: Mapping[str, Array]) -> bool:
    """Whether half precision is too narrow for the samples, so that single precision has to do."""
    if not has_other_floats(model):
        return False
    return not all(np.isfinite(value).all() for value in session.run(feeds).values() if value.dtype.kind == "f")


def count_affordable(model: Model, samples: int) -> int:
    """How many samples can be calibrated with at once, given the size of the model's activations."""
    batch = max((shape[0] for shape in model.inputs.values() if shape), default=1)
    per_sample = max(1, count_live_bytes(model) // max(1, batch))
    per_input = sum(math.prod(shape) * model.dtypes[name].itemsize for name, shape in model.inputs.items()) // batch
    return max(min(samples, _FEWEST), min(samples, _MOST_LIVE // per_sample, _MOST_INPUT // max(1, per_input)))


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """Samples to calibrate with, and others to judge the result by.

    Attributes:
        dataset: What they are taken from.
        samples: Those to calibrate with.
        held_out: Indices of the others.
        run: Samples per run.
        as_float32: Whether onnxruntime has to compute the model in float32 to judge it.
        notes: What the user should know.
    """

    dataset: Dataset
    samples: Samples
    held_out: Labels
    run: int
    as_float32: bool
    notes: tuple[str, ...]

    def describe(self) -> tuple[str, ...]:
        """What was read, what could not be, and what the user should know."""
        return tuple(text for text in (self.dataset.describe(), self.dataset.describe_bad(), *self.notes) if text)

    def judge(self) -> Iterator[Batch]:
        """Batches of the samples that were held out, each of a size that the model takes."""
        for batch in self.dataset.batches(self.run, self.held_out):
            if len(batch.indices) == self.run or not self.samples.is_fixed:
                yield batch


def calibrate(model: Model, dataset: Dataset, samples: int, seed: int) -> Calibration:
    """Choose samples and put them into runs.

    A fifth of what is used is held out. Of the rest as many are calibrated with as were asked for; fewer where the
    model's activations are too large to keep.

    Args:
        model: Loaded model.
        dataset: The data.
        samples: How many to calibrate with.
        seed: For every choice.

    Returns:
        The calibration.

    Raises:
        DataError: There are too few samples that can be read.
        ModelError: The model does not run on them.
    """
    if len(dataset) < 2:
        raise DataError(
            f"{dataset.name!r} holds a single sample: give at least 2, one to calibrate with and one to judge the "
            "result by"
        )
    session, as_float32 = open_session(model)
    notes = []
    affordable = count_affordable(model, samples)
    if affordable < samples and affordable < len(dataset):
        notes.append(
            f"{counted(affordable, 'sample')} instead of {samples}: inputs and activations of more would take too much "
            "room"
        )
    # One sample more than asked for at least: without any to hold out there is nothing to judge by.
    chosen = choose(dataset, max(affordable + 1, round(affordable / (1 - HELD_OUT))), seed)
    kept, held_out = split_held_out(chosen, HELD_OUT, seed)
    whole, count = _read(dataset, kept)
    shared = dataset.shared
    size = find_run_size(model, session, whole, shared)
    if not as_float32 and _overflows(model, session, {**take(whole, 0, size), **shared}):
        as_float32 = True
    is_fixed = has_fixed_batch(model, whole)
    if is_fixed and min(count, len(held_out)) < size:
        raise DataError(
            f"the model takes {size} samples in one run; of {len(chosen)} a fifth is held out, which is too few: give "
            f"at least {int(np.ceil(size / HELD_OUT))}, or export the model with an open batch"
        )
    # What layers give inside can overflow half precision where the outputs are finite all the same.
    is_single = as_float32 or has_halves(model)
    chunk = find_chunk_size(model, size, whole, shared, as_float32=is_single)
    stops = range(0, count - count % size if is_fixed else count, chunk)
    chunks = [{**take(whole, start, start + chunk), **shared} for start in stops]
    used = sum(len(next(iter(chunk.values()))) for chunk in chunks)
    if used < _FEW:
        notes.append(f"only {counted(used, 'sample')} to calibrate with: {_FEW} or more give a far better result")
    found = Samples(chunks, used, seed, is_single, is_fixed)
    return Calibration(dataset, found, held_out, size, as_float32, tuple(notes))
