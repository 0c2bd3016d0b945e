"""LOAD: what graphsurgeon does not keep, carried over from the original to the edited protobuf."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto, helper, numpy_helper

from srr_onnx.graph.model import Model, Shape
from srr_onnx.graph.tensors import detach_payload

if TYPE_CHECKING:
    from srr_onnx.graph.edit import Edits, NodeEdit

# Version of the format from which on an initializer need not be declared as an input too.
_FREE_INITIALIZERS = 4


def carry_over(
    model: Model,
    edits: Edits,
    exported: onnx.ModelProto,
    origins: Sequence[int | None],
    stubs: Mapping[str, TensorProto],
) -> onnx.ModelProto:
    """Put the edited parts of graphsurgeon's export into a copy of the original.

    Args:
        model: The model that was edited.
        edits: What was changed.
        exported: What graphsurgeon made of it.
        origins: For every node of the export its index in the original; None for one that was inserted.
        stubs: New and changed constants by name; the payload of large ones is elsewhere.

    Returns:
        The edited protobuf: what was not edited is as in the original.
    """
    source = model.proto
    result = onnx.ModelProto()
    for field, value in source.ListFields():
        if field.name == "graph":
            continue
        if field.is_repeated:
            getattr(result, field.name).extend(value)
        else:
            setattr(result, field.name, value)
    graph = result.graph
    for field, value in source.graph.ListFields():
        if field.name in ("node", "initializer", "value_info"):
            continue
        if field.is_repeated:
            getattr(graph, field.name).extend(value)
        else:
            setattr(graph, field.name, value)
    for message, index in zip(exported.graph.node, origins, strict=True):
        if index is None:
            graph.node.append(message)
        elif index in edits.nodes:
            graph.node.append(_merge_node(source.graph.node[index], message, edits.nodes[index]))
        else:
            graph.node.append(source.graph.node[index])
    for node in graph.node:
        if node.op_type == "Constant" and node.output and node.output[0] in edits.tensors:
            _replace_constant(node, stubs[node.output[0]])
    read = {name for node in graph.node for name in node.input} | set(model.outputs)
    read |= {name for node in model.nodes if node.index not in edits.removed for name in node.captured}
    was_read = set(model.consumers) | set(model.outputs)
    for init in source.graph.initializer:
        if init.name in read or init.name not in was_read:
            copy = graph.initializer.add()
            copy.CopyFrom(init)
            if init.name in edits.tensors:
                _replace_tensor(copy, stubs[init.name])
        else:  # declared as an input too, as old files do, it would now have to be fed
            for place in [i for i, value in enumerate(graph.input) if value.name == init.name]:
                del graph.input[place]
    added = [stubs[name] for name in edits.added if name in read]
    graph.initializer.extend(added)
    if source.ir_version < _FREE_INITIALIZERS:
        graph.input.extend(helper.make_tensor_value_info(stub.name, stub.data_type, stub.dims) for stub in added)
    new_shapes = edits.shapes | {name: array.shape for name, array in edits.tensors.items()}
    alive = {name for node in graph.node for name in node.output} | {init.name for init in graph.initializer}
    for value in source.graph.value_info:
        if value.name in alive:
            copy = graph.value_info.add()
            copy.CopyFrom(value)
            _update_shape(copy, new_shapes.get(value.name), model.shapes.get(value.name))
    for value in graph.input:  # an initializer can be declared as an input too
        _update_shape(value, new_shapes.get(value.name), model.shapes.get(value.name))
    return result


def _merge_node(original: onnx.NodeProto, message: onnx.NodeProto, change: NodeEdit) -> onnx.NodeProto:
    """The edited node; attributes that were not edited keep the original message."""
    merged = onnx.NodeProto()
    merged.CopyFrom(original)
    merged.op_type = message.op_type
    del merged.input[:]
    merged.input.extend(message.input)
    edited = {attribute.name: attribute for attribute in message.attribute}
    kept = [] if change.clear else [a for a in original.attribute if a.name not in change.attributes]
    del merged.attribute[:]
    merged.attribute.extend(kept)
    merged.attribute.extend(edited[name] for name, value in change.attributes.items() if value is not None)
    return merged


def _replace_constant(node: onnx.NodeProto, stub: TensorProto) -> None:
    """New content of a Constant node, in the form that it has: a tensor, a list, a single number."""
    (attribute,) = node.attribute
    if attribute.name == "value":
        _replace_tensor(attribute.t, stub)
        return
    numbers = numpy_helper.to_array(stub).reshape(-1).tolist()
    content = numbers if attribute.name.endswith("s") else numbers[0]
    attribute.CopyFrom(helper.make_attribute(attribute.name, content))


def _replace_tensor(tensor: TensorProto, stub: TensorProto) -> None:
    """New shape and payload; name, element type and documentation stay."""
    detach_payload(tensor)
    del tensor.dims[:]
    tensor.dims.extend(stub.dims)
    if stub.HasField("raw_data"):
        tensor.raw_data = stub.raw_data


def _update_shape(value: onnx.ValueInfoProto, new: Shape | None, old: Shape | None) -> None:
    dims = value.type.tensor_type.shape.dim
    if new is None or old is None or len(dims) != len(new):
        return
    for dim, size, before in zip(dims, new, old, strict=True):
        if size != before:
            dim.ClearField("dim_param")
            dim.dim_value = size
