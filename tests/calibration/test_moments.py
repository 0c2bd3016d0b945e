"""Moments gathered in batches are those of all rows at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srr_onnx.calibration import moments as moments_module
from srr_onnx.calibration.moments import Moments, RowBuffer, Variance

SPLITS = st.lists(st.integers(1, 40), min_size=1, max_size=6)


def make_rows(sizes, shape, distance, seed):
    """Batches of float32 rows with spread about 1 and means far from 0."""
    rng = np.random.default_rng(seed)
    means = rng.uniform(-distance, distance, shape)
    mix = rng.standard_normal((shape[-1], shape[-1]))
    whole = (rng.standard_normal((sum(sizes), *shape)) @ mix + means).astype(np.float32)
    return whole, np.split(whole, np.cumsum(sizes)[:-1])


@settings(max_examples=50)
@given(
    sizes=SPLITS,
    blocks=st.sampled_from([1, 2, 9]),
    columns=st.integers(1, 6),
    distance=st.sampled_from([0.0, 10.0, 1e4]),
    seed=st.integers(0, 99),
)
def test_covariance_is_that_of_all_rows(sizes, blocks, columns, distance, seed):
    whole, batches = make_rows(sizes, (blocks, columns), distance, seed)
    moments = Moments()
    for batch in batches:
        moments.add(batch)
    assert moments.count == len(whole)
    assert np.allclose(moments.mean, whole.mean(axis=0, dtype=np.float64), rtol=1e-6, atol=1e-6)
    for block, found in enumerate(moments.covariance()):
        want = np.cov(whole[:, block].astype(np.float64), rowvar=False, bias=True).reshape(columns, columns)
        assert np.allclose(found, want, rtol=1e-4, atol=1e-4 * max(1.0, np.abs(want).max()))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_products_are_summed_in_single_precision_at_least(dtype):
    rows = np.full((9000, 1, 1), 4, dtype)
    moments = Moments(is_centered=False)
    for batch in np.split(rows, 3):
        moments.add(batch)
    assert moments.covariance().item() == pytest.approx(16)


@settings(max_examples=20)
@given(sizes=SPLITS, seed=st.integers(0, 99))
def test_without_centering_the_products_are_as_they_are(sizes, seed):
    whole, batches = make_rows(sizes, (2, 3), 5.0, seed)
    moments = Moments(is_centered=False)
    for batch in batches:
        moments.add(batch)
    want = np.einsum("rbi,rbj->bij", whole.astype(np.float64), whole) / len(whole)
    assert np.allclose(moments.covariance(), want, rtol=1e-4, atol=1e-4 * np.abs(want).max())
    assert not moments.drift.any()
    assert not moments.mean.any()


@settings(max_examples=30)
@given(sizes=SPLITS, distance=st.sampled_from([0.0, 1e4]), seed=st.integers(0, 99))
def test_variance_is_that_of_all_rows(sizes, distance, seed):
    whole, batches = make_rows(sizes, (4,), distance, seed)
    variance = Variance()
    for batch in batches:
        variance.add(batch)
    assert np.allclose(variance.get(), whole.astype(np.float64).var(axis=0), rtol=1e-5, atol=1e-9)


def test_adding_gives_the_rows_about_the_first_mean():
    rows = np.array([[[1.0, 2.0]], [[3.0, 6.0]]])
    moments = Moments()
    assert moments.add(rows).tolist() == [[[-1.0, -2.0], [1.0, 2.0]]]
    assert moments.add(rows + 2).tolist() == [[[1.0, 0.0], [3.0, 4.0]]]
    assert moments.drift.tolist() == [[1.0, 1.0]]


@settings(max_examples=30)
@given(sizes=st.lists(st.integers(0, 7), max_size=12), enough=st.integers(1, 12))
def test_buffered_rows_come_out_once_and_in_order(sizes, enough):
    whole = np.arange(sum(sizes))
    out = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moments_module, "_ENOUGH_ROWS", enough)
        buffer = RowBuffer()
        for part in np.split(whole, np.cumsum(sizes)[:-1]) if sizes else []:
            ready = buffer.push(part, -part)
            if ready is not None:
                assert len(ready[0]) >= enough
                out.append(ready)
        rest = buffer.drain()
        out += [] if rest is None else [rest]
        assert buffer.drain() is None
    for sign, parts in zip((1, -1), zip(*out, strict=True), strict=False):
        assert (np.concatenate(parts) * sign).tolist() == whole.tolist()
    assert sum(len(first) for first, _ in out) == len(whole)
