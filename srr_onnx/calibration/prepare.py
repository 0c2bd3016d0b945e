"""CALIBRATE: samples in runs of a size that the model takes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from srr_onnx.calibration.observe import Samples
from srr_onnx.calibration.stream import count_live_bytes
from srr_onnx.data.dataset import Batch, Dataset, Labels, choose, split_held_out
from srr_onnx.errors import DataError, ModelError
from srr_onnx.graph.model import Model
from srr_onnx.targets.onnxruntime import Session

Array = np.ndarray[Any, Any]

_RUN = 16
# Activations of all samples at one layer; more samples than fit are left out.
_MOST_LIVE = 6 << 30
# Inputs of all samples, which stay in memory.
_MOST_INPUT = 1 << 30
_FEWEST = 16
# Below this the result suffers; more than 512 hardly help.
_FEW = 64
HELD_OUT = 0.2
_OTHER_FLOATS = frozenset({"float64", "float16", "bfloat16"})


def open_session(model: Model, threads: int = 0) -> tuple[Session, bool]:
    """Open a model, in float32 where onnxruntime cannot compute it in the file's element type.

    Args:
        model: Loaded model.
        threads: Threads inside one operator; 0 lets the runtime choose.

    Returns:
        The session, and whether it computes in float32 in place of another type.

    Raises:
        ModelError: onnxruntime refuses the model.
    """
    try:
        return Session(model, threads=threads), False
    except ModelError:
        if not _has_other_floats(model):
            raise
        return Session(model, threads=threads, as_float32=True), True


def _has_other_floats(model: Model) -> bool:
    return any(dtype.name in _OTHER_FLOATS for dtype in model.dtypes.values())


def find_run_size(model: Model, session: Session, feeds: Mapping[str, Array]) -> int:
    """Find how many samples a model takes in one run.

    A file can leave the batch open and have it written into a Reshape all the same, so it is tried.

    Args:
        model: Loaded model.
        session: The same, opened.
        feeds: At least one sample, batch axis first.

    Returns:
        The batch that the file states; of an open one, as many as are efficient, or 1.

    Raises:
        ModelError: The model does not run on the samples at all.
    """
    if has_fixed_batch(model):
        return max(shape[0] for shape in model.inputs.values() if shape)
    count = min(2, min(len(array) for array in feeds.values()))
    singles = [session.run({name: array[i : i + 1] for name, array in feeds.items()}) for i in range(count)]
    if count < 2:
        return 1
    try:
        pair = session.run({name: array[:2] for name, array in feeds.items()})
    except ModelError:
        return 1
    for name in model.outputs:
        parts = [np.asarray(single[name]) for single in singles]
        if any(part.ndim == 0 or part.dtype.kind not in "fiub" for part in parts):
            return 1
        joined = np.concatenate(parts)
        if joined.shape != pair[name].shape or not np.allclose(joined, pair[name], rtol=1e-2, atol=1e-3):
            return 1
    return _RUN


def has_fixed_batch(model: Model) -> bool:
    """Whether the file states how many samples one run takes; an input without axes says nothing about that."""
    return any(model.inputs.values()) and not any(
        _is_open(model, name) for name, shape in model.inputs.items() if shape
    )


def _is_open(model: Model, name: str) -> bool:
    for value in model.proto.graph.input:
        if value.name == name:
            dims = value.type.tensor_type.shape.dim
            return not dims or dims[0].dim_value <= 0
    return False


def _read(dataset: Dataset, indices: Labels) -> tuple[dict[str, Array], int]:
    """Read samples into one array per input; gives these and how many could be read."""
    whole: dict[str, Array] = {}
    count = 0
    for batch in dataset.batches(_RUN, indices):
        for name, array in batch.feeds.items():
            if name not in whole:
                whole[name] = np.empty((len(indices), *array.shape[1:]), array.dtype)
            whole[name][count : count + len(array)] = array
        count += len(batch.indices)
    return {name: array[:count] for name, array in whole.items()}, count


def _overflows(model: Model, session: Session, feeds: Mapping[str, Array]) -> bool:
    """Whether half precision is too narrow for the samples, so that single precision has to do."""
    if not _has_other_floats(model):
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
        notes: What the user should know.
    """

    dataset: Dataset
    samples: Samples
    held_out: Labels
    run: int
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
    session, as_float32 = open_session(model)
    notes = []
    affordable = count_affordable(model, samples)
    if affordable < samples and affordable < len(dataset):
        notes.append(
            f"{affordable} samples instead of {samples}: inputs and activations of more would take too much room"
        )
    chosen = choose(dataset, round(affordable / (1 - HELD_OUT)), seed)
    kept, held_out = split_held_out(chosen, HELD_OUT, seed)
    whole, count = _read(dataset, kept)
    size = find_run_size(model, session, whole)
    if not as_float32 and _overflows(model, session, {name: array[:size] for name, array in whole.items()}):
        as_float32 = True
    is_fixed = has_fixed_batch(model)
    if is_fixed and min(count, len(held_out)) < size:
        raise DataError(
            f"the model takes {size} samples in one run; of {len(chosen)} a fifth is held out, which is too few: give "
            f"at least {int(np.ceil(size / HELD_OUT))}, or export the model with an open batch"
        )
    stops = range(0, count - count % size if is_fixed else count, size)
    chunks = [{name: array[start : start + size] for name, array in whole.items()} for start in stops]
    used = sum(len(next(iter(chunk.values()))) for chunk in chunks)
    if used < _FEW:
        notes.append(f"only {used} samples to calibrate with: {_FEW} or more give a far better result")
    return Calibration(dataset, Samples(chunks, used, seed, as_float32, is_fixed), held_out, size, tuple(notes))
