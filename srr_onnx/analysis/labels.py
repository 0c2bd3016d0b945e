"""ANALYZE: channel labels and their unification.

Each axis of a value may carry a vector of integer labels, one per channel; an axis without labels is fixed.
Labels that are unified can only be removed together. Reads nothing but the calls of the rules; the classes are
final once `ChannelLabels.classes` has been asked after the last rule.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

import numpy as np

Labels = np.ndarray[Any, np.dtype[np.int64]]


class FreezeReason(enum.Enum):
    """Why channels cannot be removed. The value is the stable name in plan files."""

    GRAPH_OUTPUT = "graph_output"
    UNKNOWN_OPERATOR = "unknown_operator"
    UNKNOWN_VERSION = "unknown_version"
    UNKNOWN_SHAPE = "unknown_shape"
    COMPUTED_OPERAND = "computed_operand"
    FIXED_AXIS = "fixed_axis"
    MIXES_CHANNELS = "mixes_channels"
    SUBGRAPH = "subgraph"
    LAYOUT = "layout"
    SHAPE_IN_USE = "shape_in_use"
    RULE_FAILED = "rule_failed"
    INEXACT = "inexact"
    UNPROVEN = "unproven"
    USER = "user"

    @property
    def text(self) -> str:
        """The reason in words."""
        return _TEXTS[self]


_TEXTS = {
    FreezeReason.GRAPH_OUTPUT: "channels of a graph output",
    FreezeReason.UNKNOWN_OPERATOR: "no rule for this operator",
    FreezeReason.UNKNOWN_VERSION: "no rule for this version of the operator",
    FreezeReason.UNKNOWN_SHAPE: "shape not known at load time",
    FreezeReason.COMPUTED_OPERAND: "an operand that would have to be constant is computed",
    FreezeReason.FIXED_AXIS: "joined with an axis that has no channels",
    FreezeReason.MIXES_CHANNELS: "the operator mixes channels",
    FreezeReason.SUBGRAPH: "read inside a subgraph",
    FreezeReason.LAYOUT: "channels that no longer form a rectangle if some go",
    FreezeReason.SHAPE_IN_USE: "the number of channels is itself used in the computation",
    FreezeReason.INEXACT: "pruning is inexact here: use --allow-inexact",
    FreezeReason.RULE_FAILED: "the rule of this operator failed: please report it",
    FreezeReason.UNPROVEN: "pruning it failed the proof: please report it",
    FreezeReason.USER: "frozen by request",
}


@dataclasses.dataclass(frozen=True)
class Freeze:
    """One cause for frozen channels: the reason and the node where it arises."""

    reason: FreezeReason
    node: str
    detail: str = ""

    @property
    def text(self) -> str:
        """Reason, detail and node in words."""
        return f"{self.reason.text}{f' ({self.detail})' if self.detail else ''} at {self.node!r}"


class ChannelLabels:
    """A growing set of labels with union-find, freezes and inexact marks."""

    def __init__(self) -> None:
        self._count = 0
        self._roots: Labels = np.empty(0, np.int64)
        self._pending: list[tuple[Labels, Labels]] = []
        self._freezes: list[tuple[Labels, Freeze]] = []
        self._inexact: list[tuple[Labels, str]] = []

    def fresh(self, count: int) -> Labels:
        """Make new labels.

        Args:
            count: How many.

        Returns:
            Consecutive labels never given out before, shape `(count,)`.
        """
        self._count += count
        return np.arange(self._count - count, self._count, dtype=np.int64)

    def unify(self, first: Labels, second: Labels) -> None:
        """Declare that labels at equal positions can only be removed together.

        Args:
            first: Labels of any shape.
            second: Labels of the same shape.

        Raises:
            ValueError: The shapes differ: the rule that asks is wrong.
        """
        if first.shape != second.shape:
            raise ValueError(f"cannot unify labels of shapes {first.shape} and {second.shape}")
        if first is not second:
            self._pending.append((first.reshape(-1), second.reshape(-1)))

    def freeze(self, labels: Labels, cause: Freeze) -> None:
        """Declare that channels stay, with the cause; the earliest cause of a class is reported."""
        if labels.size:
            self._freezes.append((labels.reshape(-1), cause))

    def mark_inexact(self, labels: Labels, node: str) -> None:
        """Declare that channels may go, but that the pruned model then differs from the masked one."""
        if labels.size:
            self._inexact.append((labels.reshape(-1), node))

    def classes(self) -> Labels:
        """Give the class of every label made so far.

        Returns:
            Shape `(labels made,)`: the smallest label of the class.
        """
        roots = np.concatenate([self._roots, np.arange(len(self._roots), self._count)])
        if self._pending:
            first = np.concatenate([pair[0] for pair in self._pending])
            second = np.concatenate([pair[1] for pair in self._pending])
            roots = _merge(roots, first, second)
            self._pending = []
        self._roots = roots
        return roots

    def count_free(self, labels: Labels, merged: Labels) -> int:
        """Count the classes that would be left to prune if labels were unified column by column.

        Args:
            labels: Labels whose classes count, shape `(P,)`.
            merged: Shape `(R, C)`: the rows that would be unified position by position.

        Returns:
            Number of distinct classes that are not frozen.
        """
        first = np.broadcast_to(merged[:1], merged[1:].shape).reshape(-1)
        roots = _merge(self.classes().copy(), first, merged[1:].reshape(-1))
        frozen = np.zeros(self._count, bool)
        for ids, _ in self._freezes:
            frozen[roots[ids]] = True
        classes = distinct(roots[labels.reshape(-1)])
        return int((~frozen[classes]).sum())

    def frozen_classes(self) -> dict[int, Freeze]:
        """The first cause of every frozen class, by class."""
        return self._first(self._freezes)

    def inexact_classes(self) -> dict[int, str]:
        """The first node that makes a class inexact, by class."""
        return self._first(self._inexact)

    def _first(self, marks: list[tuple[Labels, Any]]) -> dict[int, Any]:
        roots = self.classes()
        found: dict[int, Any] = {}
        for labels, mark in marks:
            for root in distinct(roots[labels]).tolist():
                found.setdefault(root, mark)
        return found


def distinct(numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Give each of some numbers once, in ascending order (`numpy.unique` loads masked arrays for nothing)."""
    numbers = np.sort(numbers, axis=None)
    return numbers[np.append(True, numbers[1:] != numbers[:-1])] if len(numbers) else numbers


def _merge(roots: Labels, first: Labels, second: Labels) -> Labels:
    """Join classes along edges: hook the larger root under the smaller, then flatten, until nothing changes."""
    while first.size:
        a, b = roots[first], roots[second]
        low, high = np.minimum(a, b), np.maximum(a, b)
        differs = low != high
        first, second, low, high = first[differs], second[differs], low[differs], high[differs]
        np.minimum.at(roots, high, low)
        while True:
            flat = roots[roots]
            if np.array_equal(flat, roots):
                break
            roots = flat
    return roots
