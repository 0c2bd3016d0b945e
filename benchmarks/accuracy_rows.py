"""The rows of accuracy_without_training.py and accuracy.py as values: picked, averaged and written down."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]

_INTEGERS = ("seed", "samples", "used", "recalibrated", "epochs")
_COUNTS = ("gained", "spoiled")
_NUMBERS = ("reduction", "removed", "baseline", "accuracy", "agreement", "kl", "narrowest", "guess", "lr", "seconds")


class Rows(list[Row]):
    """Rows, of which some can be picked."""

    def select(self, **wanted: Any) -> Rows:
        """Those whose fields have these values."""
        return Rows(row for row in self if all(row[field] == value for field, value in wanted.items()))

    def combinations(self, *fields: str) -> list[tuple[Any, ...]]:
        """Values of some fields that occur together, in the order of the rows."""
        return list(dict.fromkeys(tuple(row[field] for field in fields) for row in self))


def parse_rows(path: Path) -> Rows:
    """Read the rows; numbers that are missing are None, and `change` is the accuracy's change in points."""
    if not path.exists():
        return Rows()
    with path.open(newline="", encoding="utf-8") as file:
        rows = Rows(csv.DictReader(file))
    for row in rows:
        row |= {field: int(row[field]) for field in _INTEGERS if field in row}
        row |= {field: int(row[field]) if row[field] else None for field in _COUNTS if field in row}
        row |= {field: float(row[field]) if row[field] else None for field in _NUMBERS if field in row}
        has_labels = row["accuracy"] is not None and row["baseline"] is not None
        row["change"] = 100 * (row["accuracy"] - row["baseline"]) if has_labels else None
    return rows


def find_chance(gained: int, lost: int) -> float:
    """Tell how likely two models that are equally good differ this much on the same images.

    Args:
        gained: Images that only the first is right on.
        lost: Images that only the second is right on.

    Returns:
        Probability of a difference at least this large, of either sign.

    Source:
        McNemar, "Note on the sampling error of the difference between correlated proportions", Psychometrika 12, 1947;
        exact form, two-sided.
    """
    changed = gained + lost
    tail = sum(math.comb(changed, count) for count in range(max(gained, lost), changed + 1))
    return min(1.0, 2 * tail / 2**changed)


def mean(rows: Sequence[Row], field: str) -> float:
    """Mean of a field; NaN without rows."""
    return sum(row[field] for row in rows) / len(rows) if rows else float("nan")


def spread(rows: Sequence[Row], field: str) -> str:
    """Mean of a field, and the lowest and highest where there are several rows."""
    values = [row[field] for row in rows]
    if not values:
        return ""
    middle = f"{sum(values) / len(values):+.1f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):+.1f} to {max(values):+.1f})"


def describe_net(net: str, split: str) -> str:
    """Name of a net, and of its split where there are two."""
    return f"{net}, random split" if split == "image" else net
