"""Operators that work position by position."""

from __future__ import annotations

import numpy as np
import pytest
import rows as table
from builders import Graph
from onnx import TensorProto
from rows import Row, rows

ALL = tuple(range(1, 26))
FLOAT, INT32, UINT8, BOOL = TensorProto.FLOAT, TensorProto.INT32, TensorProto.UINT8, TensorProto.BOOL


def plain(g: Graph, y: str, op: str) -> str:
    return str(g(op, y))


def in_unit_interval(g: Graph, y: str, op: str) -> str:
    return str(g(op, g("Sigmoid", y)))


def above_one(g: Graph, y: str, op: str) -> str:
    return str(g(op, g("Exp", g("Abs", y))))


def to_bool(g: Graph, y: str, op: str) -> str:
    return str(g("Cast", g(op, y), to=FLOAT))


def not_(g: Graph, y: str, op: str) -> str:
    return str(g("Cast", g(op, g("Greater", y, g.constant([0.1], dtype="f4"))), to=FLOAT))


def bitwise_not(g: Graph, y: str, op: str) -> str:
    return str(g("Cast", g(op, integers(g, y)), to=FLOAT))


def cast(g: Graph, y: str, op: str) -> str:
    return str(g(op, g(op, y, to=TensorProto.DOUBLE), to=FLOAT))


def bit_cast(g: Graph, y: str, op: str) -> str:
    return str(g(op, g(op, y, to=INT32), to=FLOAT))


def clip(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, min=-0.5, max=0.5))


def dropout_in_training(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, g.constant(np.float32(0.5)), g.constant(np.array(True)), shape=g.shapes[y]))


def dropout(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, outputs=["kept", "mask"])[0]) if g.opset >= 12 else str(g(op, y))


def integers(g: Graph, y: str, kind: int = INT32) -> str:
    return str(g("Cast", g("Mul", g("Abs", y), g.constant([9.0], dtype="f4")), to=kind))


UNARY = [
    *rows(
        "Abs Atan Asinh Ceil Celu Cos Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity LeakyRelu Mish Neg Relu "
        "Round Selu Shrink Sigmoid Sign Sin Sinh Cosh Softplus Softsign Swish Tan Tanh ThresholdedRelu",
        ALL,
        plain,
    ),
    *rows("Acos Asin Atanh Log Sqrt Reciprocal", ALL, in_unit_interval),
    *rows("Acosh", ALL, above_one),
    *rows("IsInf IsNaN", ALL, to_bool),
    *rows("Not", ALL, not_),
    *rows("BitwiseNot", ALL, bitwise_not),
    *rows("Cast", ALL, cast),
    *rows("BitCast", (26,), bit_cast),
    *rows("Clip", ALL, clip),
    *rows("Dropout", ALL, dropout),
    *rows("Dropout", (12, 13, 22), dropout_in_training, inexact=True),
]


def with_constant(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, g.weight(8, 1, 1, scale=0.3, offset=1.0)))


def power(g: Graph, y: str, op: str) -> str:
    return str(g(op, g("Sigmoid", y), g.weight(8, 1, 1, scale=0.3, offset=1.0)))


def two_maps(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, g.conv(y, 8)))


def compare(g: Graph, y: str, op: str) -> str:
    result = g(op, g("Abs", y), g.weight(8, 1, 1))
    g.shapes[result], g.dtypes[result] = g.shapes[y], BOOL  # version 12 of two of them has no inference of its own
    return str(g("Cast", result, to=FLOAT))


def equal(g: Graph, y: str, op: str) -> str:
    return str(g("Cast", g(op, integers(g, y), g.constant([[[k % 4]] for k in range(8)], dtype="i4")), to=FLOAT))


def logical(g: Graph, y: str, op: str) -> str:
    high = g("Greater", y, g.weight(8, 1, 1))
    return str(g("Cast", g(op, high, g("Less", y, g.weight(8, 1, 1))), to=FLOAT))


def on_integers(g: Graph, y: str, op: str) -> str:
    kind, code = ("u1", UINT8) if op == "BitShift" else ("i4", INT32)
    other = g.constant([[[k % 4 + 1]] for k in range(8)], dtype=kind)
    extra = {"direction": "LEFT"} if op == "BitShift" else {}
    return str(g("Cast", g(op, integers(g, y, code), other, **extra), to=FLOAT))


def where(g: Graph, y: str, op: str) -> str:
    return str(g(op, g("Greater", y, g.weight(8, 1, 1)), y, g.weight(1, 8, 1, 1)))


def type_of_another(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, g.conv(y, 3)))


def drawn(g: Graph, y: str, op: str) -> str:
    return str(g(op, g("Sigmoid", y)))


LATER = tuple(range(7, 26))
OPERAND = frozenset({(1, 0)})
BROADCAST = [
    *rows("Add Sub Mul Div", LATER, with_constant, axes=OPERAND),
    *rows("Max Min Mean Sum", LATER, with_constant, axes=OPERAND),
    *rows("Max Min Mean Sum", (1, 6), two_maps),
    *rows("Pow", LATER, power, axes=OPERAND),
    *rows("Greater Less GreaterOrEqual LessOrEqual", LATER, compare, axes=OPERAND),
    *rows("Equal", LATER, equal, axes=OPERAND),
    *rows("And Or Xor", LATER, logical),
    *rows("BitShift BitwiseAnd BitwiseOr BitwiseXor Mod", LATER, on_integers, axes=OPERAND),
    *rows("Where", LATER, where, axes=frozenset({(2, 1)})),
    *rows("PRelu", LATER, with_constant, axes=OPERAND),
    *rows("CastLike", LATER, type_of_another, sizes=(8, 3)),
    *rows("Bernoulli RandomNormalLike RandomUniformLike", (1, 15, 22), drawn, inexact=True),
]
ROWS = UNARY + BROADCAST


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_row(row: Row) -> None:
    table.check(row)


def test_operands_take_their_roles() -> None:
    groups = table.find_groups(table.load_model(table.build(next(row for row in ROWS if str(row) == "Mul-14"))))
    assert "scale" in {member.role.value for member in groups[0].members}


@pytest.mark.parametrize("operator", ["Add", "Mul", "Max"])
def test_two_maps_share_their_units(operator: str) -> None:
    g = Graph(13)
    x = g.input("x", (1, 3, 4, 4))
    y = g(operator, g.conv(x, 8, name="a"), g.conv(x, 8, name="b"))
    g.output(g.conv(y, 2))
    groups = table.find_groups(table.load_model(g.model()))
    assert [(group.size, group.nodes) for group in groups] == [(8, ("a", "b"))]


def test_one_channel_stretched_over_all_stays() -> None:
    g = Graph(13)
    x = g.input("x", (1, 3, 4, 4))
    y = g("Mul", g.conv(x, 8, name="wide"), g("Sigmoid", g.conv(x, 1, name="narrow")), name="gate")
    g.output(g.conv(y, 2, name="last"))
    groups = table.find_groups(table.load_model(g.model()))
    assert [group.nodes for group in groups] == [("wide",)]
    frozen = {(cause.filters, cause.cause.node) for cause in groups.frozen}
    assert ("narrow", "gate") in frozen
