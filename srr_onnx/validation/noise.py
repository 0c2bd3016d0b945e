"""VALIDATE: whether the machine is quiet enough for times to mean something.

A fixed piece of work that has nothing to do with the models is timed between their runs. On a quiet machine it always
takes as long.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence

import numpy as np

# A quiet machine stays below: `srr-onnx profile` on an idle desktop has 1.02 to 1.08, one of two busy cores 1.3 to 3.
_SPREAD = 1.15
_DRIFT = 0.05
# Work of half a process beside the measurement is what a desktop does at rest.
_IDLE_LOAD = 0.5
_WORK = 20_000  # additions, some 0.3 ms
_EVERY = 0.02  # seconds, so that at most a fiftieth of the time goes into it


@dataclasses.dataclass(frozen=True)
class Noise:
    """How quiet the machine was.

    Attributes:
        load: Processes that wanted a core in the minute before; None where the system does not tell.
        loop_spread: 90th percentile of the times of a fixed loop, by the shortest of them.
        drift: Largest change of a median from the first to the last third, as a share; its sign is that of the change.
        reasons: Why the machine counts as noisy; none where it does not.
    """

    load: float | None
    loop_spread: float
    drift: float
    reasons: tuple[str, ...]

    @property
    def is_noisy(self) -> bool:
        """Whether figures of this machine are to be taken with care."""
        return bool(self.reasons)

    def describe(self) -> str:
        """What the user should know; empty where the machine was quiet."""
        if not self.reasons:
            return ""
        return f"this machine is noisy, so take the figures with care: {'; '.join(self.reasons)}"


class NoiseWatch:
    """Times a fixed loop now and then while something else is measured.

    Args:
        threads: Threads that the measurement itself uses; 0 for all cores.
        cores: Cores that this process may use.
    """

    def __init__(self, threads: int, cores: int) -> None:
        self._spare = max(0, cores - (threads or cores))
        self._load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        self._loops: list[float] = []
        self._last = 0.0

    def look(self) -> None:
        """Time the loop, if it has not been for a while."""
        start = time.perf_counter()
        if start - self._last < _EVERY:
            return
        sum(range(_WORK))
        self._last = time.perf_counter()
        self._loops.append(self._last - start)

    def summarize(self, drifts: Sequence[float]) -> Noise:
        """Say how quiet it was.

        Args:
            drifts: Results of `timing.find_drift`, one per series of times.
        """
        return judge_noise(self._load, self._spare, self._loops, drifts)


def judge_noise(load: float | None, spare: int, loops: Sequence[float], drifts: Sequence[float]) -> Noise:
    """Decide whether a machine was quiet.

    Args:
        load: Processes that wanted a core before the measurement; None where unknown.
        spare: Cores that the measurement leaves to others.
        loops: Times of the fixed loop.
        drifts: Changes from the first to the last third of every series, as shares.

    Returns:
        The figures, and why they show a noisy machine, if they do.
    """
    spread = float(np.quantile(loops, 0.9)) / min(loops) if loops else 1.0
    drift = max(drifts, key=abs, default=0.0)
    reasons = []
    if load is not None and load > spare + _IDLE_LOAD:
        reasons.append(f"{load:.1f} processes wanted a core before it began, and it leaves {spare} to others")
    if spread > _SPREAD:
        reasons.append(f"one run in ten of a fixed loop took {spread:.2f} times as long as the fastest, or longer")
    if abs(drift) > _DRIFT:
        change = "slower" if drift > 0 else "faster"
        reasons.append(f"the last third of the runs was {abs(drift):.0%} {change} than the first".replace("%", " %"))
    return Noise(load, spread, drift, tuple(reasons))
