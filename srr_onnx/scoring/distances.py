"""SCORE: distances between the filters of a group, and the threshold below which two filters are neighbors.

Reads the FILTER slices of a group one piece at a time, so that long filters are never copied as a whole.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from srr_onnx.analysis.groups import Role
from srr_onnx.errors import DataError
from srr_onnx.scoring.slices import Rows, Slices

Distances = np.ndarray[Any, np.dtype[np.float32]]
Floats = np.ndarray[Any, np.dtype[np.float64]]

# Columns per matrix product: 4096 filters make pieces of 32 MB.
_COLUMNS = 2048
# Multiply-adds per group that are spent on distances where the threshold is a quantile anyway: longer filters are
# compared on a random choice of their entries, never fewer than 1,024 (distances are then off by about 3 %). It
# concerns dense layers of thousands of units; every Conv of a ResNet-50 is compared as a whole.
_MOST_PRODUCTS = 1 << 32
_LEAST_COLUMNS = 1024
# Squared distances below this, for vectors of norm <= 1, are rounding of the float32 products: equal filters.
_RESOLUTION = 4e-6
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
    parts = slices.with_role(Role.FILTER)
    if not parts:
        raise DataError(f"group {slices.group_id} has no floating-point filters to score: freeze it")
    if not all(np.isfinite(rows).all() for rows in parts):
        raise DataError(f"the filters of group {slices.group_id} contain NaN or infinite values: is the model broken?")
    return parts


def l1_norms(parts: Sequence[Rows]) -> Floats:
    """Sum the absolute values of every unit's filters; arrays of shape `(U, K)` to `(U,)`."""
    sums = np.zeros(len(parts[0]))
    for rows in parts:
        sums += np.abs(rows).sum(axis=1, dtype=np.float64)
    return sums


def column_pieces(rows: Rows) -> Iterator[Rows]:
    """Cut an array of shape `(U, K)` into views of a few thousand columns."""
    return (rows[:, start : start + _COLUMNS] for start in range(0, rows.shape[1], _COLUMNS))


def pairwise_distances(pieces: Iterable[Rows], units: int) -> Distances:
    """Measure the Euclidean distances between vectors that are given piece by piece.

    Distances that float32 cannot tell from 0 are exactly 0, so equal vectors are neighbors at any threshold.

    Args:
        pieces: Columns of the vectors, each piece of shape `(U, k)`; no vector may be longer than 1.
        units: Number of vectors U.

    Returns:
        Shape `(U, U)`, symmetric, 0 on the diagonal.
    """
    gram = np.zeros((units, units), np.float32)
    with np.errstate(under="ignore"):
        for piece in pieces:
            gram += piece @ piece.T  # recognized as symmetric: half the work, and exactly symmetric
    squares = gram.diagonal().copy()
    gram *= -2
    gram += np.add.outer(squares, squares)  # one sum at a time would round asymmetrically
    gram[gram < _RESOLUTION] = 0
    np.fill_diagonal(gram, 0)
    distances: Distances = np.sqrt(gram, out=gram)
    return distances


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
        between: Shape `(U, U)`: distances between vertices, as multiples of the threshold.
        threshold: Euclidean distance between unit vectors, in [0, 2]; the mean over the layers.
    """

    group_id: str
    units: np.ndarray[Any, np.dtype[np.int64]]
    l1: Floats
    between: Distances
    threshold: float


def sample_pairs(between: Distances, most: float = math.inf) -> Distances:
    """Give the distances between different vertices, or some of them.

    Args:
        between: Shape `(U, U)`.
        most: Of more pairs than this, that many are drawn at random, always the same.

    Returns:
        Shape `(M,)`.
    """
    size = len(between)
    if count_pairs(size) <= most:
        return between[np.triu_indices(size, 1)]
    rng = np.random.default_rng(size)
    count = math.ceil(most)
    first = rng.integers(size, size=count)
    second = (first + rng.integers(1, size, size=count)) % size
    picked: Distances = between[first, second]
    return picked


def measure_distances(
    slices: Slices,
    threshold: Callable[[Distances, float], float] = lambda between, length: 1.0,
    *,
    is_joined: bool = False,
    is_exact: bool = True,
) -> FilterDistances:
    """Measure how far apart the filters of a group are, whatever their norms.

    Args:
        slices: Parameters of one group.
        threshold: Gives the threshold of a layer from the Euclidean distances between its unit-normalized filters,
            shape `(U, U)`, and from the length of a filter; by default 1, which leaves Euclidean distances.
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
    parts = filter_rows(slices)
    l1 = l1_norms(parts)
    units = np.argsort(l1, kind="stable")
    most_columns = None if is_exact else max(_LEAST_COLUMNS, _MOST_PRODUCTS // len(units) ** 2)
    farthest: Distances | None = None
    thresholds = []
    for layers in [parts] if is_joined else [[rows] for rows in parts]:
        norm = 1 / math.sqrt(len(layers))
        pieces = (piece for rows in layers for piece in _unit_pieces(rows, units, norm, most_columns))
        between = pairwise_distances(pieces, len(units))
        thresholds.append(threshold(between, sum(rows.shape[1] for rows in layers) / len(layers)))
        between /= max(thresholds[-1], _SMALLEST)
        farthest = between if farthest is None else np.maximum(farthest, between, out=farthest)
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
        chosen = np.sort(np.random.default_rng(length).choice(length, most_columns, replace=False))
        rows = rows[:, chosen]
    largest = np.maximum(rows.max(axis=1), -rows.min(axis=1))[order, None]  # (U, 1)
    largest[largest == 0] = 1  # a zero filter stays zero; others are scaled so that squares neither over- nor underflow
    squares = np.zeros(len(rows))
    for piece in column_pieces(rows):
        piece = piece[order] / largest
        squares += np.einsum("uk,uk->u", piece, piece, dtype=np.float64)
    scale = (norm / np.sqrt(np.maximum(squares, 1)))[:, None].astype(rows.dtype)  # (U, 1); the largest entry is 1
    for piece in column_pieces(rows):
        yield (piece[order] / largest * scale).astype(np.float32, copy=False)


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
