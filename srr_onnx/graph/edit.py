"""LOAD: edits of a graph, from a model to a new model.

graphsurgeon carries out the edits; whatever it does not keep (documentation, metadata, annotations, the form of
untouched nodes and inputs) is carried over from the original, so that a model differs only where it was edited.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import AttributeProto, TensorProto, helper
from onnx_graphsurgeon.ir.tensor import LazyValues
from onnx_graphsurgeon.logger.logger import G_LOGGER, LoggerSuppress

from srr_onnx.errors import ModelError, first_line
from srr_onnx.graph.carrying import carry_over
from srr_onnx.graph.load import assemble_model
from srr_onnx.graph.model import Model, Shape
from srr_onnx.graph.tensors import attach_payload, is_large, stored_tensors

Array = np.ndarray[Any, Any]

_LISTS = frozenset({AttributeProto.INTS, AttributeProto.FLOATS, AttributeProto.STRINGS})


class NewNames:
    """Names that no value of a model has yet.

    Args:
        model: The model.
    """

    def __init__(self, model: Model) -> None:
        self._taken = {name for node in model.nodes for name in node.outputs}
        self._taken |= set(model.shapes) | set(model.constants)

    def take(self, wish: str) -> str:
        """Give the name wished for, with a number behind it where somebody has it; nobody gets it again."""
        name, count = wish, 1
        while name in self._taken:
            count += 1
            name = f"{wish}_{count}"
        self._taken.add(name)
        return name


@dataclasses.dataclass
class NodeEdit:
    """What changes about one node.

    Attributes:
        op_type: New operator, None for the old one.
        inputs: New value name by input slot; a slot past the end is added.
        attributes: New value by attribute; None removes it.
        clear: Whether all old inputs and attributes go first.
    """

    op_type: str | None = None
    inputs: dict[int, str] = dataclasses.field(default_factory=dict)
    attributes: dict[str, Any] = dataclasses.field(default_factory=dict)
    clear: bool = False


@dataclasses.dataclass(frozen=True)
class NewNode:
    """A node to be put in front of another one."""

    before: int
    op_type: str
    inputs: tuple[str, ...]
    output: str


@dataclasses.dataclass
class Edits:
    """A set of edits, collected before anything is changed.

    Attributes:
        tensors: New content of stored constants, by name.
        added: New initializers, by name.
        nodes: Changes of nodes, by index.
        removed: Indices of nodes that go.
        inserted: Nodes that come.
        shapes: Shapes of values that change, by name.
    """

    tensors: dict[str, Array] = dataclasses.field(default_factory=dict)
    added: dict[str, Array] = dataclasses.field(default_factory=dict)
    nodes: dict[int, NodeEdit] = dataclasses.field(default_factory=dict)
    removed: set[int] = dataclasses.field(default_factory=set)
    inserted: list[NewNode] = dataclasses.field(default_factory=list)
    shapes: dict[str, Shape] = dataclasses.field(default_factory=dict)

    def node(self, index: int) -> NodeEdit:
        """The changes of one node, to be added to."""
        return self.nodes.setdefault(index, NodeEdit())


def apply_edits(model: Model, edits: Edits) -> Model:
    """Carry out edits on a copy.

    Args:
        model: The model; not changed.
        edits: What to change. Nodes and initializers that are not needed any more because of them are dropped.

    Returns:
        The edited model, with shapes inferred anew.
    """
    _drop_unused(model, edits)
    # graphsurgeon's export writes into messages that its import has taken over, so it gets a copy to work on.
    working = onnx.ModelProto()
    working.CopyFrom(model.proto)
    for node in working.graph.node:  # an empty list has no type that graphsurgeon could tell
        for attribute in [a for a in node.attribute if a.type in _LISTS and not (a.ints or a.floats or a.strings)]:
            node.attribute.remove(attribute)
    with _quiet_graphsurgeon():
        graph = gs.import_onnx(working)
    tensors: dict[str, gs.Tensor] = graph.tensors()
    stored = {name: model.constants[name] for name in model.stored if name in model.constants}
    detached = set(model.detached)
    stubs: dict[str, TensorProto] = {}
    for name, array in {**edits.tensors, **edits.added}.items():
        dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
        stub = TensorProto(name=name, data_type=dtype, dims=array.shape)
        detached.discard(name)
        maker = model.stored.get(name)
        has_payload = maker is None or "value" in maker.attributes  # a Constant's list has none to take out
        if has_payload and is_large(stub, array):
            detached.add(name)
        else:
            attach_payload(stub, array)
        stored[name], stubs[name] = array, stub
        if name in edits.added:
            tensors[name] = gs.Constant(name, LazyValues(stub))
    originals = list(graph.nodes)
    for index, change in edits.nodes.items():
        _edit_node(originals[index], change, tensors)
    waiting: dict[int, list[gs.Node]] = {}
    for new in edits.inserted:
        made = gs.Node(new.op_type, name=new.output, outputs=[gs.Variable(new.output)])
        tensors[new.output] = made.outputs[0]
        made.inputs.extend(tensors[name] for name in new.inputs)
        waiting.setdefault(new.before, []).append(made)
        edits.node(new.before)
    for index, change in edits.nodes.items():
        for slot, name in change.inputs.items():
            _set_input(originals[index], slot, tensors[name])
    order: list[tuple[gs.Node, int | None]] = []
    for index, node in enumerate(originals):
        order += [(made, None) for made in waiting.get(index, [])]
        if index not in edits.removed:
            order.append((node, index))
    del graph.nodes[:]
    graph.nodes.extend(node for node, _ in order)
    with _quiet_graphsurgeon():
        exported = gs.export_onnx(graph, do_type_check=False)
    proto = carry_over(model, edits, exported, [index for _, index in order], stubs)
    used = {name for name, _ in stored_tensors(proto.graph)}
    made = {name for node in proto.graph.node for name in node.output}
    result = assemble_model(
        proto,
        {name: array for name, array in stored.items() if name in used},
        frozenset(detached & used),
        model.inputs,
        None,
        str,
        0,
        expected={name: shape for name, shape in {**model.shapes, **edits.shapes}.items() if name in made},
    )
    # What has no shape before it runs is frozen on all axes, so it keeps the size that was measured.
    measured = {name: shape for name, shape in model.measured.items() if name in made}
    return dataclasses.replace(result, measured=measured).lay_out_like(model)


@contextlib.contextmanager
def _quiet_graphsurgeon() -> Iterator[None]:
    """Keep graphsurgeon from printing: what it cannot represent is carried over."""
    try:
        with LoggerSuppress(G_LOGGER, G_LOGGER.CRITICAL + 1):
            yield
    except Exception as error:  # it raises several kinds
        raise ModelError(f"the graph cannot be edited: {first_line(error)}") from error


def _edit_node(node: gs.Node, change: NodeEdit, tensors: Mapping[str, gs.Tensor]) -> None:
    if change.clear:
        node.inputs.clear()
        node.attrs.clear()
    if change.op_type is not None:
        node.op = change.op_type
    for name, value in change.attributes.items():
        node.attrs.pop(name, None)
        if value is not None:
            node.attrs[name] = value
    for slot, name in change.inputs.items():
        if name in tensors:
            _set_input(node, slot, tensors[name])


def _set_input(node: gs.Node, slot: int, tensor: gs.Tensor) -> None:
    while len(node.inputs) <= slot:
        node.inputs.append(gs.Variable.empty())
    node.inputs[slot] = tensor


def _drop_unused(model: Model, edits: Edits) -> None:
    """Remove nodes and initializers that only fed what was rewired away; what was unused before stays."""
    inputs = {node.index: list(node.inputs) for node in model.nodes}
    for index, change in edits.nodes.items():
        inputs[index] = [] if change.clear else inputs[index]
        for slot, name in change.inputs.items():
            inputs[index] += [""] * (slot + 1 - len(inputs[index]))
            inputs[index][slot] = name
    readers: dict[str, set[int]] = {}
    for node in model.nodes:
        for name in [*inputs[node.index], *node.captured]:
            if node.index not in edits.removed:
                readers.setdefault(name, set()).add(node.index)
    kept = set(model.outputs) | {name for new in edits.inserted for name in new.inputs}
    freed = {name for node in model.nodes for name in node.inputs if name and name not in readers}
    for node in reversed(model.nodes):
        made = {name for name in node.outputs if name}
        # Outputs that nobody ever read (the statistics of a BatchNormalization, say) keep no node.
        is_needed = any(name in kept or readers.get(name) for name in made)
        if node.index in edits.removed or is_needed or not made & freed:
            continue
        edits.removed.add(node.index)
        for name in node.inputs:
            readers.get(name, set()).discard(node.index)
            if name and not readers.get(name):
                freed.add(name)
