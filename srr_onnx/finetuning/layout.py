"""FINE-TUNE: a graph as steps to be run, and which of its values are on the host.

A value that follows from shapes and constants alone is kept on the host, as a numpy array; whatever depends on the
content of an input or on a tensor that learns is a torch tensor. Which is which is settled here, once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from srr_onnx.errors import UnsupportedError
from srr_onnx.finetuning import operators as _operators  # noqa: F401 - fills the registry
from srr_onnx.finetuning.open_batch import rescale
from srr_onnx.finetuning.operators.call import OPERATORS, WAYS_OUT, Call, Function, Operator, Value
from srr_onnx.graph.cost import is_float
from srr_onnx.graph.model import Node

Array = np.ndarray[Any, Any]

# They read no more of their input than its shape.
_MEASURES = frozenset({"Shape", "Size"})
# The shape of what they give depends on the content of what they read.
_DATA_SHAPED = frozenset({"Compress", "If", "NonMaxSuppression", "NonZero", "Unique"})


class Key(NamedTuple):
    """One form of a value.

    Attributes:
        name: Name of the value in the file; a remark behind it where a norm comes between.
        is_host: Whether this is the array on the host, not the tensor.
    """

    name: str
    is_host: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Operation:
    """One step.

    Attributes:
        node: The node that it belongs to.
        function: Computes it.
        inputs: What it reads; None where an input is left out.
        outputs: What it makes; None where an output is left out.
        is_planned: Whether the result is the same for all inputs of the same shapes.
    """

    node: Node
    function: Function
    inputs: tuple[Key | None, ...]
    outputs: tuple[Key | None, ...]
    is_planned: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Changes:
    """What is run in another way than the file says.

    Attributes:
        wiring: Name of the value to be read, by node index and slot.
        norms: What comes behind the node that makes a value, by the name of the value.
        branches: What runs an If, and the outer values that it reads, by node index.
        baked: Size of the first axis of what a node reads that a target was written for, by node index and slot of
            the target.
    """

    wiring: Mapping[tuple[int, int], str]
    norms: Mapping[str, torch.nn.Module]
    branches: Mapping[int, tuple[Function, Sequence[str]]]
    baked: Mapping[tuple[int, int], int]


class Layout:
    """The steps of a graph.

    Args:
        nodes: What is to be run, in execution order; nodes that only make constants may be among them.
        constants: Content of everything that stays constant, by name.
        tensors: Names of the tensors that may change.
        inputs: Names of the graph inputs.
        changes: What is run in another way than the file says.
        dtype: What the module computes in.

    Attributes:
        operations: The steps.
        read: Constants that steps read as tensors.
    """

    def __init__(
        self,
        nodes: Iterable[Node],
        constants: Mapping[str, Array],
        tensors: Collection[str],
        inputs: Collection[str],
        changes: Changes,
        dtype: torch.dtype,
    ) -> None:
        self.operations: list[Operation] = []
        self.read: set[str] = set()
        self.host: dict[Key, Array] = {}
        self._constants, self._tensors = constants, tensors
        self._changes, self._dtype = changes, dtype
        self._wired: dict[int, dict[int, str]] = {}
        for (index, slot), name in changes.wiring.items():
            self._wired.setdefault(index, {})[slot] = name
        self._made = {Key(name) for name in inputs}
        self._like = next((Key(name) for name in inputs), None)
        self._unsteady: set[str] = set()
        self._lowered: set[str] = set()
        for node in nodes:
            if not all(name in constants or name in tensors for name in node.outputs if name):
                self._add(node)

    def _add(self, node: Node) -> None:
        branches, captured = self._changes.branches.get(node.index, (None, ()))
        entry = _find(node) if branches is None else Operator(branches, frozenset({0}))
        wired = self._wired.get(node.index, {})
        count = max([len(node.inputs), *(slot + 1 for slot in wired)])
        names = [*(wired.get(slot, node.input(slot)) for slot in range(count)), *captured]
        measures = node.op_type in _MEASURES and not node.domain
        is_host = measures or (branches is None and all(self._is_hostable(name) for name in names))
        # What is computed on the device and read on the host: its content may change with every run.
        is_lowered = not is_host and any(not self._is_hostable(names[slot]) for slot in entry.host if slot < len(names))
        if is_lowered or node.op_type in _DATA_SHAPED or any(name in self._unsteady for name in names):
            self._unsteady.update(node.outputs)
        keys = tuple(
            None if not name
            else Key(name, self._is_hostable(name)) if measures
            else self._fitted_key(node, slot, self._host_key(node, name)) if is_host or slot in entry.host
            else self._tensor_key(node, name)
            for slot, name in enumerate(names)
        )  # fmt: skip
        outputs = tuple(Key(name, is_host) if name else None for name in node.outputs)
        function = _on_host(entry.function, entry.host) if is_host else entry.function
        norm = self._changes.norms.get(node.outputs[0])
        if norm is None:
            is_planned = is_host and self._unsteady.isdisjoint(node.outputs)
            self._append(Operation(node, function, keys, outputs, is_planned))
        else:
            raw = Key(f"{node.outputs[0]} before its norm")
            self._append(Operation(node, function, keys, (raw, *outputs[1:])))
            self._append(Operation(node, lambda call, x: norm(x), (raw,), outputs[:1]))

    def _append(self, operation: Operation) -> None:
        self.operations.append(operation)
        self._made.update(key for key in operation.outputs if key)

    def _is_hostable(self, name: str) -> bool:
        if not name or Key(name, True) in self._made:
            return name not in self._lowered
        return name in self._constants and name not in self._tensors

    def _host_key(self, node: Node, name: str) -> Key:
        key = Key(name, True)
        if key not in self._made:
            if self._is_hostable(name):
                self.host[key] = _plain(self._constants[name], self._dtype)
                self._made.add(key)
            else:
                self._lowered.add(name)
                self._append(Operation(node, lambda call, x: to_host(x), (Key(name),), (key,)))
        return key

    def _fitted_key(self, node: Node, slot: int, key: Key) -> Key:
        """A target that grows with what the node reads, where a batch may be written into it."""
        first, source = self._changes.baked.get((node.index, slot)), Key(node.inputs[0])
        if first is None or source not in self._made:
            return key
        fitted = Key(f"{key.name} for {node.outputs[0]}", True)
        is_planned = source.name not in self._unsteady
        self._append(Operation(node, rescale(first), (source, key), (fitted,), is_planned))
        return fitted

    def _tensor_key(self, node: Node, name: str) -> Key:
        key = Key(name)
        if key not in self._made and name not in self._tensors:
            if Key(name, True) in self._made and name not in self._constants:
                is_planned = name not in self._unsteady
                self._append(Operation(node, _lift, (Key(name, True), self._like), (key,), is_planned))
            elif name in self._constants:
                self.read.add(name)
            else:
                raise UnsupportedError(
                    f"node {node.label!r} ({node.op_type}) reads {name!r}, which is of a kind that torch has not "
                    f"(text, numbers of four bits, sparse): {WAYS_OUT}"
                )
        return key

    def want(self, name: str) -> Key:
        """The tensor of a value that is asked for, even if it lives on the host or is a constant."""
        maker = next((op for op in self.operations if Key(name, True) in op.outputs), None)
        if maker is not None:
            return self._tensor_key(maker.node, name)
        if name in self._constants and name not in self._tensors:
            self.read.add(name)
        return Key(name)


def to_host(value: Value) -> Array:
    """A value as an array on the host."""
    if isinstance(value, np.ndarray):
        return value
    value = value.detach().cpu()
    return np.asarray((value.float() if value.dtype == torch.bfloat16 else value).numpy())


def to_tensor(array: Array, dtype: torch.dtype) -> torch.Tensor:
    """An array as a tensor with memory of its own; floating-point numbers of any width in the module's type."""
    return torch.tensor(np.require(_plain(array, dtype), requirements="C"))


