"""REWRITE: which values of two models are compared, and how far apart they are."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from srr_onnx.graph.model import Model, is_floating

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class Differences:
    """How far two results are apart, value by value.

    Attributes:
        numbers: Of floating-point values: largest difference relative to the largest of the second result, by name; NaN
            where only one of the two is finite, or where the shapes differ.
        others: Of all others (class numbers, flags): share of elements that differ, by name.
    """

    numbers: Mapping[str, float]
    others: Mapping[str, float]

    @property
    def worst(self) -> float:
        """The largest of the floating-point differences, 0 without any; NaN if one of them is."""
        return math.nan if any(map(math.isnan, self.numbers.values())) else max(self.numbers.values(), default=0.0)

    @property
    def largest_finite(self) -> float:
        """The largest of the floating-point differences that are numbers, 0 without any."""
        return max((value for value in self.numbers.values() if math.isfinite(value)), default=0.0)

    def joined(self, other: Differences) -> Differences:
        """These and others in one; the larger of two for the same value."""
        numbers = {name: _larger(value, other.numbers.get(name, 0.0)) for name, value in self.numbers.items()}
        return Differences({**other.numbers, **numbers}, {**other.others, **self.others})


def measure_differences(first: Mapping[str, Any], second: Mapping[str, Any], names: Sequence[str]) -> Differences:
    """Measure how far two results are apart.

    Args:
        first: Values by name: arrays, or lists of arrays for sequences.
        second: Others.
        names: Which to compare. What holds no arrays (maps, empty optionals) is left out.

    Returns:
        The differences.
    """
    numbers: dict[str, float] = {}
    others: dict[str, float] = {}
    for name in names:
        for a, b in zip(_parts(first[name]), _parts(second[name]), strict=False):
            if a.dtype.kind == "f" and b.dtype.kind == "f":
                numbers[name] = _larger(_distance(a, b), numbers.get(name, 0.0))
            else:
                others[name] = max(_share(a, b), others.get(name, 0.0))
    return Differences(numbers, others)


def shapes_of(value: Any) -> Any:
    """Shape of an array, a list of shapes for a sequence; None for a value that holds no arrays."""
    if isinstance(value, list):
        return [shapes_of(part) for part in value]
    return list(value.shape) if isinstance(value, np.ndarray) else None


def is_finite(value: Any) -> bool:
    """Whether all floating-point numbers of an array or a sequence are finite."""
    return all(bool(np.isfinite(part).all()) for part in _parts(value) if part.dtype.kind == "f")


def is_float(model: Model, name: str) -> bool:
    """Whether a value is known to hold floating-point numbers."""
    dtype = model.dtypes.get(name)
    return dtype is not None and is_floating(dtype)


def find_feeding(model: Model, made: Collection[str]) -> list[str]:
    """Find the floating-point values from which outputs of another kind are made, the last ones on every way.

    A class number says little of the scores behind it, and may change where two of them tie.

    Args:
        model: The original.
        made: Values that the pruned model makes as well: only those can be compared.

    Returns:
        Names of inner values; empty where all outputs are floating-point tensors.
    """
    found: dict[str, None] = {}
    waiting = [name for name in model.outputs if not is_float(model, name)]
    seen = set(waiting)
    while waiting:
        node = model.producers.get(waiting.pop())
        for name in () if node is None else node.inputs + node.captured:
            if not name or name in seen or model.known(name) is not None:
                continue
            seen.add(name)
            if name in made and is_float(model, name):
                found[name] = None
            else:
                waiting.append(name)
    return list(found)


def _parts(value: Any) -> list[Array]:
    return [part for part in (value if isinstance(value, list) else [value]) if isinstance(part, np.ndarray)]


def _larger(first: float, second: float) -> float:
    """The larger of two; NaN if one of them is."""
    return float(np.maximum(first, second))


def _distance(a: Array, b: Array) -> float:
    if a.shape != b.shape:
        return math.nan
    if a.size == 0:
        return 0.0
    a, b = a.astype(np.float64), b.astype(np.float64)
    if not (np.isfinite(b).all() and np.isfinite(a).all()):
        same = (np.isnan(a) == np.isnan(b)).all() and np.array_equal(a[np.isinf(a)], b[np.isinf(b)])
        if not same:
            return math.nan
        a, b = np.where(np.isfinite(a), a, 0), np.where(np.isfinite(b), b, 0)
    scale = float(np.abs(b).max()) or 1.0
    return float(np.abs(a - b).max()) / scale


def _share(a: Array, b: Array) -> float:
    if a.shape != b.shape:
        return 1.0
    return float((a != b).mean()) if a.size else 0.0
