"""REWRITE: what changes no output goes, and what the proof does not confirm comes back.

Exact in real numbers is not exact in floating-point ones: weights that nearly cancel make much of a rounding. The group
with which the proof fails is found by halving; its constants and duplicates come back first, whose removal rounds
weights, then its dead units.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

import numpy as np

from srr_onnx.analysis.groups import Groups
from srr_onnx.graph.model import Model
from srr_onnx.planning.plan import Kept
from srr_onnx.rewriting.distrust import FAILURES, find_smallest
from srr_onnx.rewriting.exact.gains import ExactGains, Reason
from srr_onnx.rewriting.exact.search import find_exact
from srr_onnx.rewriting.lossless import LosslessProof, remove_exact, verify_lossless


@dataclasses.dataclass(frozen=True, eq=False)
class Removal:
    """The result.

    Attributes:
        model: The smaller model; the model itself where nothing can go.
        is_kept: Shape `(groups.num_units,)`: which units stay.
        gains: Why the others went.
        proof: What the proof measured.
        taken_back: Number of units by id of the group that stay because the proof failed without them.
    """

    model: Model
    is_kept: Kept
    gains: ExactGains
    proof: LosslessProof
    taken_back: dict[str, int]


def remove_proven(model: Model, groups: Groups) -> Removal:
    """Remove the units that change no output, as far as that can be proven.

    Args:
        model: Loaded model; not changed.
        groups: Result of `find_groups(model)`.

    Returns:
        The smaller model with its proof.

    Raises:
        ProofError: The model does not even agree with itself.
        ModelError: onnxruntime does not run the model.
    """
    stays = np.zeros(groups.num_units, bool)
    while True:
        try:
            smaller, is_kept, gains = remove_exact(model, groups, stays)
            proof = verify_lossless(model, smaller)
        except FAILURES:
            doubtful = _find_doubtful(model, groups, stays)
            if not doubtful:
                raise
            stays[doubtful] = True
            continue
        counts = {group.id: int(stays[group.units].sum()) for group in groups}
        return Removal(smaller, is_kept, gains, proof, {name: count for name, count in counts.items() if count})


def _find_doubtful(model: Model, groups: Groups, stays: Kept) -> list[int]:
    """Find units without which the proof fails; none where it fails with all units there."""
    gone = {entry.unit: entry.reason for entry in find_exact(model, groups, stays).units}
    units = [[unit for unit in gone if unit in range(group.units.start, group.units.stop)] for group in groups]

    def fails(chosen: Collection[int]) -> bool:
        part = np.ones(groups.num_units, bool)
        for place in chosen:
            part[units[place]] = False
        try:
            verify_lossless(model, remove_exact(model, groups, part)[0])
        except FAILURES:
            return True
        return False

    culprits = find_smallest([place for place, found in enumerate(units) if found], fails)
    suspects = [unit for place in culprits for unit in units[place]]
    return [unit for unit in suspects if gone[unit] is not Reason.DEAD] or suspects