def _plain(array: Array, dtype: torch.dtype) -> Array:
    """An array of a kind that torch has."""
    if not is_float(array):
        return array
    return array.astype(np.float64 if dtype == torch.float64 else np.float32, copy=False)


def _lift(call: Call, array: Array, like: torch.Tensor | None) -> torch.Tensor:
    """An array of the host as a tensor, where the graph's first input lies."""
    with torch.inference_mode(False):  # it is kept, and may be part of a gradient later
        found = to_tensor(array, call.dtype)
        return found if like is None else found.to(like.device)


def _on_host(function: Function, host: frozenset[int]) -> Function:
    """The same function for arrays: it gets tensors where it expects them, and its results come back as arrays."""

    def compute(call: Call, *values: Value | None) -> tuple[Value | None, ...]:
        with torch.no_grad():
            found = function(
                call,
                *(
                    torch.tensor(np.require(value, requirements="C"))
                    if isinstance(value, np.ndarray) and slot not in host
                    else value
                    for slot, value in enumerate(values)
                ),
            )
        parts = found if isinstance(found, tuple) else (found,)
        return tuple(None if part is None else to_host(part) for part in parts)

    return compute


def _find(node: Node) -> Operator:
    """The function of a node."""
    entry = OPERATORS.find((node.domain, node.op_type, node.since_version))
    if entry is not None:
        return entry
    versions = sorted(key[2] for key in OPERATORS if key[:2] == (node.domain, node.op_type))
    kind = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    known = f"only versions {', '.join(map(str, versions))} of it are" if versions else "no version of it is"
    raise UnsupportedError(
        f"operator {kind} of version {node.since_version} (node {node.label!r}) cannot be trained, {known} known: "
        f"{WAYS_OUT}"
    )
