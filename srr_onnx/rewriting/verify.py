"""REWRITE: the proof that the pruned model is right.

The original runs with a 0/1 mask in front of every operator that sums over channels and reads an activation that
lost some; the pruned model has to give the same outputs. Both run in onnxruntime on the same seeded input.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from srr_onnx.analysis.rule import Positions
from srr_onnx.errors import ModelError, ProofError
from srr_onnx.graph.model import Model, Shape, is_floating
from srr_onnx.rewriting.differences import Differences, is_finite, measure_differences, shapes_of
from srr_onnx.rewriting.trial import Results, Trial, make_masks

Array = np.ndarray[Any, Any]

# Largest difference relative to the largest element of a value. Summation in another order costs about 1e-6 in
# float32 on nets of a hundred layers.
_TOLERANCE = 1e-4
# Share of class numbers or flags that may differ where the scores behind them agree: two of those may tie.
_TIES = 1e-2
_MAGNIFIED = 10.0
_LARGEST_TOLERANCE = 1e-2


@dataclasses.dataclass(frozen=True)
class Proof:
    """What the proof run measured.

    Attributes:
        relative_error: Largest difference between pruned and masked output, relative to the largest masked output.
        moved: How far the masks moved the original's outputs, in the same measure: 0 would prove nothing.
        masks: Number of masks.
        tolerance: What `relative_error` had to stay below.
        is_exact: False where inexact groups were pruned and only shapes could be checked.
        elsewhere: Shape of every input at a second size, where the file leaves sizes open and nobody gave one.
        is_rounded: False for quantized models: the rounding of their activations was left out on both sides.
    """

    relative_error: float
    moved: float
    masks: int
    tolerance: float
    is_exact: bool
    elsewhere: Mapping[str, Shape]
    is_rounded: bool

    def to_json(self) -> dict[str, Any]:
        """Plain form, as in plan files."""
        return {**dataclasses.asdict(self), "elsewhere": {name: list(shape) for name, shape in self.elsewhere.items()}}


def make_feeds(model: Model, seed: int = 0, shapes: Mapping[str, Shape] | None = None) -> dict[str, Array]:
    """Make seeded random inputs: standard normal floats, small integers.

    Args:
        model: Loaded model.
        seed: Seed.
        shapes: Shape per graph input; the model's input shapes by default.

    Returns:
        One array per graph input.
    """
    rng = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for name, shape in (shapes or model.inputs).items():
        dtype = model.dtypes[name]
        if is_floating(dtype):
            feeds[name] = rng.standard_normal(shape).astype(dtype)
        else:
            feeds[name] = rng.integers(0, 2, shape).astype(dtype)
    return feeds


def verify_pruned(
    model: Model,
    pruned: Model,
    kept: Mapping[tuple[str, int], Positions],
    *,
    is_exact: bool = True,
    seed: int = 0,
    threads: int = 0,
) -> Proof:
    """Prove that a pruned model equals its masked original.

    Args:
        model: The original.
        pruned: The pruned model.
        kept: Positions that stay, by `(value, axis)`, of every activation of the original that shrinks.
        is_exact: False where inexact groups were pruned: then the model has to run and give the right shapes.
        seed: Seed of the random input.
        threads: Threads per operator; 0 lets the runtime choose.

    Returns:
        What was measured.

    Raises:
        ProofError: The two disagree.
        ModelError: The runtime refuses one of them.
    """
    masks = make_masks(model, kept) if is_exact else {}
    trial = Trial(model, pruned, masks, threads)
    feeds = make_feeds(model, seed)
    try:
        originals = trial.run_original(feeds)
    except ModelError as error:
        if model.guessed:
            raise ModelError(f"{error} (at the size chosen for the open axes: give another with --input)") from error
        raise
    found = _measure(trial, feeds, originals, kept, is_exact=is_exact, seed=seed)
    if trial.as_float32:
        _check_own_types(trial, feeds)
    if not model.elsewhere:
        return found
    feeds = make_feeds(model, seed, model.elsewhere)
    try:
        originals = trial.run_original(feeds)
    except ModelError:  # the original does not run there, so there is nothing to compare
        return found
    try:
        other = _measure(trial, feeds, originals, kept, is_exact=is_exact, seed=seed)
    except ModelError as error:
        raise ProofError(f"the pruned model does not run at another size, as the original does: {error}") from error
    return Proof(
        relative_error=max(found.relative_error, other.relative_error),
        moved=min(found.moved, other.moved),
        masks=found.masks,
        tolerance=max(found.tolerance, other.tolerance),
        is_exact=is_exact,
        elsewhere=dict(model.elsewhere),
        is_rounded=found.is_rounded and other.is_rounded,
    )


def _measure(
    trial: Trial,
    feeds: Mapping[str, Array],
    originals: tuple[Results, Results],
    kept: Mapping[tuple[str, int], Positions],
    *,
    is_exact: bool,
    seed: int,
) -> Proof:
    """Compare the pruned model with the original and the masked original on one input."""
    model = trial.model
    (before, want), got = originals, trial.run_pruned(feeds)
    _check_shapes(model, want, got)
    if not is_exact:
        moved = measure_differences(before, got, model.outputs).largest_finite
        return Proof(0.0, moved, 0, _TOLERANCE, is_exact, {}, trial.is_rounded)
    if trial.is_rounded and trial.leave_rounding_out():
        # A sum in another order can end on the other side of a rounding boundary, a whole step of eight bits away; and
        # a mistake can hide below a step. Without the rounding the two models have to agree as closely as any others.
        before, want = trial.run_original(feeds)
        got = trial.run_pruned(feeds)
    errors, moved = trial.compare(before, want, got, feeds, kept)
    tolerance = _TOLERANCE
    if not (errors.worst <= _TOLERANCE and all(share <= _TIES for share in errors.others.values())):
        tolerance = _allow_noise(errors, trial.noise(feeds, seed))
    return Proof(errors.worst, moved, len(trial.masks), tolerance, is_exact, {}, trial.is_rounded)


def _check_shapes(model: Model, want: Results, got: Results) -> None:
    for name in model.outputs:
        if shapes_of(got[name]) != shapes_of(want[name]):
            raise ProofError(
                f"output {name!r} of the pruned model has shape {shapes_of(got[name])} instead of "
                f"{shapes_of(want[name])}: nothing was written, please report this model"
            )


def _check_own_types(trial: Trial, feeds: Mapping[str, Array]) -> None:
    """What was proven in float32 has to run in the file's own types as well, and must not overflow anew there."""
    results = trial.run_in_own_types(feeds)
    if results is None:
        return
    _check_shapes(trial.model, *results)
    for name in trial.model.outputs:
        if is_finite(results[0][name]) and not is_finite(results[1][name]):
            raise ProofError(
                f"output {name!r} of the pruned model overflows its element type, the original's does not: "
                "nothing was written, please report this model"
            )


def _allow_noise(errors: Differences, noise: Differences) -> float:
    """Judge differences above the tolerance.

    Rounding can be magnified, by a softmax say: every value may be off by as much as an input that is off by a rounding
    error would make it.

    Returns:
        The largest tolerance that was needed.

    Raises:
        ProofError: That does not explain them.
    """
    tolerance = _TOLERANCE
    for name, error in errors.numbers.items():
        allowed = max(_TOLERANCE, min(_MAGNIFIED * noise.numbers.get(name, 0.0), _LARGEST_TOLERANCE))
        if not error <= allowed:  # also true for NaN
            raise ProofError(
                f"the pruned model differs from the masked original by {error:.2g} at {name!r} "
                f"(allowed {allowed:.2g}): nothing was written, please report this model"
            )
        tolerance = max(tolerance, allowed if error > _TOLERANCE else 0.0)
    for name, share in errors.others.items():
        if share > max(_TIES, _MAGNIFIED * noise.others.get(name, 0.0)):
            raise ProofError(
                f"{share:.0%} of the elements of {name!r} differ between the pruned model and the masked original: "
                "nothing was written, please report this model"
            )
    return tolerance
