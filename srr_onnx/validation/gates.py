"""VALIDATE: what a result has to reach, and how it is told."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from srr_onnx.errors import DataError
from srr_onnx.wording import percent, quantity

_WORDS = {
    "accuracy": lambda value: f"accuracy is {percent(value)}",
    "accuracy_drop": lambda value: (
        f"accuracy is {abs(value) * 100:.2f} points {'lower' if value >= 0 else 'higher'} than the reference's"
    ),
    "agreement": lambda value: f"top-1 agreement with the reference is {percent(value)}",
    "size": lambda value: f"the file has {quantity(value, 'B')}",
    "speedup": lambda value: f"a run is {value:.3f} times as fast as the reference's",
}
_LIMITS = {
    "accuracy": lambda limit: f"at least {percent(limit)} was asked for",
    "accuracy_drop": lambda limit: f"{limit * 100:g} points lower were allowed",
    "agreement": lambda limit: f"at least {percent(limit)} was asked for",
    "size": lambda limit: f"at most {quantity(limit, 'B')} was allowed",
    "speedup": lambda limit: f"at least {limit:g} times was asked for",
}
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


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


def describe_gates(gates: Sequence[Gate], why_missing: str = "") -> list[dict[str, Any]]:
    """Put gates into their JSON form.

    Args:
        gates: The gates.
        why_missing: Why a value could not be measured.

    Returns:
        One entry per gate: name, value, limit, whether it was passed, and a text.
    """
    found = []
    for gate in gates:
        value = why_missing or "it could not be measured" if gate.value is None else _WORDS[gate.name](gate.value)
        found.append(
            {
                "name": gate.name,
                "value": gate.value,
                "limit": gate.limit,
                "passed": gate.is_passed,
                "text": f"{value}, {_LIMITS[gate.name](gate.limit)}",
            }
        )
    return found


def parse_size(value: str | int) -> int:
    """Read the size that a file may have.

    Args:
        value: 10MB, 9.5 MiB, or a number of bytes.

    Returns:
        Bytes.

    Raises:
        DataError: It is no size.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(|K|M|G|KI|MI|GI)B?", str(value).strip().upper(), re.ASCII)
    if found is None or float(found[1]) <= 0:
        raise DataError(f"{value!r} is no size: give a number with a unit, such as 10MB or 9.5MiB")
    return int(float(found[1]) * _UNITS[found[2]])
