"""FINE-TUNE: the steps that some values of a graph need, ready to be run.

Parsed once; a run goes over a list of values by number. What follows from shapes alone is computed at the first run
with those shapes and kept, so that later runs, and compiled ones, hold nothing but tensors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import torch

from srr_onnx.errors import DataError, SrrError, first_line
from srr_onnx.finetuning.layout import Key, Layout, Operation
from srr_onnx.finetuning.operators.call import Call, Function, Numbers

Array = np.ndarray[Any, Any]
Plan = list[tuple[int, Any]]

# Results for this many combinations of input shapes are kept; training at many sizes would fill the memory.
_MOST_PLANS = 32
# Sizes, axes and bounds of one node are not more.
_MOST_NUMBERS = 64
# Places in the list of values: what is left out on the way in, and what nobody reads on the way out.
_NOTHING, _UNREAD = 0, 1


@dataclasses.dataclass(frozen=True, eq=False)
class _Step:
    """An operation, with places instead of names.

    Attributes:
        function: Computes it.
        call: What the function is told.
        inputs: Places that it reads.
        outputs: Places that it fills.
        released: Places that nobody reads after it.
        is_planned: Whether its result is kept for all inputs of the same shapes.
    """

    function: Function
    call: Call
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    released: tuple[int, ...]
    is_planned: bool


@dataclasses.dataclass(frozen=True, eq=False)
class _Settled:
    """What follows from the shapes of inputs, as places and values.

    Attributes:
        arrays: Host values as arrays.
        numbers: The same for a compiled graph: small host values as `Numbers`.
    """

    arrays: Plan
    numbers: Plan


class Program:
    """The steps that lead to some values.

    Args:
        layout: All steps of the graph.
        inputs: Names of the graph inputs, by position.
        wanted: Names of the values to be computed.
        is_training: Whether the module is in training mode.
        dtype: What the module computes in.
        drops: Whether Dropout drops.

    Attributes:
        tensors: Names of the tensors of the module that the steps read.
    """

    def __init__(
        self,
        layout: Layout,
        inputs: Sequence[str],
        wanted: Sequence[str],
        *,
        is_training: bool,
        dtype: torch.dtype,
        drops: bool,
    ) -> None:
        keys = [layout.want(name) for name in wanted]
        operations = _select(layout.operations, keys)
        read = {key: number for number, op in enumerate(operations) for key in op.inputs if key}
        made = {key for op in operations for key in op.outputs if key}
        places = {key: number for number, key in enumerate(dict.fromkeys([*read, *keys]), start=_UNREAD + 1)}
        released: list[list[int]] = [[] for _ in operations]
        for key, last in read.items():
            if key in made and key not in keys:
                released[last].append(places[key])
        self._steps = [
            _Step(
                function=op.function,
                call=Call(op.node, is_training, dtype, drops),
                inputs=tuple(_NOTHING if key is None else places[key] for key in op.inputs),
                outputs=tuple(_UNREAD if key is None else places.get(key, _UNREAD) for key in op.outputs),
                released=tuple(after),
                is_planned=op.is_planned,
            )
            for op, after in zip(operations, released, strict=True)
        ]
        self._unplanned = [step for step in self._steps if not step.is_planned]
        self._wanted = [places[key] for key in keys]
        self._inputs = [(places[Key(name)], number) for number, name in enumerate(inputs) if Key(name) in places]
        self._constants = [(places[key], array) for key, array in layout.host.items() if key in places]
        self.tensors = [k.name for k in places if not k.is_host and k not in made and k.name not in inputs]
        self._tensors = [places[Key(name)] for name in self.tensors]
        self._size = _UNREAD + 1 + len(places)
        self._plans: dict[tuple[Any, ...], _Settled] = {}

    def is_settled(self, inputs: Sequence[Any]) -> bool:
        """Whether inputs of these shapes were run before."""
        return _sign(inputs) in self._plans

    def run(self, inputs: Sequence[Any], tensors: Iterable[torch.Tensor]) -> list[Any]:
        """Compute the values.

        Args:
            inputs: Graph inputs by position.
            tensors: Content of `self.tensors`, in that order.

        Returns:
            The values, in the order in which they are wanted.

        Raises:
            DataError: A node cannot be computed.
        """
        values: list[Any] = [None] * self._size
        for place, tensor in zip(self._tensors, tensors, strict=True):
            values[place] = tensor
        for place, number in self._inputs:
            values[place] = inputs[number]
        signature = _sign(inputs)
        settled = self._plans.get(signature)
        if settled is not None:
            _put(values, settled.numbers if torch.compiler.is_compiling() else settled.arrays)
            _execute(self._unplanned, values)
        else:
            plan = list(self._constants)
            _put(values, plan)
            _execute(self._steps, values, plan)
            while len(self._plans) >= _MOST_PLANS:
                self._plans.pop(next(iter(self._plans)))
            self._plans[signature] = _Settled(plan, [(place, _to_numbers(value)) for place, value in plan])
        return [values[place] for place in self._wanted]


def _sign(inputs: Sequence[Any]) -> tuple[Any, ...]:
    return tuple((tuple(tensor.shape), str(tensor.device)) for tensor in inputs)


def _to_numbers(value: Any) -> Any:
    is_small = isinstance(value, np.ndarray) and value.ndim <= 1 and value.size <= _MOST_NUMBERS
    return Numbers(tuple(value.reshape(-1).tolist()), value.shape) if is_small else value


def _put(values: list[Any], plan: Plan) -> None:
    for place, value in plan:
        values[place] = value


def _execute(steps: Iterable[_Step], values: list[Any], plan: Plan | None = None) -> None:
    """Go through the steps; what is planned is noted in the plan.

    Raises:
        DataError: One cannot be computed.
    """
    step = None
    try:
        for step in steps:
            found = step.function(step.call, *[values[place] for place in step.inputs])
            if isinstance(found, tuple):
                for place, part in zip(step.outputs, found, strict=False):
                    values[place] = part
            else:
                values[step.outputs[0]] = found
            if plan is not None and step.is_planned:
                plan += [(place, values[place]) for place in step.outputs if place > _UNREAD]
            for place in step.released:
                values[place] = None
    except (SrrError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # torch raises many kinds
        if step is None:
            raise
        node = step.call.node
        shapes = ", ".join(str(list(np.shape(values[place]))) for place in step.inputs if values[place] is not None)
        raise DataError(
            f"node {node.label!r} ({node.op_type}) cannot be computed on inputs of the shapes {shapes}: "
            f"{first_line(error)}"
        ) from error


def _select(operations: Sequence[Operation], wanted: Collection[Key]) -> list[Operation]:
    """The operations that the wanted values need, in order."""
    needed = set(wanted)
    found = []
    for operation in reversed(operations):
        if needed.intersection(key for key in operation.outputs if key):
            found.append(operation)
            needed.update(key for key in operation.inputs if key)
    return found[::-1]
