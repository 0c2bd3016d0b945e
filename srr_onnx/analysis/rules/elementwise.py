"""Rules of operators that work position by position, with or without broadcasting.

Source: the ONNX operator pages of the operators named below, all versions listed.
"""

from __future__ import annotations

from srr_onnx.analysis.groups import Role
from srr_onnx.analysis.labels import FreezeReason, Labels
from srr_onnx.analysis.rule import Axes, CannotFollow, Op, channel_rule

_ALL = tuple(range(1, 27))


def same_channels(op: Op) -> None:
    """The output has the input's channels; further inputs are scalars (bounds, ratio, mode)."""
    for slot in range(1, len(op.node.inputs)):
        if op.has(slot) and op.shape(slot) not in ((), (1,)):
            raise CannotFollow(FreezeReason.UNKNOWN_SHAPE, "an operand is no scalar")
    for slot in range(len(op.node.outputs)):
        op.out(op.axes(0), slot)


for _name in (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitCast", "BitwiseNot", "Cast", "Ceil", "Celu", "Clip",
    "Cos", "Cosh", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity",
    "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink",
    "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu",
):  # fmt: skip
    channel_rule(_name, since=_ALL)(same_channels)


@channel_rule("CastLike", since=(15, 19, 21, 23, 24, 25))
def cast_like(op: Op) -> None:
    """The first input's channels; of the second only the type is read."""
    op.out(op.axes(0))


@channel_rule("Bernoulli", "RandomNormalLike", "RandomUniformLike", since=(1, 15, 22))
def draw(op: Op) -> None:
    """Every element is drawn in turn: with fewer channels those that are left draw other numbers."""
    x = op.axes(0)
    for labels in x:
        op.inexact(labels)
    op.out(x)


@channel_rule("Dropout", since=(1, 6, 7, 10, 12, 13, 22))
def dropout(op: Op) -> None:
    """Passes its input on, unless it is in training: then it draws a number for every element in turn."""
    mode = op.constant(2)
    is_old = op.node.since_version < 7
    if (op.has(2) and (mode is None or mode.any())) or (is_old and not op.attribute("is_test", 0)):
        for labels in op.axes(0):
            op.inexact(labels)
    same_channels(op)


def broadcast(op: Op) -> None:
    """Operands are aligned from the last axis; axes of equal size are tied, axes of size 1 are stretched."""
    op.out(tie_broadcast(op, [slot for slot in range(len(op.node.inputs)) if op.has(slot)]))
    kind = _ROLES.get(op.node.op_type)
    for slot in range(len(op.node.inputs)):
        if kind is not None and op.is_constant(slot):
            for axis in range(len(op.shape(slot))):
                op.role(slot, axis, kind)


def tie_broadcast(op: Op, slots: list[int]) -> Axes:
    """Tie the operands of a broadcasting operator.

    Args:
        op: The node.
        slots: Input slots that take part.

    Returns:
        Labels of the output's axes.
    """
    shape = op.out_shape()
    operands = [(op.shape(slot), op.axes(slot)) for slot in slots]
    found: Axes = []
    for offset in range(len(shape), 0, -1):
        tied: Labels | None = None
        is_first = True
        for extents, axes in operands:
            if offset > len(extents):
                continue
            labels = axes[-offset]
            if extents[-offset] != shape[-offset]:
                op.freeze(labels, FreezeReason.FIXED_AXIS, "broadcast")
            elif is_first:
                tied, is_first = labels, False
            elif tied is not None or labels is not None:
                tied = op.unify(tied, labels)
        found.append(tied)
    return found


_ROLES = {"Mul": Role.SCALE, "Div": Role.SCALE, "Add": Role.SHIFT, "Sub": Role.SHIFT}

BROADCASTING = frozenset(
    {
        "Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater", "GreaterOrEqual",
        "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "Pow", "Sub", "Sum", "Where", "Xor",
    }
)  # fmt: skip
for _name in sorted(BROADCASTING):
    # Before version 7 broadcasting was an attribute with its own meaning: those versions have no rule.
    channel_rule(_name, since=range(7, 26))(broadcast)

# These never had the old form of broadcasting.
channel_rule("Max", "Mean", "Min", "Sum", since=(1, 6))(broadcast)


@channel_rule("PRelu", since=(7, 9, 16))
def prelu(op: Op) -> None:
    """The slope broadcasts to the input."""
    op.out(tie_broadcast(op, [0, 1]))
