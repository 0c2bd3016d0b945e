"""CALIBRATE: convolutions and products as one thing: rows of inputs times a matrix.

A row holds what one output position reads, so `outputs = rows @ matrix + bias` for Conv, ConvTranspose, Gemm and MatMul
alike. Rows are taken at chosen positions only: neighbors say little that is new.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from srr_onnx.analysis.groups import Use
from srr_onnx.graph.model import Model, Node

Array = np.ndarray[Any, Any]
Rows = np.ndarray[Any, Any]

_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})


@dataclasses.dataclass(frozen=True, eq=False)
class LinearLayer:
    """A node that multiplies an activation with a constant matrix.

    Columns of a row run over the input channels of a block, and for each of them over the kernel's taps.

    Attributes:
        node: The node.
        source: The activation it reads.
        output: The activation it makes.
        use: Where the weight is read.
        weight: Name of the weight constant.
        blocks: Number of groups of a grouped convolution, else 1.
        channels: Input channels, of all blocks together.
        outputs: Output channels, of all blocks together.
        taps: Size of the kernel: columns per input channel.
        source_axis: Axis of the input channels in `source`.
        output_axis: Axis of the output channels in `output`.
        weight_shape: Shape of the weight.
    """

    node: Node
    source: str
    output: str
    use: Use
    weight: str
    blocks: int
    channels: int
    outputs: int
    taps: int
    source_axis: int
    output_axis: int
    weight_shape: tuple[int, ...]

    @property
    def columns(self) -> int:
        """Columns of a block's rows."""
        return self.channels // self.blocks * self.taps

    @property
    def bias(self) -> str:
        """Name of the bias, "" where there is none."""
        return "" if self.node.op_type == "MatMul" else self.node.input(2)

    def read_bias(self, constants: Mapping[str, Array]) -> Array | None:
        """What is added to every row of outputs.

        Args:
            constants: The model's.

        Returns:
            Shape `(O,)` or `()`, 0 where there is no bias; None where it is not constant, or not the same for all rows.
        """
        if not self.bias:
            return np.zeros((), np.float32)
        bias = constants.get(self.bias)
        if bias is None or (bias.size != 1 and (bias.size != self.outputs or bias.shape[-1] != self.outputs)):
            return None
        return np.asarray(bias.reshape(() if bias.size == 1 else -1) * self.bias_scale)

    @property
    def _scale(self) -> float:
        return float(self.node.attributes.get("alpha", 1.0)) if self.node.op_type == "Gemm" else 1.0

    @property
    def bias_scale(self) -> float:
        """What the bias is multiplied with."""
        return float(self.node.attributes.get("beta", 1.0)) if self.node.op_type == "Gemm" else 1.0

    def to_matrix(self, weight: Array) -> Array:
        """Bring a weight into the form `(blocks, columns, outputs / blocks)`, float32 or float64."""
        if weight.dtype not in (np.float32, np.float64):
            weight = weight.astype(np.float32)
        per_block = self.outputs // self.blocks
        if self.node.op_type == "Conv":
            return np.asarray(weight.reshape(self.blocks, per_block, self.columns).transpose(0, 2, 1))
        if self.node.op_type == "ConvTranspose":
            parts = weight.reshape(self.blocks, self.channels // self.blocks, per_block, self.taps)
            return np.asarray(parts.transpose(0, 1, 3, 2).reshape(self.blocks, self.columns, per_block))
        matrix = weight.T if self.node.attributes.get("transB", 0) else weight
        return np.asarray(matrix[None] * weight.dtype.type(self._scale))

    def from_matrix(self, matrix: Array) -> Array:
        """Inverse of `to_matrix`."""
        if self.node.op_type == "Conv":
            return np.asarray(matrix.transpose(0, 2, 1).reshape(self.weight_shape))
        if self.node.op_type == "ConvTranspose":
            parts = matrix.reshape(self.blocks, self.channels // self.blocks, self.taps, self.outputs // self.blocks)
            return np.asarray(parts.transpose(0, 1, 3, 2).reshape(self.weight_shape))
        weight = matrix[0] / self._scale
        return np.asarray(weight.T if self.node.attributes.get("transB", 0) else weight)

    def count_positions(self, output_shape: tuple[int, ...]) -> int:
        """Number of positions in an output of this shape."""
        return math.prod(output_shape) // self.outputs

    def take_outputs(self, output: Array, positions: Array) -> Rows:
        """Outputs at some positions.

        Args:
            output: A value of the shape of `output`, `(N, O, ...)` or `(..., O)`.
            positions: Shape `(R,)`, below `count_positions`.

        Returns:
            Shape `(R, O)`.
        """
        return take_positions(output, positions, self.output_axis)

    def take_rows(self, source: Array, output_shape: tuple[int, ...], positions: Array) -> Rows:
        """What some output positions read.

        Args:
            source: Content of `source`.
            output_shape: Shape of the output that is made of it.
            positions: Shape `(R,)`, below `count_positions`.

        Returns:
            Shape `(R, blocks, columns)`; 0 where a tap lies in the padding.
        """
        if self.node.op_type not in _CONVOLUTIONS:
            return np.asarray(source.reshape(-1, self.channels)[positions][:, None, :])
        spatial = output_shape[2:]
        images, places = np.divmod(positions, max(1, math.prod(spatial)))
        coordinates = np.unravel_index(places, spatial) if spatial else ()
        flat = np.zeros((len(positions), 1), np.int64)
        is_inside = np.ones((len(positions), 1), bool)
        for axis, size in enumerate(source.shape[2:]):
            table = _read_by(self, axis, size, spatial[axis])[coordinates[axis]]
            flat = (flat[:, :, None] * size + np.maximum(table, 0)[:, None, :]).reshape(len(positions), -1)
            is_inside = (is_inside[:, :, None] & (table >= 0)[:, None, :]).reshape(len(positions), -1)
        pixels = source.reshape(*source.shape[:2], -1)
        rows = pixels[images[:, None], :, flat]  # (R, taps, channels)
        if not is_inside.all():
            rows *= is_inside[:, :, None]
        return np.asarray(rows.transpose(0, 2, 1).reshape(len(positions), self.blocks, self.columns))


def take_positions(value: Array, positions: Array, axis: int) -> Rows:
    """Channels of a value at some positions, these being counted over all other axes in order.

    Args:
        value: Any array.
        positions: Shape `(R,)`.
        axis: The channels' axis.

    Returns:
        Shape `(R, channels)`.
    """
    if axis in (-1, value.ndim - 1):
        return np.asarray(value.reshape(-1, value.shape[-1])[positions])
    pixels = value.reshape(*value.shape[:2], -1)
    images, places = np.divmod(positions, max(1, pixels.shape[2]))
    return np.asarray(pixels[images, :, places])


def _read_by(layer: LinearLayer, axis: int, size: int, out_size: int) -> Array:
    """Input coordinate that every output coordinate reads through every tap; -1 in the padding.

    Args:
        layer: A convolution.
        axis: Spatial axis.
        size: Input size along it.
        out_size: Output size along it.

    Returns:
        Shape `(out_size, kernel)`.

    Source:
        ONNX operators Conv and ConvTranspose.
    """
    attributes = layer.node.attributes
    kernel = layer.weight_shape[2 + axis]
    rank = len(layer.weight_shape) - 2
    stride = attributes.get("strides", [1] * rank)[axis]
    dilation = attributes.get("dilations", [1] * rank)[axis]
    mode = attributes.get("auto_pad", "NOTSET")
    begin = attributes.get("pads", [0] * 2 * rank)[axis] if mode in ("NOTSET", "") else 0
    extent = (kernel - 1) * dilation + 1
    outputs, taps = np.arange(out_size)[:, None], np.arange(kernel)[None, :] * dilation
    if layer.node.op_type == "Conv":
        if mode.startswith("SAME"):
            total = max(0, (out_size - 1) * stride + extent - size)
            begin = total // 2 if mode == "SAME_UPPER" else total - total // 2
        places = outputs * stride + taps - begin
    else:
        if mode.startswith("SAME") or "output_shape" in attributes:
            extra = attributes.get("output_padding", [0] * rank)[axis]
            total = max(0, stride * (size - 1) + extra + extent - out_size)
            begin = total // 2 if mode == "SAME_UPPER" else total - total // 2
        places, left = np.divmod(outputs + begin - taps, stride)
        places = np.where(left == 0, places, -1)
    return np.where((places >= 0) & (places < size), places, -1)


def find_layers(model: Model) -> list[LinearLayer]:
    """Find all linear layers.

    Args:
        model: Loaded model.

    Returns:
        In execution order. Products of two activations, of a transposed one, with a batch of matrices, and those whose
        alpha is 0 are none.
    """
    return [layer for node in model.nodes if (layer := _make_layer(model, node)) is not None]


def _make_layer(model: Model, node: Node) -> LinearLayer | None:
    if node.domain or node.op_type not in {"Conv", "ConvTranspose", "Gemm", "MatMul"}:
        return None
    source, weight = node.inputs[0], model.constants.get(node.input(1))
    shape, out_shape = model.shapes.get(source), model.shapes.get(node.outputs[0])
    if weight is None or source in model.constants or shape is None or out_shape is None:
        return None
    if weight.size == 0 or not (weight.dtype.kind == "f" or "bfloat16" in weight.dtype.name):
        return None
    use = Use(node.index, 1)
    if node.op_type in _CONVOLUTIONS:
        blocks = node.attributes.get("group", 1)
        is_transposed = node.op_type == "ConvTranspose"
        channels = weight.shape[0] if is_transposed else weight.shape[1] * blocks
        outputs = weight.shape[1] * blocks if is_transposed else weight.shape[0]
        taps = math.prod(weight.shape[2:])
        return LinearLayer(
            node, source, node.outputs[0], use, node.inputs[1], blocks, channels, outputs, taps, 1, 1, weight.shape
        )
    if weight.ndim != 2 or node.attributes.get("transA", 0) or len(shape) < 2:
        return None
    if node.op_type == "Gemm" and node.attributes.get("alpha", 1.0) == 0:  # no weight says what the matrix is
        return None
    channels, outputs = weight.shape[::-1] if node.attributes.get("transB", 0) else weight.shape
    last = len(shape) - 1
    return LinearLayer(
        node, source, node.outputs[0], use, node.inputs[1], 1, channels, outputs, 1, last, last, weight.shape
    )
