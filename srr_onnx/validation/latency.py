"""VALIDATE: how long a run takes, of several models against each other.

The models take turns, so that whatever else the machine does meets all of them alike.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Sequence

from srr_onnx.errors import DataError

# The clock and the call around a run cost a microsecond or so: runs that are short are timed several at a time.
_SHORTEST_SAMPLE = 2e-4
_FEWEST_ROUNDS = 3
_WARM_UP_SHARE = 0.25


@dataclasses.dataclass(frozen=True)
class Latency:
    """Wall-clock times of runs.

    Attributes:
        seconds: Time of one run, one entry per round.
        runs_each: Runs that were timed together, of which an entry is the mean; 1 but for very short ones.
    """

    seconds: tuple[float, ...]
    runs_each: int = 1

    @property
    def median(self) -> float:
        """Median in seconds: what to expect."""
        return statistics.median(self.seconds)

    @property
    def fastest(self) -> float:
        """Minimum in seconds: the run that was disturbed least."""
        return min(self.seconds)


def measure_latency(
    runners: Sequence[Callable[[], object]],
    rounds: int = 50,
    warm_up: int = 5,
    budget_seconds: float = math.inf,
    on_round: Callable[[int], None] = lambda done: None,
) -> list[Latency]:
    """Time models in turns.

    Args:
        runners: Each runs a model once: `Session.make_runner`.
        rounds: Measured runs of every model, at most.
        warm_up: Runs of every model before, not measured, at most.
        budget_seconds: No round is begun after this time, but for the first three; a quarter of it is for warming up.
        on_round: Told the number of rounds done, after each.

    Returns:
        Latencies in the order of the models, with the same number of rounds.

    Raises:
        DataError: There is nothing to measure.
        ModelError: A model cannot run on the inputs.
    """
    if rounds < 1:
        raise DataError(f"rounds (={rounds}) must be at least 1")
    if not budget_seconds > 0:
        raise DataError(f"a budget of {budget_seconds:g} seconds leaves no time to measure: give more than 0")
    begin = time.perf_counter()
    numbers = range(len(runners))
    shortest = [math.inf for _ in runners]
    for turn in range(warm_up):
        for number in _order(numbers, turn - warm_up):
            shortest[number] = min(shortest[number], _time(runners[number], 1))
        if time.perf_counter() - begin > _WARM_UP_SHARE * budget_seconds:
            break
    runs = [max(1, math.ceil(_SHORTEST_SAMPLE / max(time, 1e-7))) for time in shortest]
    seconds: list[list[float]] = [[] for _ in runners]
    for turn in range(rounds):
        for number in _order(numbers, turn):
            seconds[number].append(_time(runners[number], runs[number]))
        on_round(turn + 1)
        if turn + 1 >= _FEWEST_ROUNDS and time.perf_counter() - begin > budget_seconds:
            break
    return [Latency(tuple(times), count) for times, count in zip(seconds, runs, strict=True)]


def _order(numbers: range, turn: int) -> Sequence[int]:
    """Who comes first finds colder caches, so they take turns in that too."""
    return numbers if turn % 2 else numbers[::-1]


def _time(runner: Callable[[], object], runs: int) -> float:
    start = time.perf_counter()
    for _ in range(runs):
        runner()
    return (time.perf_counter() - start) / runs
