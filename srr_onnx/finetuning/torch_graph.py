"""FINE-TUNE: the module that a graph becomes.

It holds the tensors of the file and runs its nodes; no layer is rebuilt, so any value can be asked for by its name.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import nn

from srr_onnx.errors import DataError, SrrError, UnknownNameError
from srr_onnx.finetuning.layout import Changes, Layout, to_tensor
from srr_onnx.finetuning.open_batch import check_batch, find_baked, is_bound
from srr_onnx.finetuning.operators.call import Call, Function
from srr_onnx.finetuning.program import Program
from srr_onnx.finetuning.trainables import Variable
from srr_onnx.graph.model import Model, Node


class TorchGraph(nn.Module):
    """A graph that runs in torch.

    Made by `to_torch`. Parameters are the tensors that learn; buffers are statistics and other constants.

    Args:
        model: The model; it stays as it is.
        nodes: What is run of it, in execution order.
        outputs: Names of the values that `forward` gives.
        variables: What may change.
        dtype: What is computed in.
        notes: One line for everything that is not as the file has it.
        branches: Modules of both branches of every If, by node index.

    Attributes:
        model: The model.
        nodes: What is run of it.
        inputs: Names of the graph inputs, in the order in which they are given.
        outputs: Names of the values that `forward` gives.
        variables: What may change, by name.
        names: State-dict key of every tensor, by its name in the file.
        branches: Modules of both branches of every If, by node index as text.
        norms: Normalizations that training puts behind layers; see `batch_norm`.
        norm_keys: Key in `norms` by the name of the value that a layer makes.
        dropout: Whether Dropout nodes drop in training mode.
        notes: One line for everything that is not as the file has it.
    """

    def __init__(
        self,
        model: Model,
        nodes: Sequence[Node],
        outputs: Sequence[str],
        variables: Sequence[Variable],
        dtype: torch.dtype,
        notes: Sequence[str] = (),
        branches: Mapping[int, tuple[TorchGraph, TorchGraph]] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        self.model, self.nodes = model, tuple(nodes)
        self.inputs, self.outputs = model.fed, tuple(outputs)
        self.variables = {variable.name: variable for variable in variables}
        self.dtype, self.notes = dtype, list(notes)
        self.branches = nn.ModuleDict({str(index): nn.ModuleList(pair) for index, pair in branches.items()})
        self.norms = nn.ModuleDict()
        self.norm_keys: dict[str, str] = {}
        self.dropout = False
        self._keys: dict[str, str] = {}
        self._programs: dict[tuple[bool, bool, tuple[str, ...]], Program] = {}
        self._baked = find_baked(model)
        self._stated = [torch.Size(shape[:1]) for shape in model.inputs.values()]
        self._is_bound = is_bound(model, self._baked)
        self._stored = [_find_type(model, name) for name in self.inputs]
        self._layout: Layout = self._make_layout({})
        # Last of all: so no tensor takes the name of an attribute.
        for variable in variables:
            self.add_tensor(
                variable.name, to_tensor(model.constants[variable.origin], dtype), is_trainable=variable.is_trainable
            )
        for name in sorted(self._layout.read):
            self.add_tensor(name, to_tensor(model.constants[name], dtype), is_trainable=False)

    @property
    def names(self) -> Mapping[str, str]:
        """State-dict key of every tensor, by its name in the file."""
        return MappingProxyType(self._keys)

    def tensor(self, name: str) -> torch.Tensor:
        """A tensor of the module by its name in the file.

        Raises:
            UnknownNameError: The module holds none of this name.
        """
        if name not in self._keys:
            raise UnknownNameError("tensor", name, self._keys)
        key = self._keys[name]
        found = self._parameters.get(key)
        # What torch makes of other tensors (parametrizations, pruning masks) is an attribute only.
        return getattr(self, key) if found is None else found

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the graph.

        Args:
            inputs: The graph inputs by position, with any batch that the graph takes; floating-point ones in the
                module's type or in the file's.

        Returns:
            The outputs, in the graph's order.

        Raises:
            DataError: The inputs do not fit the graph.
        """
        return tuple(self._run(inputs, self.outputs))

    def run(self, inputs: Sequence[torch.Tensor], names: Sequence[str]) -> dict[str, torch.Tensor]:
        """Compute any values of the graph, and no more than they need.

        Args:
            inputs: The graph inputs by position.
            names: Names of the values.

        Returns:
            The values by name.

        Raises:
            DataError: The inputs do not fit the graph.
            UnknownNameError: The part of the graph that is run has no such value.
        """
        return dict(zip(names, self._run(inputs, tuple(names)), strict=True))

    def add_tensor(self, name: str, tensor: torch.Tensor, *, is_trainable: bool) -> None:
        """Hold a tensor under the name that it has in the file.

        Args:
            name: The name.
            tensor: Its content.
            is_trainable: Whether it learns.
        """
        stem = key = re.sub(r"\W", "_", name)
        taken, count = set(self._keys.values()), 1
        while key in taken or hasattr(self, key):  # names that differ in a dot only, or are the module's own
            count += 1
            key = f"{stem}_{count}"
        self._keys[name] = key
        if is_trainable:
            self.register_parameter(key, nn.Parameter(tensor))
        else:
            self.register_buffer(key, tensor)

    def adopt(self, name: str, tensor: torch.Tensor) -> None:
        """Hold the tensor of another module in place of one's own.

        Args:
            name: The name, of a tensor that learns.
            tensor: The other's parameter.
        """
        setattr(self, self._keys[name], tensor)

    def rebuild(self) -> None:
        """Parse the graph again, after normalizations or tensors came or went."""
        self._layout = self._make_layout(self._placed_norms())
        self._programs = {}

    def put_channels_last(self) -> None:
        """Lay four-dimensional tensors out with channels last, which convolutions take less time for.

        The layout spreads from the weights to whatever they make. Numbers stay, up to the order of summation.
        """
        for tensor in (*self.parameters(), *self.buffers()):
            if tensor.ndim == 4:
                tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)

    def watch(self, watchers: Mapping[str, nn.Module]) -> Callable[..., list[torch.Tensor]]:
        """Put modules behind the nodes that make some values, for as long as the result is used.

        Args:
            watchers: What gets each value and gives what is read in its place, by the name of the value.

        Returns:
            A function from the graph inputs to the outputs.
        """
        layout = self._make_layout({**self._placed_norms(), **watchers})
        program = Program(layout, self.inputs, self.outputs, is_training=self.training, dtype=self.dtype, drops=False)

        def run(*inputs: torch.Tensor) -> list[torch.Tensor]:
            self._check(inputs)
            return self._execute(program, inputs)

        return run

    def wiring(self) -> dict[tuple[int, int], str]:
        """What is read in place of what the file says, by node index and slot."""
        return {use: variable.name for variable in self.variables.values() for use in variable.uses}

    def _placed_norms(self) -> dict[str, nn.Module]:
        return {value: self.norms[key] for value, key in self.norm_keys.items()}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_layout": None, "_programs": {}}  # a copy parses the graph for itself

    def _make_layout(self, norms: Mapping[str, nn.Module]) -> Layout:
        roots = {variable.name for variable in self.variables.values() if not variable.uses}
        model = self.model
        live = {name for name in model.constants if not roots.isdisjoint(model.roots.get(name, {name}))}
        constants = {name: array for name, array in model.constants.items() if name not in live}
        branches = {int(index): _take_branch(pair) for index, pair in self.branches.items()}
        changes = Changes(self.wiring(), norms, branches, self._baked)
        layout = Layout(self.nodes, constants, {*self.variables}, self.inputs, changes, self.dtype)
        for name in self.outputs:
            layout.want(name)
        return layout

    def _run(self, inputs: Sequence[torch.Tensor], names: tuple[str, ...]) -> list[torch.Tensor]:
        self._check(inputs)
        form = self.training, self.training and self.dropout, names
        program = self._programs.get(form)
        if torch.compiler.is_compiling() and (program is None or not program.is_settled(inputs)):
            return list(_run_uncompiled(self, inputs, names))
        if program is None:
            program = self._programs[form] = self._compile(names)
        return self._execute(program, inputs)

    def _execute(self, program: Program, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        fed = [
            tensor.to(self.dtype) if tensor.dtype == stored else tensor
            for tensor, stored in zip(inputs, self._stored, strict=True)
        ]
        return program.run(fed, [self.tensor(name) for name in program.tensors])

    def _check(self, inputs: Sequence[torch.Tensor]) -> None:
        """Check number and kind of inputs, and their batch the first time that it is another than the file states."""
        if len(inputs) != len(self.inputs):
            raise DataError(
                f"the graph has {len(self.inputs)} inputs ({', '.join(self.inputs)}), {len(inputs)} are given"
            )
        for name, tensor in zip(self.inputs, inputs, strict=True):
            shape, dtype = self.model.inputs.get(name), self.model.dtypes.get(name)
            if shape is None or dtype is None:
                continue  # what a branch reads from outside
            if not isinstance(tensor, torch.Tensor):
                raise DataError(f"input {name!r} is of the type {type(tensor).__name__}, a torch tensor is wanted")
            if tensor.ndim != len(shape):
                raise DataError(f"input {name!r} has the shape {list(tensor.shape)}, {len(shape)} axes are wanted")
            if tensor.is_floating_point() != ("float" in dtype.name):
                raise DataError(f"input {name!r} is of the type {tensor.dtype}, the graph takes {dtype.name}")
        if self._is_bound and [tensor.shape[:1] for tensor in inputs] != self._stated:
            self._open(inputs)

    def _open(self, inputs: Sequence[torch.Tensor]) -> None:
        """Try out whether the graph takes another batch than the file states."""
        self._is_bound = False
        try:
            with evaluating(self):
                check_batch(self.model, lambda feeds: self._run(feeds, self.outputs), inputs)
        except SrrError:
            self._is_bound = True
            raise

    def _compile(self, names: tuple[str, ...]) -> Program:
        if self._layout is None:
            self.rebuild()
        known = {name for node in self.nodes for name in node.outputs if name} | {*self.inputs, *self._keys}
        for name in names:
            if name not in known:
                raise UnknownNameError("value", name, known)
        drops = self.training and self.dropout
        return Program(self._layout, self.inputs, names, is_training=self.training, dtype=self.dtype, drops=drops)


def _find_type(model: Model, name: str) -> torch.dtype | None:
    """The floating-point type that the file has for an input, None for any other: that of its samples, as a rule."""
    dtype = model.dtypes.get(name)
    return getattr(torch, dtype.name, None) if dtype is not None and "float" in dtype.name else None


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _run_uncompiled(
    module: TorchGraph, inputs: Sequence[torch.Tensor], names: tuple[str, ...]
) -> Sequence[torch.Tensor]:
    """The first run with inputs of some shapes, which settles what follows from them."""
    return module._run(inputs, names)


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Run a module in evaluation mode and without gradients for a while; every part gets its own mode back."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def _take_branch(pair: Any) -> tuple[Function, Sequence[str]]:
    """What runs an If, and the outer values that it reads."""

    def run(call: Call, condition: np.ndarray[Any, Any], *captured: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found: tuple[torch.Tensor, ...] = pair[0 if condition.item() else 1](*captured)
        return found

    return run, pair[0].inputs
