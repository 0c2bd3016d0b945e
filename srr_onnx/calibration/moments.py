"""CALIBRATE: means, variances and covariances of rows, gathered a batch at a time.

The first batch's mean is taken off before anything is multiplied: of channels with a mean far larger than their spread
the result would otherwise be a difference of large numbers.

Source:
    Chan, Golub, LeVeque, "Algorithms for computing the sample variance", The American Statistician 37, 1983 (shift).
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

# From more blocks on, one product of stacks is faster than a loop over blocks.
_FEW_BLOCKS = 8
# Rows that are multiplied at a time: fewer leave the processor waiting for memory.
_ENOUGH_ROWS = 1024


class Variance:
    """Mean and variance of every column of rows."""

    def __init__(self) -> None:
        self.count = 0
        self._shift: Array = np.zeros(0)
        self._sum: Array = np.zeros(0)
        self._squares: Array = np.zeros(0)

    def add(self, rows: Array) -> None:
        """Add rows of shape `(R, columns)`."""
        if self.count == 0:
            self._shift = rows.mean(axis=0, dtype=np.float64)
            self._sum, self._squares = np.zeros_like(self._shift), np.zeros_like(self._shift)
        centered = rows - self._shift
        self._sum += centered.sum(axis=0)
        self._squares += (centered * centered).sum(axis=0)
        self.count += len(rows)

    @property
    def mean(self) -> Array:
        """Shape `(columns,)`, float64."""
        return np.asarray(self._shift + self._sum / self.count)

    def get(self) -> Array:
        """The variance, shape `(columns,)`, float64."""
        drift = self._sum / self.count
        return np.asarray(np.maximum(self._squares / self.count - drift * drift, 0))


class Moments:
    """Mean and covariance of rows in blocks.

    Args:
        is_centered: False for products of the rows as they are, without their mean taken off.

    Attributes:
        count: Number of rows.
        shift: What is taken off every row before it is multiplied, `(blocks, columns)`: the first batch's mean.
    """

    def __init__(self, *, is_centered: bool = True) -> None:
        self.count = 0
        self._is_centered = is_centered
        self.shift: Array = np.zeros(0)
        self._sum: Array = np.zeros(0)
        self._products: Array = np.zeros(0)

    def add(self, rows: Array) -> Array:
        """Add rows of shape `(R, blocks, columns)`, many at a time: every call goes through the whole matrix.

        Returns:
            The rows less the first batch's mean, `(blocks, R, columns)`, in float32 at least.
        """
        if rows.dtype not in (np.float32, np.float64):
            rows = rows.astype(np.float32)
        if self.count == 0:
            mean = rows.mean(axis=0, dtype=np.float64) if self._is_centered else np.zeros(rows.shape[1:])
            self.shift = mean.astype(rows.dtype)
            self._sum = np.zeros(rows.shape[1:], np.float64)
            self._products = np.zeros((*rows.shape[1:], rows.shape[2]), rows.dtype)
        shifted = np.ascontiguousarray((rows - self.shift).transpose(1, 0, 2))
        self._sum += shifted.sum(axis=1, dtype=np.float64)
        if len(shifted) > _FEW_BLOCKS:
            self._products += shifted.transpose(0, 2, 1) @ shifted
        else:  # numpy sees that the two factors are one array, and does half the work
            for block, part in enumerate(shifted):
                self._products[block] += part.T @ part
        self.count += len(rows)
        return shifted

    @property
    def drift(self) -> Array:
        """Mean of what `add` gave, `(blocks, columns)`, float64; 0 where the mean is left in."""
        return self._sum / self.count if self._is_centered else np.zeros_like(self._sum)

    @property
    def mean(self) -> Array:
        """What is taken off, `(blocks, columns)`, float64."""
        return np.asarray(self.shift + self.drift)

    def covariance(self) -> Array:
        """Shape `(blocks, columns, columns)`, float64."""
        return np.asarray(self._products / self.count - self.drift[:, :, None] * self.drift[:, None, :])

    def forget(self) -> None:
        """Let the memory go."""
        self._products = np.zeros(0)


class RowBuffer:
    """Gathers rows of several arrays until there are enough to work on."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Array, ...]] = []
        self._count = 0

    def push(self, *arrays: Array) -> tuple[Array, ...] | None:
        """Add arrays with the same number of rows; gives all that wait, joined, once there are enough."""
        self._waiting.append(arrays)
        self._count += len(arrays[0])
        return self.drain() if self._count >= _ENOUGH_ROWS else None

    def drain(self) -> tuple[Array, ...] | None:
        """Give all that wait, joined; None where nothing does."""
        waiting, self._waiting, self._count = self._waiting, [], 0
        if not waiting:
            return None
        return waiting[0] if len(waiting) == 1 else tuple(np.concatenate(parts) for parts in zip(*waiting, strict=True))
