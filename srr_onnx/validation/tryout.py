"""VALIDATE: whether compensation that saw no samples helps, tried on made-up inputs.

Merging, and fitting to what normalizations say, rest on assumptions about what layers read. Runs the original, the
pruned model as it was proven and the compensated one; the latter is given up unless it is closer to the original.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from srr_onnx.calibration.runs import open_session
from srr_onnx.data.readers.synthetic import DrawnPictures
from srr_onnx.errors import DataError, ModelError
from srr_onnx.graph.model import Model
from srr_onnx.rewriting.compensate import Compensated
from srr_onnx.rewriting.verify import make_feeds
from srr_onnx.targets.onnxruntime import Session

Array = np.ndarray[Any, Any]

_RUNS = 32
# Less than this many standard errors of its mean over the runs may be chance.
_SURE = 2.0
# An error that falls this far is believed even where the direction of the outputs does not surely improve, of what
# rests on the file's own statistics; the likeness of filters, on which merging rests, says less. Chosen on
# docs/data/accuracy.csv: of what passes, nothing is less accurate than without; of what does not, some would be more.
_FAR = 0.55


@dataclasses.dataclass(frozen=True, eq=False)
class Distance:
    """How far a model is from the original, for every run.

    Attributes:
        errors: Squared error of the outputs, relative to their variance over all runs, shape `(R,)`; infinite where the
            model gives numbers that are not finite.
        cosines: Cosine of the outputs, less the original's mean over all runs, shape `(R,)`.
    """

    errors: Array
    cosines: Array


def keep_if_closer(model: Model, proven: Model, found: Compensated, seed: int = 0) -> Compensated:
    """Give compensation up that does not bring the outputs closer to the original's.

    The inputs are made-up pictures where the model takes such, else noise. The error has to fall by more than chance.
    An error falls too where outputs only shrink, so their direction has to improve as well; where the error falls far,
    and the weights follow from normalizations, it is enough that it does not turn away.

    Args:
        model: The original.
        proven: The pruned model, as it was proven.
        found: The same, compensated without samples.
        seed: For the noise.

    Returns:
        What was given, or the proven model; either with the errors of both. Where nothing can be tried (onnxruntime
        cannot run the model, or its metadata on pictures cannot be followed), the proven model.
    """
    try:
        before, after = measure_distances(model, (proven, found.model), seed)
    except (DataError, ModelError):
        return Compensated(proven, "none", given_up=found.kind)
    if not np.isfinite(after.errors).all():
        return Compensated(proven, "none", given_up=found.kind)
    if not np.isfinite(before.errors).all():
        return found
    tried = float(before.errors.mean()), float(after.errors.mean())
    turned = after.cosines - before.cosines
    is_far = found.kind == "data-free" and tried[1] <= _FAR * tried[0]
    is_better = _is_surely_positive(turned) or (is_far and not _is_surely_positive(-turned))
    if is_better and _is_surely_positive(before.errors - after.errors):
        return dataclasses.replace(found, tried=tried)
    return Compensated(proven, "none", tried=tried, given_up=found.kind)


def _is_surely_positive(differences: Array) -> bool:
    """Whether a mean over runs is above 0 by more than chance."""
    return bool(differences.mean() > _SURE * differences.std(ddof=1) / math.sqrt(len(differences)))


def measure_distances(model: Model, candidates: Sequence[Model], seed: int = 0) -> list[Distance]:
    """Measure how far models are from the original on made-up inputs.

    Args:
        model: The original.
        candidates: Others with the same inputs and outputs.
        seed: For the noise.

    Returns:
        The distance of each. Outputs that hold no floating-point numbers, or not as many in every run, are left out.

    Raises:
        DataError: The model's metadata say something about pictures that cannot be followed.
        ModelError: onnxruntime cannot run a model.
    """
    reference, as_float32 = open_session(model)
    means = _measure_means(reference, _make_up(model, seed))
    sessions = [Session(candidate, as_float32=as_float32) for candidate in candidates]
    errors = np.zeros((len(candidates), len(means), _RUNS))
    cosines, spreads = errors.copy(), errors[0].copy()
    for run, feeds in enumerate(_make_up(model, seed)):
        wanted = reference.run(feeds)
        for place, (name, mean) in enumerate(means.items()):
            spreads[place, run] = float(((_take(wanted[name], wanted[name]) - mean) ** 2).sum())
        for row, session in enumerate(sessions):
            given = session.run(feeds)
            for place, (name, mean) in enumerate(means.items()):
                one, other = (_take(array, wanted[name]) for array in (given[name], wanted[name]))
                errors[row, place, run] = float(((one - other) ** 2).sum()) if np.isfinite(one).all() else math.inf
                cosines[row, place, run] = _cosine(one - mean, other - mean)
    errors /= np.maximum(spreads.mean(axis=1), 1e-30)[:, None]
    return [Distance(*pair) for pair in zip(errors.sum(axis=1), cosines.sum(axis=1), strict=True)]


def _make_up(model: Model, seed: int) -> Iterator[dict[str, Array]]:
    """Inputs by name, one batch of the model's per run: other pictures and other noise every time."""
    pictures = DrawnPictures(model)
    for run in range(_RUNS):
        feeds = make_feeds(model, seed + run)
        for name in pictures.inputs:
            count = len(feeds[name])
            feeds[name] = np.stack([pictures.fetch(run * count + place)[name] for place in range(count)])
        yield feeds


def _measure_means(session: Session, inputs: Iterator[Mapping[str, Array]]) -> dict[str, Array]:
    """Mean of every output that holds floating-point numbers, as many in every run."""
    sums: dict[str, Array] = {}
    for run, feeds in enumerate(inputs):
        found = {
            name: _take(value, value)
            for name, value in session.run(feeds).items()
            if isinstance(value, np.ndarray) and value.dtype.kind == "f"
        }
        names = [name for name in found if run == 0 or (name in sums and sums[name].shape == found[name].shape)]
        sums = {name: found[name] + (sums[name] if run else 0.0) for name in names}
    return {name: total / _RUNS for name, total in sums.items()}


def _take(array: Array, wanted: Array) -> Array:
    """Numbers in double precision; 0 where the original's are not finite (scores that are masked by -inf)."""
    return np.where(np.isfinite(wanted), array, 0).astype(np.float64)


def _cosine(one: Array, other: Array) -> float:
    norms = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float((one * other).sum()) / norms if norms else 0.0
