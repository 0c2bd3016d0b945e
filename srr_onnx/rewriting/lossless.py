"""REWRITE: remove what changes no output, and prove it against the original as it is.

Unlike pruning, nothing is masked: the result computes what the model computes, with fewer channels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from srr_onnx.analysis.find import find_groups
from srr_onnx.analysis.groups import Groups, Use
from srr_onnx.errors import ModelError, ProofError
from srr_onnx.graph.cost import count_cost
from srr_onnx.graph.edit import Edits, NewNames, apply_edits
from srr_onnx.graph.model import Model, Shape
from srr_onnx.planning.plan import LOSSLESS, Kept
from srr_onnx.rewriting.apply import prune_units
from srr_onnx.rewriting.differences import measure_differences, shapes_of
from srr_onnx.rewriting.exact.gains import ExactGains
from srr_onnx.rewriting.exact.search import find_exact
from srr_onnx.rewriting.trial import Trial
from srr_onnx.rewriting.verify import make_feeds
from srr_onnx.targets.onnxruntime import Session

Array = np.ndarray[Any, Any]

# Largest difference relative to the largest output, per element type of the weights that are corrected. However much a
# net magnifies rounding, the outputs stay what they were: what moves them further is taken back.
_TOLERANCES = {"float16": 2e-3, "bfloat16": 2e-2}
_TOLERANCE = 1e-5
# Inputs that were not tried may be worse than those that were. Small nets, where a run costs nothing, show few values
# in one run.
_MARGIN = 1.5
_FEWEST_RUNS, _MOST_RUNS, _MACS = 8, 256, 4 << 30


@dataclasses.dataclass(frozen=True)
class LosslessProof:
    """What the proof run measured.

    Attributes:
        relative_error: Largest difference between the outputs of both models, relative to the largest output.
        tolerance: What it had to stay below, by half as much again.
        elsewhere: Shape of every input at a second size, where the file leaves sizes open and nobody gave one.
        is_rounded: False for quantized models: the rounding of their activations was left out on both sides.
    """

    relative_error: float
    tolerance: float
    elsewhere: Mapping[str, Shape]
    is_rounded: bool

    def to_json(self) -> dict[str, Any]:
        """Plain form, as in plan files, with the fields of the other proof: there are no masks."""
        return {
            "kind": LOSSLESS,
            "relative_error": self.relative_error,
            "moved": 0.0,
            "masks": 0,
            "tolerance": self.tolerance,
            "is_exact": True,
            "elsewhere": {name: list(shape) for name, shape in self.elsewhere.items()},
            "is_rounded": self.is_rounded,
        }


def remove_exact(model: Model, groups: Groups, stays: Kept | None = None) -> tuple[Model, Kept, ExactGains]:
    """Remove the units that change no output.

    Args:
        model: Loaded model; not changed.
        groups: Result of `find_groups(model)`.
        stays: Shape `(groups.num_units,)`: units that stay whatever is found; none by default.

    Returns:
        The smaller model (the model itself where nothing can go), which units stay, and why the others went.

    Raises:
        ProofError: The corrected model has other groups than the original.
    """
    gains = find_exact(model, groups, stays)
    if gains.is_kept.all():
        return model, gains.is_kept, gains
    corrected = _correct(model, gains)
    again = find_groups(corrected) if gains.corrections else groups
    is_same = again.values.keys() == groups.values.keys()
    if not is_same or any(not np.array_equal(units, groups.values[key]) for key, units in again.values.items()):
        raise ProofError(
            "the model has other pruning groups once its weights are corrected: nothing was written, please report "
            "this model"
        )
    return prune_units(corrected, again, gains.is_kept), gains.is_kept, gains


def prove_lossless(model: Model, result: Model) -> float:
    """Prove that a model gives the outputs of the original; see `verify_lossless`.

    Args:
        model: The original.
        result: The smaller model.

    Returns:
        Largest difference between their outputs, relative to the largest output.

    Raises:
        ProofError: The two disagree.
        ModelError: onnxruntime refuses one of them.
    """
    return verify_lossless(model, result).relative_error


def verify_lossless(model: Model, result: Model) -> LosslessProof:
    """Run a model beside the original on random inputs and compare the outputs.

    Args:
        model: The original.
        result: The smaller model.

    Returns:
        What was measured.

    Raises:
        ProofError: The two disagree.
        ModelError: onnxruntime refuses one of them.
    """
    runs = min(max(_FEWEST_RUNS, _MACS // max(count_cost(model).macs, 1)), _MOST_RUNS)
    # What runs that often is too small to be shared among threads.
    trial = Trial(model, result, {}, threads=1 if runs > _FEWEST_RUNS else 0)
    kinds = {str(dtype) for dtype in model.dtypes.values()}
    # Sums in another order differ by a rounding of float16 each; what the corrections cost shows in float32 too.
    trial.as_float32 = trial.as_float32 or bool(kinds & set(_TOLERANCES))
    trial.leave_rounding_out()
    tolerance = max([_TOLERANCE, *(_TOLERANCES[kind] for kind in kinds & set(_TOLERANCES))])
    # With all optimizations, as the models will run: another number of channels is summed in another order there.
    sessions = trial.open_optimized()
    error = 0.0
    elsewhere = dict(model.elsewhere)
    if elsewhere:
        feeds = _make_feeds(model, 0, elsewhere)
        try:
            sessions[0].run(feeds)
        except ModelError:  # the original does not run there, so there is nothing to compare
            elsewhere = {}
        else:
            error = _check_close(_compare(*sessions, feeds), tolerance)
    for run in range(runs):
        error = max(error, _check_close(_compare(*sessions, _make_feeds(model, run, None)), tolerance))
    return LosslessProof(error, tolerance, elsewhere, trial.is_rounded)


def _check_close(error: float, tolerance: float) -> float:
    if not error * _MARGIN <= tolerance:  # also true for NaN
        raise ProofError(
            f"the smaller model differs from the original by {error:.2g} (allowed {tolerance / _MARGIN:.2g}): nothing "
            "was written, please report this model"
        )
    return error


def _make_feeds(model: Model, run: int, shapes: Mapping[str, Shape] | None) -> dict[str, Array]:
    """Random inputs; in every other run none is negative, as in pictures."""
    feeds = make_feeds(model, run, shapes)
    return {name: np.abs(array) for name, array in feeds.items()} if run % 2 else feeds


def _compare(original: Session, smaller: Session, feeds: Mapping[str, Array]) -> float:
    want, got = original.run(feeds), smaller.run(feeds)
    if any(shapes_of(got[name]) != shapes_of(want[name]) for name in original.outputs):
        return float("nan")
    return measure_differences(got, want, original.outputs).worst


def _correct(model: Model, gains: ExactGains) -> Model:
    """Put the corrected constants into the model, each reader with its own."""
    edits = Edits()
    nodes = {node.index: node for node in model.nodes}
    names = NewNames(model)
    made: dict[tuple[str, bytes], str] = {}
    for use, array in gains.corrections.items():
        node = nodes[use.node]
        name = node.input(use.slot)
        wish = f"{name or node.outputs[0] + '_bias'}_corrected"
        if name and array.shape == model.constants[name].shape and _is_alone(model, name, use):
            edits.tensors[name] = array
            continue
        key = (name or wish, array.tobytes())
        if key not in made:
            made[key] = names.take(wish)
            edits.added[made[key]] = array
        edits.node(use.node).inputs[use.slot] = made[key]
    return apply_edits(model, edits)


def _is_alone(model: Model, name: str, use: Use) -> bool:
    """Whether a stored initializer has no other reader."""
    readers = [
        Use(node.index, slot)
        for node in model.consumers[name]
        for slot, read in enumerate(node.inputs + node.captured)
        if read == name
    ]
    return readers == [use] and name not in model.outputs and model.stored.get(name, use) is None
