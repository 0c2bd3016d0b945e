"""ANALYZE: what a channel rule is, and what it sees.

A rule is an operator, executed on labels. It lives in one file of `rules/` together with its repair, the function
that mends sizes written into attributes or constants after channels have gone. A rule names the operator versions
its author has read; any other version counts as unknown.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from srr_onnx.analysis.groups import Role, Use
from srr_onnx.analysis.labels import ChannelLabels, Freeze, FreezeReason, Labels
from srr_onnx.graph.model import Model, Node, Shape
from srr_onnx.registry import Registry

if TYPE_CHECKING:
    from srr_onnx.analysis.splits import Places, Split

Axes = list[Labels | None]
Positions = np.ndarray[Any, np.dtype[np.int64]]


# Longer axes have no labels: they would take more memory than the network.
_MOST_CHANNELS = 1 << 22


class CannotFollow(Exception):  # noqa: N818 - a signal to the engine, never seen by a user
    """Raised by a rule that cannot say what the node does to channels: all its channels freeze."""

    def __init__(self, reason: FreezeReason, detail: str = "") -> None:
        super().__init__(reason.text)
        self.reason = reason
        self.detail = detail


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """What a number of shape arithmetic was measured on.

    Attributes:
        labels: The channels whose number went in; may be empty.
        is_dynamic: Whether a size that the file leaves open went in too, so that the number is not known in advance.
    """

    labels: Labels
    is_dynamic: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Extents:
    """Where the elements of a shape value come from.

    Attributes:
        tokens: One token per element, shaped like the value: 0 for a number that stays, else 1 + index into `sources`.
        sources: What was measured.
    """

    tokens: np.ndarray[Any, np.dtype[np.int64]]
    sources: tuple[Source, ...]


class Op:
    """A node as a rule sees it: labels of its inputs and outputs, shapes, constant operands.

    Axis labels are a list with one entry per axis: a label vector, or None for an axis without channels.
    """

    def __init__(self, node: Node, model: Model, labels: ChannelLabels, state: State) -> None:
        self.node = node
        self.model = model
        self.labels = labels
        self.state = state
        self.followed_extents: set[int] = set()

    def has(self, slot: int) -> bool:
        """Whether an input slot is filled."""
        return bool(self.node.input(slot))

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute's value, or the default."""
        return self.node.attributes.get(name, default)

    def shape(self, slot: int = 0) -> Shape:
        """Static shape of an input.

        Raises:
            CannotFollow: It is not known.
        """
        return self._shape(self.node.input(slot))

    def out_shape(self, slot: int = 0) -> Shape:
        """Static shape of an output.

        Raises:
            CannotFollow: It is not known.
        """
        return self._shape(self.node.outputs[slot])

    def _shape(self, name: str) -> Shape:
        if name not in self.model.shapes:
            raise CannotFollow(FreezeReason.UNKNOWN_SHAPE, f"value {name!r}")
        return self.model.shapes[name]

    def axis(self, value: int, rank: int) -> int:
        """Make an axis number non-negative."""
        return value + rank if value < 0 else value

    def is_constant(self, slot: int) -> bool:
        """Whether an input is a constant, independent of any shape."""
        return self.node.input(slot) in self.model.constants

    def constant(self, slot: int) -> np.ndarray[Any, Any] | None:
        """Content of a constant input; None where the slot is empty or computed."""
        return self.model.constants.get(self.node.input(slot))

    def settled(self, slot: int, places: Iterable[int] | None = None) -> np.ndarray[Any, Any] | None:
        """Content of a constant input, or of one that follows from shapes, if its numbers are known in advance.

        A rule that asks has a repair that mends the numbers after channels have gone.

        Args:
            slot: Input slot.
            places: The elements that have to be known; all by default. The others hold for the given input shapes only.

        Returns:
            The content; None where the slot is empty or an element depends on a size that the file leaves open.
        """
        name = self.node.input(slot)
        extents = self.state.extents.get(name)
        if extents is not None:
            self.followed_extents.add(slot)
            tokens = extents.tokens.reshape(-1)
            wanted = tokens if places is None else tokens[list(places)]
            if any(extents.sources[token - 1].is_dynamic for token in wanted.tolist() if token):
                return None
        return self.model.known(name)

    def axes(self, slot: int = 0) -> Axes:
        """Labels of an input, one entry per axis.

        Constants have labels of their own per use, so that two readers never tie each other.

        Raises:
            CannotFollow: The rank is not known.
        """
        name = self.node.input(slot)
        if name in self.model.constants:
            return self.state.use(self.labels, Use(self.node.index, slot), self.model.constants[name].shape)
        if name in self.state.values:
            return list(self.state.values[name])
        return [None] * len(self._shape(name))

    def out(self, axes: Sequence[Labels | None], slot: int = 0) -> None:
        """Set the labels of an output."""
        if slot < len(self.node.outputs) and self.node.outputs[slot]:
            self.state.values[self.node.outputs[slot]] = list(axes)

    def out_sequence(self, parts: Sequence[Axes]) -> None:
        """Set the labels of an output that is a sequence of values."""
        self.state.sequences[self.node.outputs[0]] = [list(part) for part in parts]

    def sequence(self, slot: int) -> list[Axes]:
        """Labels of the values in an input sequence.

        Raises:
            CannotFollow: Nothing is known about the sequence.
        """
        name = self.node.input(slot)
        if name not in self.state.sequences:
            raise CannotFollow(FreezeReason.UNKNOWN_SHAPE, f"sequence {name!r}")
        return self.state.sequences[name]

    def role(self, slot: int, axis: int, role: Role) -> None:
        """Say what an axis of a constant operand is to its units.

        Of an operand that is dequantized from constants it is said of those; other computed operands have no role.
        """
        name = self.node.input(slot)
        if self.is_constant(slot):
            self.state.roles[Use(self.node.index, slot), axis] = role
        elif name in self.state.origins:
            labels = self.state.values[name][axis]
            for use in self.state.origins[name]:
                for place, own in enumerate(self.state.uses[use]):
                    if labels is not None and np.array_equal(own, labels):
                        self.state.tell(use, place, role, self.node)

    def freeze(self, labels: Labels | Iterable[Labels | None] | None, reason: FreezeReason, detail: str = "") -> None:
        """Keep channels, with this node as the cause."""
        for part in [labels] if labels is None or isinstance(labels, np.ndarray) else labels:
            if part is not None:
                self.labels.freeze(part, Freeze(reason, self.node.label, detail))

    def unify(self, first: Labels | None, second: Labels | None) -> Labels | None:
        """Tie two axes position by position; an axis tied to one without channels freezes."""
        if first is None or second is None:
            self.freeze([first, second], FreezeReason.FIXED_AXIS)
            return first if second is None else second
        if first.shape != second.shape:
            raise CannotFollow(FreezeReason.LAYOUT, f"axes of {len(first)} and {len(second)} channels meet")
        self.labels.unify(first, second)
        return first

    def samples(self, labels: Labels | None) -> Labels | None:
        """Channels that are folded into the batch, for a node that treats every sample alike.

        They pass, unless sizes are open: a batch that is larger at run time would repeat them.
        """
        if not self.model.is_dynamic:
            return labels
        self.freeze(labels, FreezeReason.FIXED_AXIS, "batch axis of open size")
        return None

    def inexact(self, labels: Labels | None) -> None:
        """Say that channels may go, but that the node then computes something else than with masked channels."""
        if labels is not None:
            self.labels.mark_inexact(labels, self.node.label)


