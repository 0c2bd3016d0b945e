"""Reductions, and operators whose result is a position or a count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import rows as table
from builders import Graph
from rows import Row, rows

from srr_onnx.analysis.labels import FreezeReason

ALL = tuple(range(1, 27))
SUMS = "ReduceSum ReduceL2 ReduceSumSquare"
MIXING = "ReduceL1 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd"
FLOAT = 1


def over_space(g: Graph, y: str, op: str) -> str:
    return str(g(op, g("Sigmoid", y), axes=[2, 3], keepdims=1))


def over_channels(g: Graph, y: str, op: str) -> str:
    return str(g("Unsqueeze", g(op, g("Sigmoid", y), axes=[1], keepdims=0), axes=[1]))


def position_in_row(g: Graph, y: str, op: str) -> str:
    return str(g("Cast", g(op, y, axis=3, keepdims=1), to=FLOAT))


def position_of_channel(g: Graph, y: str, op: str) -> str:
    return str(g("Cast", g(op, y, axis=1, keepdims=1), to=FLOAT))


def best_in_row(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, k=2 if g.opset < 10 else [2], axis=-1, outputs=2)[0])


def best_channels(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, k=2 if g.opset < 10 else [2], axis=1, outputs=2)[0])


def sum_of_rows(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, g.constant(np.array(2, np.int64))))


def sum_of_channels(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, g.constant(np.array(1, np.int64))))


def size(g: Graph, y: str, op: str) -> str:
    return str(g("Mul", y, g("Cast", g(op, y), to=FLOAT)))


def shape(g: Graph, y: str, op: str) -> str:
    return str(g("Reshape", g("Relu", y), g(op, y)))


def shape_of_map(g: Graph, y: str, op: str) -> str:
    result = shape(g, y, op)
    g.shapes[result], g.dtypes[result] = g.shapes[y], FLOAT
    return result


def shuffled(g: Graph, y: str, op: str, perm: list[int], **attributes: Any) -> str:
    """The operator on a map whose axes have changed places, which then change back."""
    back = [perm.index(axis) for axis in range(4)]
    return str(g("Transpose", g(op, g("Transpose", y, perm=perm), **attributes), perm=back))


def triangle(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, upper=0))


def triangle_of_channels(g: Graph, y: str, op: str) -> str:
    return shuffled(g, y, op, [0, 2, 3, 1])


def reversed_rows(g: Graph, y: str, op: str) -> str:
    return reversed_by(g, y, op, [2, 3, 0, 1], 4)


def reversed_channels(g: Graph, y: str, op: str) -> str:
    return reversed_by(g, y, op, [1, 3, 0, 2], 4)


def reversed_by(g: Graph, y: str, op: str, perm: list[int], count: int) -> str:
    back = [perm.index(axis) for axis in range(4)]
    turned = g(op, g("Transpose", y, perm=perm), g.ints(*range(1, count + 1)))
    return str(g("Transpose", turned, perm=back))


def determinant(g: Graph, y: str, op: str) -> str:
    return str(g("Unsqueeze", g(op, y), axes=[2, 3]))


def determinant_of_channels(g: Graph, y: str, op: str) -> str:
    square = g("Slice", g("Reshape", y, shape=[1, 8, 16]), starts=[0], ends=[8], axes=[2])
    return str(g("Unsqueeze", g(op, g("Unsqueeze", square, axes=[1])), axes=[2, 3]))


def spectrum(g: Graph, y: str, op: str) -> str:
    number = g("Unsqueeze", y, axes=[4])
    made = g(op, number, axis=3) if g.opset < 20 else g(op, number, "", g.constant(np.array(-2, np.int64)))
    return str(g("ReduceSum", made, axes=[4], keepdims=0))


def spectrum_of_channels(g: Graph, y: str, op: str) -> str:
    number = g("Unsqueeze", y, axes=[4])
    made = g(op, number) if g.opset < 20 else g(op, number, "", g.constant(np.array(1, np.int64)))
    return str(g("ReduceSum", made, axes=[4], keepdims=0))


def identity_matrix(g: Graph, y: str, op: str) -> str:
    pooled = g("Squeeze", g("GlobalAveragePool", y), axes=[2, 3])
    return str(g("Mul", y, g("Unsqueeze", g(op, pooled), axes=[2, 3])))


def places(g: Graph, y: str, op: str) -> str:
    """How many numbers are not zero."""
    found = g(op, y)
    count = g("Gather", g("Shape", found), g.ints(1), axis=0)
    count = g("Cast", count, to=FLOAT)
    g.shapes[count], g.dtypes[count] = (1,), FLOAT
    return str(g("Mul", y, count))


def different(g: Graph, y: str, op: str) -> str:
    found = g("ReduceSum", g(op, y), keepdims=0)
    g.shapes[found], g.dtypes[found] = (), FLOAT
    return str(g("Mul", y, found))


def boxes(g: Graph, y: str, op: str) -> str:
    """Eight boxes of four numbers, one for each channel."""
    found = g("Slice", y, starts=[0], ends=[1], axes=[2])
    found = g("Squeeze", found, axes=[2])
    scores = g("Transpose", g("ReduceMax", found, axes=[2], keepdims=1), perm=[0, 2, 1])
    chosen = g(op, found, scores, g.constant(np.array(3, np.int64)), g.constant(np.array([0.5], "f4")))
    total = g("ReduceSum", g("Cast", chosen, to=FLOAT), keepdims=0)
    g.shapes[total], g.dtypes[total] = (), FLOAT
    return str(g("Mul", y, total))


MIXES = FreezeReason.MIXES_CHANNELS
ROWS = [
    *rows(f"{SUMS} {MIXING}", ALL, over_space),
    *rows(SUMS, ALL, over_channels),
    *rows(MIXING, ALL, over_channels, inexact=True),
    *rows("ArgMax ArgMin", ALL, position_in_row),
    *rows("ArgMax ArgMin", ALL, position_of_channel, sizes=(), reason=MIXES),
    *rows("TopK", (1, 10, 11, 24), best_in_row),
    *rows("TopK", (1, 10, 11, 24), best_channels, sizes=(), reason=MIXES),
    *rows("CumSum CumProd", ALL, sum_of_rows),
    *rows("CumSum CumProd", ALL, sum_of_channels, sizes=(), reason=MIXES),
    *rows("Trilu", ALL, triangle),
    *rows("Trilu", ALL, triangle_of_channels, sizes=(), reason=MIXES),
    *rows("ReverseSequence", ALL, reversed_rows),
    *rows("ReverseSequence", ALL, reversed_channels, sizes=(), reason=MIXES),
    *rows("Det", ALL, determinant),
    *rows("Det", ALL, determinant_of_channels, sizes=(), reason=MIXES),
    *rows("DFT", ALL, spectrum),
    *rows("DFT", ALL, spectrum_of_channels, sizes=(), reason=MIXES),
    *rows("EyeLike", ALL, identity_matrix, sizes=(), reason=FreezeReason.SHAPE_IN_USE),
    *rows("NonZero", ALL, places, sizes=(), reason=MIXES),
    *rows("Unique", ALL, different, sizes=(), reason=MIXES),
    *rows("NonMaxSuppression", ALL, boxes, sizes=(), reason=MIXES),
    *rows("Size", ALL, size, sizes=(), reason=FreezeReason.SHAPE_IN_USE),
    *rows("Shape", ALL, shape_of_map),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_row(row: Row) -> None:
    table.check(row)


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_no_axes_means_all_of_them(opset: int) -> None:
    g = Graph(opset)
    y = g.conv(g.input("x", (1, 3, 4, 4)), 8, name="first")
    g.output(g("ReduceMean", y, keepdims=0))
    groups = table.find_groups(table.load_model(g.model()))
    assert [(group.size, group.is_exact) for group in groups] == [(8, False)]


def test_nothing_reduced_on_request() -> None:
    g = Graph(13)
    y = g("ReduceSum", g.conv(g.input("x", (1, 3, 4, 4)), 8), noop_with_empty_axes=1)
    g.shapes[y], g.dtypes[y] = (1, 8, 4, 4), FLOAT
    g.output(g.conv(y, 2))
    groups = table.find_groups(table.load_model(g.model()))
    assert [(group.size, group.is_exact) for group in groups] == [(8, True)]
    assert (y, 1) in groups[0].values


def test_a_count_of_channels_that_is_computed_with_becomes_a_constant() -> None:
    """1 / C as a scale: the masked original computes with the old C, so the pruned model must too."""
    g = Graph(13)
    y = g.conv(g.input("x", (1, 3, 4, 4)), 8)
    count = g("Gather", g("Shape", y), g.constant(np.array(1, np.int64)))
    g.output(g.conv(g("Div", y, g("Cast", count, to=FLOAT)), 2))
    model = table.load_model(g.model())
    groups = table.find_groups(model)
    is_kept = table.halve(groups)
    pruned = table.onnx.load(str(table.save_model(table.prune_units(model, groups, is_kept), "pruned.onnx")))
    kept = table.kept_positions(groups, is_kept)
    assert table.oracle.pruned_equals_masked(g.model(), pruned, kept, model.shapes) < table.oracle.TOLERANCE
