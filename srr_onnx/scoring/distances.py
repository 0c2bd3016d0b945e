"""SCORE: distances between the filters of a group, and the threshold below which two filters are neighbors.

Reads the FILTER slices of a group one piece at a time, so that long filters are never copied as a whole.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from srr_onnx.analysis.groups import Role
from srr_onnx.errors import DataError
from srr_onnx.scoring.slices import Rows, Slices

Distances = np.ndarray[Any, np.dtype[np.float32]]
Floats = np.ndarray[Any, np.dtype[np.float64]]
Matrix = TypeVar("Matrix", bound=np.ndarray[Any, Any])

# Entries per matrix product (32 MB), but never fewer columns than this.
_ENTRIES = 1 << 23
_COLUMNS = 2048
# Rows of a matrix of pairs that are worked on at a time: a megabyte at 2048 units, which stays in the cache.
_ROWS = 128
# Filter entries that are worked on at a time, for the same reason.
_CACHED = 1 << 17
# Multiply-adds per group that are spent on distances where the threshold is a quantile anyway: longer filters are
# compared on a random choice of their entries, never fewer than 512 (distances are then off by about 4 %). It
# concerns dense layers of thousands of units; every Conv of a ResNet-50 is compared as a whole.
_MOST_PRODUCTS = 1 << 32
_LEAST_COLUMNS = 512
# Neighboring entries that are chosen together: a cache line.
_LINE = 16
# Squared distances below this, for vectors of norm <= 1, are rounding of the float32 products: equal filters.
_RESOLUTION = 4e-6
# Squared norms between this and its inverse can be told in float32.
_MODERATE = 1e30
_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
# Stands for a threshold of 0, which only equal filters meet.
_SMALLEST = 1e-30


def count_pairs(units: int) -> int:
    """Count the pairs of different units."""
    return units * (units - 1) // 2


def filter_rows(slices: Slices) -> list[Rows]:
    """Give the filters of a group, checked.

    Args:
        slices: Parameters of one group.

    Returns:
        One array of shape `(U, K)` per FILTER slice; at least one.

    Raises:
        DataError: The group has no floating-point filters, or they hold NaN or infinite values.
    """
    parts = _any_filter_rows(slices)
    _check_finite(slices, [rows[some] for rows in parts for some in row_pieces(rows)])
    return parts


def _any_filter_rows(slices: Slices) -> list[Rows]:
    parts = slices.with_role(Role.FILTER)
    if not parts:
        raise DataError(f"group {slices.group_id} has no floating-point filters to score: freeze it")
    return parts


def _check_finite(slices: Slices, numbers: Iterable[Rows]) -> None:
    if not all(np.isfinite(part).all() for part in numbers):
        raise DataError(f"the filters of group {slices.group_id} contain NaN or infinite values: is the model broken?")


def l1_norms(parts: Sequence[Rows]) -> Floats:
    """Sum the absolute values of every unit's filters; arrays of shape `(U, K)` to `(U,)`."""
    sums = np.zeros(len(parts[0]))
    for rows in parts:
        for some in row_pieces(rows):
            sums[some] += np.abs(rows[some]).sum(axis=1, dtype=np.float64)
    return sums


