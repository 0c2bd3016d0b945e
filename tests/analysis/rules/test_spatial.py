"""Operators on maps: pooling, resizing, space into channels and back."""

from __future__ import annotations

import numpy as np
import pytest
import rows as table
from builders import Graph
from rows import Row, rows

from srr_onnx.analysis.labels import FreezeReason

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


def window_on_each_channel(g: Graph, y: str, op: str) -> str:
    """Channels are folded into the batch."""
    folded = g("Reshape", y, shape=[8, 1, 4, 4])
    return str(g("Reshape", g(op, folded, kernel_shape=[3, 3], pads=[1, 1, 1, 1]), shape=[1, 8, 4, 4]))


def unpooled(g: Graph, y: str, op: str) -> str:
    values, where = g("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2], outputs=2)
    return str(g(op, g("Relu", values), where, kernel_shape=[2, 2], strides=[2, 2]))


def unpooled_to(g: Graph, y: str, op: str) -> str:
    """Overlapping windows, whose size says nothing about the map that was pooled."""
    values, where = g("MaxPool", y, kernel_shape=[2, 2], outputs=2)
    return str(g(op, values, where, g.ints(1, 8, 4, 4), kernel_shape=[2, 2], shape=(1, 8, 4, 4)))


def on_grid(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, g.constant(np.random.default_rng(0).uniform(-1, 1, (1, 5, 3, 2)), dtype="f4")))


def on_own_grid(g: Graph, y: str, op: str) -> str:
    grid = g("Transpose", g("Tanh", g.conv(y, 2)), perm=[0, 2, 3, 1])
    return str(g(op, y, grid, padding_mode="border"))


def regions(g: Graph, y: str, op: str) -> str:
    boxes, numbers = g.constant(np.array([[0, 0, 3, 3], [1, 1, 3, 2]], "f4")), g.ints(0, 0)
    return str(g(op, y, boxes, numbers, output_height=2, output_width=3))


def largest_in_regions(g: Graph, y: str, op: str) -> str:
    boxes = g.constant(np.array([[0, 0, 0, 3, 3], [0, 1, 1, 3, 2]], "f4"))
    return str(g(op, y, boxes, pooled_shape=[2, 2]))


def cropped(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, g.ints(8, 2, 7), axes=[1, 2, -1]))


def cropped_channels(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, g.ints(6, 4), axes=[1, 2]))


def columns(g: Graph, y: str, op: str) -> str:
    rows = g("Reshape", y, shape=[1, 8, 16])
    return str(g(op, rows, g.ints(5, 5), g.ints(2, 2)))


ROWS = [
    *rows("MaxUnpool", ALL, unpooled),
    *rows("MaxUnpool", ALL, unpooled_to),
    *rows("GridSample", ALL, on_grid),
    *rows("GridSample", ALL, on_own_grid),
    *rows("RoiAlign", ALL, regions),
    *rows("MaxRoiPool", ALL, largest_in_regions),
    *rows("CenterCropPad", ALL, cropped),
    *rows("CenterCropPad", ALL, cropped_channels, sizes=(), reason=FreezeReason.FIXED_AXIS),
    *rows("Col2Im", ALL, columns, sizes=(2,)),
    *rows("AveragePool MaxPool LpPool", ALL, window),
    *rows("AveragePool MaxPool LpPool", ALL, window_on_each_channel),
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


def test_positions_that_unpool_another_size_keep_the_channels() -> None:
    """The positions count the channels of a map of another size."""
    g = Graph(13)
    y = g.conv(g.input("x", (1, 3, 4, 4)), 8, name="first")
    values, where = g("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2], outputs=2, name="pool")
    g.output(
        g.conv(
            g("MaxUnpool", values, where, g.ints(1, 8, 5, 5), kernel_shape=[2, 2], strides=[2, 2], shape=(1, 8, 5, 5)),
            2,
        )
    )
    assert ("first", "pool") in [(f.filters, f.cause.node) for f in groups_of(g).frozen]


def test_positions_that_anybody_else_reads_keep_the_channels() -> None:
    g = Graph(13)
    y = g.conv(g.input("x", (1, 3, 4, 4)), 8, name="first")
    values, where = g("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2], outputs=2, name="pool")
    shifted = g("Identity", where)
    g.output(g.conv(g("MaxUnpool", values, shifted, kernel_shape=[2, 2], strides=[2, 2], name="back"), 2))
    assert ("first", "pool") in [(f.filters, f.cause.node) for f in groups_of(g).frozen]
