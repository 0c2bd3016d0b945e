"""Operators that join and part along an axis."""

from __future__ import annotations

import pytest
import rows as table
from builders import Graph
from rows import Row, rows

from srr_onnx.analysis.labels import FreezeReason

ALL = tuple(range(1, 26))


def concat(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, g.conv(y, 4), axis=1))


def split_listed(g: Graph, y: str, op: str) -> str:
    first, second = g(op, y, axis=1, split=[2, 6], outputs=2)
    return str(g("Concat", g("Relu", second), first, axis=1))


def split_equal(g: Graph, y: str, op: str) -> str:
    form = {"num_outputs": 2} if g.opset >= 18 else {}
    first, second = g(op, y, axis=-3, outputs=2, **form)
    return str(g("Add", first, second))


def pad_space(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, pads=[0, 0, 1, 0, 0, 0, 0, 1], mode="reflect"))


def pad_channels(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, pads=[0, 2, 0, 0, 0, 1, 0, 0]))


def pad_named_axes(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, g.ints(1, 2, 0, 1), "", g.ints(-1, 1)))


def pad_reflected_channels(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, pads=[0, 1, 0, 0, 0, 0, 0, 0], mode="reflect"))


ROWS = [
    *rows("Concat", ALL, concat, sizes=(8, 4)),
    *rows("Split", ALL, split_listed, sizes=(2, 6)),
    *rows("Split", ALL, split_equal, sizes=(4,)),
    *rows("Pad", ALL, pad_space),
    *rows("Pad", ALL, pad_channels),
    *rows("Pad", tuple(range(18, 26)), pad_named_axes),
    *rows("Pad", ALL, pad_reflected_channels, sizes=(), reason=FreezeReason.LAYOUT),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_row(row: Row) -> None:
    table.check(row)


def positions(g: Graph, role: str = "input") -> list[list[int]]:
    groups = table.find_groups(table.load_model(g.model()))
    return [
        member.positions[0].tolist()
        for group in groups
        for member in group.members
        if member.role.value == role and member.initializer == "last.weight"
    ]


def test_a_map_joined_with_itself_goes_twice() -> None:
    g = Graph(13)
    y = g.conv(g.input("x", (1, 3, 4, 4)), 8)
    g.output(g.conv(g("Concat", y, y, axis=1), 2, name="last"))
    assert positions(g) == [[0, 8]]


def test_parts_of_a_split_joined_again() -> None:
    """C2f: what is split, worked on and joined is three groups, not one."""
    g = Graph(13)
    first, second = g("Split", g.conv(g.input("x", (1, 3, 4, 4)), 8), axis=1, split=[4, 4], outputs=2)
    inner = g.conv(second, 4, 3, name="inner")
    g.output(g.conv(g("Concat", first, second, inner, axis=1), 2, name="last"))
    assert positions(g) == [[0], [4], [8]]


def test_a_repeated_tile_goes_with_all_copies() -> None:
    g = Graph(13)
    y = g.conv(g.input("x", (1, 3, 4, 4)), 4)
    g.output(g.conv(g("Tile", y, g.ints(1, 3, 1, 1)), 2, name="last"))
    assert positions(g) == [[0, 4, 8]]