def fresh_labels(labels: ChannelLabels, count: int) -> Labels:
    """Make new labels, unless there would be more than any network has channels.

    Raises:
        CannotFollow: There would.
    """
    check_length(count)
    return labels.fresh(count)


def check_length(count: int) -> None:
    """Stop at an axis that is too long to be labelled.

    Raises:
        CannotFollow: It is.
    """
    if count > _MOST_CHANNELS:
        raise CannotFollow(FreezeReason.LAYOUT, f"an axis of {count} channels")


class State:
    """Everything that the rules of one run have said so far.

    Args:
        places: The axis to take where an axis unfolds, for choices that are not left to the rule.
    """

    def __init__(self, places: Places) -> None:
        self.places = places
        self.splits: list[Split] = []
        self.values: dict[str, Axes] = {}
        self.sequences: dict[str, list[Axes]] = {}
        self.uses: dict[Use, list[Labels]] = {}
        self.roles: dict[tuple[Use, int], Role] = {}
        self.origins: dict[str, list[Use]] = {}  # the constants that a value is dequantized from
        self.speakers: dict[tuple[Use, int], list[Node]] = {}  # the nodes behind that gave those their role
        self.extents: dict[str, Extents] = {}
        self.pins: list[Use] = []

    def use(self, labels: ChannelLabels, use: Use, shape: Shape) -> Axes:
        """Labels of one use of a constant, made when first asked for."""
        if use not in self.uses:
            self.uses[use] = [fresh_labels(labels, size) for size in shape]
        return list(self.uses[use])

    def tell(self, use: Use, axis: int, role: Role, speaker: Node) -> None:
        """Set the role of a constant that a node reads in dequantized form; of several readers' roles filters win."""
        if role is Role.FILTER or (use, axis) not in self.roles:
            self.roles[use, axis] = role
        self.speakers.setdefault((use, axis), []).append(speaker)

    def owners(self, use: Use, axis: int, reader: Node) -> list[Node]:
        """The nodes that an axis of a constant belongs to, for people: its reader, or those behind DequantizeLinear."""
        return self.speakers.get((use, axis), [reader])


