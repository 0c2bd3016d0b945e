"""SCORE: the criterion by the scale of BatchNormalization.

Reads the SCALE slices of a group; where there are none, the scale has usually been folded into the filters.
"""

from __future__ import annotations

from srr_onnx.analysis.groups import Role
from srr_onnx.scoring.criteria.magnitude import l2
from srr_onnx.scoring.criterion import ScoreOptions, UnitScores, criterion
from srr_onnx.scoring.distances import l1_norms
from srr_onnx.scoring.slices import Slices


@criterion("bn_scale")
def bn_scale(slices: Slices, options: ScoreOptions) -> UnitScores:
    """Sum the absolute scales of the normalizations that every unit passes.

    A group without a visible scale gets the L2 norms of its filters instead, since that is where folding has put the
    scale. The two are comparable inside a group, not between groups.

    Args:
        slices: Parameters of one group.
        options: Handed on.

    Returns:
        Shape `(U,)`, in units of the scale, or of the weights where there is no scale.

    Raises:
        DataError: The group has neither a scale nor filters, or the filters are not finite.

    Source:
        Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017, arXiv:1708.06519.
        Deviates: sums over all normalizations of a unit, fallback for folded ones, no sparsity training.
    """
    scales = slices.with_role(Role.SCALE)
    if not scales:
        return l2(slices, options)
    return l1_norms(scales)
