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
        problems: The layers that read the group.
        units: Number of units U.

    Returns:
        The order and its error curve.
    """
    states = [_State(problem) for problem in problems]
    names = np.arange(units)  # of the places that the states still have
    is_left = np.ones(units, bool)
    order: list[int] = []
    errors: list[float] = []
    total = 0.0
    while is_left.any():
        if 2 * np.count_nonzero(is_left) <= len(is_left):
            for state in states:
                state.compact(is_left)
            names, is_left = names[is_left], np.ones(np.count_nonzero(is_left), bool)
        alive = np.flatnonzero(is_left)
        costs = sum((state.find_costs(alive) for state in states), start=np.zeros(len(alive)))
        count = max(1, len(alive) // _BATCH)
        chosen = np.argpartition(costs, count - 1)[:count] if count < len(alive) else np.arange(len(alive))
        places = alive[chosen[np.argsort(costs[chosen], kind="stable")]]
        steps = sum((state.remove(places) for state in states), start=np.zeros(count))
        order += names[places].tolist()
        for step in steps:
            total += max(float(step), 0.0)
            errors.append(total)
        is_left[places] = False
    return Elimination(np.array(order, np.int64), np.array(errors))


class _State:
    """One problem while units go.

    The inverse of those left is the first one less `steps.T @ steps`. That product is only formed where it is read, and
    once half of the units are gone: large matrices are not gone through at every step.
    """

    def __init__(self, problem: Problem) -> None:
        self._width = problem.width
        self._inverse = problem.inverse
        self._weights = problem.weights.copy()
        self._begin()

    def _begin(self) -> None:
        units = len(self._inverse) // self._width
        # Until the next compaction half of the units go, and a batch beyond.
        most = (units // 2 + units // _BATCH + 2) * self._width
        self._steps = np.empty((most, len(self._inverse)), self._inverse.dtype)
        self._count = 0
        blocks = self._inverse.reshape(units, self._width, units, self._width)
        self._diagonal = blocks[np.arange(units), :, np.arange(units), :].copy()

    def find_costs(self, alive: Array) -> Array:
        """What each of some units would cost alone, shape `(len(alive),)`."""
        weights = self._weights.reshape(-1, self._width, self._weights.shape[1])[alive]
        if self._width == 1:
            return np.asarray(np.einsum("uio,uio->u", weights, weights) / self._diagonal[alive, 0, 0], np.float64)
        power = weights @ weights.transpose(0, 2, 1)
        return np.asarray(np.trace(np.linalg.solve(self._diagonal[alive], power), axis1=1, axis2=2), np.float64)

    def remove(self, places: Array) -> Array:
        """Remove units and fit the others anew; gives what each added, in order."""
        gone = self._columns(places)
        steps = self._steps[: self._count]
        rows = self._inverse[gone] - steps[:, gone].T @ steps
        factor = _cholesky(rows[:, gone])
        leaving = np.linalg.solve(factor, self._weights[gone])
        step = np.linalg.solve(factor, rows)
        self._weights -= step.T @ leaving
        parts = step.reshape(len(gone), -1, self._width).transpose(1, 0, 2)
        self._diagonal -= parts.transpose(0, 2, 1) @ parts
        self._steps[self._count : self._count + len(gone)] = step
        self._count += len(gone)
        added = np.einsum("ij,ij->i", leaving, leaving).reshape(len(places), self._width)
        return np.asarray(added.sum(axis=1), np.float64)

    def compact(self, is_left: Array) -> None:
        """Forget the units that are gone."""
        stays = self._columns(np.flatnonzero(is_left))
        steps = self._steps[: self._count, stays]
        self._inverse = self._inverse[np.ix_(stays, stays)]
        self._inverse -= steps.T @ steps
        self._weights = self._weights[stays]
        self._begin()

    def _columns(self, places: Array) -> Array:
        return np.asarray((places[:, None] * self._width + np.arange(self._width)).reshape(-1))


def _cholesky(matrix: Array) -> Array:
    """Lower factor; rounding is met with a diagonal that grows until it helps."""
    extra = 0.0
    while True:
        try:
            return np.asarray(np.linalg.cholesky(matrix + extra * np.eye(len(matrix), dtype=matrix.dtype)))
        except np.linalg.LinAlgError:
            extra = max(extra * 10, 1e-6 * float(np.abs(np.diag(matrix)).mean()) + 1e-30)
