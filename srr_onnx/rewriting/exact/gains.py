"""REWRITE: the result of the search for units that can go without any change of the outputs."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence

import numpy as np

from srr_onnx.analysis.groups import Groups, Use
from srr_onnx.planning.plan import Kept
from srr_onnx.rewriting.exact.linear import Array


class Reason(enum.Enum):
    """Why a unit can go. The value is the stable name in JSON."""

    DEAD = "dead"
    CONSTANT = "constant"
    DUPLICATE = "duplicate"


@dataclasses.dataclass(frozen=True)
class ExactUnit:
    """One unit that can go.

    Attributes:
        unit: Its number through all groups.
        reason: Why it can go.
        like: The unit that takes its place, for a duplicate; None where a channel that stays anyway does.
    """

    unit: int
    reason: Reason
    like: int | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class ExactGains:
    """What can go without any change of the outputs.

    Attributes:
        is_kept: Shape `(groups.num_units,)`: which units stay.
        units: The units that go, in the order in which they were found.
        corrections: New content of the constants that have to change, by use; where the use reads nothing, a new bias.
        counts: Number of units by id of the group and reason; groups that lose nothing are left out.
    """

    is_kept: Kept
    units: tuple[ExactUnit, ...]
    corrections: Mapping[Use, Array]
    counts: Mapping[str, Mapping[Reason, int]]


def count_units(groups: Groups, units: Sequence[ExactUnit]) -> dict[str, dict[Reason, int]]:
    """Count units by the id of their group and by reason; groups without any are left out."""
    found: dict[str, dict[Reason, int]] = {}
    ends = np.cumsum([group.size for group in groups])
    for entry in sorted(units, key=lambda entry: entry.unit):
        group = groups[int(np.searchsorted(ends, entry.unit, side="right"))]
        found.setdefault(group.id, dict.fromkeys(Reason, 0))[entry.reason] += 1
    return found
