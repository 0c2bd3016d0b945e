"""FINE-TUNE: an exported graph to a torch module, and the trained module back into the same file.

Only the content of tensors changes on the way: nodes, names and metadata of the file survive.
"""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import onnx
import torch

from srr_onnx.errors import DataError, UnknownNameError, UnsupportedError
from srr_onnx.finetuning.batch_norm import fold_norms
from srr_onnx.finetuning.branches import make_branches, write_branches
from srr_onnx.finetuning.layout import to_host, to_tensor
from srr_onnx.finetuning.torch_graph import TorchGraph
from srr_onnx.finetuning.trainables import MOVERS, Use, Variable, find_variables
from srr_onnx.graph.edit import Edits, apply_edits
from srr_onnx.graph.load import load_model
from srr_onnx.graph.model import Model, Node
from srr_onnx.graph.quantization import INTEGER_OPERATORS
from srr_onnx.wording import counted

__all__ = ["TorchGraph", "from_torch", "to_torch"]

Array = np.ndarray[Any, Any]

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
        UnsupportedError: An operator is not known, the model is quantized, or `dtype` is not computed in.
        UnknownNameError: `train` or `cut` names nothing.
        ModelError: The file cannot be read.
    """
    if dtype not in (torch.float32, torch.float64):
        raise UnsupportedError(
            f"{dtype} is nothing that a graph is computed in: take torch.float32 or torch.float64, and torch.autocast "
            "for fewer bits"
        )
    model = model if isinstance(model, Model) else load_model(model)
    module = _build(model, tuple(cut) or model.outputs, train, dtype)
    _share(module)
    left = len(model.nodes) - len(module.nodes)
    if cut and left:
        module.notes.append(f"cut at {', '.join(map(repr, cut))}: {counted(left, 'node')} not run, left as in the file")
    return module


def _build(
    model: Model,
    outputs: Sequence[str],
    train: Sequence[str] | None,
    dtype: torch.dtype,
    outer: Collection[str] | None = None,
    shared: Collection[str] = (),
) -> TorchGraph:
    """The module of a graph, or of a branch, which reads outer values, of which it shares some weights."""
    nodes = _needed(model, outputs)
    quantized = next((node for node in nodes if node.op_type in _QUANTIZED or node.op_type.startswith("QLinear")), None)
    if quantized is not None:
        raise UnsupportedError(
            f"the model is quantized (node {quantized.label!r}, {quantized.op_type}): fine-tune the float model, and "
            "quantize the result"
        )
    weights = [name for name in _find_shared(model, nodes) if train is None or name in train]
    variables, notes = find_variables(model, nodes, train, weights)
    if outer is not None:  # a tensor of its own of what is read from outside has no home in a branch
        variables = tuple(v for v in variables if not v.uses and (v.origin not in outer or v.origin in shared))
    learnt = [variable.name for variable in variables if variable.name in weights]
    branches = {}
    for node in nodes:
        if _is_if(node):
            inner = None if train is None else [name for name in learnt if name in node.captured]
            first, second = (
                _build(branch, branch.outputs, inner, dtype, node.captured, learnt)
                for branch in make_branches(model, node)
            )
            branches[node.index] = first, second
            notes = (*notes, f"{node.label!r} (If): only the branch that is taken learns")
    return TorchGraph(model, nodes, outputs, variables, dtype, notes, branches)


def _is_if(node: Node) -> bool:
    return node.op_type == "If" and not node.domain


def _find_shared(model: Model, nodes: Sequence[Node]) -> list[str]:
    """Stored constants that the branches of Ifs read, and all of them as weights."""
    found, others = dict[str, None](), set[str]()
    for node in nodes:
        if not _is_if(node):
            others.update(node.captured)
            continue
        for branch in make_branches(model, node):
            inner = _needed(branch, branch.outputs)
            variables, _ = find_variables(branch, inner, shared=_find_shared(branch, inner))
            learnt = {variable.name for variable in variables if variable.is_trainable and not variable.uses}
            read = {name for part in inner for name in (*part.inputs, *part.captured)} & set(node.captured)
            found.update(dict.fromkeys(name for name in node.captured if name in read & learnt))
            others |= read - learnt
    return [name for name in found if name in model.stored and name not in others]


def _share(module: TorchGraph) -> None:
    """Let branches have the very tensors of the graph around them, where they read its weights."""
    captured = {str(node.index): node.captured for node in module.nodes}
    for index, pair in module.branches.items():
        assert isinstance(pair, Iterable)
        for branch in pair:
            for name in branch.variables:
                if name in captured[index]:
                    branch.adopt(name, module.tensor(name))
            _share(branch)


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
            uses, edits.added[name] = _place(module.model, variable, array)
            for index, slot in uses:
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


def _place(model: Model, variable: Variable, array: Array) -> tuple[tuple[Use, ...], Array]:
    """Where a tensor that parts from another is read, and its content there: nodes that only move it stay."""
    uses, name = variable.uses, variable.origin
    while (maker := model.producers.get(name)) is not None and maker.op_type in MOVERS and not maker.domain:
        readers = {node.index for node in model.consumers.get(name, ())}
        moved = maker.inputs[0]
        if readers != {index for index, _ in uses} or name in model.outputs or moved not in model.constants:
            break
        array, uses, name = _move_back(model, maker, array), ((maker.index, 0),), moved
    return uses, array


def _move_back(model: Model, maker: Node, array: Array) -> Array:
    """What a node reads when it gives an array."""
    before = model.constants[maker.inputs[0]]
    if maker.op_type == "Transpose":
        array = array.transpose(np.argsort(maker.attributes.get("perm") or range(array.ndim)[::-1]))
    return np.require(array.reshape(before.shape).astype(before.dtype), requirements="C")


def _changed(module: TorchGraph) -> dict[str, Array]:
    """Content of the tensors that are not as in the file, in the types of the file."""
    found = {}
    for variable in module.variables.values():
        before = module.model.constants[variable.origin]
        tensor = module.tensor(variable.name).detach().cpu()
        if not torch.equal(tensor, to_tensor(before, module.dtype).to(tensor.dtype)):
            found[variable.name] = _to_type(variable.name, to_host(tensor), before.dtype)
    return found


def _to_type(name: str, array: Array, dtype: np.dtype[Any]) -> Array:
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
