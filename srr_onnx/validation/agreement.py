"""VALIDATE: how far two models agree on samples; no labels are needed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from srr_onnx.errors import DataError
from srr_onnx.validation.estimates import Estimate, estimate_mean, estimate_share

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How one output of two models compares.

    Attributes:
        output: Name of the output.
        samples: Number of samples.
        top1: Share of the positions whose highest class is the same; None where an output has no classes.
        cosine: Cosine between the outputs of one sample.
        kl: Kullback-Leibler divergence of the candidate's class probabilities from the reference's, in nats; None where
            an output has no classes.
        max_abs: Largest difference of any element.
        is_probability: Whether the reference gives probabilities of classes.
    """

    output: str
    samples: int
    top1: Estimate | None
    cosine: Estimate
    kl: Estimate | None
    max_abs: float
    is_probability: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain form, as in plan files."""
        return dataclasses.asdict(self)


class AgreementCount:
    """Collects how two models compare, a few samples at a time.

    Args:
        outputs: Names of the outputs.
        class_axes: Axis of the classes per output; None, or no entry, where it has none. All other axes are positions.

    Attributes:
        skipped: Why an output was not compared, on some samples at least, by its name.
    """

    def __init__(self, outputs: Sequence[str], class_axes: Mapping[str, int | None]) -> None:
        self._outputs, self._class_axes = tuple(outputs), class_axes
        self._rows: dict[str, list[tuple[float, float, float, float]]] = {}
        self._is_probability: dict[str, bool] = {}
        self.skipped: dict[str, str] = {}

    def add(self, reference: Mapping[str, Array], candidate: Mapping[str, Array], count: int) -> None:
        """Compare what two models gave.

        Args:
            reference: Outputs of the original, by name.
            candidate: Outputs of the other one.
            count: Samples that they are for.

        Raises:
            DataError: The reference gives NaN, or the candidate is not finite where the reference is.
        """
        for name in self._outputs:
            pair = np.asarray(reference[name]), np.asarray(candidate[name])
            if pair[0].dtype.kind != "f":
                self.skipped[name] = "it holds no floating-point numbers"
            elif pair[0].shape != pair[1].shape:
                self.skipped[name] = f"shape {list(pair[0].shape)} became {list(pair[1].shape)} on some samples"
            elif pair[0].size:
                pair, axis = _mask(*pair, name), self._class_axes.get(name)
                self._rows.setdefault(name, []).extend(_compare(*pair, count, axis))
                is_one = axis is not None and _is_probability(np.moveaxis(pair[0], axis, -1))
                self._is_probability[name] = self._is_probability.get(name, True) and is_one

    def summarize(self, seed: int = 0) -> list[Agreement]:
        """Say how the models compare.

        Args:
            seed: For the resampling behind the intervals.

        Returns:
            One entry per floating-point output, in the order of the outputs.

        Raises:
            DataError: There are no samples, or no output to compare.
        """
        if not self._rows:
            raise DataError("there is nothing to compare: no samples, or no output of floating-point numbers")
        return [
            dataclasses.replace(
                _summarize(name, np.array(self._rows[name]), seed), is_probability=self._is_probability[name]
            )
            for name in self._outputs
            if name in self._rows
        ]


def find_main(outputs: Sequence[Agreement]) -> Agreement | None:
    """Find the output that speaks of classes: the first of probabilities, else the first that has any."""
    able = [found for found in outputs if found.top1 is not None]
    return next((found for found in able if found.is_probability), able[0] if able else None)


def _mask(wanted: Array, given: Array, name: str) -> tuple[Array, Array]:
    """Leave out what is infinite in the reference: scores that are masked by -inf, say."""
    is_finite = np.isfinite(wanted)
    if np.isnan(wanted).any() or not is_finite.any():
        raise DataError(
            f"output {name!r} of the original is NaN or infinite on some samples, so that nothing can be compared "
            "there: check the preprocessing, or the model"
        )
    if not np.isfinite(given[is_finite]).all():
        raise DataError(
            f"output {name!r} of the candidate is NaN or infinite on samples where the original's is not: check the "
            "preprocessing, or, after pruning, give --compensate none"
        )
    return np.where(is_finite, wanted, 0), np.where(is_finite, given, 0)


def _compare(wanted: Array, given: Array, count: int, axis: int | None) -> Iterable[tuple[float, float, float, float]]:
    """Per sample: top-1 agreement and divergence (NaN without classes), cosine, largest difference."""
    if wanted.ndim == 0 or wanted.shape[0] % count:  # the samples do not lie along the first axis
        wanted, given, count = wanted[None], given[None], 1
    wanted, given = (array.astype(np.float64).reshape(count, -1, *array.shape[1:]) for array in (wanted, given))
    for one, other in zip(wanted, given, strict=True):
        top1 = kl = math.nan
        if axis is not None:
            top1 = float((one.argmax(axis=axis) == other.argmax(axis=axis)).mean())
            kl = float(_divergence(np.moveaxis(one, axis, -1), np.moveaxis(other, axis, -1)).mean())
        norm = float(np.linalg.norm(one) * np.linalg.norm(other))
        cosine = float((one * other).sum()) / norm if norm else float(np.array_equal(one, other))
        yield top1, cosine, kl, float(np.abs(one - other).max())


def _divergence(wanted: Array, given: Array) -> Array:
    """Of rows along the last axis; probabilities are taken as they are, anything else goes through a softmax."""
    is_probability = _is_probability(wanted)
    logs = [
        np.log(np.maximum(rows, 1e-12)) if is_probability else rows - _log_sum_exp(rows) for rows in (wanted, given)
    ]
    return np.asarray((np.exp(logs[0]) * (logs[0] - logs[1])).sum(axis=-1))


def _is_probability(rows: Array) -> bool:
    return bool((rows >= 0).all()) and bool(np.allclose(rows.sum(axis=-1), 1, atol=1e-3))


def _log_sum_exp(rows: Array) -> Array:
    top = rows.max(axis=-1, keepdims=True)
    return np.asarray(top + np.log(np.exp(rows - top).sum(axis=-1, keepdims=True)))


def _summarize(name: str, rows: Array, seed: int) -> Agreement:
    top1, cosine, kl, largest = rows.T
    has_classes = not np.isnan(top1).any()
    is_binary = has_classes and bool(np.isin(top1, (0.0, 1.0)).all())
    agreed = None
    if has_classes:
        agreed = estimate_share(int(top1.sum()), len(top1)) if is_binary else estimate_mean(top1, seed)
    return Agreement(
        output=name,
        samples=len(rows),
        top1=agreed,
        cosine=estimate_mean(cosine, seed),
        kl=estimate_mean(kl, seed) if has_classes else None,
        max_abs=float(largest.max()),
    )
