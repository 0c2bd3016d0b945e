"""VALIDATE: how long a run takes, of several models against each other.

The models take turns, so that whatever else the machine does meets all of them alike.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

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
    sessions: Mapping[str, Session], feeds: Mapping[str, Array], rounds: int = 50, warm_up: int = 5
) -> dict[str, Latency]:
    """Time models in turns.

    Args:
        sessions: The models, by name; all take the same inputs.
        feeds: One array per input.
        rounds: Measured runs of every model.
        warm_up: Runs of every model before, not measured.

    Returns:
        Latency by name.

    Raises:
        ModelError: A model cannot run on the inputs.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    names = list(sessions)
    for turn in range(-warm_up, rounds):
        for name in names if turn % 2 else reversed(names):
            start = time.perf_counter()
            sessions[name].run(feeds)
            duration = time.perf_counter() - start
            if turn >= 0:
                seconds[name].append(duration)
    return {name: Latency(tuple(values)) for name, values in seconds.items()}
