"""CALIBRATE: the original model's behavior on samples: what every layer reads, and what it should give."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from srr_onnx.calibration.layers import LinearLayer
from srr_onnx.calibration.moments import Moments, RowBuffer, Variance
from srr_onnx.calibration.stream import Store, Stream
from srr_onnx.calibration.tails import Tail, find_settled, find_tail
from srr_onnx.errors import DataError
from srr_onnx.graph.model import Model
from srr_onnx.wording import counted

Array = np.ndarray[Any, Any]

POSITIONS_PER_SAMPLE = 32
# Activations beyond this are an error: sums of their squares come near the end of float32.
_LARGEST = 1e15


@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
    """Inputs to calibrate with.

    Attributes:
        chunks: Inputs by name; each chunk is one run.
        count: Number of samples in all.
        seed: For the choice of positions.
        as_float32: Whether onnxruntime has to compute the model in float32.
        is_fixed: Whether the file states how many samples one run takes.
    """

    chunks: Sequence[Mapping[str, Array]]
    count: int
    seed: int = 0
    as_float32: bool = False
    is_fixed: bool = False

    def choose(self, chunk: int, layer: int, total: int) -> Array:
        """Choose positions of one chunk: the same ones for the same layer in every model.

        Args:
            chunk: Number of the chunk.
            layer: Index of the layer's node in the original.
            total: Number of positions to choose from.

        Returns:
            Sorted, without repetition.
        """
        samples = max(1, self.count // len(self.chunks))
        wanted = samples * POSITIONS_PER_SAMPLE
        if total <= wanted:
            return np.arange(total)
        rng = np.random.default_rng([self.seed, chunk, layer])
        return np.sort(rng.choice(total, wanted, replace=False))


@dataclasses.dataclass(frozen=True, eq=False)
class Observed:
    """What one layer did on the samples.

    Attributes:
        layer: The layer.
        tail: What becomes of its output.
        moments: Mean and covariance of its rows.
        columns: The columns that the moments are of; None for all.
        variance: Variance of `tail.total` per channel, shape `(O,)`.
        target: `tail.total` where its other summand is final before this layer is, else `tail.inner`.
    """

    layer: LinearLayer
    tail: Tail
    moments: Moments | None
    columns: Array | None
    variance: Array
    target: str


class Observation:
    """What all layers did on the samples; the outputs are kept row by row, on disk beyond a limit, until `close`.

    Attributes:
        samples: The samples.
        layers: By the name of the layer's output.
        shapes: Shape of a layer's output by its name and chunk.
        targets: Rows of `Observed.target` by the name of the layer's output and chunk, shape `(R, O)`.
    """

    def __init__(self, samples: Samples) -> None:
        self.samples = samples
        self.layers: dict[str, Observed] = {}
        self.shapes: dict[tuple[str, int], tuple[int, ...]] = {}
        self.targets = Store()

    def close(self) -> None:
        """Drop the outputs, those on disk too."""
        self.targets.close()

    def has_target(self, output: str) -> bool:
        """Whether a layer's outputs were kept."""
        return (output, 0) in self.targets

    def choose(self, output: str, chunk: int) -> Array:
        """The positions at which a layer was watched in one chunk, shape `(R,)`."""
        layer = self.layers[output].layer
        return self.samples.choose(chunk, layer.node.index, layer.count_positions(self.shapes[output, chunk]))


def observe(
    model: Model,
    layers: Sequence[LinearLayer],
    samples: Samples,
    with_moments: Mapping[str, Array | None],
    with_targets: Collection[str],
    on_layer: Callable[[int, int], None] = lambda done, steps: None,
    on_observed: Callable[[Observed], None] = lambda observed: None,
) -> Observation:
    """Run the samples through a model and keep what is asked for.

    Args:
        model: The original.
        layers: Result of `find_layers(model)`.
        samples: Inputs.
        with_moments: Outputs of the layers whose covariance is wanted, with the columns of a block to take; None for
            all.
        with_targets: Outputs of the layers whose outputs are wanted, row by row.
        on_layer: Told the layers done and all layers.
        on_observed: Given every layer as soon as it is done; may use its moments up.

    Returns:
        The observation.

    Raises:
        DataError: An activation is not finite, or absurdly large.
        ModelError: onnxruntime cannot run the model on the samples.
    """
    found = Observation(samples)
    settled = find_settled(model, layers)
    plans = []
    for layer in layers:
        if layer.output in with_moments or layer.output in with_targets:
            tail = find_tail(model, layer)
            is_final = tail.other is not None and settled.get(tail.other, -1) < settled[layer.output]
            plans.append((layer, tail, tail.total if is_final else tail.inner))
    stops = [{tail.total, target, *[layer.source] * (layer.output in with_moments)} for layer, tail, target in plans]
    with Stream(model, samples.chunks, stops, as_float32=samples.as_float32) as stream:
        for number, (layer, tail, target) in enumerate(plans):
            columns, has_moments = with_moments.get(layer.output), layer.output in with_moments
            moments, spread, buffer = Moments(), Variance(), RowBuffer()
            for chunk, values in enumerate(stream.advance()):
                total = values[tail.total]
                positions = samples.choose(chunk, layer.node.index, layer.count_positions(total.shape))
                found.shapes[layer.output, chunk] = total.shape
                rows = layer.take_outputs(total, positions)
                _check_sane(rows, layer, "gives")
                spread.add(rows)
                if layer.output in with_targets:
                    found.targets.put(layer.output, chunk, layer.take_outputs(values[target], positions))
                if has_moments:
                    sources = layer.take_rows(values[layer.source], total.shape, positions)
                    _check_sane(sources, layer, "reads")
                    ready = buffer.push(sources if columns is None else sources[:, :, columns])
                    if ready is not None:
                        moments.add(*ready)
            rest = buffer.drain()
            if rest is not None:
                moments.add(*rest)
            observed = Observed(layer, tail, moments if has_moments else None, columns, spread.get(), target)
            found.layers[layer.output] = observed
            on_observed(observed)
            on_layer(number + 1, len(plans))
    return found


def _check_sane(rows: Array, layer: LinearLayer, verb: str) -> None:
    largest = np.abs(rows.astype(np.float32, copy=False)).max(initial=0)  # the limit itself is no float16
    if largest <= _LARGEST:
        return
    count = int(np.count_nonzero(~np.isfinite(rows)))
    what = f"{counted(count, 'number')} NaN or infinite" if count else f"numbers up to {largest:.0e}, too large"
    raise DataError(f"node {layer.node.label!r} {verb} {what} on the samples: check the preprocessing, or the model")
