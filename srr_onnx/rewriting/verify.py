"""REWRITE: the proof that the pruned model is right.

The original runs with a 0/1 mask in front of every operator that sums over channels and reads an activation that
lost some; the pruned model has to give the same outputs. Both run in onnxruntime on the same seeded input.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from srr_onnx.analysis.rule import Positions
from srr_onnx.errors import ModelError, ProofError
from srr_onnx.graph.model import Model
from srr_onnx.graph.quantization import unrounded_pairs
from srr_onnx.targets.onnxruntime import Session

Array = np.ndarray[Any, Any]

# A masked channel drops out of exactly these; everywhere else it does no harm.
SUMMING_OPERATORS = frozenset(
    {
        "Conv",
        "ConvTranspose",
        "Gemm",
        "MatMul",
        "LSTM",
        "GRU",
        "RNN",
        "Einsum",
        "ReduceSum",
        "ReduceL2",
        "ReduceSumSquare",
    }
)

# Largest difference relative to the largest output, per element type. Summation in another order costs about
# 1e-6 in float32 on nets of a hundred layers.
_TOLERANCES = {"float16": 2e-2, "bfloat16": 1e-1}
_TOLERANCE = 1e-4
_OTHER_FLOATS = frozenset({"float64", "float16", "bfloat16"})
_MAGNIFIED = 10.0
_LARGEST_TOLERANCE = 1e-2
# Masks that move the outputs by less than this leave the proof to the activations.
_LEAST_MOVE = 1e-3


@dataclasses.dataclass(frozen=True)
class Proof:
    """What the proof run measured.

    Attributes:
        relative_error: Largest difference between pruned and masked output, relative to the largest masked output.
        moved: How far the masks moved the original's outputs, in the same measure: 0 would prove nothing.
        masks: Number of masks.
        tolerance: What `relative_error` had to stay below.
        is_exact: False where inexact groups were pruned and only shapes could be checked.
        is_rounded: False where the rounding of quantized activations was left out on both sides.
    """

    relative_error: float
    moved: float
    masks: int
    tolerance: float
    is_exact: bool
    is_rounded: bool = True

    def to_json(self) -> dict[str, Any]:
        """Plain form, as in plan files."""
        return dataclasses.asdict(self)


def make_feeds(model: Model, seed: int = 0) -> dict[str, Array]:
    """Make seeded random inputs: standard normal floats, small integers.

    Args:
        model: Loaded model.
        seed: Seed.

    Returns:
        One array per graph input, of the model's input shapes.
    """
    rng = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for name, shape in model.inputs.items():
        dtype = model.dtypes[name]
        if dtype.kind == "f" or dtype.name == "bfloat16":
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
    feeds = make_feeds(model, seed)
    masks = _masks(model, kept) if is_exact else {}
    trial = _Trial(model, pruned, masks, threads)
    before, want, got = trial.run(feeds)
    for name in model.outputs:
        if np.shape(got[name]) != np.shape(want[name]):
            raise ProofError(
                f"output {name!r} of the pruned model has shape {list(np.shape(got[name]))} instead of "
                f"{list(np.shape(want[name]))}: nothing was written, please report this model"
            )
    tolerance = max(_TOLERANCES.get(str(model.dtypes.get(name)), _TOLERANCE) for name in model.outputs)
    if not is_exact:
        return Proof(0.0, _distance(before, got, model.outputs), 0, tolerance, is_exact)
    error, moved = trial.compare((before, want, got), feeds, kept)
    if not error <= tolerance and trial.leave_rounding_out():
        # A sum in another order can end on the other side of a rounding boundary: a whole step of eight bits. Without
        # the rounding the two models have to agree as closely as any others.
        error, moved = trial.compare(trial.run(feeds), feeds, kept)
    if error > tolerance:
        # Rounding can be magnified, by a softmax say: as much as an input that is off by a rounding error would be.
        tolerance = max(tolerance, min(_MAGNIFIED * trial.noise(feeds, seed), _LARGEST_TOLERANCE))
    if not error <= tolerance:  # also true for NaN
        raise ProofError(
            f"the pruned model differs from the masked original by {error:.2g} (allowed {tolerance:.2g}): "
            "nothing was written, please report this model"
        )
    return Proof(error, moved, len(masks), tolerance, is_exact, trial.is_rounded)


class _Trial:
    """Original, masked original and pruned model on the same input."""

    def __init__(self, model: Model, pruned: Model, masks: Mapping[tuple[int, int], Array], threads: int) -> None:
        self.model = model
        self.pruned = pruned
        self.masks = masks
        self.threads = threads
        self.as_float32 = self._needs_float32()
        self.is_rounded = True

    def _needs_float32(self) -> bool:
        """Whether the runtime cannot run the original as it is (convolutions in double or bfloat16, say)."""
        if not any(dtype.name in _OTHER_FLOATS for dtype in self.model.dtypes.values()):
            return False
        try:
            Session(self.model, is_exact=True)
        except ModelError:
            return True
        return False

    def run(self, feeds: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
        """Outputs of the original, of the masked original (the same without masks) and of the pruned model."""
        before = self._open(self.model).run(feeds)
        want = self._open(self.model, masks=self.masks).run(feeds) if self.masks else before
        return before, want, self._open(self.pruned).run(feeds)

    def leave_rounding_out(self) -> bool:
        """Leave the rounding of quantized activations out from now on; False where there is none."""
        self.is_rounded = not unrounded_pairs(self.model, frozenset())
        return not self.is_rounded

    def compare(
        self,
        results: tuple[dict[str, Array], dict[str, Array], dict[str, Array]],
        feeds: Mapping[str, Array],
        kept: Mapping[tuple[str, int], Positions],
    ) -> tuple[float, float]:
        """Error of the pruned model, and how far the masks moved the original."""
        before, want, got = results
        names = self.model.outputs
        error, moved = _distance(got, want, names), _finite(_distance(before, want, names))
        if self.masks and moved < _LEAST_MOVE:
            # A saturated output, or one that is no number, says little about the net before it, so the activations
            # are compared as well.
            inside = self.compare_inside(feeds, kept)
            error, moved = float(np.maximum(error, inside[0])), max(moved, _finite(inside[1]))
        return error, moved

    def noise(self, feeds: Mapping[str, Array], seed: int) -> float:
        """How far an input that is off by a rounding error moves the masked original's outputs."""
        rng = np.random.default_rng(seed + 1)
        shifted = {
            name: (value * (1 + 1e-6 * rng.standard_normal(value.shape))).astype(value.dtype)
            if value.dtype.kind == "f"
            else value
            for name, value in feeds.items()
        }
        session = self._open(self.model, masks=self.masks)
        return _distance(session.run(shifted), session.run(feeds), self.model.outputs)

    def compare_inside(
        self, feeds: Mapping[str, Array], kept: Mapping[tuple[str, int], Positions]
    ) -> tuple[float, float]:
        """Largest error and largest move inside the net.

        Compared are the activations that shrink, at the positions that stay, and what is summed up from them.
        """
        made = {name for node in self.pruned.nodes for name in node.outputs}
        masked = {index for index, _ in self.masks}
        sums = [node.outputs[0] for node in self.model.nodes if node.index in masked]
        candidates = dict.fromkeys([name for name, _ in kept] + sums)
        no_type = np.dtype(int)
        names = [name for name in candidates if name in made and self.model.dtypes.get(name, no_type).kind == "f"]
        want = self._open(self.model, names, self.masks).run(feeds)
        before = self._open(self.model, names).run(feeds)
        got = self._open(self.pruned, names).run(feeds)
        for (name, axis), positions in kept.items():
            if name in want:
                want[name] = want[name].take(positions, axis=axis)
                before[name] = before[name].take(positions, axis=axis)
        if any(want[name].shape != got[name].shape for name in names):
            return float("nan"), 0.0
        return _distance(got, want, names), _distance(before, want, names)

    def _open(
        self, model: Model, outputs: Sequence[str] = (), masks: Mapping[tuple[int, int], Array] | None = None
    ) -> Session:
        return Session(
            model,
            outputs or None,
            self.threads,
            is_exact=True,
            masks=masks,
            as_float32=self.as_float32,
            is_rounded=self.is_rounded,
        )


