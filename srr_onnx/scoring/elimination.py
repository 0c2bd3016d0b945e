"""SCORE: in which order units leave with the least error, the rest being fitted anew each time.

A layer's outputs are `rows @ W`. With the inverse H of the rows' covariance, removing columns R and fitting the others
anew costs `trace(W_R' H_RR^-1 W_R)` of output variance; then W and H of the rest follow in closed form.

Source:
    Hassibi and Stork, "Second order derivatives for network pruning: Optimal Brain Surgeon", NIPS 1992, with the
    layer's output error in place of the loss; blocks as in Singh and Alistarh, "WoodFisher", NeurIPS 2020,
    arXiv:2004.14340. Deviates: several layers at once, and more than one unit at a time where there are many.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

# Units that leave at once: one in so many of those left. Their joint cost is exact, only their choice is not.
_BATCH = 32


@dataclasses.dataclass(eq=False)
class Problem:
    """One layer that reads a group.

    Attributes:
        inverse: Inverse covariance of the columns that belong to the group, shape `(U * b, U * b)`, unit by unit.
        weights: Their rows of the layer's matrix, shape `(U * b, O)`, scaled so that the sum over the layer's outputs
            of their variance is 1.
        width: Columns per unit, b.
    """

    inverse: Array
    weights: Array
    width: int


@dataclasses.dataclass(frozen=True, eq=False)
class Elimination:
    """An order of units and what it costs.

    Attributes:
        order: Units in the order in which they go, shape `(U,)`.
        errors: Error with that unit and all before it gone, relative to the variance of what the layers make, summed
            over the layers; shape `(U,)`, not decreasing. The last entry is the error with no unit left.
    """

    order: np.ndarray[Any, np.dtype[np.int64]]
    errors: np.ndarray[Any, np.dtype[np.float64]]


def eliminate(problems: Sequence[Problem], units: int) -> Elimination:
    """Take units away one by one, always those that cost least.

    Args:
        problems: The layers that read the group; changed.
        units: Number of units U.

    Returns:
        The order and its error curve.
    """
    alive = np.arange(units)
    order: list[int] = []
    errors: list[float] = []
    total = 0.0
    while len(alive):
        costs = sum((_unit_costs(problem) for problem in problems), start=np.zeros(len(alive)))
        count = max(1, len(alive) // _BATCH)
        places = np.argpartition(costs, count - 1)[:count] if count < len(alive) else np.arange(len(alive))
        places = places[np.argsort(costs[places], kind="stable")]
        steps = sum((_remove(problem, places, len(alive)) for problem in problems), start=np.zeros(count))
        order += alive[places].tolist()
        for step in steps:
            total += max(float(step), 0.0)
            errors.append(total)
        alive = np.delete(alive, places)
    return Elimination(np.array(order, np.int64), np.array(errors))


def _unit_costs(problem: Problem) -> Array:
    """What every unit would cost alone, shape `(U,)`."""
    width, columns = problem.width, len(problem.inverse)
    if width == 1:
        power = np.einsum("ij,ij->i", problem.weights, problem.weights)
        return np.asarray(power / np.diag(problem.inverse), np.float64)
    units = columns // width
    blocks = problem.inverse.reshape(units, width, units, width)
    diagonal = blocks[np.arange(units), :, np.arange(units), :]
    weights = problem.weights.reshape(units, width, -1)
    power = weights @ weights.transpose(0, 2, 1)
    return np.asarray(np.trace(np.linalg.solve(diagonal, power), axis1=1, axis2=2), np.float64)


def _remove(problem: Problem, places: Array, units: int) -> Array:
    """Remove units and fit the others anew; gives what each added, in order."""
    width = problem.width
    gone = (places[:, None] * width + np.arange(width)).reshape(-1)
    stays = np.delete(np.arange(units * width), gone)
    inverse, weights = problem.inverse, problem.weights
    factor = _cholesky(inverse[np.ix_(gone, gone)])
    leaving = np.linalg.solve(factor, weights[gone])
    across = np.linalg.solve(factor, inverse[np.ix_(gone, stays)])
    problem.weights = weights[stays] - across.T @ leaving
    problem.inverse = inverse[np.ix_(stays, stays)]
    problem.inverse -= across.T @ across
    added = np.einsum("ij,ij->i", leaving, leaving).reshape(len(places), width)
    return np.asarray(added.sum(axis=1), np.float64)


def _cholesky(matrix: Array) -> Array:
    """Lower factor; rounding is met with a diagonal that grows until it helps."""
    extra = 0.0
    while True:
        try:
            return np.asarray(np.linalg.cholesky(matrix + extra * np.eye(len(matrix), dtype=matrix.dtype)))
        except np.linalg.LinAlgError:
            extra = max(extra * 10, 1e-6 * float(np.abs(np.diag(matrix)).mean()) + 1e-30)
