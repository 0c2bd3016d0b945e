from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from srr_onnx.errors import DataError
from srr_onnx.scoring import distances as module
from srr_onnx.scoring.distances import fixed_threshold, lower_quantile, measure_distances, mirror, sample_pairs


def normal(units, length, seed=0):
    return np.random.default_rng(seed).standard_normal((units, length)).astype(np.float32)


def measure_all(*args, **options):
    found = measure_distances(*args, **options)
    return dataclasses.replace(found, squares=mirror(found.squares))


def expected_distances(*filters):
    vectors = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in map(np.float64, filters)]
    return np.max([np.linalg.norm(rows[:, None] - rows, axis=2) for rows in vectors], axis=0)


@pytest.mark.parametrize("lengths", [(9,), (27, 64), (5000,), (3, 2048, 2049)])
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_distances_between_unit_vectors(make_slices, lengths, scale):
    filters = [normal(12, length, seed) for seed, length in enumerate(lengths)]
    found = measure_all(make_slices(*(rows * np.float32(scale) for rows in filters)))
    order = found.units
    assert np.allclose(np.sqrt(found.squares), expected_distances(*filters)[np.ix_(order, order)], atol=1e-5)
    assert found.threshold == 1.0


def test_filters_can_be_joined_to_one_vector(make_slices):
    filters = [normal(12, 27), normal(12, 64, seed=1)]
    lengths = []

    def threshold(squares, length):
        lengths.append(length)
        return 1.0

    found = measure_all(make_slices(*filters), threshold, is_joined=True)
    squares = sum(expected_distances(rows) ** 2 for rows in filters) / 2
    assert np.allclose(found.squares, squares[np.ix_(found.units, found.units)], atol=1e-5)
    assert lengths == [(27 + 64) / 2]


def test_every_layer_is_measured_in_its_own_threshold(make_slices):
    filters = [normal(12, 27), normal(12, 64, seed=1)]
    found = measure_all(make_slices(*filters), lambda squares, length: length**2)
    first, second = expected_distances(filters[0]) / 27, expected_distances(filters[1]) / 64
    assert np.allclose(np.sqrt(found.squares), np.maximum(first, second)[np.ix_(found.units, found.units)], atol=1e-5)
    assert found.threshold == (27 + 64) / 2


def test_only_equal_filters_meet_a_threshold_of_zero(make_slices):
    rows = np.repeat(normal(5, 30), 2, axis=0)
    found = measure_all(make_slices(rows, rows), lambda squares, length: 0.0)
    same = found.units[:, None] // 2 == found.units // 2
    assert np.array_equal(found.squares <= 1, same)
    assert np.isfinite(found.squares).all()


def test_vertices_are_numbered_by_l1_norm(make_slices):
    rows = np.array([[3.0, -1.0], [1.0, 1.0], [0.0, 0.5], [-2.0, 0.0]], np.float32)
    found = measure_all(make_slices(rows))
    assert found.units.tolist() == [2, 1, 3, 0]
    assert found.l1.tolist() == [4.0, 2.0, 0.5, 2.0]


def test_positive_factors_change_no_distance(make_slices):
    rows, factors = normal(20, 50), np.geomspace(1e-3, 1e3, 20)[:, None].astype(np.float32)
    plain, scaled = measure_all(make_slices(rows)), measure_all(make_slices(rows * factors))
    back_plain, back_scaled = np.argsort(plain.units), np.argsort(scaled.units)
    assert np.allclose(
        np.sqrt(plain.squares)[np.ix_(back_plain, back_plain)],
        np.sqrt(scaled.squares)[np.ix_(back_scaled, back_scaled)],
        atol=1e-5,
    )


@pytest.mark.parametrize("length", [1, 9, 4608, 25088])
def test_equal_filters_are_at_distance_zero(make_slices, length):
    rows = np.repeat(normal(7, length), 5, axis=0)
    found = measure_all(make_slices(rows, rows * np.float32(3)))
    original = found.units // 5
    same = original[:, None] == original
    assert (found.squares[same] == 0).all()
    if length > 1:
        assert (found.squares[~same] > 0.01).all()


def test_zero_filters_are_alike_and_far_from_the_rest(make_slices):
    rows = normal(6, 30)
    rows[[1, 4]] = 0
    found = measure_all(make_slices(rows))
    assert found.units[:2].tolist() == [1, 4]
    assert found.squares[0, 1] == 0
    assert np.allclose(found.squares[:2, 2:], 1)


def test_float64_filters_are_accepted(make_slices):
    rows = normal(6, 30).astype(np.float64)
    assert np.allclose(np.sqrt(measure_all(make_slices(rows)).squares).sum(), expected_distances(rows).sum(), atol=1e-4)


def test_distances_are_symmetric_and_read_piece_by_piece(make_slices, monkeypatch):
    rows = normal(30, 100)
    whole = measure_all(make_slices(rows)).squares
    monkeypatch.setattr(module, "_COLUMNS", 7)
    monkeypatch.setattr(module, "_ENTRIES", 1)
    monkeypatch.setattr(module, "_ROWS", 7)
    pieces = measure_all(make_slices(rows)).squares
    assert np.array_equal(pieces, pieces.T)
    assert np.allclose(whole, pieces, atol=1e-5)


def test_a_sample_is_all_pairs_or_some_of_them(make_slices):
    squares = measure_all(make_slices(normal(100, 20))).squares
    pairs = squares[np.triu_indices(100, 1)]
    assert np.array_equal(np.sort(sample_pairs(squares)), np.sort(pairs))
    part = sample_pairs(squares, 495)
    assert len(part) == 495
    assert (part > 0).all()
    assert np.isin(part, pairs).all()
    assert np.array_equal(part, sample_pairs(squares, 495))
    assert len(sample_pairs(np.zeros((1, 1), np.float32), 0.1)) == 0


@pytest.mark.parametrize(("quantile", "value"), [(0, 1), (0.25, 2), (0.49, 2), (0.5, 3), (1, 5)])
def test_lower_quantile_is_one_of_the_values(quantile, value):
    assert lower_quantile(np.array([5, 3, 1, 4, 2], np.float32), quantile) == value


def test_quantile_of_nothing_is_zero():
    assert lower_quantile(np.zeros(0, np.float32), 0.25) == 0.0


def test_fixed_threshold_grows_with_the_length():
    assert fixed_threshold(0.023, 576) == pytest.approx(0.552)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_broken_weights_are_an_error(make_slices, value):
    rows = normal(4, 5)
    rows[2, 3] = value
    with pytest.raises(DataError, match="group g7 contain NaN or infinite"):
        measure_distances(make_slices(rows, group_id="g7"))


def test_a_group_without_filters_is_an_error(make_slices):
    with pytest.raises(DataError, match="group g0 has no floating-point filters"):
        measure_distances(make_slices(scales=[np.ones((4, 1))]))


def test_very_long_filters_are_compared_on_some_entries(make_slices, monkeypatch):
    filters = normal(40, 6000)
    filters[7] = 2 * filters[3]
    exact = measure_all(make_slices(filters))
    monkeypatch.setattr(module, "_MOST_PRODUCTS", 1)
    rough = measure_all(make_slices(filters), is_exact=False)
    assert not np.array_equal(exact.squares, rough.squares)
    assert np.abs(np.sqrt(exact.squares) - np.sqrt(rough.squares)).max() < 0.15
    assert rough.squares[rough.units.tolist().index(3), rough.units.tolist().index(7)] == 0
    assert np.array_equal(measure_all(make_slices(filters)).squares, exact.squares)
