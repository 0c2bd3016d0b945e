"""SCORE: one score per unit of every group, by any criterion.

Reads a model and its groups, makes `Scores`; scores are checked here, so later stages can rely on them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from srr_onnx.analysis.groups import PruningGroup
from srr_onnx.errors import SrrError, UnknownNameError
from srr_onnx.graph.model import Model
from srr_onnx.scoring.criteria import criteria
from srr_onnx.scoring.criterion import Criterion, ScoreFunction, ScoreOptions, UnitScores
from srr_onnx.scoring.elimination import Elimination
from srr_onnx.scoring.redundancy import find_redundancies
from srr_onnx.scoring.slices import Slices
from srr_onnx.scoring.trajectory import Redundancy, Trajectory
from srr_onnx.wording import counted


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """The result of scoring.

    Attributes:
        criterion: Name of the criterion.
        units: Shape `(U,)` per group id, float64, finite, read-only; higher = keep.
        redundancy: Trajectory per group id; None if the criterion does not use redundancy.
        errors: Shape `(U,)` per group id: error with that many units gone, plus one; None without samples.
    """

    criterion: str
    units: Mapping[str, UnitScores]
    redundancy: Mapping[str, Trajectory] | None = None
    errors: Mapping[str, UnitScores] | None = None

    @property
    def reports(self) -> tuple[Redundancy, ...]:
        """Redundancy of every unpruned group; empty if the criterion does not use redundancy."""
        return tuple(trajectory.report for trajectory in (self.redundancy or {}).values())

    def order(self, group_id: str) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Give the units of a group in the order they go: lowest score first, of equals the lowest index first.

        Args:
            group_id: Id of the group.

        Returns:
            Shape `(U,)`: unit numbers inside the group.

        Raises:
            UnknownNameError: No such group was scored.
        """
        if group_id not in self.units:
            raise UnknownNameError("group", group_id, self.units)
        return np.argsort(self.units[group_id], kind="stable")


def score_groups(
    model: Model,
    groups: Sequence[PruningGroup],
    criterion: str | ScoreFunction = "srr",
    options: ScoreOptions | None = None,
    on_group: Callable[[int, int], None] | None = None,
    eliminations: Mapping[str, Elimination] | None = None,
) -> Scores:
    """Score every unit of every group; a higher score means keep.

    Args:
        model: Loaded model; not changed.
        groups: Result of `find_groups(model)`.
        criterion: Registered name or a function `(Slices, ScoreOptions) -> (U,)`.
        options: Seed and settings of SRR; None for the defaults.
        on_group: Told the number of groups done and of all groups, after each.
        eliminations: What samples gave, by group id; for criteria that use samples.

    Returns:
        One float64 array of shape `(U,)` per group; whether scores compare between groups is up to the criterion. With
        "srr" also the redundancy of every group, by which groups are compared.

    Raises:
        UnknownNameError: No criterion has this name; carries close matches.
        DataError: A group has no filters, or they are not finite; or the criterion needs samples.
        SrrError: The criterion failed, or gave scores of the wrong shape or kind.
    """
    options = options or ScoreOptions()
    entry = find_criterion(criterion)
    slices = [Slices(model, group) for group in groups]
    found = find_redundancies(slices, options.srr, options.seed, on_group) if entry.uses_redundancy else {}
    units: dict[str, UnitScores] = {}
    for group in slices:
        known = dataclasses.replace(
            options,
            redundancy=found.get(group.group_id),
            elimination=(eliminations or {}).get(group.group_id),
        )
        units[group.group_id] = _check_scores(entry.name, group, _run(entry, group, known))
        if on_group and not entry.uses_redundancy:
            on_group(len(units), len(slices))
    trajectories = {group_id: redundancy.trajectory for group_id, redundancy in found.items()}
    errors = {group_id: found.errors for group_id, found in (eliminations or {}).items()}
    return Scores(
        entry.name,
        MappingProxyType(units),
        MappingProxyType(trajectories) if entry.uses_redundancy else None,
        MappingProxyType(errors) if entry.uses_samples else None,
    )


def find_criterion(criterion: str | ScoreFunction) -> Criterion:
    """Look a criterion up by name; a function becomes one.

    Raises:
        UnknownNameError: No criterion has this name; carries close matches.
    """
    if isinstance(criterion, str):
        return criteria.get(criterion)
    if isinstance(criterion, Criterion):
        return criterion
    return Criterion(getattr(criterion, "__name__", repr(criterion)), criterion)


def _run(entry: Criterion, group: Slices, options: ScoreOptions) -> UnitScores:
    """Call a criterion; what goes wrong in it is told with its name and the group."""
    try:
        return entry(group, options)
    except SrrError:
        raise
    except Exception as error:  # a criterion may be anybody's code
        text = f"criterion {entry.name!r} failed on group {group.group_id}: {type(error).__name__}: {error}"
        raise SrrError(text) from error


def _check_scores(name: str, slices: Slices, scores: UnitScores) -> UnitScores:
    """Make scores read-only float64, or say what is wrong with them."""
    where = f"criterion {name!r} on group {slices.group_id}"
    scores = np.asarray(scores)
    if scores.dtype.kind not in "fiub":
        raise SrrError(f"{where}: scores of type {scores.dtype} instead of numbers")
    if scores.shape != (slices.units,):
        raise SrrError(f"{where}: scores of shape {scores.shape} instead of ({slices.units},), one per unit")
    scores = scores.astype(np.float64)
    if not np.isfinite(scores).all():
        raise SrrError(f"{where}: {counted(int((~np.isfinite(scores)).sum()), 'score')} NaN or infinite")
    scores.flags.writeable = False
    return scores
