"""The error curve of an elimination is what least squares leave, told of directly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srr_onnx.scoring import elimination
from srr_onnx.scoring.elimination import Problem, eliminate

RIDGE = 0.02


def make_layer(rng, units, width, others=0, outputs=3, rows=200):
    """Rows that go together, and a matrix that reads them; the last columns belong to no unit."""
    columns = units * width + others
    mix = rng.standard_normal((columns, columns)) * 0.5 + np.eye(columns)
    return rng.standard_normal((rows, columns)) @ mix, rng.standard_normal((columns, outputs))


def damped(rows, ridge=RIDGE):
    covariance = np.atleast_2d(np.cov(rows, rowvar=False, bias=True))
    return covariance + ridge * np.trace(covariance) / len(covariance) * np.eye(len(covariance))


def pose(rows, matrix, units, width, ridge=RIDGE):
    inside = units * width
    inverse = np.linalg.inv(damped(rows, ridge))[:inside, :inside]
    return Problem(inverse, matrix[:inside].copy(), width)


def direct(rows, matrix, units, width, gone):
    """What is left after fitting the other columns anew, their change being penalized."""
    covariance = damped(rows)
    is_gone = np.isin(np.arange(len(covariance)) // width, gone)
    is_gone[units * width :] = False
    change = np.zeros_like(matrix)
    change[is_gone] = -matrix[is_gone]
    inner, across = covariance[np.ix_(~is_gone, ~is_gone)], covariance[np.ix_(~is_gone, is_gone)]
    change[~is_gone] = -np.linalg.solve(inner, across @ change[is_gone]) if (~is_gone).any() else 0
    return float(np.trace(change.T @ covariance @ change))


@settings(max_examples=40)
@given(
    units=st.integers(1, 7),
    widths=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    others=st.integers(0, 3),
    batch=st.sampled_from([1, 3, 32]),
    seed=st.integers(0, 999),
)
def test_errors_are_those_of_least_squares(units, widths, others, batch, seed):
    rng = np.random.default_rng(seed)
    layers = [(*make_layer(rng, units, width, others), width) for width in widths]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(elimination, "_BATCH", batch)
        found = eliminate([pose(rows, matrix, units, width) for rows, matrix, width in layers], units)
    assert sorted(found.order.tolist()) == list(range(units))
    assert (np.diff(found.errors) >= 0).all()
    for count in range(1, units + 1):
        want = sum(direct(rows, matrix, units, width, found.order[:count]) for rows, matrix, width in layers)
        assert found.errors[count - 1] == pytest.approx(want, rel=1e-6)


@settings(max_examples=30)
@given(units=st.integers(2, 8), width=st.integers(1, 2), seed=st.integers(0, 999))
def test_the_first_to_go_costs_least(units, width, seed):
    rows, matrix = make_layer(np.random.default_rng(seed), units, width)
    found = eliminate([pose(rows, matrix, units, width)], units)
    alone = [direct(rows, matrix, units, width, [unit]) for unit in range(units)]
    assert found.order[0] == np.argmin(alone)
    assert found.errors[0] == pytest.approx(min(alone), rel=1e-6)


@settings(max_examples=30)
@given(units=st.integers(2, 40), width=st.integers(1, 2), seed=st.integers(0, 999))
def test_permuting_units_permutes_the_order(units, width, seed):
    rng = np.random.default_rng(seed)
    rows, matrix = make_layer(rng, units, width)
    shuffled = rng.permutation(units)
    columns = (shuffled[:, None] * width + np.arange(width)).reshape(-1)
    plain = eliminate([pose(rows, matrix, units, width)], units)
    permuted = eliminate([pose(rows[:, columns], matrix[columns], units, width)], units)
    assert shuffled[permuted.order].tolist() == plain.order.tolist()
    assert np.allclose(permuted.errors, plain.errors, rtol=1e-6)


def test_units_that_nobody_weighs_go_first_and_cost_nothing():
    rows, matrix = make_layer(np.random.default_rng(0), 40, 2)
    dead = [3, 17, 30]
    for unit in dead:
        matrix[2 * unit : 2 * unit + 2] = 0
    found = eliminate([pose(rows, matrix, 40, 2)], 40)
    assert sorted(found.order[:3].tolist()) == dead
    assert found.errors[2] < 1e-12 < found.errors[3]


def test_units_that_never_move_go_first():
    rows, matrix = make_layer(np.random.default_rng(0), 10, 1)
    rows[:, [2, 5]] = 1.0
    found = eliminate([pose(rows, matrix, 10, 1)], 10)
    assert sorted(found.order[:2].tolist()) == [2, 5]


def test_of_two_equal_units_one_goes_at_no_cost_and_the_other_stays_long():
    rows, matrix = make_layer(np.random.default_rng(1), 8, 1)
    rows[:, 5] = rows[:, 2]
    matrix[5] = matrix[2] = 3
    found = eliminate([pose(rows, matrix, 8, 1, ridge=1e-6)], 8)
    assert found.order[0] in (2, 5)
    assert found.errors[0] < 1e-5 * found.errors[-1]
    assert ({2, 5} - {int(found.order[0])}).pop() in found.order[3:]


def test_rounding_that_makes_a_matrix_indefinite_is_met():
    inverse = np.array([[1, 1 + 1e-6], [1 + 1e-6, 1]], np.float32)
    found = eliminate([Problem(inverse, np.ones((2, 1), np.float32), 1)], 2)
    assert np.isfinite(found.errors).all()
    assert sorted(found.order.tolist()) == [0, 1]
