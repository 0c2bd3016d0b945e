"""Pruned equals masked, said once more without the product's code.

The only thing taken from the product is the map from activation axes to the positions that stay, which is what a
plan file records.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from builders import feeds_for, run_ort
from onnx import helper, numpy_helper

Array = np.ndarray[Any, Any]
Kept = Mapping[tuple[str, int], Array]

SUMMING = {
    "Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN", "Einsum", "ReduceSum", "ReduceL2",
    "ReduceSumSquare",
}  # fmt: skip
TOLERANCE = 1e-4


def mask_model(
    model: onnx.ModelProto, kept: Kept, shapes: Mapping[str, tuple[int, ...]], dtype: Any = np.float32
) -> onnx.ModelProto:
    """The original with a Mul by 0 and 1 in front of every summing operator that reads what lost channels."""
    masked = onnx.ModelProto()
    masked.CopyFrom(model)
    del masked.graph.value_info[:]
    axes_of: dict[str, dict[int, Array]] = {}
    for (name, axis), positions in kept.items():
        axes_of.setdefault(name, {})[axis] = positions
    nodes, made = [], set()
    for node in masked.graph.node:
        if node.op_type in SUMMING:
            for slot, name in enumerate(node.input):
                if name not in axes_of:
                    continue
                if name not in made:
                    mask = np.ones([1] * len(shapes[name]), dtype)
                    for axis, positions in axes_of[name].items():
                        line = np.isin(np.arange(shapes[name][axis]), positions).astype(dtype)
                        mask = mask * line.reshape([-1 if other == axis else 1 for other in range(len(shapes[name]))])
                    masked.graph.initializer.append(numpy_helper.from_array(mask, f"oracle_mask_{name}"))
                    nodes.append(helper.make_node("Mul", [name, f"oracle_mask_{name}"], [f"oracle_masked_{name}"]))
                    made.add(name)
                node.input[slot] = f"oracle_masked_{name}"
        nodes.append(node)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del masked.graph.node[:]
    masked.graph.node.extend(nodes)
    return masked


def relative_error(got: Mapping[str, Array], want: Mapping[str, Array]) -> float:
    """Largest difference relative to the largest wanted value; infinite where shapes or integers differ."""
    worst = 0.0
    assert got.keys() == want.keys()
    for name, expected in want.items():
        if got[name].shape != expected.shape or got[name].dtype != expected.dtype:
            return math.inf
        if expected.dtype.kind != "f":
            worst = max(worst, 0.0 if np.array_equal(got[name], expected) else math.inf)
        elif expected.size:
            scale = float(np.abs(expected).max()) or 1.0
            worst = max(worst, float(np.abs(got[name].astype(np.float64) - expected).max()) / scale)
    return worst


def pruned_equals_masked(
    model: onnx.ModelProto,
    pruned: onnx.ModelProto,
    kept: Kept,
    shapes: Mapping[str, tuple[int, ...]],
    sizes: Mapping[str, int] | None = None,
    dtype: Any = np.float32,
) -> float:
    """Relative error between the pruned model and the masked original, at these open sizes."""
    feeds = feeds_for(model, seed=1, sizes=sizes)
    masked = run_ort(mask_model(model, kept, shapes, dtype), feeds)
    # Optimized, onnxruntime computes a product with a quantized weight in eight bits, rounded in its own way.
    is_quantized = any(node.op_type == "DequantizeLinear" for node in pruned.graph.node)
    return relative_error(run_ort(pruned, feeds, optimized=not is_quantized), masked)


def measure_shapes(model: onnx.ModelProto, sizes: Mapping[str, int] | None = None) -> dict[str, tuple[int, ...]]:
    """Shape of every value (sequences have none), by running the model with all of them as outputs."""
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    del opened.graph.value_info[:]
    known = {output.name for output in opened.graph.output}
    names = {name for node in opened.graph.node for name in node.output if name}
    opened.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(names - known))
    feeds = feeds_for(model, sizes=sizes)
    values = run_ort(opened, feeds)
    found = {name: np.shape(value) for name, value in values.items() if not isinstance(value, list)}
    found |= {name: array.shape for name, array in feeds.items()}
    return found | {init.name: tuple(init.dims) for init in opened.graph.initializer}


def recount_macs(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Multiply-accumulates counted by hand from measured shapes: elements made (or read) times products for each."""
    total = 0
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose"):
            spread = shapes[node.output[0] if node.op_type == "Conv" else node.input[0]]
            total += math.prod(spread) * math.prod(shapes[node.input[1]][1:])
        elif node.op_type in ("MatMul", "Gemm"):
            is_turned = any(a.name == "transA" and a.i for a in node.attribute)
            total += math.prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if is_turned else -1]
    return total


def recount_stored(model: onnx.ModelProto) -> int:
    """Elements of all initializers and Constant nodes that are floating-point numbers, or stand for such."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    constants = [(node.output[0], a) for node in model.graph.node if node.op_type == "Constant" for a in node.attribute]
    tensors |= {name: attribute.t for name, attribute in constants if attribute.name == "value"}
    quantized = {node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    floats = [name for name, tensor in tensors.items() if tensor.data_type == onnx.TensorProto.FLOAT]
    return sum(math.prod(tensors[name].dims) for name in {*floats, *(quantized & tensors.keys())})
