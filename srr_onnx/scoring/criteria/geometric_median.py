"""SCORE: the criterion by distance from the geometric median of the filters.

Reads the raw FILTER slices of a group: unlike in SRR, the norms of the filters count.
"""

from __future__ import annotations

import numpy as np

from srr_onnx.scoring.criteria.magnitude import l2
from srr_onnx.scoring.criterion import ScoreOptions, UnitScores, criterion
from srr_onnx.scoring.distances import column_pieces, filter_rows, mirror, squared_distances
from srr_onnx.scoring.slices import Slices


@criterion("fpgm")
def fpgm(slices: Slices, options: ScoreOptions) -> UnitScores:
    """Sum the Euclidean distances of every unit's filter to those of all other units.

    The lowest sum belongs to the filter nearest to the geometric median, which the others can best replace.

    Args:
        slices: Parameters of one group. A unit's filter is the concatenation over its FILTER slices.
        options: Handed on.

    Returns:
        Shape `(U,)`, in units of the weights.

    Raises:
        DataError: The group has no filters, or they are not finite.

    Source:
        He et al., "Filter Pruning via Geometric Median for Deep Convolutional Neural Networks Acceleration",
        CVPR 2019, arXiv:1811.00250. Deviates: several filters per unit; no training in the loop.
    """
    longest = float(l2(slices, options).max()) or 1.0
    pieces = ((piece / longest).astype(np.float32) for rows in filter_rows(slices) for piece in column_pieces(rows))
    sums: UnitScores = np.sqrt(mirror(squared_distances(pieces, slices.units))).sum(axis=1, dtype=np.float64)
    return longest * sums
