"""Run ONNX files on images, and repair the statistics of a pruned file without labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

Array = np.ndarray

# Variance of a channel that is as good as constant, and is not scaled.
_FLAT = 1e-6


def open_session(proto: onnx.ModelProto) -> ort.InferenceSession:
    """Open a model in onnxruntime on one CPU thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def free_batch(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Make the batch axis of the input dynamic, for graphs that fix it to 1 by nothing but a Reshape to (1, -1)."""
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    graph = result.graph
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    del graph.value_info[:]
    shapes = {init.name: init for init in graph.initializer}
    shapes |= {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    for node in graph.node:
        target = shapes.get(node.input[1]) if node.op_type == "Reshape" else None
        if target is not None and numpy_helper.to_array(target).tolist() == [1, -1]:
            node.CopyFrom(helper.make_node("Flatten", node.input[:1], node.output, node.name))
    return result


def run_logits(proto: onnx.ModelProto, images: Array, batch: int) -> Array:
    """Run a classifier with a dynamic batch.

    Args:
        proto: Model with one input.
        images: Preprocessed, shape `(N, C, H, W)`.
        batch: Images per run.

    Returns:
        First output, shape `(N, classes)`.
    """
    session = open_session(proto)
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: images[i : i + batch]})[0] for i in range(0, len(images), batch)])


class _Walk:
    """A run of a model that stops on the way, where its constants may be changed.

    Args:
        proto: Model; a copy of it is run and changed.
        images: Preprocessed; all in one batch.

    Attributes:
        model: The copy.
        constants: Its constants by name.
    """

    def __init__(self, proto: onnx.ModelProto, images: Array) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(proto)
        self.constants = {init.name: init for init in self.model.graph.initializer}
        self._nodes = self.model.graph.node
        self._last_read = {name: number for number, node in enumerate(self._nodes) for name in node.input}
        self._known: dict[str, Array] = {self.model.graph.input[0].name: images}
        self._done = 0

    def find(self, op_type: str) -> list[int]:
        """Numbers of the nodes of one kind, in graph order."""
        return [number for number, node in enumerate(self._nodes) if node.op_type == op_type]

    def read(self, number: int, name: str) -> Array:
        """Run all nodes before a number and give one of their results."""
        later = {value for value, last in self._last_read.items() if last >= number}
        nodes = self._nodes[self._done : number]
        if nodes:
            self._run(nodes, later | {name})
        self._done = number
        self._known = {value: data for value, data in self._known.items() if value in later or value == name}
        return self._known[name]

    def replace(self, name: str, data: Array) -> None:
        """Set a result that has been read."""
        self._known[name] = data

    def change(self, name: str, values: Array) -> None:
        """Set a constant."""
        old = self.constants[name]
        old.CopyFrom(numpy_helper.from_array(values.astype(numpy_helper.to_array(old).dtype), name))

    def _run(self, nodes: Sequence[onnx.NodeProto], wanted: set[str]) -> None:
        made = {name for node in nodes for name in node.output}
        read = {name for node in nodes for name in node.input}
        inputs, outputs = sorted((read - made) & set(self._known)), sorted(made & wanted)
        graph = helper.make_graph(
            nodes,
            "segment",
            [_declare(name, self._known[name]) for name in inputs],
            [onnx.ValueInfoProto(name=name) for name in outputs],
            [self.constants[name] for name in sorted(read & set(self.constants))],
        )
        segment = helper.make_model(graph, opset_imports=self.model.opset_import, ir_version=self.model.ir_version)
        results = open_session(segment).run(outputs, {name: self._known[name] for name in inputs})
        self._known.update(zip(outputs, results, strict=True))


def _declare(name: str, data: Array) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(data.dtype), data.shape)


def _moments(data: Array) -> tuple[Array, Array]:
    """Mean and variance of every channel; shape `(N, C, ...)` to twice `(C,)`."""
    axes = (0, *range(2, data.ndim))
    return data.mean(axes, np.float64), data.var(axes, dtype=np.float64)


def recalibrate(proto: onnx.ModelProto, images: Array) -> tuple[onnx.ModelProto, int]:
    """Set mean and variance of every BatchNormalization to those of its input, one after another in graph order.

    Each sees the input that the already corrected ones before it give.

    Args:
        proto: Model; not changed.
        images: Preprocessed, unlabelled.

    Returns:
        The new model, and the number of BatchNormalizations in it.
    """
    walk = _Walk(proto, images)
    numbers = walk.find("BatchNormalization")
    for number in numbers:
        node = walk.model.graph.node[number]
        mean, variance = _moments(walk.read(number, node.input[0]))
        walk.change(node.input[3], mean)
        walk.change(node.input[4], variance)
    return walk.model, len(numbers)


def conv_moments(proto: onnx.ModelProto, images: Array) -> dict[str, tuple[Array, Array]]:
    """Mean and variance of every channel behind every Conv, by the Conv's output."""
    walk = _Walk(proto, images)
    names = [(number, walk.model.graph.node[number].output[0]) for number in walk.find("Conv")]
    return {name: _moments(walk.read(number + 1, name)) for number, name in names}


def match_moments(
    proto: onnx.ModelProto,
    images: Array,
    targets: Mapping[str, tuple[Array, Array]],
    kept: Mapping[str, Array],
) -> onnx.ModelProto:
    """Scale and shift every Conv so that its channels have the mean and variance that they had in the original.

    It does for files whose BatchNormalizations are folded what `recalibrate` does for the others.

    Args:
        proto: Pruned model, of which every Conv has a bias; not changed.
        images: Preprocessed, unlabelled.
        targets: `conv_moments` of the original on the same images.
        kept: Positions of the channels that stay, by value; a value that is not named keeps all.

    Returns:
        The new model.
    """
    walk = _Walk(proto, images)
    for number in walk.find("Conv"):
        node = walk.model.graph.node[number]
        name = node.output[0]
        data = walk.read(number + 1, name)
        mean, variance = _moments(data)
        old_mean, old_variance = (part[kept.get(name, slice(None))] for part in targets[name])
        is_alive = (old_variance > _FLAT) & (variance > _FLAT)
        scale = np.sqrt(np.where(is_alive, old_variance, 1) / np.where(is_alive, variance, 1))
        shift = old_mean - scale * mean
        shape = (-1, *(1,) * (data.ndim - 2))
        walk.replace(name, (data * scale.reshape(shape) + shift.reshape(shape)).astype(data.dtype))
        weights, bias = (numpy_helper.to_array(walk.constants[name]) for name in node.input[1:3])
        walk.change(node.input[1], weights * scale.reshape(-1, *(1,) * (weights.ndim - 1)))
        walk.change(node.input[2], bias * scale + shift)
    return walk.model
