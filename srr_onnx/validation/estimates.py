"""VALIDATE: means over samples, with the interval in which they would lie on other samples of the same kind."""

from __future__ import annotations

import dataclasses
import math
import statistics
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

CONFIDENCE = 0.95
_RESAMPLES = 1000


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over samples with its 95 % interval."""

    mean: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """Plain form."""
        return dataclasses.asdict(self)


def estimate_share(hits: int, count: int) -> Estimate:
    """Estimate a share by Wilson's interval, which also holds near 0 and 1.

    Args:
        hits: Samples that count.
        count: Samples in all, at least one.

    Returns:
        The share, in [0, 1].

    Source:
        Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.
    """
    share, z = hits / count, _quantile()
    center = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return Estimate(share, min(share, max(0.0, center - half)), max(share, min(1.0, center + half)))


def estimate_difference(first: Array, second: Array) -> Estimate:
    """Estimate by how much one share is larger than another that was counted on the same samples.

    Samples on which both agree say nothing of the difference, so the interval is far narrower than that of two shares
    which were counted apart.

    Args:
        first: Whether each sample counts, `(N,)` bool.
        second: The same for the other share.

    Returns:
        first - second, in [-1, 1].

    Source:
        Agresti and Min, "Simple improved confidence intervals for comparing matched proportions", Statistics in
        Medicine 24, 2005: Wald's interval after half a sample has been added to each of the four cells.
    """
    count = len(first)
    gained, lost = int((first & ~second).sum()), int((second & ~first).sum())
    more, less, total = gained + 0.5, lost + 0.5, count + 2
    center = (more - less) / total
    half = _quantile() * math.sqrt(more + less - (more - less) ** 2 / total) / total
    mean = (gained - lost) / count
    return Estimate(mean, min(mean, max(-1.0, center - half)), max(mean, min(1.0, center + half)))


def estimate_mean(values: Array, seed: int) -> Estimate:
    """Estimate a mean by the percentiles of means of samples drawn anew.

    Args:
        values: One per sample, `(N,)`.
        seed: For the drawing.

    Returns:
        The mean, in the unit of the values.
    """
    rng = np.random.default_rng(seed)
    means = [float(values[rng.integers(0, len(values), len(values))].mean()) for _ in range(_RESAMPLES)]
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(float(values.mean()), float(low), float(high))


def _quantile() -> float:
    """Of the normal distribution: so many standard deviations lie to each side."""
    return statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