class Change(Protocol):
    """A node as a repair sees it: what was kept along each axis, and the means to mend the node."""

    node: Node
    model: Model

    def kept(self, slot: int, axis: int) -> Positions | None:
        """Kept positions along an input's axis; None where all stay."""

    def kept_out(self, axis: int, slot: int = 0) -> Positions | None:
        """Kept positions along an output's axis; None where all stay."""

    def new_shape(self, slot: int) -> Shape:
        """Shape of an input after the change."""

    def new_out_shape(self, slot: int = 0) -> Shape:
        """Shape of an output after the change."""

    def settled(self, slot: int) -> np.ndarray[Any, Any] | None:
        """Content of an input that is constant or follows from shapes, before the change; None for any other."""

    def set_attribute(self, name: str, value: Any) -> None:
        """Write an attribute; None removes it."""

    def mend(self, slot: int, value: np.ndarray[Any, Any]) -> None:
        """Make an input have this content; other readers of the old value are not touched.

        An input that has it by itself after the change stays as it is. Of a measured input only the elements
        that differ are overruled; one that is not mended holds the original's numbers.
        """

    def replace(self, op_type: str, inputs: Sequence[str | np.ndarray[Any, Any]], attributes: dict[str, Any]) -> None:
        """Put another operator in the node's place, with the same name and outputs; arrays become constants."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """A rule with its repair.

    Attributes:
        propagate: The operator, executed on labels.
        repair: Mends written-in sizes; None where the operator has none.
    """

    propagate: Callable[[Op], None]
    repair: Callable[[Change], None] | None = None


rules: Registry[tuple[str, str, int], Rule] = Registry("channel rule")


def channel_rule(
    *op_types: str, since: Sequence[int], repair: Callable[[Change], None] | None = None, domain: str = ""
) -> Callable[[Callable[[Op], None]], Callable[[Op], None]]:
    """Register a function as the rule of operators.

    Args:
        op_types: Operators that share the rule.
        since: Since-versions whose definition the author has read; a version that an operator lacks is ignored.
        repair: Mends sizes written into attributes and constants, run after slicing.
        domain: Operator domain.

    Returns:
        The decorator; it gives the function back unchanged.
    """

    def enter(function: Callable[[Op], None]) -> Callable[[Op], None]:
        rules.register(*((domain, op_type, version) for op_type in op_types for version in since))(
            Rule(function, repair)
        )
        return function

    return enter
