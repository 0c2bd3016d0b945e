"""Operators that reorder or refold axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import rows as table
from builders import Graph, feeds_for, run_ort
from rows import Row, rows

ALL = tuple(range(1, 26))


def transpose(g: Graph, y: str, op: str) -> str:
    last = g(op, y, perm=[0, 2, 3, 1])
    return str(g(op, g("Relu", last), perm=[0, 3, 1, 2]))


def transpose_all(g: Graph, y: str, op: str) -> str:
    return str(g(op, g("Relu", g(op, y))))


def unsqueeze(g: Graph, y: str, op: str) -> str:
    wide = g(op, y, axes=[0, -1] if g.opset >= 11 else [0, 5])
    return str(g("Squeeze", g("Relu", wide), axes=[0, 5]))


def squeeze(g: Graph, y: str, op: str) -> str:
    pooled = g("GlobalAveragePool", y)
    return str(g("Unsqueeze", g(op, pooled, axes=[2, 3]), axes=[2, 3]))


def squeeze_all(g: Graph, y: str, op: str) -> str:
    vector = g(op, g("GlobalAveragePool", y))
    return str(g("Unsqueeze", vector, axes=[0, 2, 3]))


def flatten(g: Graph, y: str, op: str) -> str:
    row = g("Gemm", g(op, y), g.weight(128, 5), g.weight(5))
    return str(g("Reshape", row, shape=[1, 5, 1, 1]))


def flatten_all_to_rows(g: Graph, y: str, op: str) -> str:
    flat = g(op, y, axis=2)  # (8, 16)
    return str(g("Reshape", g("Relu", flat), shape=[1, 8, 4, 4]))


def reshape(g: Graph, y: str, op: str) -> str:
    folded = g(op, y, shape=[1, 8, 16])
    return str(g(op, g("Relu", folded), shape=[0, -1, 4, 4]))


def reshape_heads(g: Graph, y: str, op: str) -> str:
    cut = g(op, y, shape=[1, 2, 4, 16])
    return str(g(op, g("Relu", cut), shape=[1, 8, 4, 4]))


ROWS = [
    *rows("Transpose", ALL, transpose),
    *rows("Transpose", ALL, transpose_all),
    *rows("Unsqueeze", ALL, unsqueeze),
    *rows("Squeeze", ALL, squeeze),
    *rows("Squeeze", ALL, squeeze_all),
    *rows("Flatten", ALL, flatten, sizes=(8, 5)),
    *rows("Flatten", ALL, flatten_all_to_rows),
    *rows("Reshape", ALL, reshape),
    *rows("Reshape", ALL, reshape_heads, sizes=(4,)),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_row(row: Row) -> None:
    table.check(row)


def prune_and_compare(g: Graph, keep: Sequence[int], batch: int = 1, **sizes: int) -> Graph:
    """Keep these units of the only group; pruned must equal masked."""
    original = g.model()
    model = table.load_model(original)
    groups = table.find_groups(model)
    assert len(groups) == 1
    is_kept = np.isin(np.arange(groups.num_units), keep)
    kept = table.kept_positions(groups, is_kept)
    pruned = table.onnx.load(str(table.save_model(table.prune_units(model, groups, is_kept), "pruned.onnx")))
    feeds = feeds_for(original, batch=batch, sizes=sizes)
    want = run_ort(table.oracle.mask_model(original, kept, model.shapes), feeds)
    assert table.oracle.relative_error(run_ort(pruned, feeds), want) < table.oracle.TOLERANCE
    return g


@pytest.mark.parametrize("opset", [11, 13])
def test_squeeze_without_axes_does_not_take_the_last_channel_for_an_axis(opset: int) -> None:
    g = Graph(opset)
    y = g("Squeeze", g("GlobalAveragePool", g.conv(g.input("x", (2, 3, 4, 4)), 8)))
    g.output(g("Gemm", y, g.weight(8, 2)))
    prune_and_compare(g, [5])


def test_squeeze_that_took_nothing_takes_nothing() -> None:
    g = Graph(13)
    y = g("Squeeze", g.conv(g.input("x", (2, 3, 4, 4)), 8))
    g.output(g.conv(y, 2))
    prune_and_compare(g, [5])


@pytest.mark.parametrize("count", [2, 4])
def test_a_channel_shuffle_leaves_every_channel_free(count: int) -> None:
    g = Graph(13)
    y = g.conv(g.input("x", (1, 3, 4, 4), dynamic={0: "N"}), 8)
    cut = g("Reshape", y, shape=[-1, count, 8 // count, 4, 4])
    y = g("Reshape", g("Transpose", cut, perm=[0, 2, 1, 3, 4]), shape=[-1, 8, 4, 4])
    g.output(g.conv(y, 2))
    groups = table.find_groups(table.load_model(g.model()))
    assert tuple(group.size for group in groups) == (8,)
    prune_and_compare(g, [0, 3, 4], batch=2)


@pytest.mark.parametrize("dynamic", [{}, {0: "N"}, {0: "N", 2: "H"}])
def test_a_rearrangement_of_rows_follows_the_channels(dynamic: dict[int, str]) -> None:
    """Sizes of the channels are written into its reshapes too; how many rows there are may be open."""
    g = Graph(13)
    y = g.conv(g.input("x", (1, 3, 4, 4), dynamic=dynamic), 8)
    cut = g("Reshape", y, shape=[0, 8, 2, -1, 4])
    y = g("Reshape", g("Transpose", cut, perm=[0, 1, 3, 2, 4]), shape=[0, 8, -1, 4])
    g.output(g.conv(y, 2))
    prune_and_compare(g, [0, 3, 4], batch=2 if dynamic else 1, H=8)


def test_a_rearrangement_of_tokens_beside_their_own_offsets() -> None:
    """The permuted axis has labels, those of a constant with a row per token; the channels are on another axis."""
    g = Graph(13)
    y = g("Reshape", g.conv(g.input("x", (1, 3, 4, 4)), 8), shape=[1, 8, 16])
    y = g("Add", g("Transpose", y, perm=[0, 2, 1]), g.weight(1, 16, 8, name="offsets"))
    cut = g("Reshape", y, shape=[1, 4, 4, 8])
    y = g("Reshape", g("Transpose", cut, perm=[0, 2, 1, 3]), shape=[1, 16, 8])
    g.output(g("MatMul", y, g.weight(8, 2)))
    prune_and_compare(g, [0, 3, 4])


def test_pixel_shuffle_by_hand() -> None:
    g = Graph(13)
    y = g("Reshape", g.conv(g.input("x", (1, 3, 4, 4)), 12), shape=[0, 3, 2, 2, 4, 4])
    y = g("Reshape", g("Transpose", y, perm=[0, 1, 4, 2, 5, 3]), shape=[0, 3, 8, 8])
    g.output(g.conv(y, 2))
    groups = table.find_groups(table.load_model(g.model()))
    assert [group.size for group in groups] == [3]
    prune_and_compare(g, [1])


def test_a_target_read_off_an_open_size() -> None:
    """Batch from Shape, channels as a number: the number is mended, the batch stays open."""
    g = Graph(13)
    y = g.conv(g.input("x", (1, 3, 4, 4), dynamic={0: "N"}), 8)
    batch = g("Unsqueeze", g("Gather", g("Shape", y), g.constant(np.array(0, np.int64))), axes=[0])
    target = g("Concat", batch, g.ints(8, 16), axis=0)
    y = g("Reshape", y, target)
    g.shapes[y], g.dtypes[y] = (1, 8, 16), 1
    g.output(g.conv(g("Reshape", y, shape=[0, 0, 4, 4]), 2))
    prune_and_compare(g, [1, 6], batch=3)
