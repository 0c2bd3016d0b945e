"""CALIBRATE: what activations look like where there are no samples: a guess from the normalizations in the file.

A BatchNormalization says how its outputs are distributed: mean beta, standard deviation gamma. How two channels go
together follows from the filters before it: filters that are alike give outputs that are alike. Draws from that
distribution are sent through whatever works on each position alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from srr_onnx.calibration.layers import LinearLayer, find_layers
from srr_onnx.graph.model import Model, Node
from srr_onnx.graph.segment import read_values
from srr_onnx.targets.onnxruntime import SegmentSession

Array = np.ndarray[Any, Any]

DRAWS = 4096
# Correlation of an activation with its neighbor one pixel away: pictures are smooth.
_SMOOTHNESS = 0.7

_PASSED = frozenset({"AveragePool", "Dropout", "GlobalAveragePool", "GlobalMaxPool", "Identity", "MaxPool", "Resize"})
_POSITIONWISE = frozenset(
    {"Abs", "Add", "Cast", "Celu", "Clip", "Concat", "Div", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish"}
    | {"LeakyRelu", "Max", "Min", "Mish", "Mul", "Neg", "PRelu", "Pow", "Relu", "Selu", "Sigmoid", "Softplus"}
    | {"Softsign", "Split", "Sqrt", "Sub", "Sum", "Swish", "Tanh"}
)


def draw_activations(model: Model, seed: int = 0) -> Iterator[tuple[LinearLayer, Array]]:
    """Draw what linear layers read.

    Args:
        model: Loaded model.
        seed: For the draws.

    Yields:
        In execution order, the layers whose input follows from normalizations, with draws of shape `(DRAWS, channels)`.
    """
    layers = {layer.node.index: layer for layer in find_layers(model)}
    by_output = {layer.output: layer for layer in layers.values()}
    last = {name: place for place, node in enumerate(model.nodes) for name in read_values([node])}
    known: dict[str, Array] = {}
    spreads: dict[str, Array] = {}
    for place, node in enumerate(model.nodes):
        layer = layers.get(node.index)
        if layer is not None:
            if layer.source in known:
                yield layer, known[layer.source]
            if any(reader.op_type == "BatchNormalization" for reader in model.consumers.get(layer.output, ())):
                spreads[layer.output] = _correlate(model, layer, known.get(layer.source))
        elif node.op_type == "BatchNormalization" and node.inputs[0] in by_output:
            drawn = _draw(model, node, spreads.get(node.inputs[0]), seed)
            if drawn is not None:
                known[node.outputs[0]] = drawn
        else:
            _pass_on(model, node, known)
        for name in read_values([node]):
            if last[name] == place:
                known.pop(name, None)
                spreads.pop(name, None)


def _draw(model: Model, node: Node, correlation: Array | None, seed: int) -> Array | None:
    arrays = [model.constants.get(name) for name in node.inputs[1:5]]
    if any(array is None for array in arrays) or correlation is None:
        return None
    gamma, beta = (np.asarray(array, np.float64) for array in arrays[:2])
    values, vectors = np.linalg.eigh(correlation)
    root = vectors * np.sqrt(np.maximum(values, 0))
    normal = np.random.default_rng([seed, node.index]).standard_normal((DRAWS, len(gamma)))
    return np.asarray(beta + (normal @ root.T) * gamma, np.float32)


def _correlate(model: Model, layer: LinearLayer, inputs: Array | None) -> Array:
    """Correlation of a layer's outputs, if neighbors and inputs go together as assumed; shape `(O, O)`."""
    matrix = layer.to_matrix(model.constants[layer.weight]).astype(np.float64)
    blocks, _, per_block = matrix.shape
    height = layer.channels // blocks
    parts = matrix.reshape(blocks, height, layer.taps, per_block)
    smoothed = np.einsum("kl,bclo->bcko", _tap_correlation(layer), parts)
    spread = np.eye(layer.channels)
    if inputs is not None and layer.channels == inputs.shape[1]:
        spread = np.cov(inputs, rowvar=False).reshape(layer.channels, layer.channels)
    by_block = spread.reshape(layer.channels, blocks, height).transpose(1, 0, 2)
    covariance = np.zeros((layer.outputs, layer.outputs))
    for tap in range(layer.taps):
        right = (by_block @ smoothed[:, :, tap]).transpose(1, 0, 2)  # (all channels, blocks, outputs / blocks)
        left = parts[:, :, tap].transpose(0, 2, 1)  # (blocks, outputs / blocks, channels / blocks)
        covariance += (left @ right.reshape(blocks, height, layer.outputs)).reshape(covariance.shape)
    scale = np.sqrt(np.maximum(np.diag(covariance), 1e-30))
    return np.asarray(covariance / scale[:, None] / scale[None, :])


def _tap_correlation(layer: LinearLayer) -> Array:
    kernel = layer.weight_shape[2:] if layer.taps > 1 else ()
    places = np.stack(np.unravel_index(np.arange(math.prod(kernel)), kernel), axis=1) if kernel else np.zeros((1, 1))
    distances = np.sqrt(((places[:, None] - places[None, :]) ** 2).sum(axis=2))
    return np.asarray(_SMOOTHNESS**distances)


def _pass_on(model: Model, node: Node, known: dict[str, Array]) -> None:
    """Send draws through a node that works on each position alone; what is not known stays unknown."""
    reads = [name for name in node.inputs if name and name not in model.constants]
    if node.domain or not reads or any(name not in known for name in reads):
        return
    if node.op_type in _PASSED:
        known[node.outputs[0]] = known[reads[0]]
        return
    if node.op_type in ("Flatten", "Reshape", "Squeeze", "ReduceMean"):
        shape = model.shapes.get(node.outputs[0], ())
        if known[reads[0]].shape[1] in shape and math.prod(shape) == shape[0] * known[reads[0]].shape[1]:
            known[node.outputs[0]] = known[reads[0]]
        return
    if node.op_type not in _POSITIONWISE or any(len(model.shapes.get(name, ())) != 4 for name in reads):
        return
    outputs = [name for name in node.outputs if name]
    session = SegmentSession(model, [node], list(dict.fromkeys(reads)), outputs, {}, as_float32=True)
    results = session.run({name: known[name][:, :, None, None] for name in reads})
    for name, value in results.items():
        if value.ndim == 4 and value.shape[2:] == (1, 1) and value.shape[1] == model.shapes.get(name, (0, 0))[1]:
            known[name] = value[:, :, 0, 0]
