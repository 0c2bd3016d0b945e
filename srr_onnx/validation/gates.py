"""VALIDATE: what a result has to reach."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Gate:
    """One thing that is asked of a result.

    Attributes:
        name: "accuracy", "accuracy_drop", "agreement", "size" or "speedup".
        value: What was measured: a share, bytes, or how many times faster; None where it could not be measured.
        limit: What was asked for, in the same unit.
        is_passed: Whether the value is good enough.
    """

    name: str
    value: float | None
    limit: float
    is_passed: bool


def at_least(name: str, value: float | None, limit: float) -> Gate:
    """Make a gate that asks for a value or more."""
    return Gate(name, value, limit, value is not None and value >= limit)


def at_most(name: str, value: float | None, limit: float) -> Gate:
    """Make a gate that asks for a value or less."""
    return Gate(name, value, limit, value is not None and value <= limit)
