"""The contract of every registered criterion, and the values of the built-in ones."""

from __future__ import annotations

import dataclasses
import inspect

import numpy as np
import pytest

from srr_onnx.analysis.groups import Role
from srr_onnx.errors import DataError
from srr_onnx.scoring.criteria import criteria
from srr_onnx.scoring.criterion import Criterion, ScoreOptions, criterion
from srr_onnx.scoring.elimination import Elimination
from srr_onnx.scoring.options import SrrOptions

BUILT_IN = [name for name in criteria if criteria.get(name).function.__module__.startswith("srr_onnx.")]
OPTIONS = {
    "auto": ScoreOptions(),
    "paper": ScoreOptions(srr=SrrOptions.paper()),
    "closest-pair": ScoreOptions(srr=SrrOptions(filter_choice="closest_pair", pooled=False)),
}


def normal(units, length, seed=0):
    return np.random.default_rng(seed).standard_normal((units, length)).astype(np.float32)


def score(name, slices, options):
    """Scores of one group; what samples would say is made up from the filters."""
    rows = np.concatenate([*slices.with_role(Role.FILTER), *slices.with_role(Role.SCALE)], axis=1)
    energy = (rows.astype(np.float64) ** 2).sum(axis=1)
    order = np.argsort(energy, kind="stable")
    elimination = Elimination(order, np.cumsum(energy[order])) if criteria.get(name).uses_samples else None
    return criteria.get(name)(slices, dataclasses.replace(options, elimination=elimination))


@pytest.fixture(params=["one-conv", "three-convs", "with-scale", "single", "pair", "zeros", "equal", "some-zero"])
def slices(request, make_slices):
    some_zero = normal(9, 12)
    some_zero[[2, 5]] = 0
    return {
        "one-conv": make_slices(normal(24, 72)),
        "three-convs": make_slices(normal(24, 72), normal(24, 9, 1), normal(24, 640, 2)),
        "with-scale": make_slices(normal(24, 72), scales=[normal(24, 1, 3), normal(24, 1, 4)]),
        "single": make_slices(normal(1, 9)),
        "pair": make_slices(normal(2, 9)),
        "zeros": make_slices(np.zeros((6, 9), np.float32)),
        "equal": make_slices(np.ones((6, 9), np.float32)),
        "some-zero": make_slices(some_zero),
    }[request.param]


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
class TestContract:
    def test_shape_and_finiteness(self, name, options, slices):
        scores = score(name, slices, options)
        assert scores.shape == (slices.units,)
        assert scores.dtype == np.float64
        assert np.isfinite(scores).all()

    def test_determinism(self, name, options, slices):
        assert np.array_equal(score(name, slices, options), score(name, slices, options))

    @pytest.mark.parametrize("seed", range(3))
    def test_permuting_units_permutes_scores(self, name, options, make_slices, seed):
        slices = make_slices(normal(40, 72), normal(40, 30, 1), scales=[normal(40, 1, 2)])
        order = np.random.default_rng(seed).permutation(slices.units)
        permuted, plain = score(name, slices.permuted(order), options), score(name, slices, options)
        assert np.allclose(permuted, plain[order], rtol=1e-5) == criteria.get(name).is_equivariant

    def test_broken_filters_are_named(self, name, options, make_slices):
        if name == "random" or criteria.get(name).uses_samples:
            pytest.skip("does not read the filters")
        rows = normal(6, 9)
        rows[0, 0] = np.nan
        with pytest.raises(DataError, match="filters of group g5 contain NaN"):
            criteria.get(name)(make_slices(rows, group_id="g5"), options)


@pytest.mark.parametrize("name", BUILT_IN)
def test_docstrings_name_their_source(name):
    doc = inspect.getdoc(criteria.get(name).function)
    assert "\nSource:\n" in doc
    assert "\nReturns:\n" in doc


def test_built_in_names():
    assert sorted(BUILT_IN) == ["bn_scale", "fpgm", "l1", "l2", "random", "reconstruction", "srr", "srr+reconstruction"]


def test_l1_and_l2_sum_over_all_filters(make_slices):
    slices = make_slices(np.array([[3.0, -4.0], [0.0, 1.0]]), np.array([[12.0], [-2.0]]))
    assert criteria.get("l1")(slices, ScoreOptions()).tolist() == [19.0, 3.0]
    assert criteria.get("l2")(slices, ScoreOptions()).tolist() == [13.0, pytest.approx(5**0.5)]


def test_fpgm_sums_distances_of_raw_filters(make_slices):
    first, second = 100 * normal(15, 20), normal(15, 7, 1)
    joined = np.concatenate([first, second], axis=1).astype(np.float64)
    expected = np.linalg.norm(joined[:, None] - joined, axis=2).sum(axis=1)
    assert criteria.get("fpgm")(make_slices(first, second), ScoreOptions()) == pytest.approx(expected, rel=1e-4)


def test_fpgm_drops_the_middle_first(make_slices):
    scores = criteria.get("fpgm")(make_slices(np.array([[-1.0], [0.5], [1.0], [5.0]])), ScoreOptions())
    assert scores == pytest.approx([9.5, 6.5, 6.5, 14.5], abs=0.01)


def test_bn_scale_sums_absolute_scales(make_slices):
    slices = make_slices(normal(3, 9), scales=[np.array([[1.0], [-2.0], [0.5]]), np.array([[1.0], [0.0], [-3.0]])])
    assert criteria.get("bn_scale")(slices, ScoreOptions()).tolist() == [2.0, 2.0, 3.5]


def test_bn_scale_falls_back_to_the_norm_of_folded_filters(make_slices):
    slices = make_slices(normal(6, 9))
    scores = criteria.get("bn_scale")(slices, ScoreOptions())
    assert np.array_equal(scores, criteria.get("l2")(slices, ScoreOptions()))


def test_random_depends_on_seed_and_group(make_slices):
    entry = criteria.get("random")
    first = entry(make_slices(normal(9, 9)), ScoreOptions(seed=1))
    assert not np.array_equal(first, entry(make_slices(normal(9, 9)), ScoreOptions(seed=2)))
    assert not np.array_equal(first, entry(make_slices(normal(9, 9), group_id="g1"), ScoreOptions(seed=1)))
    assert np.array_equal(first, entry(make_slices(normal(9, 3)), ScoreOptions(seed=1)))


def test_the_decorator_registers_and_gives_the_function_back():
    def largest(slices, options):
        raise AssertionError

    try:
        assert criterion("test-largest", is_equivariant=False, uses_redundancy=True)(largest) is largest
        assert criteria.get("test-largest") == Criterion("test-largest", largest, False, True)
        with pytest.raises(ValueError, match="registered twice"):
            criterion("test-largest")(largest)
    finally:
        criteria._entries.pop("test-largest")