def _finite(value: float) -> float:
    return value if np.isfinite(value) else 0.0


def _masks(model: Model, kept: Mapping[tuple[str, int], Positions]) -> dict[tuple[int, int], Array]:
    """One mask per input slot of a summing operator, 1 where every axis keeps the position."""
    by_value: dict[str, dict[int, Positions]] = {}
    for (name, axis), positions in kept.items():
        by_value.setdefault(name, {})[axis] = positions
    masks = {}
    for node in model.nodes:
        if node.op_type not in SUMMING_OPERATORS:
            continue
        for slot, name in enumerate(node.inputs[:2]):
            if name in by_value:
                masks[node.index, slot] = _mask(model, name, by_value[name])
    return masks


def _mask(model: Model, name: str, axes: Mapping[int, Positions]) -> Array:
    shape = model.shapes[name]
    mask = np.ones((1,) * len(shape), model.dtypes.get(name, np.dtype(np.float32)))
    for axis, positions in axes.items():
        part = np.zeros(shape[axis], mask.dtype)
        part[positions] = 1
        mask = mask * part.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return mask


def _distance(first: Mapping[str, Array], second: Mapping[str, Array], names: Sequence[str]) -> float:
    """Largest difference over all floating-point outputs, relative to the largest value of the second."""
    worst = 0.0
    for name in names:
        a, b = np.asarray(first[name]), np.asarray(second[name])
        if a.dtype.kind != "f" or a.shape != b.shape or a.size == 0:
            continue
        a, b = a.astype(np.float64), b.astype(np.float64)
        if not (np.isfinite(b).all() and np.isfinite(a).all()):
            same = (np.isnan(a) == np.isnan(b)).all() and np.array_equal(a[np.isinf(a)], b[np.isinf(b)])
            if not same:
                return float("nan")
            a, b = np.where(np.isfinite(a), a, 0), np.where(np.isfinite(b), b, 0)
        scale = float(np.abs(b).max()) or 1.0
        worst = max(worst, float(np.abs(a - b).max()) / scale)
    return worst
