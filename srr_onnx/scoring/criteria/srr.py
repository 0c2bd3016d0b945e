"""SCORE: the criterion of structural redundancy reduction (SRR).

Reads the group's graph; which group is pruned how much is told by the redundancy, not by these scores.
"""

from __future__ import annotations

from srr_onnx.scoring.criterion import ScoreOptions, UnitScores, criterion
from srr_onnx.scoring.redundancy import find_redundancies
from srr_onnx.scoring.slices import Slices


@criterion("srr", uses_redundancy=True)
def srr(slices: Slices, options: ScoreOptions) -> UnitScores:
    """Rank the units of a group by the filter choice of SRR.

    Args:
        slices: Parameters of one group.
        options: Settings, and the redundancy of the group. Without it the group's graph is made from this group alone.

    Returns:
        Shape `(U,)`: the n units to drop are those with the n lowest scores, for every n. Places in the order of
        removal, or L1 norms.

    Raises:
        DataError: The group has no filters, or they are not finite.

    Source:
        Wang et al., "Convolutional Neural Network Pruning with Structural Redundancy Reduction", CVPR 2021,
        arXiv:2104.03438. Deviates: by default the nodes removed from the graph are the filters that go; the paper
        drops as many filters of smallest L1 norm (`SrrOptions.paper()`).
    """
    found = options.redundancy or find_redundancies([slices], options.srr, options.seed)[slices.group_id]
    return found.scores
