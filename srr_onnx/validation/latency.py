"""VALIDATE: how long a run takes, of several models against each other.

The models take turns, so that whatever else the machine does meets all of them alike.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from srr_onnx.errors import DataError
from srr_onnx.targets.onnxruntime import Session

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class Latency:
    """Wall-clock times of single runs.

    Attributes:
        seconds: One entry per run.
    """

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median in seconds: what to expect."""
        return statistics.median(self.seconds)

    @property
    def fastest(self) -> float:
        """Minimum in seconds: the run that was disturbed least."""
        return min(self.seconds)


def measure_latency(
    sessions: Sequence[Session], feeds: Mapping[str, Array], rounds: int = 50, warm_up: int = 5
) -> list[Latency]:
    """Time models in turns.

    Args:
        sessions: The models; all take the same inputs.
        feeds: One array per input.
        rounds: Measured runs of every model.
        warm_up: Runs of every model before, not measured.

    Returns:
        Latencies in the order of the models.

    Raises:
        DataError: There is nothing to measure.
        ModelError: A model cannot run on the inputs.
    """
    if rounds < 1:
        raise DataError(f"rounds (={rounds}) must be at least 1")
    seconds: list[list[float]] = [[] for _ in sessions]
    numbers = range(len(sessions))
    for turn in range(-warm_up, rounds):
        for number in numbers if turn % 2 else reversed(numbers):  # who comes first finds colder caches
            start = time.perf_counter()
            sessions[number].run(feeds)
            duration = time.perf_counter() - start
            if turn >= 0:
                seconds[number].append(duration)
    return [Latency(tuple(times)) for times in seconds]
