"""REWRITE: original, masked original and pruned model side by side, run on the same inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from srr_onnx.analysis.rule import Positions
from srr_onnx.calibration.runs import has_halves
from srr_onnx.errors import ModelError, ProofError
from srr_onnx.graph.model import Model
from srr_onnx.graph.quantization import unrounded_pairs
from srr_onnx.rewriting.differences import Differences, find_feeding, is_float, measure_differences
from srr_onnx.targets.onnxruntime import Session

Array = np.ndarray[Any, Any]
Results = dict[str, Array]

# A masked channel drops out of exactly these; everywhere else it does no harm. docs/plan-file.md promises this list to
# those who check a result from outside; what other operators sum over (Attention, DeformConv) goes inexactly.
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

# Masks that move the outputs by less than this leave the proof to the activations.
_LEAST_MOVE = 1e-3


class Trial:
    """The three models of a proof.

    Args:
        model: The original.
        pruned: The pruned model.
        masks: Result of `make_masks`.
        threads: Threads per operator; 0 lets the runtime choose.

    Attributes:
        compared: Outputs, and the floating-point values behind outputs of another kind.
        inside: Activations that had to be compared as well.
        as_float32: Whether all of it runs in float32.
        is_rounded: Whether quantized activations are rounded.
    """

    def __init__(self, model: Model, pruned: Model, masks: Mapping[tuple[int, int], Array], threads: int) -> None:
        self.model = model
        self.pruned = pruned
        self.masks = masks
        self.threads = threads
        self.as_float32 = self._needs_float32()
        self.is_rounded = True
        self._made = {name for node in pruned.nodes for name in node.outputs if name}
        self.compared = list(dict.fromkeys([*model.outputs, *find_feeding(model, self._made)]))
        self.inside: list[str] = []

    def _needs_float32(self) -> bool:
        """Whether types are too coarse to tell a mistake from rounding, or nothing that the runtime can run."""
        if has_halves(self.model):
            return True
        if "float64" not in {dtype.name for dtype in self.model.dtypes.values()}:
            return False
        try:
            Session(self.model, is_exact=True)
        except ModelError:
            return True
        return False

    def open_optimized(self) -> tuple[Session, Session]:
        """Open the original and the pruned model as they will run: without masks, with all optimizations."""
        first, second = (
            Session(model, threads=self.threads, as_float32=self.as_float32, is_rounded=self.is_rounded)
            for model in (self.model, self.pruned)
        )
        return first, second

    def run_original(self, feeds: Mapping[str, Array]) -> tuple[Results, Results]:
        """Compared values of the original and of the masked original (the same without masks)."""
        before = self._open(self.model, self.compared).run(feeds)
        return before, self._open(self.model, self.compared, self.masks).run(feeds) if self.masks else before

    def run_pruned(self, feeds: Mapping[str, Array]) -> Results:
        """Compared values of the pruned model."""
        return self._open(self.pruned, self.compared).run(feeds)

    def run_in_own_types(self, feeds: Mapping[str, Array]) -> tuple[Results, Results] | None:
        """Outputs of the masked original and of the pruned model as their files are; None if the runtime cannot.

        Raises:
            ProofError: It can run the original, not the pruned model.
        """
        names = self.model.outputs
        try:
            want = Session(self.model, names, self.threads, is_exact=True, masks=self.masks).run(feeds)
        except ModelError:
            return None
        try:
            return want, Session(self.pruned, names, self.threads, is_exact=True).run(feeds)
        except ModelError as error:
            raise ProofError(
                f"the pruned model does not run in its own types, as the original does: {error}"
            ) from error

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
    ) -> tuple[Differences, float]:
        """How far the pruned model is from the masked original, and how far the masks moved the original."""
        inner = {(name, axis): kept[name, axis] for name, axis in kept if name in self.compared}
        errors, moved = self._differ(before, want, got, inner)
        if self.masks and moved < _LEAST_MOVE:
            # A saturated output, or one that is no number, says little about the net before it, so the activations
            # are compared as well.
            self.inside = self._find_inside(kept)
            want = self._open(self.model, self.inside, self.masks).run(feeds)
            before = self._open(self.model, self.inside).run(feeds)
            got = self._open(self.pruned, self.inside).run(feeds)
            more, further = self._differ(before, want, got, kept)
            errors, moved = errors.joined(more), max(moved, further)
        return errors, moved

    def noise(self, feeds: Mapping[str, Array], seed: int) -> Differences:
        """How far an input that is off by a rounding error moves the compared values of the masked original."""
        rng = np.random.default_rng(seed + 1)
        exact = {name: value.astype(np.float32) if self.as_float32 else value for name, value in feeds.items()}
        shifted = {
            name: (value * (1 + 1e-6 * rng.standard_normal(value.shape))).astype(value.dtype)
            if value.dtype.kind == "f"
            else value
            for name, value in exact.items()
        }
        names = [*self.compared, *self.inside]
        # One session for each: in a second run, random numbers are not those of the first.
        first, second = (self._open(self.model, names, self.masks).run(inputs) for inputs in (shifted, exact))
        return measure_differences(first, second, names)

    def _differ(
        self, before: Results, want: Results, got: Results, kept: Mapping[tuple[str, int], Positions]
    ) -> tuple[Differences, float]:
        """Differences of the pruned model, and how far the masks move the numbers, at the positions that stay."""
        names = list(want)
        for (name, axis), positions in kept.items():
            if name in want:
                want[name] = want[name].take(positions, axis=axis)
                before[name] = before[name].take(positions, axis=axis)
        return measure_differences(got, want, names), measure_differences(before, want, names).largest_finite

    def _find_inside(self, kept: Mapping[tuple[str, int], Positions]) -> list[str]:
        """The activations that shrink, and what is made of them and does not."""
        shrinking = {name for name, _ in kept}
        ends = [name for node in self.model.nodes if shrinking.intersection(node.inputs) for name in node.outputs]
        candidates = dict.fromkeys([*shrinking, *ends])
        return [name for name in candidates if name in self._made and is_float(self.model, name)]

    def _open(
        self, model: Model, outputs: Sequence[str], masks: Mapping[tuple[int, int], Array] | None = None
    ) -> Session:
        return Session(
            model,
            outputs,
            self.threads,
            is_exact=True,
            masks=masks,
            as_float32=self.as_float32,
            is_rounded=self.is_rounded,
        )


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
