"""Operators on maps: pooling, resizing, space into channels and back."""

from __future__ import annotations

import numpy as np
import pytest
import rows as table
from builders import Graph
from rows import Row, rows

ALL = tuple(range(1, 26))


def window(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, kernel_shape=[2, 2], strides=[2, 2], shape=(1, 8, 2, 2)))


def whole(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, shape=(1, 8, 1, 1)))


def scaled(g: Graph, y: str, op: str) -> str:
    scales = np.array([1, 1, 2, 2], "f4")
    if g.opset < 9:
        return str(g(op, y, scales=[1.0, 1.0, 2.0, 2.0], shape=(1, 8, 8, 8)))
    operands = [g.constant(np.zeros(0, "f4"))] if op == "Resize" and g.opset > 10 else []
    return str(g(op, y, *operands, g.constant(scales), shape=(1, 8, 8, 8)))


def sized(g: Graph, y: str, op: str) -> str:
    empty = [g.constant(np.zeros(0, "f4")), g.constant(np.zeros(0, "f4"))] if g.opset < 13 else ["", ""]
    return str(g(op, y, *empty, g.ints(1, 8, 6, 5), mode="linear", shape=(1, 8, 6, 5)))


def sized_axes(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, "", "", g.ints(8, 6), axes=[1, -2], shape=(1, 8, 6, 4)))


def to_space(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, blocksize=2))


def column_row_depth(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, blocksize=2, mode="CRD"))


ROWS = [
    *rows("AveragePool MaxPool LpPool", ALL, window),
    *rows("GlobalAveragePool GlobalMaxPool GlobalLpPool", ALL, whole),
    *rows("Upsample", (7, 9), scaled),
    *rows("Resize", (10, 11, 13, 18, 19), scaled),
    *rows("Resize", (11, 13, 18, 19), sized),
    *rows("Resize", (18, 19), sized_axes),
    *rows("DepthToSpace", (1, 11, 13), to_space, sizes=(2,)),
    *rows("DepthToSpace", (11, 13), column_row_depth, sizes=(2,)),
    *rows("SpaceToDepth", (1, 13), to_space),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_row(row: Row) -> None:
    table.check(row)


def groups_of(g: Graph) -> table.Groups:
    return table.find_groups(table.load_model(g.model()))


def test_returned_positions_keep_the_channels() -> None:
    g = Graph(13)
    y = g.conv(g.input("x", (1, 3, 4, 4)), 8, name="first")
    values, positions = g("MaxPool", y, kernel_shape=[2, 2], outputs=2, name="pool")
    g.output(g.conv(values, 2))
    g.output(positions)
    assert [str(f.cause.reason.value) for f in groups_of(g).frozen if f.filters == "first"] == ["shape_in_use"]


def test_resizing_the_channels_keeps_them() -> None:
    g = Graph(13)
    y = g.conv(g.input("x", (1, 3, 4, 4)), 8, name="first")
    g.output(g.conv(g("Resize", y, "", g.constant(np.array([1, 2, 1, 1], "f4")), name="resize"), 2))
    assert [(f.cause.reason.value, f.cause.node) for f in groups_of(g).frozen if f.filters == "first"] == [
        ("fixed_axis", "resize")
    ]


@pytest.mark.parametrize(("mode", "first"), [("DCR", [0, 2, 4, 6]), ("CRD", [0, 1, 2, 3])])
def test_which_channels_make_one(mode: str, first: list[int]) -> None:
    g = Graph(13)
    g.output(g.conv(g("DepthToSpace", g.conv(g.input("x", (1, 3, 4, 4)), 8), blocksize=2, mode=mode), 2))
    filters = next(member for member in groups_of(g)[0].members if member.role.value == "filter")
    assert filters.positions[0].tolist() == first
