"""VALIDATE: what measured times say: quantiles and ratios, with the interval in which they would lie another time.

Times that follow each other are alike, since machines warm up and other work comes and goes. So blocks of rounds are
drawn anew, not single ones; and of two models that took turns the same rounds are drawn, so that what disturbed both
cancels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from srr_onnx.validation.estimates import CONFIDENCE

Array = np.ndarray[Any, Any]
Verdict = Literal["faster", "not faster", "slower"]

_RESAMPLES = 1000
_AT_ONCE = 1 << 20  # indices in memory: 8 MB
# Below, a quantile is one of the last few samples and says nothing of another time.
_LEAST_BEYOND = 1


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """Plain form."""
        return dataclasses.asdict(self)


def estimate_quantile(seconds: Array, share: float, seed: int = 0) -> Figure | None:
    """Estimate a quantile of times.

    Args:
        seconds: In the order in which they were measured, `(N,)`.
        share: Of the times that lie below, in (0, 1); 0.5 is the median.
        seed: For the drawing.

    Returns:
        The quantile, in seconds; None where fewer than one sample is to be expected beyond it.

    Source:
        Künsch, "The jackknife and the bootstrap for general stationary observations", Annals of Statistics 17, 1989;
        the blocks are circular, as in Politis and Romano, 1992.
    """
    if len(seconds) * (1 - share) < _LEAST_BEYOND:
        return None
    parts = [np.quantile(seconds[rounds], share, axis=1) for rounds in _draw_blocks(len(seconds), seed)]
    return _figure(float(np.quantile(seconds, share)), np.concatenate(parts))


def estimate_speedup(reference: Array, candidate: Array, seed: int = 0) -> Figure:
    """Estimate how many times faster a model is than another that took turns with it.

    Args:
        reference: Times of the one, `(N,)`.
        candidate: Times of the other in the same rounds, `(N,)`.
        seed: For the drawing.

    Returns:
        Median of the reference / median of the candidate; above 1 the candidate is faster.
    """
    parts = [
        np.median(reference[rounds], axis=1) / np.median(candidate[rounds], axis=1)
        for rounds in _draw_blocks(len(reference), seed)
    ]
    return _figure(float(np.median(reference) / np.median(candidate)), np.concatenate(parts))


def judge_speedup(speedup: Figure) -> Verdict:
    """Say in words what a speed-up shows; "not faster" where the interval holds 1."""
    return "faster" if speedup.low > 1 else "slower" if speedup.high < 1 else "not faster"


def find_drift(seconds: Array) -> float:
    """How much slower (above 0) or faster the last third of times was than the first, as a share of the first."""
    third = len(seconds) // 3
    return float(np.median(seconds[-third:]) / np.median(seconds[:third])) - 1 if third else 0.0


def _draw_blocks(count: int, seed: int) -> Iterator[Array]:
    """Indices of rounds drawn anew, some `(B, N)` at a time; a block is as long as the cube root of their number."""
    length = max(1, round(count ** (1 / 3)))
    rng = np.random.default_rng(seed)
    some = max(1, min(_RESAMPLES, _AT_ONCE // count))
    for begin in range(0, _RESAMPLES, some):
        number = min(some, _RESAMPLES - begin)
        starts = rng.integers(0, count, (number, -(-count // length)))
        blocks = (starts[:, :, None] + np.arange(length)) % count  # (B, N / length, length)
        yield blocks.reshape(number, -1)[:, :count]


def _figure(value: float, drawn: Array) -> Figure:
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Figure(value, min(value, float(low)), max(value, float(high)))
