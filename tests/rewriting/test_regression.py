"""The fits are those of numpy's least squares, however the rows come."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srr_onnx.rewriting.regression import Regression


def make_data(rng, rows, blocks, columns, outputs, dtype=np.float64, distance=1.0):
    mix = rng.standard_normal((columns, columns))
    means = rng.uniform(-distance, distance, (blocks, columns))
    inputs = rng.standard_normal((rows, blocks, columns)) @ mix + means
    return inputs.astype(dtype), (rng.standard_normal((rows, blocks, outputs)) + 0.5).astype(dtype)


def fit(inputs, residuals, ridge, *, has_offset, expected=None, parts=3):
    regression = Regression(inputs.shape[2], len(inputs) if expected is None else expected, has_offset=has_offset)
    for rows, missing in zip(np.array_split(inputs, parts), np.array_split(residuals, parts), strict=True):
        if len(rows):
            regression.add(rows, missing)
    return regression.solve(ridge)


def by_numpy(inputs, residuals, ridge, has_offset):
    """One block: the ridge as more rows, the offset as one more column."""
    count, columns = inputs.shape
    centered = inputs - inputs.mean(axis=0) if has_offset else inputs
    strength = ridge * (centered**2).mean()
    ones = np.ones((count, 1)) if has_offset else np.zeros((count, 0))
    top = np.concatenate([inputs, ones], axis=1) / np.sqrt(count)
    below = np.concatenate([np.sqrt(strength) * np.eye(columns), np.zeros((columns, ones.shape[1]))], axis=1)
    wanted = np.concatenate([residuals / np.sqrt(count), np.zeros((columns, residuals.shape[1]))])
    found = np.linalg.lstsq(np.concatenate([top, below]), wanted, rcond=None)[0]
    return found[:columns], found[columns] if has_offset else np.zeros(residuals.shape[1])


@settings(max_examples=60)
@given(
    rows=st.integers(2, 40),
    blocks=st.integers(1, 3),
    columns=st.integers(1, 12),
    outputs=st.integers(1, 3),
    ridge=st.sampled_from([0.01, 0.1, 2.0]),
    has_offset=st.booleans(),
    seed=st.integers(0, 999),
)
def test_it_is_least_squares_with_a_ridge(rows, blocks, columns, outputs, ridge, has_offset, seed):
    inputs, residuals = make_data(np.random.default_rng(seed), rows, blocks, columns, outputs)
    found = fit(inputs, residuals, ridge, has_offset=has_offset)
    assert found.change.shape == (blocks, columns, outputs)
    for block in range(blocks):
        change, offset = by_numpy(inputs[:, block], residuals[:, block], ridge, has_offset)
        assert np.allclose(found.change[block], change, rtol=1e-4, atol=1e-6)
        assert np.allclose(found.offset[block], offset, rtol=1e-4, atol=1e-6)
        left = residuals[:, block] - inputs[:, block] @ found.change[block] - found.offset[block]
        assert np.allclose(found.before[block], (residuals[:, block] ** 2).mean(axis=0))
        assert np.allclose(found.after[block], (left**2).mean(axis=0), rtol=1e-4, atol=1e-6)


@settings(max_examples=40)
@given(
    rows=st.integers(1, 30),
    columns=st.integers(1, 12),
    has_offset=st.booleans(),
    seed=st.integers(0, 999),
    is_dual=st.booleans(),
)
def test_setting_out_from_coefficients_is_fitting_what_they_leave(rows, columns, has_offset, seed, is_dual):
    rng = np.random.default_rng(seed)
    inputs, targets = make_data(rng, rows, 2, columns, 3, distance=10.0)
    start = rng.standard_normal((2, columns, 3))
    regression = Regression(columns, 0 if is_dual else 1000, has_offset=has_offset, start=start)
    for part, wanted in zip(np.array_split(inputs, 2), np.array_split(targets, 2), strict=True):
        if len(part):
            regression.add(part, wanted)
    left = targets - np.einsum("rbc,bco->rbo", inputs, start)
    plain = fit(inputs, left, 0.05, has_offset=has_offset, expected=0 if is_dual else 1000)
    for first, second in zip(vars(regression.solve(0.05)).values(), vars(plain).values(), strict=True):
        assert np.allclose(first, second, rtol=1e-6, atol=1e-9)


@settings(max_examples=40)
@given(
    rows=st.integers(1, 30),
    columns=st.integers(1, 12),
    has_offset=st.booleans(),
    distance=st.sampled_from([0.0, 100.0]),
    seed=st.integers(0, 999),
)
def test_both_forms_give_the_same(rows, columns, has_offset, distance, seed):
    data = make_data(np.random.default_rng(seed), rows, 2, columns, 2, distance=distance)
    primal, dual = (fit(*data, 0.05, has_offset=has_offset, expected=n) for n in (1000, 0))
    for first, second in zip(vars(primal).values(), vars(dual).values(), strict=True):
        assert np.allclose(first, second, rtol=1e-4, atol=1e-6)


@settings(max_examples=60)
@given(
    rows=st.integers(1, 60),
    columns=st.integers(1, 20),
    has_offset=st.booleans(),
    ridge=st.sampled_from([1e-4, 0.01, 1.0]),
    kind=st.sampled_from(["noise", "zero", "constant", "tiny", "alike", "nothing missing"]),
    seed=st.integers(0, 999),
)
def test_the_error_never_grows(rows, columns, has_offset, ridge, kind, seed):
    inputs, residuals = make_data(np.random.default_rng(seed), rows, 1, columns, 2, np.float32)
    if kind in ("zero", "constant"):
        inputs[:] = 0 if kind == "zero" else 3
    if kind == "tiny":
        inputs *= 1e-6
    if kind == "alike":
        inputs[:] = inputs[:, :, :1]
    if kind == "nothing missing":
        residuals[:] = 0
    found = fit(inputs, residuals, ridge, has_offset=has_offset)
    assert (found.after <= found.before).all()
    assert (found.after >= 0).all()
    assert np.isfinite(found.change).all()
    left = residuals[:, 0] - inputs[:, 0].astype(np.float64) @ found.change[0] - found.offset[0]
    assert ((left**2).mean(axis=0) <= found.before[0] * (1 + 1e-4) + 1e-9).all()
    if kind == "nothing missing":
        assert not found.change.any()
        assert not found.offset.any()


def test_what_is_linear_is_found():
    rng = np.random.default_rng(0)
    inputs, _ = make_data(rng, 500, 2, 4, 1, np.float32, distance=50.0)
    truth = rng.standard_normal((2, 4, 3))
    residuals = np.einsum("rbc,bco->rbo", inputs, truth) + 7
    found = fit(inputs, residuals.astype(np.float32), 1e-7, has_offset=True)
    assert np.allclose(found.change, truth, atol=1e-3)
    assert np.allclose(found.offset, 7, atol=0.05)
    assert (found.after < 1e-4 * found.before).all()


@pytest.mark.parametrize("rows", [0, 100])
def test_without_rows_there_is_no_solution(rows):
    with pytest.raises(ValueError, match="without rows"):
        Regression(5, rows, has_offset=True).solve(0.1)
