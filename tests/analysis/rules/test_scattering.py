"""Operators that read or write at listed positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import rows as table
from builders import Graph
from rows import Row, rows

from srr_onnx.analysis.labels import FreezeReason

ALL = tuple(range(1, 29))


def along(channels: Sequence[int], rows: int = 4, columns: int = 4) -> np.ndarray:
    """Indices that pick channels, the same at every place of the map."""
    return np.tile(np.array(channels, np.int64).reshape(1, -1, 1, 1), (1, 1, rows, columns))


def listed(channels: Sequence[int]) -> np.ndarray:
    """Every position of some channels of the map, one by one, as exporters list them: (1, channels, 4, 4, 4)."""
    grid = np.meshgrid([0], channels, range(4), range(4), indexing="ij")
    return np.stack(grid, axis=-1).astype(np.int64)


def read_rows(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, g.constant(np.random.default_rng(0).integers(-4, 4, (1, 8, 3, 4))), axis=2))


def read_channels(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, g.constant(along([7, 0, -2, 0], rows=2)), axis=1))


def read_mixed(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, g.constant(np.random.default_rng(0).integers(0, 8, (1, 8, 4, 4))), axis=-3))


def read_where_computed(g: Graph, y: str, op: str) -> str:
    """The indices are made from the channels that they lie along."""
    where = g("Cast", g("Greater", g.conv(y, 8), g.constant(np.float32(0))), to=7)
    return str(g(op, y, where, axis=3))


def read_listed(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, g.constant(listed([6, 1, -2]))))


def read_nd_rows(g: Graph, y: str, op: str) -> str:
    """Rows and columns first, so that channels are read whole."""
    last = g("Transpose", y, perm=[2, 3, 0, 1])
    picked = g(op, last, g.constant(np.array([[[0, 1], [2, 3]], [[3, 3], [-1, 0]]])))
    return str(g("Transpose", picked, perm=[2, 3, 0, 1]))


def read_nd_channels(g: Graph, y: str, op: str) -> str:
    first = g("Squeeze", y, axes=[0])
    picked = g(op, first, g.constant(np.array([[5], [2], [-1]])))
    return str(g("Unsqueeze", picked, axes=[0]))


def read_nd_one(g: Graph, y: str, op: str) -> str:
    picked = g(op, g("Squeeze", y, axes=[0]), g.constant(np.array([[5]])))
    return str(g("Unsqueeze", picked, axes=[0]))


def read_nd_batch(g: Graph, y: str, op: str) -> str:
    picked = g(op, y, g.constant(np.array([[[5], [2]]])), batch_dims=1)
    return str(picked)


def write_rows(g: Graph, y: str, op: str) -> str:
    where = np.tile(np.array([3, 1]).reshape(1, 1, 2, 1), (1, 8, 1, 4))
    updates = g("Slice", g.conv(y, 8, name="updates"), starts=[1], ends=[3], axes=[2])
    return str(g(op, y, g.constant(where), updates, axis=2))


def write_constant_rows(g: Graph, y: str, op: str) -> str:
    where = np.tile(np.array([3, 1]).reshape(1, 1, 2, 1), (1, 5, 1, 4))
    return str(g(op, y, g.constant(where), g.weight(1, 5, 2, 4), axis=2))


def write_channels(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, g.constant(along([6, 0, -1])), g.conv(y, 3, name="updates"), axis=1))


def add_channels(g: Graph, y: str, op: str) -> str:
    """Two updates to one channel, which add up."""
    return str(g(op, y, g.constant(along([6, 0, 6])), g.conv(y, 3, name="updates"), axis=1, reduction="add"))


def write_mixed(g: Graph, y: str, op: str) -> str:
    where = np.argsort(np.random.default_rng(0).random((1, 8, 4, 4)), axis=1)
    return str(g(op, y, g.constant(where), g.conv(y, 8, name="updates"), axis=1))


def write_listed(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, g.constant(listed([6, 1, -1])), g.conv(y, 3, name="updates")))


def write_nd_rows(g: Graph, y: str, op: str) -> str:
    last = g("Transpose", y, perm=[2, 3, 0, 1])
    updates = g("Transpose", g("Slice", g.conv(y, 8), starts=[0], ends=[2], axes=[2]), perm=[2, 3, 0, 1])
    return str(g("Transpose", g(op, last, g.constant(np.array([[3], [1]])), updates), perm=[2, 3, 0, 1]))


def write_nd_one(g: Graph, y: str, op: str) -> str:
    updates = g("Squeeze", g.conv(y, 1), axes=[0])
    made = g(op, g("Squeeze", y, axes=[0]), g.constant(np.array([[3]])), updates)
    return str(g("Unsqueeze", made, axes=[0]))


def keep_some(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, g.constant(np.array([1, 0, 0, 1, 1, 0, 1], bool)), axis=1, shape=(1, 4, 4, 4)))


def keep_rows(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, g.constant(np.array([1, 0, 0, 1], bool)), axis=-2, shape=(1, 8, 2, 4)))


def classes(g: Graph, y: str, op: str) -> str:
    number = g("Cast", g("Clip", y, min=0.0, max=1.0), to=7)
    made = g(op, number, g.constant(np.array(2)), g.constant(np.array([0.5, 2], "f4")), axis=1)
    return str(g("ReduceSum", made, axes=[1], keepdims=0))


def writes(body: Callable[..., str], **fields: Any) -> list[Row]:
    """Rows of ScatterElements and of its old name, which was taken away with version 11."""
    return [*rows("Scatter", (9,), body, **fields), *rows("ScatterElements", ALL, body, **fields)]


LAYOUT = FreezeReason.LAYOUT
ROWS = [
    *rows("GatherElements", ALL, read_rows),
    *rows("GatherElements", ALL, read_channels, sizes=(1, 5, 2)),
    *rows("GatherElements", ALL, read_mixed, sizes=(), reason=LAYOUT),
    *rows("GatherElements", ALL, read_where_computed, axes=frozenset()),
    *rows("GatherND", ALL, read_listed, sizes=(6, 1, 1)),
    *rows("GatherND", ALL, read_nd_rows),
    *rows("GatherND", ALL, read_nd_channels, sizes=(5, 3)),
    *rows("GatherND", ALL, read_nd_one, sizes=(7,), reason=LAYOUT),
    *rows("GatherND", (12, 13), read_nd_batch, sizes=(), reason=LAYOUT),
    *writes(write_rows),
    *writes(write_constant_rows, sizes=(5, 3), axes=frozenset({(2, 1)})),
    *writes(write_channels, sizes=(3, 5)),
    *rows("ScatterElements", (16, 18), add_channels, sizes=(1, 6, 1)),
    *writes(write_mixed, sizes=(), reason=LAYOUT),
    *rows("ScatterND", ALL, write_listed, sizes=(5, 3)),
    *rows("ScatterND", ALL, write_nd_rows),
    *rows("ScatterND", ALL, write_nd_one, sizes=(7,), reason=LAYOUT),
    *rows("Compress", ALL, keep_some, sizes=(4, 3, 1), axes=frozenset({(1, 0)})),
    *rows("Compress", ALL, keep_rows),
    *rows("OneHot", ALL, classes),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_row(row: Row) -> None:
    table.check(row)
