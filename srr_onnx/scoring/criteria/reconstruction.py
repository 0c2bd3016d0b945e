"""SCORE: the criterion of least reconstruction error on samples."""

from __future__ import annotations

import numpy as np

from srr_onnx.errors import DataError
from srr_onnx.scoring.criterion import ScoreOptions, UnitScores, criterion
from srr_onnx.scoring.slices import Slices


@criterion("srr+reconstruction", uses_redundancy=True, uses_samples=True)
@criterion("reconstruction", uses_samples=True)
def reconstruction(slices: Slices, options: ScoreOptions) -> UnitScores:
    """Rank the units of a group by the error that is left when they go and the rest is fitted anew.

    As "srr+reconstruction" the redundancy of the groups says how many units each loses.

    Args:
        slices: Parameters of one group.
        options: With the elimination that the samples gave.

    Returns:
        Shape `(U,)`: the error with the unit and all before it gone, as a share of what the layers make that read it.

    Raises:
        DataError: There were no samples.

    Source:
        See `scoring.elimination`.
    """
    if options.elimination is None:
        raise DataError("criterion 'reconstruction' needs samples: give pictures or arrays with --data")
    order, errors = options.elimination.order, options.elimination.errors
    scores = np.empty(slices.units)
    # Errors can be equal; the order is told all the same.
    scores[order] = errors + np.arange(slices.units) * (float(errors[-1]) or 1.0) * 1e-9
    return scores
