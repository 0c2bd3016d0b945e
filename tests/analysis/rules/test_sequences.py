"""Operators on sequences of values."""

from __future__ import annotations

import numpy as np
import pytest
import rows as table
from builders import Graph
from rows import Row, rows

from srr_onnx.analysis.labels import FreezeReason

ALL = tuple(range(1, 26))


def at(g: Graph, parts: str, place: int, channels: int = 4) -> str:
    """One part; its shape is written into the file, since inference knows little about sequences."""
    return g.record(g("SequenceAt", parts, g.constant(np.array(place, np.int64)), shape=(1, channels, 4, 4)))


def sequence(g: Graph, y: str, op: str) -> str:
    parts = g("SplitToSequence", y, g.ints(4, 4), axis=1)
    return str(g("Concat", *[at(g, parts, place) for place in (1, -2)], axis=1))


def sequence_of_pairs(g: Graph, y: str, op: str) -> str:
    parts = g("SplitToSequence", y, g.constant(np.array(2, np.int64)), axis=1)
    return str(g("SequenceAt", parts, g.constant(np.array(1, np.int64)), shape=(1, 2, 4, 4)))


def constructed(g: Graph, y: str, op: str) -> str:
    both = g("SequenceConstruct", y, g.conv(y, 8))
    return str(g("SequenceAt", both, g.constant(np.array(1, np.int64)), shape=(1, 8, 4, 4)))


def inserted(g: Graph, y: str, op: str) -> str:
    """Behind, then before the others: the last one, the first one and one between are read."""
    parts = g("SplitToSequence", y, g.ints(4, 4), axis=1)
    parts = g(op, parts, g.conv(y, 4, name="behind"))
    parts = g(op, parts, g.conv(y, 4, name="before"), g.constant(np.array(0, np.int64)))
    return str(g("Concat", *[at(g, parts, place) for place in (0, 1, -1)], axis=1))


def inserted_into_nothing(g: Graph, y: str, op: str) -> str:
    return at(g, g("SequenceInsert", g("SequenceEmpty"), y), 0, 8)


def erased(g: Graph, y: str, op: str) -> str:
    parts = g("SplitToSequence", y, g.ints(3, 3, 2), axis=1)
    parts = g(op, g(op, parts), g.constant(np.array(-2, np.int64)))
    return at(g, parts, 0, 3)


def counted(g: Graph, y: str, op: str) -> str:
    number = g(op, g("SplitToSequence", y, g.ints(4, 4), axis=1))
    return str(g("Mul", y, g("Cast", number, to=1), shape=(1, 8, 4, 4)))


def joined(g: Graph, y: str, op: str) -> str:
    parts = g("SequenceConstruct", y, g.conv(y, 4))
    return g.record(g(op, parts, axis=1, shape=(1, 12, 4, 4)))


def stacked(g: Graph, y: str, op: str) -> str:
    parts = g("SequenceConstruct", y, g.conv(y, 8))
    made = g.record(g(op, parts, axis=0, new_axis=1, shape=(2, 1, 8, 4, 4)))
    return str(g("ReduceSum", made, axes=[0], keepdims=0))


ROWS = [
    *rows("SplitToSequence SequenceAt", (11, 24), sequence, sizes=(4, 4)),
    *rows("SplitToSequence", (11, 24), sequence_of_pairs, sizes=(6, 2)),
    *rows("SequenceConstruct", ALL, constructed, sizes=(8, 8)),
    *rows("SequenceInsert", ALL, inserted, sizes=(4, 4, 4, 4)),
    *rows("SequenceEmpty", ALL, inserted_into_nothing),
    *rows("SequenceErase", ALL, erased, sizes=(5, 3)),
    *rows("SequenceLength", ALL, counted),
    *rows("ConcatFromSequence", ALL, joined, sizes=(8, 4)),
    *rows("ConcatFromSequence", ALL, stacked, sizes=(8,)),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_row(row: Row) -> None:
    table.check(row)


@pytest.mark.parametrize("op_type", ["SequenceInsert", "SequenceErase"])
def test_computed_positions_keep_the_channels(op_type: str) -> None:
    g = Graph(13)
    x, where = g.input("x", (1, 3, 4, 4)), g.input("where", (), dtype=7)
    y = g.conv(x, 8, name="first")
    parts = g("SplitToSequence", y, g.ints(4, 4), axis=1)
    more = [y] if op_type == "SequenceInsert" else []
    g.output(g.conv(at(g, g(op_type, parts, *more, where, name="place"), 0), 2))
    found = table.find_groups(table.load_model(g.model())).frozen
    assert (FreezeReason.COMPUTED_OPERAND, "place") in [(f.cause.reason, f.cause.node) for f in found]
