"""Intervals hold what they promise, and disturbances that met both models cancel."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from srr_onnx.validation.timing import Figure, estimate_quantile, estimate_speedup, find_drift, judge_speedup


def noise(seed, count, correlation=0.0):
    """Normal noise in which each value takes over a share of the one before."""
    rng = np.random.default_rng(seed)
    found = rng.standard_normal(count)
    for place in range(1, count):
        found[place] += correlation * found[place - 1]
    return found


def test_the_interval_of_a_median_holds_it_about_as_often_as_it_says():
    held = 0
    for seed in range(200):
        found = estimate_quantile(10 + noise(seed, 200), 0.5, seed)
        held += found.low <= 10 <= found.high
    assert held / 200 == pytest.approx(0.95, abs=0.05)


def test_times_that_hang_together_make_a_wider_interval():
    wide = estimate_quantile(10 + noise(1, 1000, correlation=0.8), 0.5)
    spread = np.std(noise(1, 1000, correlation=0.8))
    free = estimate_quantile(10 + spread * noise(1, 1000), 0.5)
    assert wide.high - wide.low > 1.5 * (free.high - free.low)


def test_a_quantile_of_which_no_sample_lies_beyond_is_not_estimated():
    times = np.arange(1.0, 100.0)
    assert estimate_quantile(times[:99], 0.99) is None
    assert estimate_quantile(np.append(times, 100.0), 0.99).value == pytest.approx(99.01)
    assert estimate_quantile(times[:1], 0.5) is None


def test_what_disturbs_both_models_cancels():
    disturbance = 1 + 4 * (np.arange(300) % 50 < 10) + 0.3 * np.abs(noise(2, 300, 0.9))
    own = 1 + 0.01 * np.abs(noise(3, 300))
    speedup = estimate_speedup(1.42 * disturbance, disturbance * own)
    assert speedup.value == pytest.approx(1.42, abs=0.03)
    assert speedup.high - speedup.low < 0.1


@pytest.mark.parametrize(
    ("figure", "verdict"),
    [
        (Figure(1.4, 1.3, 1.5), "faster"),
        (Figure(1.02, 0.99, 1.05), "not faster"),
        (Figure(0.98, 0.95, 1.0), "not faster"),
        (Figure(0.8, 0.7, 0.9), "slower"),
    ],
)
def test_verdicts(figure, verdict):
    assert judge_speedup(figure) == verdict


def test_the_same_seed_gives_the_same_interval():
    times = np.abs(noise(4, 100)) + 1
    assert estimate_quantile(times, 0.9, 7) == estimate_quantile(times, 0.9, 7)


def test_drift_is_the_change_from_the_first_third_to_the_last():
    assert find_drift(np.array([1.0, 1, 1, 9, 9, 9, 1.5, 1.5, 1.5])) == pytest.approx(0.5)
    assert find_drift(np.array([1.0, 2.0])) == 0.0


def test_many_rounds_take_little_memory():
    times = 1 + np.abs(noise(5, 50_000))
    tracemalloc.start()
    found = estimate_quantile(times, 0.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
    assert found.low < found.value < found.high
