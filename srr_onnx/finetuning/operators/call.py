"""FINE-TUNE: which function computes which version of an operator, and what it is told.

A function takes a `Call` and the values of the node's inputs, None where one is left out, and gives the value of the
first output, or a tuple of values. A value is a torch tensor, or a numpy array where it follows from shapes and
constants alone: a *host value*. Shape arithmetic so never leaves the host: no copy from the device, no break in a
compiled graph.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch

from srr_onnx.errors import UnsupportedError
from srr_onnx.graph.model import Node
from srr_onnx.registry import Registry

Value: TypeAlias = torch.Tensor | np.ndarray[Any, Any]
# What to do about a node that is not known.
WAYS_OUT = "cut the graph before it (cut=[...]), or register a function for it with @operator"
Function: TypeAlias = Callable[..., Value | tuple[Value | None, ...]]
F = TypeVar("F", bound=Function)


class Numbers:
    """A small host value in a graph that torch compiles, where a numpy array would become a tensor of the graph.

    It has as much of an array as functions need of sizes, axes and bounds.

    Args:
        values: The elements, in order.
        shape: The shape, of one axis at most.
    """

    def __init__(self, values: tuple[Any, ...], shape: tuple[int, ...]) -> None:
        self.values, self.shape, self.size = values, shape, len(values)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, place: Any) -> Any:
        return self.values[place]

    def reshape(self, shape: int) -> Numbers:
        """The same along one axis."""
        return Numbers(self.values, (self.size,))

    def tolist(self) -> Any:
        """The elements as a list; a single one without an axis as it is."""
        return list(self.values) if self.shape else self.values[0]

    def item(self) -> Any:
        """The only element."""
        return self.values[0]


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """What a function is told besides the values of its inputs.

    Attributes:
        node: The node of the file; its attributes are decoded, its `since_version` selects the meaning.
        is_training: Whether the module is in training mode.
        dtype: What the module computes floating-point numbers in, whatever type the file has.
        drops: Whether Dropout drops.
    """

    node: Node
    is_training: bool = False
    dtype: torch.dtype = torch.float32
    drops: bool = False

    @property
    def since(self) -> int:
        """Version of the operator's definition."""
        return self.node.since_version

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute of the node, or what the specification takes in its place."""
        return self.node.attributes.get(name, default)

    def has_output(self, slot: int) -> bool:
        """Whether the node gives an output in this slot a name."""
        return any(self.node.outputs[slot : slot + 1])

    def refuse(self, why: str) -> UnsupportedError:
        """The error that says what of a known operator is not computed.

        Args:
            why: What it is; follows the node's name.
        """
        return UnsupportedError(
            f"node {self.node.label!r} ({self.node.op_type}-{self.since}) {why}, which cannot be trained: {WAYS_OUT}"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Operator:
    """A function, and the inputs that it wants on the host.

    Attributes:
        function: Computes the node.
        host: Slots of inputs that are read as numpy arrays: sizes, axes, bounds.
    """

    function: Function
    host: frozenset[int]


OPERATORS: Registry[tuple[str, str, int], Operator] = Registry("torch operator")


def operator(op_type: str, since: Sequence[int], *, host: Sequence[int] = (), domain: str = "") -> Callable[[F], F]:
    """Enter a function for an operator.

    Args:
        op_type: Name of the operator.
        since: Versions of its definition that the function was written for; another one is refused, never guessed.
        host: Slots of inputs that the function wants as numpy arrays.
        domain: Domain of the operator; "" is the standard's.

    Returns:
        The decorator; it gives the function back unchanged.
    """

    def enter(function: F) -> F:
        OPERATORS.register(*((domain, op_type, version) for version in since))(Operator(function, frozenset(host)))
        return function

    return enter
