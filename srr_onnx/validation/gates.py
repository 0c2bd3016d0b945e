"""VALIDATE: what a result has to reach, and how it is told."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

from srr_onnx.errors import DataError
from srr_onnx.planning.budget import parse_share
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


def parse_gate(key: str, value: float | str) -> float:
    """Read the share that a gate asks for, from nothing to all.

    Args:
        key: Name of the gate's option; what may be lost at most ("max_...") may well be below 1 %.
        value: As `parse_share` reads it.

    Returns:
        The share.

    Raises:
        PlanError: It is no share.
    """
    return parse_share(value, is_closed=True, has_zero=True, is_large=not key.startswith("max_"))


def parse_factor(value: float | str) -> float:
    """Read how many times as fast a result has to be.

    Args:
        value: A number, or text.

    Returns:
        The factor, above 0.

    Raises:
        DataError: It is no such number.
    """
    try:
        factor = float(value)
    except ValueError:
        factor = math.nan
    if not (math.isfinite(factor) and factor > 0):
        raise DataError(f"{value!r} is no speed-up: give a number above 0, such as 1.2")
    return factor


def parse_size(value: str | int) -> int:
    """Read the size that a file may have.

    Args:
        value: 10MB, 9.5 MiB, or a number of bytes.

    Returns:
        Bytes.

    Raises:
        DataError: It is no size.
    """
    found = re.fullmatch(r"(\d+|\d+\.\d+(?=\s*[KMG]))\s*(|K|M|G|KI|MI|GI)B?", str(value).strip().upper(), re.ASCII)
    if found is None or float(found[1]) <= 0:
        raise DataError(f"{value!r} is no size: give a number with a unit, such as 10MB or 9.5MiB")
    return int(float(found[1]) * _UNITS[found[2]])
