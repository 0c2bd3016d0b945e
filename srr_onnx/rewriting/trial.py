"""REWRITE: original, masked original and pruned model side by side, run on the same inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from srr_onnx.analysis.rule import Positions
from srr_onnx.errors import ModelError
from srr_onnx.graph.model import Model
from srr_onnx.graph.quantization import unrounded_pairs
from srr_onnx.targets.onnxruntime import Session

Array = np.ndarray[Any, Any]
Results = dict[str, Array]

# A masked channel drops out of exactly these; everywhere else it does no harm.
SUMMING_OPERATORS = frozenset(
    {
        "Conv",
        "ConvTranspose",
        "DeformConv",
        "Gemm",
        "MatMul",
        "Attention",
        "LSTM",
        "GRU",
        "RNN",
        "Einsum",
        "ReduceSum",
        "ReduceL2",
        "ReduceSumSquare",
    }
)

_OTHER_FLOATS = frozenset({"float64", "float16", "bfloat16"})
# Masks that move the outputs by less than this leave the proof to the activations.
_LEAST_MOVE = 1e-3


class Trial:
    """The three models of a proof.

    Args:
        model: The original.
        pruned: The pruned model.
        masks: Result of `make_masks`.
        threads: Threads per operator; 0 lets the runtime choose.
    """

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

    def run_original(self, feeds: Mapping[str, Array]) -> tuple[Results, Results]:
        """Outputs of the original and of the masked original (the same without masks)."""
        before = self._open(self.model).run(feeds)
        return before, self._open(self.model, masks=self.masks).run(feeds) if self.masks else before

    def run_pruned(self, feeds: Mapping[str, Array]) -> Results:
        """Outputs of the pruned model."""
        return self._open(self.pruned).run(feeds)

    def leave_rounding_out(self) -> bool:
        """Leave the rounding of quantized activations out from now on; False where there is none."""
        self.is_rounded = not unrounded_pairs(self.model, frozenset())
        return not self.is_rounded

    def compare(
        self,
        before: Results,
        want: Results,
        got: Results,
        feeds: Mapping[str, Array],
        kept: Mapping[tuple[str, int], Positions],
    ) -> tuple[float, float]:
        """Error of the pruned model, and how far the masks moved the original."""
        names = self.model.outputs
        error, moved = distance(got, want, names), _finite(distance(before, want, names))
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
        return distance(session.run(shifted), session.run(feeds), self.model.outputs)

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
        return distance(got, want, names), distance(before, want, names)

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


def make_masks(model: Model, kept: Mapping[tuple[str, int], Positions]) -> dict[tuple[int, int], Array]:
    """Make one mask per input slot of a summing operator.

    Args:
        model: The original.
        kept: Positions that stay, by `(value, axis)`.

    Returns:
        Arrays that broadcast to the input, 1 where every axis keeps the position, by `(node index, slot)`.
    """
    by_value: dict[str, dict[int, Positions]] = {}
    for (name, axis), positions in kept.items():
        by_value.setdefault(name, {})[axis] = positions
    masks = {}
    for node in model.nodes:
        if node.op_type not in SUMMING_OPERATORS:
            continue
        # Only an Einsum sums over more than its first two operands.
        for slot, name in enumerate(node.inputs if node.op_type == "Einsum" else node.inputs[:2]):
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


def distance(first: Mapping[str, Array], second: Mapping[str, Array], names: Sequence[str]) -> float:
    """Measure how far two results are apart.

    Args:
        first: Values by name.
        second: Others.
        names: Which to compare.

    Returns:
        Largest difference over all floating-point values, relative to the largest value of the second; NaN where only
        one of the two is finite.
    """
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
