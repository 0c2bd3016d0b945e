"""FINE-TUNE: the branches of an If, each as a model of its own, and back into the file.

Outer values that a branch reads are inputs of its model, outer constants are constants of it; those that learn are the
very tensors of the graph around it. Of the two branches only the one that is taken gets a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from srr_onnx.errors import UnsupportedError
from srr_onnx.finetuning.operators.call import WAYS_OUT
from srr_onnx.finetuning.torch_graph import TorchGraph
from srr_onnx.graph.load import assemble_model
from srr_onnx.graph.model import Model, Node
from srr_onnx.graph.tensors import attach_payload, read_tensor, stored_tensors

BRANCHES = ("then_branch", "else_branch")


def make_branches(model: Model, node: Node) -> tuple[Model, Model]:
    """Make models of the two branches of an If.

    Args:
        model: The model that has the If.
        node: The If.

    Returns:
        What is run where the condition holds, and where it does not. Both have the outer values that either reads as
        inputs, in the same order.

    Raises:
        UnsupportedError: The type of an outer value is not known.
    """
    message = model.proto.graph.node[node.index]
    graphs = {attribute.name: attribute.g for attribute in message.attribute}
    first, second = (_make_model(model, node, graphs[name]) for name in BRANCHES)
    return first, second


def _make_model(model: Model, node: Node, graph: onnx.GraphProto) -> Model:
    proto = onnx.ModelProto(ir_version=model.proto.ir_version, graph=graph)
    proto.opset_import.extend(model.proto.opset_import)
    stored = {}
    for name, tensor in stored_tensors(proto.graph):
        array = read_tensor(name, tensor, None)
        if array is not None:
            stored[name] = array
    inputs = {}
    for name in node.captured:
        if name in model.constants:
            stored[name] = model.constants[name]
            proto.graph.initializer.append(numpy_helper.from_array(model.constants[name], name))
        elif name in model.dtypes:
            kind = helper.np_dtype_to_tensor_dtype(model.dtypes[name])
            proto.graph.input.append(helper.make_tensor_value_info(name, kind, model.shapes.get(name)))
            if name in model.shapes:
                inputs[name] = model.shapes[name]
        else:
            raise UnsupportedError(
                f"the branches of {node.label!r} (If) read {name!r}, whose element type is not known: {WAYS_OUT}"
            )
    return assemble_model(proto, stored, frozenset(), inputs, None, str, 0)


def write_branches(
    graph: onnx.GraphProto, module: TorchGraph, contents: Callable[[TorchGraph], Mapping[str, np.ndarray]]
) -> None:
    """Put what has changed in branches into a graph.

    Args:
        graph: The graph that the module was made of, or one of the same nodes; changed in place.
        module: The module.
        contents: Gives the new content of tensors, by name, of the module of a branch.
    """
    for index, pair in module.branches.items():
        outputs = module.model.proto.graph.node[int(index)].output
        message = next(node for node in graph.node if node.output == outputs)
        inner = {attribute.name: attribute.g for attribute in message.attribute}
        assert isinstance(pair, Iterable)
        for name, branch in zip(BRANCHES, pair, strict=True):
            new = contents(branch)
            for stored, tensor in stored_tensors(inner[name]):
                if stored in new:
                    attach_payload(tensor, new[stored])
            write_branches(inner[name], branch, contents)
