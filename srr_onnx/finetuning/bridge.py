"""FINE-TUNE: an exported graph to a torch module, and the trained module back into the same file.

Only the content of tensors changes on the way: nodes, names and metadata of the file survive.
"""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import onnx
import torch

from srr_onnx.errors import DataError, UnknownNameError, UnsupportedError
from srr_onnx.finetuning.batch_norm import fold_norms
from srr_onnx.finetuning.branches import make_branches, write_branches
from srr_onnx.finetuning.layout import to_host, to_tensor
from srr_onnx.finetuning.torch_graph import TorchGraph
from srr_onnx.finetuning.trainables import Use, Variable, find_variables
from srr_onnx.graph.edit import Edits, apply_edits
from srr_onnx.graph.load import load_model
from srr_onnx.graph.model import Model, Node
from srr_onnx.graph.quantization import INTEGER_OPERATORS
from srr_onnx.wording import counted

__all__ = ["TorchGraph", "from_torch", "to_torch"]

_QUANTIZED = INTEGER_OPERATORS | {"DequantizeLinear", "QuantizeLinear"}


def to_torch(
    model: Model | str | os.PathLike[str],
    *,
    train: Sequence[str] | None = None,
    cut: Sequence[str] = (),
    dtype: torch.dtype = torch.float32,
) -> TorchGraph:
    """Make a module of a graph.

    Args:
        model: Loaded model, or its file.
        train: Names of the stored tensors that learn; by default the weights of layers and the scales and shifts of
            normalizations.
        cut: Names of values at which the graph ends: they are what the module gives, and what comes behind them is
            neither run nor trained.
        dtype: What is computed in, whatever floating-point type the file has.

    Returns:
        The module. In training mode BatchNormalizations use the statistics of the batch, and update their own.

    Raises:
        UnsupportedError: An operator is not known, or the model is quantized.
        UnknownNameError: `train` or `cut` names nothing.
        ModelError: The file cannot be read.
    """
    model = model if isinstance(model, Model) else load_model(model)
    module = _build(model, tuple(cut) or model.outputs, train, dtype)
    if cut:
        left = len(model.nodes) - len(module.nodes)
        module.notes.append(f"cut at {', '.join(map(repr, cut))}: {counted(left, 'node')} not run, left as in the file")
    return module


def _build(
    model: Model,
    outputs: Sequence[str],
    train: Sequence[str] | None,
    dtype: torch.dtype,
    outer: Collection[str] | None = None,
) -> TorchGraph:
    """The module of a graph, or of a branch, which reads outer values."""
    nodes = _needed(model, outputs)
    quantized = next((node for node in nodes if node.op_type in _QUANTIZED or node.op_type.startswith("QLinear")), None)
    if quantized is not None:
        raise UnsupportedError(
            f"the model is quantized (node {quantized.label!r}, {quantized.op_type}): fine-tune the float model, and "
            "quantize the result"
        )
    variables, notes = find_variables(model, nodes, train)
    if outer is not None:  # what is read from outside has its home there, and a tensor of its own has none in a branch
        variables = tuple(v for v in variables if not v.uses and v.origin not in outer)
    branches = {}
    for node in nodes:
        if node.op_type == "If" and not node.domain:
            inner = None if train is None else ()
            first, second = (
                _build(branch, branch.outputs, inner, dtype, node.captured) for branch in make_branches(model, node)
            )
            branches[node.index] = first, second
            notes = (*notes, f"{node.label!r} (If): only the branch that is taken learns, by weights of its own")
    return TorchGraph(model, nodes, outputs, variables, dtype, notes, branches)


def from_torch(module: TorchGraph) -> Model:
    """Write a module's tensors back.

    Args:
        module: The module; not changed.

    Returns:
        The model of the same nodes, names and metadata with the module's tensors in the types of the file.
        Normalizations that were put in for training are folded.

    Raises:
        DataError: A tensor is not finite, or too large for the type that the file has.
    """
    if module.norm_keys:
        module = copy.deepcopy(module)
        fold_norms(module)
    edits = Edits()
    for name, array in _changed(module).items():
        variable = module.variables[name]
        if variable.uses:
            edits.added[name] = array
            for index, slot in _places(module.model, variable):
                edits.node(index).inputs[slot] = name
        else:
            edits.tensors[name] = array
    result = apply_edits(module.model, edits)
    if not module.branches:
        return result
    proto = onnx.ModelProto()
    proto.CopyFrom(result.proto)
    write_branches(proto.graph, module, _changed)
    return dataclasses.replace(result, proto=proto)


def _places(model: Model, variable: Variable) -> tuple[Use, ...]:
    """Where a tensor that parts from another is read: by an Identity that only its readers read, so that it stays."""
    maker = model.producers.get(variable.origin)
    readers = {node.index for node in model.consumers.get(variable.origin, ())}
    is_alone = readers == {index for index, _ in variable.uses} and variable.origin not in model.outputs
    return ((maker.index, 0),) if maker and maker.op_type == "Identity" and is_alone else variable.uses


def _changed(module: TorchGraph) -> dict[str, np.ndarray[Any, Any]]:
    """Content of the tensors that are not as in the file, in the types of the file."""
    found = {}
    for variable in module.variables.values():
        before = module.model.constants[variable.origin]
        tensor = module.tensor(variable.name).detach().cpu()
        if not torch.equal(tensor, to_tensor(before, module.dtype).to(tensor.dtype)):
            found[variable.name] = _to_type(variable.name, to_host(tensor), before.dtype)
    return found


def _to_type(name: str, array: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Round to the type of the file."""
    if not np.isfinite(array).all():
        raise DataError(f"tensor {name!r} is NaN or infinite: training has diverged, try a smaller learning rate")
    with np.errstate(over="ignore"):
        found = np.require(array.astype(dtype), requirements="C")
    if not np.isfinite(found.astype(np.float32)).all():
        raise DataError(
            f"tensor {name!r} has values up to {np.abs(array).max():g}, too large for {dtype.name}, which the file "
            "keeps it in: fine-tune the float32 model"
        )
    found.flags.writeable = False
    return found


def _needed(model: Model, outputs: Sequence[str]) -> list[Node]:
    """The nodes that lead to some values, in execution order.

    Raises:
        UnknownNameError: There is no such value.
    """
    for name in outputs:
        if name not in model.producers and name not in model.inputs and name not in model.constants:
            raise UnknownNameError("value", name, model.producers)
    needed = set(outputs)
    found = []
    for node in reversed(model.nodes):
        if needed.intersection(node.outputs):
            found.append(node)
            needed.update(name for name in (*node.inputs, *node.captured) if name)
    return found[::-1]
