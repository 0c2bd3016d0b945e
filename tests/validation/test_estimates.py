"""Intervals against published figures and against how often they hold."""

from __future__ import annotations

import numpy as np
import pytest

from srr_onnx.validation.estimates import estimate_difference, estimate_mean, estimate_share


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    # Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17, 1998, table I.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_shares_have_the_published_intervals(hits, count, low, high):
    found = estimate_share(hits, count)
    assert (found.mean, found.low, found.high) == pytest.approx((hits / count, low, high), abs=5e-5)


def test_a_difference_on_the_same_samples_is_narrower_than_one_counted_apart():
    first = np.arange(1000) < 700
    second = np.roll(first, 10)  # ten samples are lost, ten are gained
    found = estimate_difference(first, second)
    assert found.mean == 0
    assert found.low == pytest.approx(-found.high)
    apart = estimate_share(700, 1000)
    assert found.high < (apart.high - apart.low) / 2


def test_no_difference_still_has_an_interval():
    found = estimate_difference(np.ones(50, bool), np.ones(50, bool))
    assert found.low < 0 == found.mean < found.high < 0.1


def test_the_interval_of_a_difference_holds_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        cells = rng.choice(4, 300, p=[0.6, 0.12, 0.06, 0.22])  # both, first only, second only, none
        found = estimate_difference(cells <= 1, (cells == 0) | (cells == 2))
        hits += found.low <= 0.06 <= found.high
    assert 0.92 <= hits / 400 <= 0.98


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution():
    values = np.random.default_rng(0).standard_normal(2000)
    found = estimate_mean(values, seed=1)
    assert found.mean == values.mean()
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half), abs=0.1 * half)
    assert estimate_mean(values, seed=1) == found
