"""SCORE: criteria by the size of the filters.

Reads the FILTER slices of a group. Where BatchNormalization is folded into the filters, its scale counts as well.
"""

from __future__ import annotations

import numpy as np

from srr_onnx.scoring.criterion import ScoreOptions, UnitScores, criterion
from srr_onnx.scoring.distances import filter_rows, l1_norms
from srr_onnx.scoring.slices import Slices


@criterion("l1")
def l1(slices: Slices, options: ScoreOptions) -> UnitScores:
    """Sum the absolute filter weights of every unit.

    Args:
        slices: Parameters of one group.
        options: Not used.

    Returns:
        Shape `(U,)`, in units of the weights.

    Raises:
        DataError: The group has no filters, or they are not finite.

    Source:
        Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, arXiv:1608.08710, sec. 3.1.
        Deviates: sums over all filters of a unit, not the first.
    """
    return l1_norms(filter_rows(slices))


@criterion("l2")
def l2(slices: Slices, options: ScoreOptions) -> UnitScores:
    """Take the Euclidean norm of all filter weights of every unit together.

    Args:
        slices: Parameters of one group.
        options: Not used.

    Returns:
        Shape `(U,)`, in units of the weights.

    Raises:
        DataError: The group has no filters, or they are not finite.

    Source:
        He et al., "Soft Filter Pruning for Accelerating Deep Convolutional Neural Networks", IJCAI 2018,
        arXiv:1808.06866, with p = 2. Deviates: over all filters of a unit; no training in the loop.
    """
    squares = np.zeros(slices.units)
    for rows in filter_rows(slices):
        squares += np.einsum("uk,uk->u", rows, rows, dtype=np.float64)
    return np.sqrt(squares)
