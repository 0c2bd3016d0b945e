"""REWRITE: compensation by least squares: the weights that stay take over what the others did.

Layer by layer, in the order of the graph: each is fitted to what it gave in the original, on inputs as the layers
before it, already fitted, now make them.

Source:
    He, Zhang, Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017, arXiv:1707.06168, sec. 3.2
    and 3.3 (asymmetric reconstruction, residual branches). Deviates: every layer behind the first pruned one is fitted,
    with its bias, and a ridge draws the weights to their old values, not to zero.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from srr_onnx.calibration.layers import LinearLayer, find_layers, take_positions
from srr_onnx.calibration.observe import Observation
from srr_onnx.calibration.stream import Stream
from srr_onnx.errors import DataError
from srr_onnx.graph.edit import Edits, apply_edits
from srr_onnx.graph.model import Model
from srr_onnx.rewriting.regression import Regression
from srr_onnx.rewriting.sinks import find_sink, is_changeable, prepare

Array = np.ndarray[Any, Any]
Kept = Mapping[tuple[str, int], Array]

# Strength of the ridge, as a share of the mean variance of a layer's inputs.
RIDGE = 0.01
# Outputs that the next scale makes this small, compared with the others, cannot be read back from behind it.
_LEAST_SCALE = 1e-3


@dataclasses.dataclass(frozen=True)
class Fit:
    """How well one layer was fitted.

    Attributes:
        layer: Its node.
        before: Mean squared error of its outputs on the samples as the layer was, relative to their variance.
        after: The same as it is now.
        columns: Numbers that each of its outputs is computed from.
        needed: Samples with as many positions as there are columns; with fewer, part of its weights is the ridge's.
    """

    layer: str
    before: float
    after: float
    columns: int
    needed: int


@dataclasses.dataclass(frozen=True, eq=False)
class Compensation:
    """The result.

    Attributes:
        model: The model with its new weights.
        fits: The layers that were fitted.
        created: Number of biases that the file did not have.
    """

    model: Model
    fits: tuple[Fit, ...]
    created: int


def compensate(
    pruned: Model,
    kept: Kept,
    observation: Observation,
    *,
    keep_structure: bool = False,
    ridge: float = RIDGE,
    on_layer: Callable[[int, int], None] = lambda done, steps: None,
) -> Compensation:
    """Fit the layers of a pruned model to what they gave in the original.

    Args:
        pruned: The pruned model; not changed.
        kept: Positions that stay, by `(value, axis)`, of every activation of the original that shrinks.
        observation: What the original's layers gave on samples.
        keep_structure: Whether no bias may be created.
        ridge: Strength of the ridge.
        on_layer: Told the layers done and all layers.

    Returns:
        The model with new weights.

    Raises:
        DataError: The pruned model gives values that are not finite.
        ModelError: onnxruntime cannot run the model on the samples.
    """
    disturbed = find_disturbed(pruned, kept)
    wanted = {
        layer.output
        for layer in find_layers(pruned)
        if layer.output in disturbed
        and observation.has_target(layer.output)
        and layer.read_bias(pruned.constants) is not None
    }
    model, created = prepare(pruned, wanted, wanted, keep_structure=keep_structure)
    layers = [layer for layer in find_layers(model) if layer.output in wanted and is_changeable(model, layer)]
    tasks = [_Task(model, layer, observation, kept) for layer in layers]
    samples = observation.samples
    contents: dict[str, Array] = {}
    fits = []
    with Stream(model, samples.chunks, [task.reads for task in tasks], as_float32=samples.as_float32) as stream:
        for number, task in enumerate(tasks):
            fits.append(task.fit(stream, contents, ridge))
            on_layer(number + 1, len(tasks))
    return Compensation(apply_edits(model, Edits(tensors=contents)) if contents else pruned, tuple(fits), created)


def find_disturbed(pruned: Model, kept: Kept) -> set[str]:
    """Find values that are not what they were in the original.

    Args:
        pruned: The pruned model.
        kept: Positions that stay, by `(value, axis)`.

    Returns:
        Their names: what follows from an operator that reads fewer channels than it did.
    """
    shrunk = {name for name, _ in kept}
    found: set[str] = set()
    for node in pruned.nodes:
        if any(name in shrunk or name in found for name in (*node.inputs, *node.captured)):
            found.update(node.outputs)
    return found


class _Task:
    """One layer to be fitted."""

    def __init__(self, model: Model, layer: LinearLayer, observation: Observation, kept: Kept) -> None:
        self._layer = layer
        self._observation = observation
        observed = observation.layers[layer.output]
        self._kept = kept.get((layer.output, layer.output_axis), np.arange(layer.outputs))
        tail = observed.tail
        self._scale, self._shift = tail.scale[self._kept], tail.shift[self._kept]
        self._other = tail.other if observed.target == tail.total else None
        self._variance = float(observed.variance[self._kept].sum())
        self._sink = find_sink(model, layer)
        self._weight = model.constants[layer.weight]
        bias = layer.read_bias(model.constants)
        assert bias is not None, "other layers are not fitted"
        self._bias = bias
        self._sunk = None if self._sink is None else model.constants[self._sink.constant]

    @property
    def reads(self) -> list[str]:
        """Values that are needed to fit it."""
        return [self._layer.source, *([self._other] if self._other else [])]

    def fit(self, stream: Stream, contents: dict[str, Array], ridge: float) -> Fit:
        """Fit the layer to what comes out of the layers before it; the new weights go into `contents`."""
        layer, samples = self._layer, self._observation.samples
        matrix = layer.to_matrix(self._weight)
        is_readable = np.abs(self._scale) > _LEAST_SCALE * np.abs(self._scale).max()
        start = np.where(is_readable.reshape(layer.blocks, 1, -1), matrix, 0)
        regression: Regression | None = None
        count = 0
        for chunk, values in enumerate(stream.advance(contents)):
            positions = self._observation.choose(layer.output, chunk)
            shape = self._observation.shapes[layer.output, chunk]
            rows = layer.take_rows(values[layer.source], shape, positions)
            if regression is None:
                count = len(rows) * len(samples.chunks)
                regression = Regression(layer.columns, count, has_offset=self._sink is not None, start=start)
            targets = self._find_targets(chunk, values, positions, is_readable)
            regression.add(rows, targets.reshape(len(rows), layer.blocks, -1))
        assert regression is not None, "samples have at least one chunk"
        with np.errstate(all="ignore"):  # what is not finite is an error all the same
            solution = regression.solve(ridge)
        if not (np.isfinite(solution.change).all() and np.isfinite(solution.offset).all()):
            raise DataError(
                f"node {layer.node.label!r} cannot be fitted: the pruned model gives values there that are NaN or "
                "infinite; check the preprocessing, or give --compensate none"
            )
        contents[layer.weight] = layer.from_matrix(matrix + solution.change).astype(self._weight.dtype)
        if self._sink is not None and self._sunk is not None:
            contents[self._sink.constant] = self._sink.add(self._sunk, solution.offset)
        power = (self._scale**2).reshape(solution.before.shape) / (self._variance or 1.0)
        before, after = (float((power * part).sum()) for part in (solution.before, solution.after))
        needed = -(-layer.columns * samples.count // max(count, 1))
        return Fit(layer.node.label, before, after, layer.columns, needed)

    def _find_targets(self, chunk: int, values: Mapping[str, Array], positions: Array, is_readable: Array) -> Array:
        """What the layer should give at some positions, less its bias; 0 where that cannot be read back.

        Args:
            chunk: Number of the chunk.
            values: Values of the pruned model.
            positions: The positions, shape `(R,)`.
            is_readable: Shape `(O,)`.

        Returns:
            Shape `(R, O)`.
        """
        wanted = self._observation.targets.get(self._layer.output, chunk)[:, self._kept] - self._shift
        if self._other:
            wanted = wanted - take_positions(values[self._other], positions, self._layer.output_axis)
        return np.where(is_readable, wanted / np.where(is_readable, self._scale, 1.0) - self._bias, 0.0)
