"""SCORE: what a criterion is, and the table of all criteria.

A criterion is a function from the parameter slices of one group to one score per unit. It is registered under a name by
a decorator; whoever imports its module can use it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from srr_onnx.registry import Registry
from srr_onnx.scoring.elimination import Elimination
from srr_onnx.scoring.options import SrrOptions
from srr_onnx.scoring.redundancy import GroupRedundancy
from srr_onnx.scoring.slices import Slices

UnitScores = np.ndarray[Any, np.dtype[np.float64]]


@dataclasses.dataclass(frozen=True)
class ScoreOptions:
    """What a criterion may read besides the slices.

    Attributes:
        seed: For everything random.
        srr: Settings of structural redundancy reduction.
        redundancy: The group's redundancy; filled in for criteria that are registered with `uses_redundancy`.
        elimination: The order in which units leave with least error on samples; filled in with `uses_samples`.
    """

    seed: int = 0
    srr: SrrOptions = dataclasses.field(default_factory=SrrOptions)
    redundancy: GroupRedundancy | None = None
    elimination: Elimination | None = None


ScoreFunction = Callable[[Slices, ScoreOptions], UnitScores]


@dataclasses.dataclass(frozen=True)
class Criterion:
    """A scoring function with what the caller has to know about it.

    Attributes:
        name: Under which it is registered.
        function: Gives the units of a group scores of shape `(U,)`, finite; higher = keep.
        is_equivariant: Whether permuting the units permutes the scores: false if they depend on the position.
        uses_redundancy: Whether it reads `ScoreOptions.redundancy`, by which plans are then allocated to groups.
        uses_samples: Whether it reads `ScoreOptions.elimination`, so that there have to be samples.
    """

    name: str
    function: ScoreFunction
    is_equivariant: bool = True
    uses_redundancy: bool = False
    uses_samples: bool = False

    def __call__(self, slices: Slices, options: ScoreOptions) -> UnitScores:
        """Score the units of one group."""
        return self.function(slices, options)


criteria: Registry[str, Criterion] = Registry("criterion")


def criterion(
    name: str, *, is_equivariant: bool = True, uses_redundancy: bool = False, uses_samples: bool = False
) -> Callable[[ScoreFunction], ScoreFunction]:
    """Register a scoring function as a criterion.

    Args:
        name: What the user types.
        is_equivariant: False if the scores depend on the position of a unit.
        uses_redundancy: True if the function reads `options.redundancy`.
        uses_samples: True if the function reads `options.elimination`.

    Returns:
        A decorator that gives the function back unchanged.

    Raises:
        ValueError: The name is taken.

    Example::

        @criterion("largest")
        def largest(slices, options):
            return np.max([np.abs(rows).max(axis=1) for rows in slices.with_role(Role.FILTER)], axis=0)
    """

    def enter(function: ScoreFunction) -> ScoreFunction:
        criteria.register(name)(Criterion(name, function, is_equivariant, uses_redundancy, uses_samples))
        return function

    return enter