def column_pieces(rows: Rows) -> Iterator[Rows]:
    """Cut an array of shape `(U, K)` into views of some thousand columns."""
    width = max(_COLUMNS, _ENTRIES // len(rows))
    return (rows[:, start : start + width] for start in range(0, rows.shape[1], width))


def row_pieces(rows: Rows) -> Iterator[slice]:
    """Cut an array of shape `(U, K)` into rows that stay in the processor's cache together."""
    height = max(1, _CACHED // max(1, rows.shape[1]))
    return (slice(start, start + height) for start in range(0, len(rows), height))


def lower_blocks(units: int) -> Iterator[tuple[slice, slice]]:
    """Cut the lower triangle of a matrix of shape `(U, U)` into blocks of rows; each reaches to its last diagonal."""
    for start in range(0, units, _ROWS):
        end = min(start + _ROWS, units)
        yield slice(start, end), slice(0, end)


def squared_distances(pieces: Iterable[Rows], units: int) -> Distances:
    """Measure the squared Euclidean distances between vectors that are given piece by piece.

    Distances that float32 cannot tell from 0 are exactly 0, so equal vectors are neighbors at any threshold.

    Args:
        pieces: Columns of the vectors, each piece of shape `(U, k)`; no vector may be longer than 1.
        units: Number of vectors U.

    Returns:
        Shape `(U, U)`, 0 on the diagonal; what is above it has no meaning until `mirror` fills it.
    """
    squares = np.zeros((units, units), np.float32)
    with np.errstate(under="ignore"):
        for number, piece in enumerate(pieces):
            for block in lower_blocks(units):
                if number == 0:
                    np.matmul(piece[block[0]], piece[block[1]].T, out=squares[block])
                else:
                    squares[block] += piece[block[0]] @ piece[block[1]].T
    norms = squares.diagonal().copy()
    for block in lower_blocks(units):
        found = squares[block]
        found *= -2
        found += norms[block[0], None]
        found += norms[block[1]]
        found *= found >= _RESOLUTION
    np.fill_diagonal(squares, 0)
    return squares


def mirror(matrix: Matrix) -> Matrix:
    """Copy what lies below the diagonal of a matrix of shape `(U, U)` to above it, in place."""
    for rows, _ in lower_blocks(len(matrix)):
        for start in range(0, rows.start, _ROWS):  # square tiles: a column at a time would miss the cache
            tile = slice(start, start + _ROWS)
            matrix[tile, rows] = matrix[rows, tile].T
        corner = matrix[rows, rows]
        is_above = np.tri(len(corner), k=-1, dtype=bool).T
        corner[is_above] = corner.T[is_above]
    return matrix


@dataclasses.dataclass(frozen=True, eq=False)
class FilterDistances:
    """Distances between the unit-normalized filters of a group.

    A unit has one filter per FILTER slice of the group, that is, per layer. Two units are as far apart as their filters
    are in the layer where they differ most, measured in that layer's threshold: they are neighbors in the group's graph
    if they are in the graph of every layer. A zero filter stays zero.

    Attributes:
        group_id: Id of the group.
        units: Shape `(U,)`: the units by ascending L1 norm, of equals the lowest first. The vertices of the group's
            graph are numbered in this order, so "the lowest vertex" is always the unit of least importance.
        l1: Shape `(U,)`: L1 norm of every unit, in the order of the group.
        squares: Shape `(U, U)`: squared distances between vertices, as multiples of the squared threshold; what is
            above the diagonal has no meaning until `mirror` fills it.
        threshold: Euclidean distance between unit vectors, in [0, 2]; the mean over the layers.
    """

    group_id: str
    units: np.ndarray[Any, np.dtype[np.int64]]
    l1: Floats
    squares: Distances
    threshold: float


def sample_pairs(squares: Distances, most: float = math.inf) -> Distances:
    """Give the squared distances between different vertices, or some of them.

    Args:
        squares: Shape `(U, U)`; read below the diagonal only.
        most: Of more pairs than this, that many are picked, evenly and always the same.

    Returns:
        Shape `(M,)`.
    """
    size = len(squares)
    pairs = count_pairs(size)
    picked: Distances = squares.reshape(-1)[_spread_places(size, pairs if pairs <= most else math.ceil(most))]
    return picked


@functools.lru_cache(maxsize=16)
def _spread_places(size: int, count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Flat places in the lower triangle of a matrix of shape `(size, size)`: all of them, or an even spread.

    Multiples of the golden ratio, modulo 1, leave no gaps and keep step with no row.
    """
    pairs = count_pairs(size)
    numbers = np.arange(count)
    if count < pairs:
        numbers = (numbers * _GOLDEN_RATIO % 1 * pairs).astype(np.int64)
    rows = ((1 + np.sqrt(1 + 8 * numbers.astype(np.float64))) / 2).astype(np.int64)
    places: np.ndarray[Any, np.dtype[np.int64]] = rows * size + numbers - rows * (rows - 1) // 2
    return places


def measure_distances(
    slices: Slices,
    threshold: Callable[[Distances, float], float] = lambda squares, length: 1.0,
    *,
    is_joined: bool = False,
    is_exact: bool = True,
) -> FilterDistances:
    """Measure how far apart the filters of a group are, whatever their norms.

    Args:
        slices: Parameters of one group.
        threshold: Gives the squared threshold of a layer from the squared Euclidean distances between its
            unit-normalized filters, shape `(U, U)` of which the lower triangle counts, and from the length of a
            filter; by default 1, which leaves the distances as they are.
        is_joined: Whether to concatenate a unit's filters over all layers to a single vector of norm 1 instead; the
            length is then the mean over the layers.
        is_exact: Whether to compare all entries even of very long filters.

    Returns:
        Distances between all pairs of units.

    Raises:
        DataError: The group has no filters, or they are not finite.

    Source:
        Wang et al., CVPR 2021, arXiv:2104.03438: unit-normalized filters. Deviates: several filters per unit.
    """
    parts = _any_filter_rows(slices)
    l1 = l1_norms(parts)
    _check_finite(slices, [l1])  # a sum is finite where all its terms are
    units = np.argsort(l1, kind="stable")
    most_columns = None if is_exact else max(_LEAST_COLUMNS, _MOST_PRODUCTS // len(units) ** 2)
    farthest: Distances | None = None
    thresholds = []
    for layers in [parts] if is_joined else [[rows] for rows in parts]:
        norm = 1 / math.sqrt(len(layers))
        pieces = (piece for rows in layers for piece in _unit_pieces(rows, units, norm, most_columns))
        squares = squared_distances(pieces, len(units))
        bound = threshold(squares, sum(rows.shape[1] for rows in layers) / len(layers))
        thresholds.append(math.sqrt(bound))
        farthest = squares if farthest is None else farthest
        for block in lower_blocks(len(units)):
            squares[block] /= np.float32(max(bound, _SMALLEST))
            np.maximum(farthest[block], squares[block], out=farthest[block])
    assert farthest is not None  # there is at least one slice
    return FilterDistances(slices.group_id, units, l1, farthest, sum(thresholds) / len(thresholds))


def _unit_pieces(
    rows: Rows, order: np.ndarray[Any, np.dtype[np.int64]], norm: float, most_columns: int | None
) -> Iterator[Rows]:
    """Scale every row to a norm and give its columns piece by piece; of shape `(U, K)` in all, or fewer columns."""
    length = rows.shape[1]
    if not length:
        return
    if most_columns is not None and length > most_columns:
        lines = np.random.default_rng(length).choice(length // _LINE, most_columns // _LINE, replace=False)
        rows = rows[:, (np.sort(lines)[:, None] * _LINE + np.arange(_LINE)).reshape(-1)]
    squares = np.einsum("uk,uk->u", rows, rows)  # its rounding stretches a filter a little, no more
    if ((squares < 1 / _MODERATE) & (squares > 0)).any() or not (squares < _MODERATE).all() or not squares.all():
        largest = np.maximum(rows.max(axis=1), -rows.min(axis=1))[:, None]  # (U, 1)
        rows = rows / np.where(largest > 0, largest, 1)
        squares = np.einsum("uk,uk->u", rows, rows)
    scale = (norm / np.sqrt(np.where(squares > 0, squares, 1))).astype(np.float32)[order, None]  # a zero filter stays
    for piece in column_pieces(rows):
        scaled = np.empty(piece.shape, np.float32)
        for some in row_pieces(piece):
            np.multiply(piece[order[some]], scale[some], out=scaled[some], casting="same_kind")
        yield scaled


def lower_quantile(distances: Distances, quantile: float) -> float:
    """Give the distance that a share of all distances does not exceed; of two candidates the lower.

    Args:
        distances: Shape `(M,)`.
        quantile: The share, in [0, 1].

    Returns:
        One of the distances; 0 where there is none.
    """
    if not len(distances):
        return 0.0
    place = math.floor(quantile * (len(distances) - 1))
    return float(np.partition(distances, place)[place])


def fixed_threshold(gamma: float, length: float) -> float:
    """Give the distance up to which two filters of some length are neighbors at a fixed gamma.

    Args:
        gamma: Bound on distance / sqrt(length).
        length: Length n of a filter.

    Returns:
        Euclidean distance between unit vectors.

    Source:
        The public re-implementation of Wang et al., CVPR 2021 (CENG501, METU, 2022), which divides by sqrt(n).
    """
    return gamma * math.sqrt(length)
