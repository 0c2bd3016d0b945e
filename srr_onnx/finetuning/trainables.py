"""FINE-TUNE: which tensors learn, chosen by the place that reads them, not by their type.

Weights of layers and the scales and shifts of normalizations learn; bounds, exponents, sizes and constants of the
preprocessing never do. Means and variances of BatchNormalizations follow the data and change without a gradient.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from srr_onnx.errors import UnknownNameError
from srr_onnx.graph.cost import is_constant_node, is_float
from srr_onnx.graph.edit import NewNames
from srr_onnx.graph.model import Model, Node

Use = tuple[int, int]

# Slots of weights, by operator.
_SLOTS: Mapping[str, tuple[int, ...]] = {
    "BatchNormalization": (1, 2),
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Einsum": (0, 1, 2),
    "GRU": (1, 2, 3),
    "Gemm": (0, 1, 2),
    "GroupNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LSTM": (1, 2, 3, 7),
    "LayerNormalization": (1, 2),
    "MatMul": (0, 1),
    "PRelu": (1,),
    "RMSNormalization": (1,),
    "RNN": (1, 2, 3),
}
_STATISTICS = (3, 4)
_PRODUCTS = frozenset({"BatchNormalization", "Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul"})
# Operators that pass numbers on as they are, in another order or shape.
MOVERS = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


@dataclasses.dataclass(frozen=True)
class Variable:
    """A tensor that may change.

    Attributes:
        name: The stored constant that it is; a new name where it parts from one that others read as well.
        origin: The constant whose content it starts with; of a bias that the file has not, the weight.
        uses: Node index and slot of those who read it instead of what the file names; empty where it has its old name.
        is_trainable: Whether it learns; else it follows the data.
    """

    name: str
    origin: str
    uses: tuple[Use, ...]
    is_trainable: bool


class Readers:
    """Who reads the constants of a model.

    Args:
        model: Loaded model.
        shared: Constants of which it is known that subgraphs read them as weights.
    """

    def __init__(self, model: Model, shared: Collection[str] = ()) -> None:
        self._model = model
        self._names: dict[str, list[str]] = {}
        for name, roots in model.roots.items():
            for root in roots:
                self._names.setdefault(root, []).append(name)
        self._uses: dict[str, list[Use]] = {}
        for node in model.nodes:
            if not is_constant_node(model, node):
                for slot, name in enumerate(node.inputs):
                    self._uses.setdefault(name, []).append((node.index, slot))
        self._captured = {name for node in model.nodes for name in node.captured if name not in shared}

    def of(self, root: str) -> list[Use]:
        """Uses of a stored constant, and of what follows from it, by nodes that do not make a constant themselves."""
        return [use for name in self._all_names(root) for use in self._uses.get(name, ())]

    def is_shown(self, root: str) -> bool:
        """Whether a stored constant, or what follows from it, is a graph output or read inside a subgraph."""
        return any(name in self._captured or name in self._model.outputs for name in self._all_names(root))

    def _all_names(self, root: str) -> list[str]:
        return [root, *self._names.get(root, ())]


def find_variables(
    model: Model, nodes: Sequence[Node], train: Sequence[str] | None = None, shared: Collection[str] = ()
) -> tuple[tuple[Variable, ...], tuple[str, ...]]:
    """Find what may change.

    Args:
        model: Loaded model.
        nodes: The nodes that will be run.
        train: Names of the stored constants that learn; None for those that the slots name.
        shared: Names of the stored constants that branches read, as weights only: they learn as if they were read here.

    Returns:
        The tensors that may change, and one line for everything that parts.

    Raises:
        UnknownNameError: `train` names no stored floating-point constant.
    """
    statistics = {
        (node.index, slot): node.input(slot)
        for node in nodes
        if node.op_type == "BatchNormalization" and not node.domain
        for slot in _STATISTICS
        if node.input(slot) in model.constants
    }
    if train is None:
        wanted = {use: name for node in nodes for use, name in _weights(model, node) if use not in statistics}
    else:
        wanted = _named(model, train, statistics)
    names, readers, notes = NewNames(model), Readers(model, shared), list[str]()
    ends = _find_ends(model)
    found: dict[str, Variable] = {}
    for name in dict.fromkeys((*wanted.values(), *shared)):
        uses = tuple(use for use, read in wanted.items() if read == name)
        roots = [root for root in _float_roots(model, name) if root not in ends and (train is None or root in train)]
        others = {use for root in roots for use in readers.of(root)} - set(wanted)
        if not others and not any(readers.is_shown(root) for root in roots):
            found.update((root, Variable(root, root, (), True)) for root in roots)
            continue
        if not uses:
            continue
        new = names.take(f"{name}_learnt")
        found[new] = Variable(new, name, uses, True)
        notes.append(f"{name!r} is read by others too: {_describe(model, uses)} gets a tensor of its own, {new!r}")
    parted: dict[int, Use] = {}
    for use, name in statistics.items():
        if name in model.stored and readers.of(name) == [use] and not readers.is_shown(name):
            found[name] = Variable(name, name, (), False)
        else:
            new = names.take(f"{name}_followed")
            found[new] = Variable(new, name, (use,), False)
            parted[use[0]] = use
    if parted:
        label = _describe(model, [*parted.values()])
        notes.append(f"the statistics of {label} are read or made by others too: they become tensors of their own")
    return tuple(found.values()), tuple(notes)


def _weights(model: Model, node: Node) -> Iterable[tuple[Use, str]]:
    """What a node reads in the slots of weights."""
    slots = () if node.domain else _SLOTS.get(node.op_type, ())
    for slot in slots:
        if _is_float_constant(model, node.input(slot)):
            yield (node.index, slot), node.input(slot)
    if node.op_type in ("Add", "Mul", "Sub") and not node.domain:
        for slot, other in ((0, 1), (1, 0)):
            name = node.input(slot)
            if _is_float_constant(model, name) and _is_per_channel(model, name) and _follows(model, node.input(other)):
                yield (node.index, slot), name


def _follows(model: Model, name: str) -> bool:
    """Whether a value is what a layer gives, moved, scaled or shifted at most, or what is normalized by nodes."""
    node = model.producers.get(name)
    if node is None or node.domain or is_constant_node(model, node):
        return False
    if node.op_type in _PRODUCTS:
        return True
    if node.op_type in MOVERS:
        return _follows(model, node.inputs[0])
    if node.op_type in ("Add", "Mul", "Sub"):
        rest = [part for part in node.inputs if part not in model.constants]
        return len(rest) == 1 and _follows(model, rest[0])
    divisor = model.producers.get(node.input(1))
    return node.op_type == "Div" and divisor is not None and divisor.op_type == "Sqrt"


def _is_float_constant(model: Model, name: str) -> bool:
    array = model.constants.get(name)
    return array is not None and is_float(array) and bool(array.size)


def _is_per_channel(model: Model, name: str) -> bool:
    """Whether a constant has one number per place of a single axis, none of them infinite: that would be a mask."""
    array = model.constants[name]
    return [size > 1 for size in array.shape].count(True) == 1 and bool(np.isfinite(array).all())


def _named(model: Model, train: Sequence[str], statistics: Mapping[Use, str]) -> dict[Use, str]:
    """All uses of the constants that the caller names."""
    known = [name for name in model.stored if _is_float_constant(model, name)]
    for name in train:
        if name not in known:
            raise UnknownNameError("stored tensor", name, known)
    return {
        (node.index, slot): name
        for node in model.nodes
        if not is_constant_node(model, node)
        for slot, name in enumerate(node.inputs)
        if (node.index, slot) not in statistics
        and name in model.constants
        and not set(train).isdisjoint(model.roots.get(name, {name}))
    }


def _find_ends(model: Model) -> set[str]:
    """The stored constants that say how many numbers a Range makes."""
    names = {name for node in model.nodes if node.op_type == "Range" and not node.domain for name in node.inputs}
    return {root for name in names for root in model.roots.get(name, {name})}


def _float_roots(model: Model, name: str) -> list[str]:
    """The stored numbers behind a constant; single ones (an epsilon, say) are no weights unless they are the whole."""
    roots = [root for root in model.roots.get(name, [name]) if _is_float_constant(model, root)]
    return sorted(root for root in roots if model.constants[root].size > 1) or roots


def _describe(model: Model, uses: Sequence[Use]) -> str:
    label = next(repr(node.label) for node in model.nodes if node.index == uses[0][0])
    return label if len(uses) == 1 else f"{label} with {len(uses) - 1} more"
