"""Operators that pick along an axis: Slice and Gather."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import rows as table
from builders import Graph, feeds_for, run_ort
from rows import Row, rows

from srr_onnx.analysis.labels import FreezeReason

ALL = tuple(range(1, 26))
FAR = 1 << 62


def slice_head(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, starts=[0], ends=[-3], axes=[1]))


def slice_two_axes(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, starts=[-5, 1], ends=[FAR, 3], axes=[1, 2]))


def slice_without_axes(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, starts=[0, 2], ends=[FAR, 7]))


def slice_strided(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, starts=[1], ends=[FAR], axes=[-3], steps=[3]))


def slice_reversed(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, starts=[-1], ends=[-FAR], axes=[1], steps=[-1]))


def slice_head_and_reverse_rows(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, starts=[0, -1], ends=[4, -FAR], axes=[1, 2], steps=[1, -1]))


def gather(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, g.ints(6, 0, 6, 3), axis=1))


def gather_from_the_end(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, g.ints(7, -2, 1), axis=-3)) if g.opset >= 11 else str(g(op, y, g.ints(7, 6, 1), axis=1))


def gather_table(g: Graph, y: str, op: str) -> str:
    table = g(op, y, g.constant(np.arange(8).reshape(2, 4)), axis=1)
    return str(g("Reshape", table, shape=[1, 8, 4, 4]))


def gather_one(g: Graph, y: str, op: str) -> str:
    return str(g("Unsqueeze", g(op, y, g.constant(np.array(3)), axis=1), axes=[1]))


ROWS = [
    *rows("Slice", ALL, slice_head, sizes=(5, 3)),
    *rows("Slice", ALL, slice_two_axes, sizes=(3, 5)),
    *rows("Slice", ALL, slice_without_axes, sizes=(3, 5)),
    *rows("Slice", (10, 11, 13), slice_strided, sizes=(5, 3)),
    *rows("Slice", (10, 11, 13), slice_reversed),
    *rows("Slice", (10, 11, 13), slice_head_and_reverse_rows, sizes=(4, 4)),
    *rows("Gather", ALL, gather, sizes=(2, 5, 1)),
    *rows("Gather", ALL, gather_from_the_end, sizes=(5, 3)),
    *rows("Gather", ALL, gather_table, sizes=(4,)),
    *rows("Gather", ALL, gather_one, sizes=(7,), reason=FreezeReason.LAYOUT),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_row(row: Row) -> None:
    table.check(row)


@pytest.mark.parametrize("opset", [11, 13])
def test_bounds_on_other_axes_stay_as_they_are(opset: int) -> None:
    """A file with open sizes: the bounds of its rows count from the end, and must go on doing so."""
    g = Graph(opset)
    x = g.input("x", (1, 3, 8, 8), dynamic={0: "N", 2: "H", 3: "W"})
    y = g("Slice", g.conv(x, 8), starts=[1, 2, -3], ends=[7, -1, FAR], axes=[1, 2, 3])
    g.output(g.conv(y, 2))
    original = g.model()
    model = table.load_model(original, {"x": (1, 3, 8, 8)})
    groups = table.find_groups(model)
    is_kept = table.halve(groups)
    kept = table.kept_positions(groups, is_kept)
    pruned = table.onnx.load(str(table.save_model(table.prune_units(model, groups, is_kept), "pruned.onnx")))
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 3, 11, 13)).astype(np.float32)}
    want = run_ort(table.oracle.mask_model(original, kept, model.shapes), feeds)
    assert table.oracle.relative_error(run_ort(pruned, feeds), want) < table.oracle.TOLERANCE


def test_indices_on_other_axes_stay_as_they_are() -> None:
    g = Graph(13)
    x = g.input("x", (1, 3, 4, 4), dynamic={0: "N"})
    y = g("Gather", g.conv(x, 8), g.ints(-1), axis=0)
    g.output(g.conv(y, 2))
    original = g.model()
    model = table.load_model(original)
    groups = table.find_groups(model)
    assert groups.num_units == 8
    is_kept = table.halve(groups)
    kept = table.kept_positions(groups, is_kept)
    pruned = table.onnx.load(str(table.save_model(table.prune_units(model, groups, is_kept), "pruned.onnx")))
    feeds = feeds_for(original, batch=3)
    want = run_ort(table.oracle.mask_model(original, kept, model.shapes), feeds)
    assert table.oracle.relative_error(run_ort(pruned, feeds), want) < table.oracle.TOLERANCE


@pytest.mark.parametrize("op_type", ["Slice", "Gather"])
def test_computed_positions_keep_the_channels(op_type: str) -> None:
    g = Graph(13)
    x, where = g.input("x", (1, 3, 4, 4)), g.input("where", (1,), dtype=7)
    y = g.conv(x, 8, name="first")
    if op_type == "Slice":
        picked = g("Slice", y, g.ints(0), where, g.ints(1), name="pick", shape=(1, 4, 4, 4))
    else:
        picked = g("Gather", y, where, axis=1, name="pick")
    g.output(g.conv(picked, 2))
    groups = table.find_groups(table.load_model(g.model()))
    assert [(f.cause.reason, f.cause.node) for f in groups.frozen if f.filters == "first"] == [
        (FreezeReason.COMPUTED_OPERAND, "pick")
    ]


def read_behind_the_count(g: Graph, y: str, count: str) -> str:
    return str(g("Gather", y, count, axis=2))


def cut_at_the_count(g: Graph, y: str, count: str) -> str:
    return str(g("Slice", y, g.ints(0), count, g.ints(2), shape=(1, 5, 8, 9)))


def repeat_by_the_count(g: Graph, y: str, count: str) -> str:
    return str(g("Tile", y, g("Concat", g.ints(1, 1, 1), count, axis=0), shape=(1, 5, 9, 72)))


def pad_by_the_count(g: Graph, y: str, count: str) -> str:
    return str(g("Pad", y, g("Concat", g.ints(0, 0, 0), count, g.ints(0, 0, 0, 0), axis=0), shape=(1, 5, 9, 17)))


def split_at_the_count(g: Graph, y: str, count: str) -> str:
    return str(g("Split", y, g("Concat", count, g.ints(1), axis=0), axis=2, outputs=2)[0])


@pytest.mark.parametrize(
    "body", [read_behind_the_count, cut_at_the_count, repeat_by_the_count, pad_by_the_count, split_at_the_count]
)
def test_a_number_of_channels_that_says_where_to_cut_another_value_stays(
    body: Callable[[Graph, str, str], str],
) -> None:
    """The masked original cuts where it did before."""
    g = Graph(13)
    y, other = g.conv(g.input("x", (1, 3, 4, 4)), 8), g.conv(g.input("other", (1, 3, 9, 9)), 5)
    cut = body(g, other, g("Gather", g("Shape", y), g.ints(1)))
    g.shapes.setdefault(cut, (1, 5, 8, 9))
    g.dtypes[cut] = 1
    g.output(g.conv(cut, 2))
    g.output(g.conv(y, 2))
    model = table.load_model(g.model())
    groups = table.find_groups(model)
    assert tuple(group.size for group in groups) == (8, 5)
    is_kept = table.halve(groups)
    pruned = table.onnx.load(str(table.save_model(table.prune_units(model, groups, is_kept), "pruned.onnx")))
    kept = table.kept_positions(groups, is_kept)
    assert table.oracle.pruned_equals_masked(g.model(), pruned, kept, model.shapes) < table.oracle.TOLERANCE
