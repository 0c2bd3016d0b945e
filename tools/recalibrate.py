"""Run ONNX files on images, and set the statistics of their BatchNormalizations anew from unlabelled images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

Array = np.ndarray


def open_session(proto: onnx.ModelProto) -> ort.InferenceSession:
    """Open a model in onnxruntime on one CPU thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


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
