"""The error tree: everything the library raises on purpose is a `SrrError`.

A message says what went wrong, where (node and value names), why, and what to do next.
The library never prints and never exits; `cli/` turns these errors into one line and an exit code.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SrrError(Exception):
    """Base of every error that a user can cause or cure."""

    exit_code = 1


class ModelError(SrrError):
    """The file is no usable ONNX model: unreadable, truncated, inconsistent, unsafe."""


class UnsupportedError(SrrError):
    """The model is sound, but nothing in it can be pruned by this tool."""


class PlanError(SrrError):
    """A budget cannot be met or a plan does not fit the model; says the closest that can be reached."""


class ProofError(SrrError):
    """The pruned model does not agree with the masked original, so nothing was written."""


class DataError(SrrError):
    """Data are missing, unreadable or of the wrong shape."""


class TargetError(SrrError):
    """Where a model is to run is not there, or does not run it."""


class TrainingError(SrrError):
    """Training cannot begin with these settings, go on from there, or has gone astray."""


class RecipeError(SrrError):
    """A recipe cannot be read, contradicts itself, or is not the one that a run was started with."""


class OutputError(SrrError):
    """The result cannot be written where it was asked for."""


class MissingDependencyError(SrrError):
    """An optional package is not installed; the message gives the pip command."""


def first_line(error: Exception) -> str:
    """The first line of a library's message; the kind of error where it has none."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


class UnknownNameError(SrrError):
    """A name that the user typed matches nothing; carries close matches.

    Args:
        kind: What was looked up, e.g. "criterion".
        name: The name as typed.
        known: Every name that would have been accepted.
    """

    exit_code = 2

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(set(known))
        self.matches = close_matches(name, known)
        if self.matches:
            hint = "did you mean " + " or ".join(repr(match) for match in self.matches) + "?"
        elif len(known) <= 12:
            hint = "choose from " + ", ".join(known)
        else:
            hint = f"none of the {len(known)} known names is close"
        super().__init__(f"unknown {kind} {name!r}: {hint}")


def close_matches(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Find the names closest to a mistyped one, best first; substrings count as close.

    Args:
        name: The name as typed.
        known: Candidates.
        count: At most this many are returned.

    Returns:
        Up to `count` candidates; empty where nothing is close.
    """
    candidates = sorted(set(known))
    found = difflib.get_close_matches(name, candidates, n=count, cutoff=0.6)
    inside = [candidate for candidate in candidates if name and name in candidate and candidate not in found]
    return (found + inside)[:count]
