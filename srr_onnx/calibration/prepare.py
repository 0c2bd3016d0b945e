"""CALIBRATE: samples in runs of a size that the model takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from srr_onnx.calibration.observe import Samples
from srr_onnx.calibration.stream import count_live_bytes
from srr_onnx.errors import DataError, ModelError
from srr_onnx.graph.model import Model
from srr_onnx.targets.onnxruntime import Session

Array = np.ndarray[Any, Any]

_RUN = 16
# Activations of all samples at one layer; more samples than fit are left out.
_MOST_LIVE = 6 << 30
_FEWEST = 16


def find_run_size(model: Model, feeds: Mapping[str, Array]) -> int:
    """Find how many samples a model takes in one run.

    A file can leave the batch open and have it written into a Reshape all the same, so it is tried.

    Args:
        model: Loaded model.
        feeds: At least one sample, batch axis first.

    Returns:
        The batch that the file states; of an open one, as many as are efficient, or 1.

    Raises:
        ModelError: The model does not run on the samples at all.
    """
    fixed = {shape[0] for name, shape in model.inputs.items() if shape and not _is_open(model, name)}
    if fixed:
        return max(fixed)
    session = Session(model)
    count = min(2, min(len(array) for array in feeds.values()))
    singles = [session.run({name: array[i : i + 1] for name, array in feeds.items()}) for i in range(count)]
    if count < 2:
        return 1
    try:
        pair = session.run({name: array[:2] for name, array in feeds.items()})
    except ModelError:
        return 1
    for name in model.outputs:
        parts = [single[name] for single in singles]
        if pair[name].shape[:1] != (2,) or pair[name].dtype.kind not in "fiub":
            return 1
        joined = np.concatenate(parts)
        if joined.shape != pair[name].shape or not np.allclose(joined, pair[name], rtol=1e-2, atol=1e-3):
            return 1
    return _RUN


def _is_open(model: Model, name: str) -> bool:
    for value in model.proto.graph.input:
        if value.name == name:
            dims = value.type.tensor_type.shape.dim
            return not dims or dims[0].dim_value <= 0
    return False


def count_affordable(model: Model, samples: int) -> int:
    """How many samples can be calibrated with at once, given the size of the model's activations."""
    batch = max((shape[0] for shape in model.inputs.values() if shape), default=1)
    per_sample = max(1, count_live_bytes(model) // max(1, batch))
    return max(min(samples, _FEWEST), min(samples, _MOST_LIVE // per_sample))


def make_samples(
    model: Model, batches: Iterable[Mapping[str, Array]], seed: int = 0, *, as_float32: bool = False
) -> Samples:
    """Put samples into runs.

    Args:
        model: Loaded model.
        batches: Inputs by name, batch axis first; of any size.
        seed: For the choice of positions.
        as_float32: Whether onnxruntime has to compute the model in float32.

    Returns:
        The samples; those that do not fill a run of a model with a fixed batch are left out.

    Raises:
        DataError: There are fewer samples than one run takes.
        ModelError: The model does not run on them.
    """
    parts: dict[str, list[Array]] = {}
    for feeds in batches:
        for name, array in feeds.items():
            parts.setdefault(name, []).append(array)
    if not parts:
        raise DataError("there are no samples to calibrate with")
    whole = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    count = min(len(array) for array in whole.values())
    size = find_run_size(model, whole)
    if count < size and _is_fixed(model):
        raise DataError(
            f"the model takes {size} samples in one run, and there are {count}: give at least {size}, or export it "
            "with an open batch"
        )
    stops = range(0, count - count % size if _is_fixed(model) else count, size)
    chunks: Sequence[Mapping[str, Array]] = [
        {name: array[start : start + size] for name, array in whole.items()} for start in stops
    ]
    return Samples(chunks, sum(len(next(iter(chunk.values()))) for chunk in chunks), seed, as_float32)


def _is_fixed(model: Model) -> bool:
    return any(not _is_open(model, name) for name in model.inputs)
