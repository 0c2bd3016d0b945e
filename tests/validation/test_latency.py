"""Who is timed when, and for how long; the times themselves are nobody's promise."""

from __future__ import annotations

import pytest

from srr_onnx.errors import DataError
from srr_onnx.validation import latency
from srr_onnx.validation.latency import Latency, measure_latency


class Clock:
    """Time that passes only while something runs."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(latency.time, "perf_counter", lambda: self.now)

    def runner(self, seconds):
        def run():
            self.now += seconds

        return run


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_models_take_turns_and_each_comes_first_in_half_of_them(clock):
    log = []

    def runner(name):
        def run():
            log.append(name)
            clock.now += 1.0

        return run

    timings = measure_latency([runner("a"), runner("b")], rounds=4, warm_up=2)
    assert [timing.seconds for timing in timings] == [(1.0,) * 4] * 2
    assert ["".join(log[i : i + 2]) for i in range(0, len(log), 2)] == ["ba", "ab", "ba", "ab", "ba", "ab"]


def test_short_runs_are_timed_several_at_a_time(clock):
    short, long = measure_latency([clock.runner(1e-5), clock.runner(1e-2)], rounds=3)
    assert short.runs_each == pytest.approx(20, abs=1)
    assert long.runs_each == 1
    assert short.seconds == pytest.approx((1e-5,) * 3)


def test_the_budget_ends_the_rounds_but_not_the_first_three(clock):
    (timing,) = measure_latency([clock.runner(1.0)], rounds=1000, budget_seconds=20.0)
    assert len(timing.seconds) == 16
    (timing,) = measure_latency([clock.runner(100.0)], rounds=1000, budget_seconds=20.0)
    assert len(timing.seconds) == 3
    assert clock.now == 421.0  # one run to warm up, as a quarter of the budget is gone after it


def test_every_round_is_told(clock):
    told = []
    measure_latency([clock.runner(1.0)], rounds=3, on_round=told.append)
    assert told == [1, 2, 3]


def test_median_and_fastest():
    timing = Latency((3.0, 1.0, 2.0, 10.0))
    assert (timing.median, timing.fastest) == (2.5, 1.0)


@pytest.mark.parametrize(("settings", "text"), [({"rounds": 0}, "rounds"), ({"budget_seconds": 0.0}, "budget")])
def test_nothing_to_measure(settings, text):
    with pytest.raises(DataError, match=text):
        measure_latency([], **settings)
