"""SCORE: what a criterion sees of a group: parameter slices, one row per unit.

Operators are not visible here, only roles.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from srr_onnx.analysis.groups import PruningGroup, Role
from srr_onnx.graph.model import Model
from srr_onnx.graph.quantization import read_parameter

Rows = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Slice:
    """One parameter, cut into one row per unit.

    Attributes:
        name: Name of the constant.
        role: What the parameter is to the units.
        rows: Shape `(U, K)`, floating point.
    """

    name: str
    role: Role
    rows: Rows


class Slices:
    """The parameter slices of one group; made when asked for, nothing is kept.

    Args:
        model: Loaded model.
        group: One of its groups.
    """

    def __init__(self, model: Model, group: PruningGroup) -> None:
        self._model = model
        self._group = group

    @property
    def units(self) -> int:
        """Number of units U."""
        return self._group.size

    @property
    def group_id(self) -> str:
        """Id of the group."""
        return self._group.id

    def __iter__(self) -> Iterator[Slice]:
        return self._walk(frozenset(Role))

    def with_role(self, role: Role) -> list[Rows]:
        """Give the slices of one role.

        Args:
            role: The role wanted.

        Returns:
            One array of shape `(U, K)` per parameter, K differing between them; float32 or float64.
        """
        return [part.rows for part in self._walk(frozenset([role]))]

    def _walk(self, roles: frozenset[Role]) -> Iterator[Slice]:
        seen = set()
        for member in self._group.members:
            array = read_parameter(self._model, member.initializer, member.use.node, member.use.slot)
            key = (member.initializer, member.axis, member.positions.tobytes())
            if member.role not in roles or key in seen or array.dtype.kind not in "fV":
                continue
            seen.add(key)  # a parameter that is read twice counts once
            order = member.positions.reshape(-1)
            front = np.moveaxis(array, member.axis, 0)
            is_whole = len(order) == len(front) and np.array_equal(order, np.arange(len(order)))
            picked = front if is_whole else front[order]  # the common case needs no copy
            rows = picked.reshape(self._group.size, picked.size // self._group.size)
            if rows.dtype not in (np.float32, np.float64):
                rows = rows.astype(np.float32)
            yield Slice(member.initializer, member.role, rows)
