"""SCORE: random scores, the control that every criterion has to beat.

Reads nothing but the size and the id of a group, so the scores of one group do not depend on the others.
"""

from __future__ import annotations

from srr_onnx.scoring.criterion import ScoreOptions, UnitScores, criterion
from srr_onnx.scoring.redundancy import group_rng
from srr_onnx.scoring.slices import Slices


@criterion("random", is_equivariant=False)
def random(slices: Slices, options: ScoreOptions) -> UnitScores:
    """Draw the score of every unit at random.

    Args:
        slices: Parameters of one group.
        options: The seed; the same seed gives a group of the same id the same scores.

    Returns:
        Shape `(U,)`, uniform in [0, 1).

    Source:
        Mittal et al., "Recovering from Random Pruning: On the Plasticity of Deep Convolutional Neural Networks",
        WACV 2018, arXiv:1801.10447.
    """
    return group_rng(options.seed, slices.group_id).random(slices.units)
