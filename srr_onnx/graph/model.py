"""LOAD: the in-memory form of an ONNX file that every later stage reads.

A `Model` is frozen: a stage that changes something makes a new one. The payload of large
tensors lives once, in `Model.constants`, as read-only numpy arrays; the protobuf keeps the rest.
"""

from __future__ import annotations

import copyreg
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx

Shape = tuple[int, ...]

# A damaged size can be anything. What is larger than this in elements, axes of size 0 counting as 1, is no value that
# a network computes (8 GB in float32), and its shape is as good as unknown.
_MOST_ELEMENTS = 1 << 31


def is_sane(shape: Shape) -> bool:
    """Whether a value of this shape can be: no negative axis, and not so large that memory could not hold it."""
    return all(size >= 0 for size in shape) and math.prod(size or 1 for size in shape) <= _MOST_ELEMENTS


def is_floating(dtype: np.dtype[Any]) -> bool:
    """Whether values of a type are floating-point numbers that networks compute in (bfloat16, but not float8)."""
    return dtype.kind == "f" or dtype.name == "bfloat16"


def _freeze(mapping: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    return MappingProxyType(mapping)


# Mappings that nobody may change know no way into a pickle by themselves; torch.save and other processes want one.
copyreg.pickle(MappingProxyType, lambda mapping: (_freeze, (dict(mapping),)))


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Node:
    """One operator of the graph, as the file has it.

    Attributes:
        index: Position in the file's node list (not in execution order).
        op_type: Operator name as in the ONNX spec.
        domain: "" for the standard operators.
        since_version: Version of the operator's definition that the model's opset selects; 0 where ONNX knows none.
        name: Node name as in the file, may be empty or repeated.
        inputs: Value names; "" where an optional input is left out.
        outputs: Value names; "" where an optional output is left out.
        attributes: Decoded attributes; subgraphs and unknown kinds are left out.
        captured: Outer values that the node's subgraphs read.
    """

    index: int
    op_type: str
    domain: str
    since_version: int
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    captured: tuple[str, ...] = ()

    def __deepcopy__(self, memo: object) -> Node:
        return self  # nothing in it ever changes

    @property
    def label(self) -> str:
        """A name for messages: the node's own, else operator and first output."""
        return self.name or f"{self.op_type}({next((o for o in self.outputs if o), '')})"

    def input(self, slot: int) -> str:
        """Name of the value in an input slot, "" where the slot is empty or absent."""
        return self.inputs[slot] if slot < len(self.inputs) else ""


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A loaded ONNX model with static shapes; never changed after loading.

    Attributes:
        proto: The file's protobuf; the payload of tensors in `detached` is taken out.
        nodes: All nodes of the main graph in execution order.
        constants: Every initializer and every value that follows from constants alone, by name (read-only).
        shape_values: Integer values that follow from shapes of activations, at the given input shapes.
        detached: Names of initializers / Constant outputs whose payload is only in `constants`.
        inputs: Shape of every graph input that has to be fed, by name. In a branch of an If, which is a model too, what
            it reads from outside may have none.
        outputs: Names of the graph outputs, in file order.
        shapes: Static shape by value name; a value without a known static shape is missing.
        dtypes: numpy dtype by value name, as far as known.
        source: Where it was read from, if from a file.
        find_sha256: See `sha256`.
        size_bytes: Size on disk including external data.
        guessed: Inputs whose height and width the file leaves open and nobody gave: the loader chose a size.
        elsewhere: Shape of every input at another size that the graph takes, where a size was chosen.
        external: Names of initializers / Constant outputs whose payload lies in a file beside the model's.
        is_inlined: Whether the file has functions that were put in the place of their calls: then nodes and values have
            the names that `onnx.inliner.inline_local_functions` gives.
        measured: Shapes found by running the model where none can be inferred. They may depend on the content of the
            inputs, so they are for counting only.
    """

    proto: onnx.ModelProto
    nodes: tuple[Node, ...]
    constants: Mapping[str, np.ndarray]
    shape_values: Mapping[str, np.ndarray]
    detached: frozenset[str]
    inputs: Mapping[str, Shape]
    outputs: tuple[str, ...]
    shapes: Mapping[str, Shape]
    dtypes: Mapping[str, np.dtype[Any]]
    source: Path | None
    find_sha256: Callable[[], str]
    size_bytes: int
    guessed: frozenset[str] = frozenset()
    elsewhere: Mapping[str, Shape] = dataclasses.field(default_factory=dict)
    external: frozenset[str] = frozenset()
    is_inlined: bool = False
    measured: Mapping[str, Shape] = dataclasses.field(default_factory=dict)

    def __deepcopy__(self, memo: object) -> Model:
        return self  # nothing in it ever changes

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "find_sha256": functools.partial(str, self.sha256)}  # the file may be elsewhere then

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for array in (*self.constants.values(), *self.shape_values.values()):
            array.flags.writeable = False

    @cached_property
    def sha256(self) -> str:
        """Hash of the file's bytes (of the serialized model where there is no file)."""
        return self.find_sha256()

    @property
    def opset(self) -> int:
        """Version of the standard operator set that the model imports."""
        return next((o.version for o in self.proto.opset_import if o.domain in ("", "ai.onnx")), 0)

    @cached_property
    def fed(self) -> tuple[str, ...]:
        """Names of the graph inputs that have to be fed, in the file's order."""
        return tuple(value.name for value in self.proto.graph.input if value.name not in self.stored)

    @cached_property
    def is_dynamic(self) -> bool:
        """Whether the file leaves a size of some input open."""
        return any(
            not value.type.tensor_type.HasField("shape")
            or any(dim.dim_value <= 0 for dim in value.type.tensor_type.shape.dim)
            for value in self.proto.graph.input
            if value.name in self.inputs
        )

    @cached_property
    def sizes(self) -> Mapping[str, Shape]:
        """Shapes for counting: those that hold for any input, and those that were measured."""
        return MappingProxyType({**self.measured, **self.shapes}) if self.measured else self.shapes

    def known(self, value: str) -> np.ndarray | None:
        """Content of a constant or of a value that follows from shapes; None for any other."""
        return self.constants.get(value, self.shape_values.get(value))

    @cached_property
    def stored(self) -> Mapping[str, Node | None]:
        """Constants that are stored in the file: initializers (None) and outputs of Constant nodes (the node)."""
        found: dict[str, Node | None] = {init.name: None for init in self.proto.graph.initializer}
        found |= {node.outputs[0]: node for node in self.nodes if node.op_type == "Constant" and not node.domain}
        return MappingProxyType(found)

    @cached_property
    def roots(self) -> Mapping[str, frozenset[str]]:
        """The stored constants behind every constant that the graph computes."""
        found: dict[str, frozenset[str]] = {}
        for node in self.nodes:
            for output in node.outputs:
                if output in self.constants and output not in self.stored:
                    sources = (found.get(name, frozenset({name})) for name in node.inputs if name)
                    found[output] = frozenset[str]().union(*sources)
        return MappingProxyType(found)

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that read each value, in execution order, a node once per value."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs + node.captured):
                if name:
                    found.setdefault(name, []).append(node)
        return MappingProxyType({name: tuple(nodes) for name, nodes in found.items()})

    @cached_property
    def producers(self) -> Mapping[str, Node]:
        """The node that makes each value."""
        return MappingProxyType({name: node for node in self.nodes for name in node.outputs if name})

    @cached_property
    def dequantizers(self) -> Mapping[int, Node]:
        """The DequantizeLinear nodes, by index."""
        return MappingProxyType({n.index: n for n in self.nodes if n.op_type == "DequantizeLinear" and not n.domain})

    @cached_property
    def quantized(self) -> frozenset[str]:
        """Constants that stand for other numbers: a DequantizeLinear reads them, or what is made of them."""
        found = {node.inputs[0] for node in self.dequantizers.values()} & set(self.constants)
        for node in reversed(self.nodes):
            if found.intersection(node.outputs):
                found.update(name for name in node.inputs[:1] if name in self.constants)
        return frozenset(found)

    def lay_out_like(self, other: Model) -> Model:
        """The same with the tensors beside the file that another model, of which it was made, has there.

        Where there are any, what is new and large goes there too.
        """
        new = self.detached.difference(other.stored) if other.external else frozenset()
        return dataclasses.replace(self, external=(other.external | new).intersection(self.stored))

    def rank(self, value: str) -> int | None:
        """Number of axes of a value, None where unknown."""
        shape = self.shapes.get(value)
        return None if shape is None else len(shape)
