"""LOAD: `Model` to the form a runtime takes: large payloads apart, masks put in, in float32 where it has to be.

Never written to a file: the proof and the measurements run it.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from srr_onnx.graph.model import Model
from srr_onnx.graph.quantization import unrounded_pairs, without_rounding
from srr_onnx.graph.save import point_outside
from srr_onnx.graph.tensors import attach_payload

Array = np.ndarray[Any, Any]

_OTHER_FLOATS = frozenset({TensorProto.DOUBLE, TensorProto.BFLOAT16, TensorProto.FLOAT16})
# Attributes that hold an element type, by operator.
_TYPE_ATTRIBUTES = {
    "Bernoulli": "dtype",
    "BlackmanWindow": "output_datatype",
    "Cast": "to",
    "DequantizeLinear": "output_dtype",
    "EyeLike": "dtype",
    "HammingWindow": "output_datatype",
    "HannWindow": "output_datatype",
    "MelWeightMatrix": "output_datatype",
    "QuantizeLinear": "precision",
    "RandomNormal": "dtype",
    "RandomNormalLike": "dtype",
    "RandomUniform": "dtype",
    "RandomUniformLike": "dtype",
    "SequenceEmpty": "dtype",
}
# Without a seed these draw other numbers in every session; Dropout does in training only.
_RANDOM_OPERATORS = frozenset(
    {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)

_NUMBERED = "srr_onnx_node_"


def to_runtime_proto(
    model: Model,
    outputs: Sequence[str],
    masks: Mapping[tuple[int, int], Array],
    *,
    as_float32: bool = False,
    is_rounded: bool = True,
    is_numbered: bool = False,
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Make the protobuf that a runtime loads, with large payloads apart.

    Args:
        model: The model; not changed.
        outputs: Inner values to be returned beside the graph outputs.
        masks: Arrays to multiply a node's inputs with, by `(node index, slot)`.
        as_float32: Whether to compute in float32 what the file computes in double, float16 or bfloat16.
        is_rounded: False to leave out the rounding of activations that are quantized and dequantized at once.
        is_numbered: Whether nodes are named by `numbered_name`, so that what the runtime says of them can be told.

    Returns:
        The protobuf, and the content of its external initializers by name. Nodes that draw random numbers get a
        seed by the name of their output, so that they draw the same in this model and in a pruned one.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    graph = proto.graph
    del graph.value_info[:]
    ordered: list[onnx.NodeProto] = []
    pairs = {} if is_rounded else unrounded_pairs(model, frozenset((*model.outputs, *outputs)))
    names = Counter(node.name for node in model.nodes)
    for node in model.nodes:
        if is_numbered:
            graph.node[node.index].name = numbered_name(node.index)
        elif names[node.name] > 1:
            graph.node[node.index].ClearField("name")  # onnxruntime wants them to differ
        if node.index in pairs:
            quantize, dequantize = pairs[node.index]
            ordered += [] if dequantize is None else without_rounding(model, graph, quantize, dequantize)
            continue
        message = graph.node[node.index]
        for slot, name in enumerate(node.inputs):
            mask = masks.get((node.index, slot))
            if mask is not None:
                label = f"srr_onnx_mask_{node.index}_{slot}"
                graph.initializer.append(numpy_helper.from_array(mask, label))
                ordered.append(helper.make_node("Mul", [name, label], [f"{label}_out"]))
                message.input[slot] = f"{label}_out"
        if node.op_type == "Constant" and node.outputs[0] in model.detached:
            # Payload of a Constant node cannot lie outside the protobuf; that of an initializer can.
            tensor = graph.initializer.add()
            tensor.CopyFrom(next(a for a in message.attribute if a.name == "value").t)
            tensor.name = node.outputs[0]
        else:
            ordered.append(message)
    copies = [onnx.NodeProto.FromString(message.SerializeToString()) for message in ordered]
    del graph.node[:]
    graph.node.extend(copies)
    _seed(graph)
    if as_float32:
        retype_floats(graph, model.detached)
    external: dict[str, Array] = {}
    for tensor in graph.initializer:
        if tensor.name in model.detached:
            dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
            array = np.require(model.constants[tensor.name].astype(dtype, copy=False), requirements="C")
            external[tensor.name] = array
            point_outside(tensor, "srr_onnx_memory", 0, array.nbytes, array.shape)
    known = {output.name for output in graph.output}
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs if name not in known)
    return proto, external


def numbered_name(index: int) -> str:
    """The name of a node in a numbered copy; a runtime that fuses nodes keeps it as part of the new name."""
    return f"{_NUMBERED}{index}_"


def find_numbers(name: str) -> list[int]:
    """Indices of the nodes whose numbered names are part of a name."""
    return [int(number) for number in re.findall(rf"{_NUMBERED}(\d+)_", name)]


def _seed(graph: onnx.GraphProto) -> None:
    """Give a seed to every node that draws random numbers and has none.

    The runtime's own seed depends on a node's place in its graph, which changes; inside a subgraph it does not.
    """
    for node in graph.node:
        if node.op_type not in _RANDOM_OPERATORS or node.domain or any(a.name == "seed" for a in node.attribute):
            continue
        seed = zlib.crc32(node.output[0].encode()) & 0xFFFF
        if node.op_type != "Dropout":
            node.attribute.append(helper.make_attribute("seed", float(seed)))
        elif len(node.input) > 2:
            node.attribute.append(helper.make_attribute("seed", seed))


def retype_floats(graph: onnx.GraphProto, detached: Container[str]) -> None:
    """Make every floating-point tensor of a graph float32, in subgraphs too.

    Args:
        graph: Changed in place.
        detached: Initializers without payload, of which only the type changes.
    """
    for value in [*graph.input, *graph.output, *graph.value_info]:
        _retype_value(value.type)
    for tensor in graph.initializer:
        _retype_tensor(tensor, is_empty=tensor.name in detached)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name == _TYPE_ATTRIBUTES.get(node.op_type) and attribute.i in _OTHER_FLOATS:
                attribute.i = TensorProto.FLOAT
            if attribute.HasField("t"):
                _retype_tensor(attribute.t, is_empty=False)
            if attribute.HasField("g"):
                retype_floats(attribute.g, frozenset())


def _retype_value(kind: onnx.TypeProto) -> None:
    while kind.HasField("sequence_type") or kind.HasField("optional_type"):
        kind = kind.sequence_type.elem_type if kind.HasField("sequence_type") else kind.optional_type.elem_type
    if kind.tensor_type.elem_type in _OTHER_FLOATS:
        kind.tensor_type.elem_type = TensorProto.FLOAT


def _retype_tensor(tensor: TensorProto, *, is_empty: bool) -> None:
    if tensor.data_type not in _OTHER_FLOATS:
        return
    array = None if is_empty else numpy_helper.to_array(tensor).astype(np.float32)
    tensor.data_type = TensorProto.FLOAT
    if array is not None:
        attach_payload(tensor, array)
