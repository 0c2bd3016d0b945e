"""LOAD: a part of a graph as a graph of its own, for runtimes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from srr_onnx.graph.model import Model, Node
from srr_onnx.graph.runtime import retype_floats
from srr_onnx.graph.save import point_outside
from srr_onnx.graph.tensors import attach_payload, is_large

Array = np.ndarray[Any, Any]


def read_values(nodes: Sequence[Node]) -> list[str]:
    """Values that nodes read, of their own inputs and in their subgraphs, each once."""
    return [name for name in dict.fromkeys(n for node in nodes for n in (*node.inputs, *node.captured)) if name]


def to_segment_proto(
    model: Model,
    nodes: Sequence[Node],
    inputs: Sequence[str],
    outputs: Sequence[str],
    contents: Mapping[str, Array],
    *,
    as_float32: bool = False,
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Make a graph of some nodes.

    Args:
        model: The model.
        nodes: Some of its nodes, in execution order; none that only computes constants.
        inputs: Values that are fed; their shapes stay open.
        outputs: Values that are returned.
        contents: New content of constants, by name.
        as_float32: Whether to compute in float32 what the file computes in double, float16 or bfloat16.

    Returns:
        The protobuf, and the content of its external initializers by name.
    """
    proto = onnx.ModelProto(ir_version=model.proto.ir_version)
    proto.opset_import.extend(model.proto.opset_import)
    graph = proto.graph
    graph.name = "segment"
    external: dict[str, Array] = {}
    made = {name for node in nodes for name in node.outputs}
    for name in read_values(nodes):
        if name in inputs or name in made:
            continue
        array = contents.get(name, model.constants.get(name))
        if array is None:  # of a form that numpy has not: text, numbers of four bits, sparse
            source = model.proto.graph
            graph.initializer.extend(tensor for tensor in source.initializer if tensor.name == name)
            graph.sparse_initializer.extend(part for part in source.sparse_initializer if part.values.name == name)
            continue
        tensor = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(array.dtype), dims=array.shape)
        if is_large(tensor, array):
            external[name] = array
        else:
            attach_payload(tensor, array)
        graph.initializer.append(tensor)
    for number, node in enumerate(nodes):
        copy = graph.node.add()
        copy.CopyFrom(model.proto.graph.node[node.index])
        copy.name = f"{number}"  # onnxruntime wants the names to differ
    for name in inputs:
        graph.input.append(helper.make_tensor_value_info(name, _element_type(model, name), None))
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    if as_float32:
        retype_floats(graph, external)
    for tensor in graph.initializer:
        if tensor.name in external:
            array = external[tensor.name].astype(helper.tensor_dtype_to_np_dtype(tensor.data_type), copy=False)
            external[tensor.name] = array = np.require(array, requirements="C")
            point_outside(tensor, "srr_onnx_memory", 0, array.nbytes, array.shape)
    return proto, external


def _element_type(model: Model, name: str) -> int:
    return int(helper.np_dtype_to_tensor_dtype(model.dtypes[name]))
