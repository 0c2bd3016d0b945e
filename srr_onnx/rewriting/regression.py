"""REWRITE: ridge regression in blocks, from batches of rows."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from srr_onnx.calibration.moments import Moments, RowBuffer

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Solution:
    """Result of a regression.

    Attributes:
        change: Coefficients, shape `(blocks, columns, outputs)`, float64.
        offset: Constant of every output, shape `(blocks, outputs)`, float64.
        before: Mean square of what is missing, shape `(blocks, outputs)`.
        after: Mean square of what is still missing then; never more than before.
    """

    change: Array
    offset: Array
    before: Array
    after: Array


class Regression:
    """Fits targets as `rows @ (start + change) + offset`, with a penalty on the change.

    What is missing at first is `targets - rows @ start`. The fit minimizes the mean squared error plus
    `ridge * mean variance of the columns * |change|^2`; since no change at all is among the candidates, the error never
    grows.

    Args:
        columns: Columns of a block.
        rows: Rows that will come. With fewer rows than columns the system is solved in the rows' space.
        has_offset: Whether a constant is fitted too.
        start: Coefficients to set out from, shape `(blocks, columns, outputs)`; none for 0.

    Source:
        Hoerl and Kennard, "Ridge regression", Technometrics 12, 1970; dual form as in Saunders et al., ICML 1998.
    """

    def __init__(self, columns: int, rows: int, *, has_offset: bool, start: Array | None = None) -> None:
        self._start = start
        self._is_dual = rows < columns
        self._has_offset = has_offset
        self._moments = Moments(is_centered=has_offset)
        self._cross: Array | None = None
        self._sum: Array = np.zeros(0)
        self._squares: Array = np.zeros(0)
        self._buffer = RowBuffer()
        self._kept: list[Array] = []
        self._targets: list[Array] = []

    def add(self, rows: Array, targets: Array) -> None:
        """Add rows `(R, blocks, columns)` and what is wanted there, `(R, blocks, outputs)`."""
        if self._is_dual:
            self._kept.append(rows)
            self._targets.append(targets)
            return
        ready = self._buffer.push(rows, targets)
        if ready is not None:
            self._add(*ready)

    def _add(self, rows: Array, targets: Array) -> None:
        shifted = self._moments.add(rows)
        missing = np.ascontiguousarray(targets.transpose(1, 0, 2), shifted.dtype)
        if self._start is not None:
            missing -= shifted @ self._start
            missing -= self._moments.shift[:, None, :] @ self._start
        cross = (shifted.transpose(0, 2, 1) @ missing).astype(np.float64)
        total, squares = missing.sum(axis=1, dtype=np.float64), np.einsum("bro,bro->bo", missing, missing)
        if self._cross is None:
            self._cross, self._sum, self._squares = cross, total, squares.astype(np.float64)
        else:
            self._cross += cross
            self._sum += total
            self._squares += squares

    def solve(self, ridge: float) -> Solution:
        """Solve for the change.

        Args:
            ridge: Strength of the penalty, as a share of the mean variance of the columns.

        Returns:
            The solution.

        Raises:
            ValueError: Nothing was added.
        """
        if self._is_dual and self._kept:
            return self._solve_dual(ridge)
        rest = self._buffer.drain()
        if rest is not None:
            self._add(*rest)
        if self._cross is None:
            raise ValueError("a regression without rows")
        count, mean = self._moments.count, self._sum / self._moments.count
        covariance, cross = self._moments.covariance(), self._cross / count
        if self._has_offset:
            cross = cross - self._moments.drift[:, :, None] * mean[:, None, :]
        penalty = ridge * np.einsum("bii->b", covariance) / covariance.shape[1] + 1e-12
        damped = covariance + penalty[:, None, None] * np.eye(covariance.shape[1])
        change = np.linalg.solve(damped, cross)
        explained = np.einsum("bco,bco->bo", change, 2 * cross - covariance @ change)
        return self._finish(change, explained, self._squares / count, mean, self._moments.mean)

    def _solve_dual(self, ridge: float) -> Solution:
        rows = np.concatenate(self._kept).transpose(1, 0, 2).astype(np.float64)
        missing = np.concatenate(self._targets).transpose(1, 0, 2).astype(np.float64)
        if self._start is not None:
            missing -= rows @ self._start
        center, mean, squares = rows.mean(axis=1), missing.mean(axis=1), (missing**2).mean(axis=1)
        if self._has_offset:
            rows = rows - center[:, None]
            missing = missing - mean[:, None]
        products = rows @ rows.transpose(0, 2, 1)
        penalty = ridge * np.einsum("bii->b", products) / rows.shape[2] + 1e-12
        damped = products + penalty[:, None, None] * np.eye(products.shape[1])
        change = rows.transpose(0, 2, 1) @ np.linalg.solve(damped, missing)
        explained = (missing**2).mean(axis=1) - ((missing - rows @ change) ** 2).mean(axis=1)
        return self._finish(change, explained, squares, mean, center)

    def _finish(self, change: Array, explained: Array, before: Array, mean: Array, center: Array) -> Solution:
        offset = np.zeros_like(mean)
        if self._has_offset:
            offset = mean - np.einsum("bc,bco->bo", center, change)
            explained = explained + mean**2
        return Solution(change, offset, before, np.clip(before - explained, 0, before))
