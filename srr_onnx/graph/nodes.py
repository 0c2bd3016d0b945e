"""LOAD: protobuf to `Node`s in execution order, which is as close to the file's as its edges allow."""

from __future__ import annotations

import functools
import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import onnx
import onnx.inliner
from onnx import AttributeProto

from srr_onnx.errors import ModelError, UnsupportedError
from srr_onnx.graph.model import Node, Shape
from srr_onnx.wording import counted

# Operators whose multiply-accumulates are counted.
COUNTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})

# Where an attribute of each kind keeps its value.
_VALUE_FIELDS = {
    AttributeProto.FLOAT: "f",
    AttributeProto.INT: "i",
    AttributeProto.STRING: "s",
    AttributeProto.TENSOR: "t",
    AttributeProto.FLOATS: "floats",
    AttributeProto.INTS: "ints",
    AttributeProto.STRINGS: "strings",
}

# Input slots that hold one number; onnxruntime 1.31 crashes where they are empty.
_SCALARS = {"OneHot": 1, "SequenceAt": 1, "SequenceErase": 1, "SequenceInsert": 2}


def check_names(graph: onnx.GraphProto) -> None:
    """Check that names are text, and that every value that is read is made exactly once.

    Args:
        graph: The main graph of a model.

    Raises:
        ModelError: A name is no text, or a value is made twice, or by nobody.
    """
    stored = {tensor.name for tensor in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
    known = stored | {value.name for value in graph.input}
    outputs = [output.name for output in graph.output]
    words = [*known, *outputs]
    for node in graph.node:
        words += [node.op_type, node.domain, node.name, *node.input, *node.output]
        for name in filter(None, node.output):
            if name in known:
                raise ModelError(f"value {name!r} is made by two nodes, or is stored as well: the file is damaged")
            known.add(name)
    # protobuf gives strings that are no valid UTF-8 as bytes
    broken = next((word for word in words if not isinstance(word, str)), None)
    if broken is not None:
        raise ModelError(f"the name {broken!r} is no valid text: the file is damaged")
    for node in graph.node:
        for name in [*node.input, *_captured(node)]:
            if name and name not in known:
                raise ModelError(f"node {node.name or node.op_type!r} reads {name!r}, which nothing makes")
    for name in outputs:
        if name not in known:
            raise ModelError(f"nothing makes the graph output {name!r}: the file is damaged")


def inline_functions(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Put the bodies of model-local functions in the place of their calls; initializers and other nodes stay.

    Args:
        proto: A model; large payloads may be taken out of it.

    Returns:
        The model. A function that cannot be inlined (one of another operator set version, say) stays a call.
    """
    if not proto.functions:
        return proto
    try:
        return onnx.inliner.inline_local_functions(proto)
    except Exception:  # the C++ library raises several kinds
        return proto


def make_nodes(proto: onnx.ModelProto) -> list[Node]:
    """Decode the nodes of the main graph.

    Args:
        proto: The model.

    Returns:
        One node per message, in file order.

    Raises:
        ModelError: A node cannot be decoded.
    """
    versions = {opset.domain if opset.domain != "ai.onnx" else "": opset.version for opset in proto.opset_import}
    nodes = []
    for index, message in enumerate(proto.graph.node):
        domain = "" if message.domain == "ai.onnx" else message.domain
        _check_operands(message, domain, versions.get(domain, 0))
        nodes.append(
            Node(
                index=index,
                op_type=message.op_type,
                domain=domain,
                since_version=_since_version(message.op_type, domain, versions.get(domain, 0)),
                name=message.name,
                inputs=tuple(message.input),
                outputs=tuple(message.output),
                attributes=MappingProxyType(dict(_decode_attributes(message))),
                captured=tuple(_captured(message)),
            )
        )
    return nodes


def check_outside(graph: onnx.GraphProto) -> None:
    """Check that not all convolutions and products lie inside subgraphs.

    Args:
        graph: The main graph of a model.

    Raises:
        UnsupportedError: The main graph has none of them, its subgraphs have.
    """
    if _count_products(graph):
        return
    inside = {}
    for node in graph.node:
        count = sum(_count_products(inner, is_deep=True) for inner in _subgraphs(node))
        if count:
            inside[node.name or node.op_type] = count
    if inside:
        raise UnsupportedError(
            f"all convolutions and products of this model ({sum(inside.values())}) lie inside "
            f"{', '.join(map(repr, inside))}, and the insides of If, Loop and Scan are not pruned: export the model "
            "without it, e.g. for one branch only"
        )


def _count_products(graph: onnx.GraphProto, *, is_deep: bool = False) -> int:
    count = sum(node.op_type in COUNTED and node.domain in ("", "ai.onnx") for node in graph.node)
    if is_deep:
        count += sum(_count_products(inner, is_deep=True) for node in graph.node for inner in _subgraphs(node))
    return count


def _subgraphs(message: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in message.attribute:
        yield from [attribute.g] if attribute.HasField("g") else attribute.graphs


def check_scalars(nodes: Sequence[Node], shapes: Mapping[str, Shape]) -> None:
    """Check operands of which onnxruntime reads one element without looking whether there is one.

    Raises:
        ModelError: There is not exactly one.
    """
    for node in nodes:
        slot = _SCALARS.get(node.op_type) if not node.domain else None
        name = "" if slot is None else node.input(slot)
        if math.prod(shapes.get(name, ())) != 1:
            raise ModelError(
                f"node {node.label!r} reads one number from {name!r}, which has the shape {list(shapes[name])}: "
                "the file is damaged"
            )


def _decode_attributes(message: onnx.NodeProto) -> Iterator[tuple[str, Any]]:
    """Names and values; tensors stay messages, subgraphs and references to a function's attributes are left out."""
    for attribute in message.attribute:
        field = _VALUE_FIELDS.get(attribute.type)
        if field is None or attribute.ref_attr_name:
            continue
        value = getattr(attribute, field)
        try:
            if attribute.type == AttributeProto.STRING:
                value = value.decode()
            elif attribute.type == AttributeProto.STRINGS:
                value = [part.decode() for part in value]
            elif attribute.type in (AttributeProto.INTS, AttributeProto.FLOATS):
                value = list(value)
        except UnicodeDecodeError:
            raise ModelError(
                f"attribute {attribute.name!r} of node {message.name or message.op_type!r} is no valid text: the file "
                "is damaged"
            ) from None
        yield attribute.name, value


def _since_version(op_type: str, domain: str, opset: int) -> int:
    schema = _find_schema(op_type, domain, opset)
    return 0 if schema is None else int(schema.since_version)


@functools.lru_cache(maxsize=4096)
def _find_schema(op_type: str, domain: str, opset: int) -> onnx.defs.OpSchema | None:
    if not 0 < opset < 1 << 31:  # no version that ONNX can be asked for
        return None
    try:
        return onnx.defs.get_schema(op_type, opset, domain)
    except onnx.defs.SchemaError:
        return None


def _check_operands(message: onnx.NodeProto, domain: str, opset: int) -> None:
    """Check the number of inputs and outputs, so that nobody after this has to."""
    schema = _find_schema(message.op_type, domain, opset)
    if not domain and not 0 < opset < 1 << 31:
        raise ModelError(f"the file imports version {opset} of the standard operators: there is no such version")
    if schema is None:
        return
    for count, least, most, kind in (
        (len(message.input), schema.min_input, schema.max_input, "input"),
        (len(message.output), schema.min_output, schema.max_output, "output"),
    ):
        if not least <= count <= most:
            raise ModelError(
                f"node {message.name or message.op_type!r} has {counted(count, kind)}, {message.op_type} of version "
                f"{schema.since_version} has {least if count < least else most}: the file is damaged"
            )


def _captured(message: onnx.NodeProto) -> Iterator[str]:
    """Outer values that the subgraphs of a node read, each once."""
    seen: set[str] = set()
    for graph in _subgraphs(message):
        for name in _free_values(graph):
            if name not in seen:
                seen.add(name)
                yield name


def _free_values(graph: onnx.GraphProto) -> Iterator[str]:
    own = {value.name for value in graph.input} | {init.name for init in graph.initializer}
    own |= {name for node in graph.node for name in node.output}
    for node in graph.node:
        for name in [*node.input, *_captured(node)]:
            if name and name not in own:
                yield name
    for output in graph.output:
        if output.name not in own:
            yield output.name


def sort_nodes(nodes: list[Node]) -> tuple[Node, ...]:
    """Put nodes into execution order (Kahn's algorithm, smallest index first).

    Args:
        nodes: In file order.

    Returns:
        The same nodes.

    Raises:
        ModelError: The graph has a cycle.
    """
    producer = {name: node.index for node in nodes for name in node.outputs if name}
    waiting = [0] * len(nodes)
    readers: list[list[int]] = [[] for _ in nodes]
    for node in nodes:
        for source in {producer[name] for name in node.inputs + node.captured if name in producer}:
            readers[source].append(node.index)
            waiting[node.index] += 1
    ready = [index for index, count in enumerate(waiting) if count == 0]
    heapq.heapify(ready)
    order = []
    while ready:
        index = heapq.heappop(ready)
        order.append(nodes[index])
        for reader in readers[index]:
            waiting[reader] -= 1
            if waiting[reader] == 0:
                heapq.heappush(ready, reader)
    if len(order) < len(nodes):
        stuck = next(node for node in nodes if waiting[node.index])
        raise ModelError(f"the graph has a cycle through node {stuck.label!r}: the file is damaged")
    return tuple(order)
