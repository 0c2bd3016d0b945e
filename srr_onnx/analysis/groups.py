"""ANALYZE: the result of the analysis as plain data.

A unit is a class of channels that can only go together; a pruning group is the set of units that lie along the
same axes, so that any two of them cost the same. Units are numbered through all groups; -1 marks a channel that stays.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np

from srr_onnx.analysis.labels import Freeze

Units = np.ndarray[Any, np.dtype[np.int64]]
Positions = np.ndarray[Any, np.dtype[np.int64]]


class Role(enum.Enum):
    """What a constant's axis is to the unit that lies along it."""

    FILTER = "filter"
    INPUT = "input"
    SHIFT = "shift"
    SCALE = "scale"
    MEAN = "mean"
    VARIANCE = "variance"
    OPERAND = "operand"


@dataclasses.dataclass(frozen=True, order=True)
class Use:
    """One input slot of one node that reads a constant. Uses of one constant may be sliced apart.

    Attributes:
        node: Index of the node in the file.
        slot: Input slot.
    """

    node: int
    slot: int


@dataclasses.dataclass(frozen=True, eq=False)
class Member:
    """One axis of one constant along which a group's units lie.

    Attributes:
        initializer: Name of the constant.
        use: The node input that reads it.
        axis: Axis of the constant.
        role: What the axis is to the units.
        positions: Shape `(U, m)`: positions of every unit along the axis.
    """

    initializer: str
    use: Use
    axis: int
    role: Role
    positions: Positions

    @property
    def key(self) -> tuple[str, int, str]:
        """Name, axis and role: what a plan file records."""
        return self.initializer, self.axis, self.role.value


@dataclasses.dataclass(frozen=True, eq=False)
class PruningGroup:
    """A set of units that lie along the same axes.

    Attributes:
        id: "g0", "g1", ... in execution order of the filters.
        name: The nodes whose filters the units are, for people.
        nodes: The same, one by one.
        touched: Every node of which a constant is sliced.
        first_unit: Global number of the group's first unit.
        size: Number of units U.
        inexact_at: Node that makes pruning inexact (normalises over channels, ...), None where pruning is exact.
        members: All constant axes along which the units lie.
        values: Activation axes `(value, axis)` along which they lie.
    """

    id: str
    name: str
    nodes: tuple[str, ...]
    touched: tuple[str, ...]
    first_unit: int
    size: int
    inexact_at: str | None
    members: tuple[Member, ...]
    values: tuple[tuple[str, int], ...]

    @property
    def is_exact(self) -> bool:
        """Whether pruned equals masked for this group."""
        return self.inexact_at is None

    def locate(self, units: Units) -> Positions | None:
        """Find the group's units along an axis.

        Args:
            units: Unit of every place, `(size,)`.

        Returns:
            Places of every unit, shape `(U, m)`; None unless every unit is there equally often.
        """
        places = np.flatnonzero((units >= self.units.start) & (units < self.units.stop))
        counts = np.bincount(units[places] - self.first_unit, minlength=self.size)
        if not len(places) or (counts != counts[0]).any():
            return None
        return places[np.argsort(units[places], kind="stable")].reshape(self.size, -1)

    @property
    def units(self) -> slice:
        """The group's units in global numbering."""
        return slice(self.first_unit, self.first_unit + self.size)


@dataclasses.dataclass(frozen=True)
class FrozenChannels:
    """Channels with filters that cannot be removed, with the cause.

    Attributes:
        cause: Reason and node.
        filters: The node whose filters they are.
        units: How many classes of channels.
    """

    cause: Freeze
    filters: str
    units: int


@dataclasses.dataclass(frozen=True, eq=False)
class Groups(Sequence[PruningGroup]):
    """All pruning groups of a model, with the map from every axis to units.

    Attributes:
        groups: The groups, in order of their ids.
        values: Units along each labelled activation axis, shape `(size,)`, by `(value, axis)`.
        uses: Units along each labelled axis of a constant use, by `(use, axis)`.
        frozen: What stays, and why.
        rearrangements: Pure channel permutations spread over several nodes, by their last node's index.
        pins: Inputs that hold a channel count as a number to compute with: they keep the original's.
    """

    groups: tuple[PruningGroup, ...]
    values: Mapping[tuple[str, int], Units]
    uses: Mapping[tuple[Use, int], Units]
    frozen: tuple[FrozenChannels, ...]
    rearrangements: Mapping[int, Any]
    pins: tuple[Use, ...]

    @overload
    def __getitem__(self, index: int) -> PruningGroup: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[PruningGroup]: ...
    def __getitem__(self, index: int | slice) -> PruningGroup | Sequence[PruningGroup]:
        return self.groups[index]

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[PruningGroup]:
        return iter(self.groups)

    @property
    def num_units(self) -> int:
        """Units of all groups together."""
        return sum(group.size for group in self.groups)

    def count_removed(self, is_kept: np.ndarray[Any, np.dtype[np.bool_]]) -> list[int]:
        """Units that every group loses.

        Args:
            is_kept: Shape `(num_units,)`: which units stay.
        """
        return [
            group.size - int(np.count_nonzero(is_kept[group.first_unit : group.first_unit + group.size]))
            for group in self.groups
        ]

    @property
    def frozen_nodes(self) -> frozenset[str]:
        """Nodes with filters that stay anyway."""
        return frozenset(entry.filters for entry in self.frozen)
