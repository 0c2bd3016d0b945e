"""An outsider's view of a pruned model: counts and proves with onnx and onnxruntime alone.

Reads ONNX files and the positions that remain, as plan files record them; nothing of the product is used here, so that
a fault in its counter, its masks or its shape inference cannot hide itself.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

Array = np.ndarray[Any, Any]
# Positions that stay, by value and axis.
Kept = Mapping[tuple[str, int], Array]

COUNTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# Operators that sum over channels: a channel that is masked in front of them is as good as gone.
SUMMING = (
    *COUNTED, "LSTM", "GRU", "RNN", "Einsum", "ReduceSum", "ReduceL2", "ReduceSumSquare",
)  # fmt: skip
_MASK = "mask of "


def open_session(model: onnx.ModelProto | Path, *, optimize: bool = True) -> ort.InferenceSession:
    """Open a model on one thread.

    Args:
        model: Protobuf or file.
        optimize: Whether to allow the optimizations that do not change what is computed.

    Returns:
        The session.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_BASIC if optimize else level.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "1")
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def make_feeds(shapes: Mapping[str, Iterable[int]], batch: int = 1, seed: int = 0) -> dict[str, Array]:
    """Make random inputs.

    Args:
        shapes: Shape per input.
        batch: Size of the first axis where the shape has 1 there.
        seed: Seed of the values.

    Returns:
        Standard normal float32 arrays.
    """
    rng = np.random.default_rng(seed)
    feeds = {}
    for name, shape in shapes.items():
        first, *rest = shape
        feeds[name] = rng.standard_normal((batch if first == 1 else first, *rest)).astype(np.float32)
    return feeds


def count_macs(path: Path, feeds: Mapping[str, Array]) -> int:
    """Count multiply-accumulates of Conv, ConvTranspose, Gemm and MatMul by looking at the arrays of a run.

    Args:
        path: Model file.
        feeds: One array per input.

    Returns:
        Multiply-accumulates, bias not counted.
    """
    model = onnx.load(path)
    graph = model.graph
    shapes: dict[str, tuple[int, ...]] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    nodes = [node for node in graph.node if node.op_type in COUNTED]
    names = {name for node in nodes for name in (node.input[0], node.input[1], node.output[0])}
    shapes.update({name: array.shape for name, array in feeds.items()})
    wanted = sorted(names - set(shapes))
    present = {output.name for output in graph.output}
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in present)
    session = open_session(model, optimize=False)
    del model, graph
    shapes.update({n: a.shape for n, a in zip(wanted, session.run(wanted, dict(feeds)), strict=True)})
    return sum(
        _macs(node, *(shapes[name] for name in (node.input[0], node.input[1], node.output[0]))) for node in nodes
    )


def _macs(node: onnx.NodeProto, a: tuple[int, ...], b: tuple[int, ...], y: tuple[int, ...]) -> int:
    """Multiply-adds of one node from the shapes of its inputs and its output."""
    if node.op_type == "Conv":
        return math.prod(y) * math.prod(b[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(a) * math.prod(b[1:])
    is_transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return math.prod(y) * a[0 if is_transposed else -1]


def count_params(path: Path) -> int:
    """Count the elements of all initializers that hold floating-point numbers."""
    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16}
    graph = onnx.load(path, load_external_data=False).graph
    return sum(math.prod(tensor.dims) for tensor in graph.initializer if tensor.data_type in floats)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A pruned model beside its masked original.

    Attributes:
        error: Largest difference relative to the largest masked output; NaN where a shape differs.
        moved: How far the masks moved the original's outputs, in the same measure.
    """

    error: float
    moved: float


class MaskedOriginal:
    """The original with a mask, fed as an input, in front of every operator that sums over channels.

    Args:
        path: The original.
        names: Activations that some keep-set shrinks.
        feeds: One array per input.
    """

    def __init__(self, path: Path, names: Iterable[str], feeds: Mapping[str, Array]) -> None:
        model = onnx.load(path)
        self._feeds = dict(feeds)
        self._ranks = _insert_masks(model.graph, set(names))
        self.outputs = [output.name for output in model.graph.output]
        self._session = open_session(model)
        self._plain = self._session.run(self.outputs, self._feeds | self._ones())

    def compare(self, pruned: Path | onnx.ModelProto, kept: Kept, sizes: Mapping[str, tuple[int, ...]]) -> Comparison:
        """Run a pruned model and the masked original on the same input.

        Args:
            pruned: The pruned model.
            kept: Positions that stay.
            sizes: Shapes of the original's activations.

        Returns:
            The comparison.
        """
        masks = self._ones()
        for (name, axis), positions in kept.items():
            if _MASK + name in masks:
                part = np.zeros(sizes[name][axis], np.float32)
                part[positions] = 1
                shape = [1] * len(sizes[name])
                shape[axis] = -1
                old = masks[_MASK + name]
                masks[_MASK + name] = (old if old.ndim == len(shape) else old.reshape([1] * len(shape))) * part.reshape(
                    shape
                )
        want = self._session.run(self.outputs, self._feeds | masks)
        got = open_session(pruned).run(self.outputs, self._feeds)
        return Comparison(_distance(got, want), _distance(self._plain, want))

    def run_shapes(self, pruned: Path | onnx.ModelProto) -> bool:
        """Run a pruned model and tell whether its outputs have the original's shapes and are finite."""
        got = open_session(pruned).run(self.outputs, self._feeds)
        return all(a.shape == b.shape and np.isfinite(a).all() for a, b in zip(got, self._plain, strict=True))

    def _ones(self) -> dict[str, Array]:
        return {name: np.ones(1, np.float32) for name in self._ranks}


def _insert_masks(graph: onnx.GraphProto, names: set[str]) -> list[str]:
    """Multiply the given activations by an input wherever an operator that sums reads them."""
    nodes, masks = [], {}
    for node in graph.node:
        for slot in range(len(node.input) if node.op_type in SUMMING else 0):
            name = node.input[slot]
            if name in names:
                if name not in masks:
                    masks[name] = helper.make_tensor_value_info(_MASK + name, onnx.TensorProto.FLOAT, None)
                    nodes.append(helper.make_node("Mul", [name, _MASK + name], [name + " masked"]))
                node.input[slot] = name + " masked"
        nodes.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    graph.input.extend(masks.values())
    return [info.name for info in masks.values()]


def _distance(first: list[Array], second: list[Array]) -> float:
    worst = 0.0
    for a, b in zip(first, second, strict=True):
        if a.shape != b.shape:
            return math.nan
        scale = float(np.abs(b).max()) or 1.0
        worst = max(worst, float(np.abs(a.astype(np.float64) - b).max()) / scale)
    return worst
