"""Expand and Tile: axes of size 1 that are stretched, and copies side by side."""

from __future__ import annotations

import numpy as np
import onnx
import oracle
import pytest
import rows as table
from builders import Graph, feeds_for, run_ort
from rows import Row, rows

from srr_onnx.analysis.labels import FreezeReason
from srr_onnx.pipeline import prune

ALL = tuple(range(1, 26))


def expand(g: Graph, y: str, op: str) -> str:
    return str(g(op, g("GlobalAveragePool", y), g.ints(1, 8, 3, 3)))


def expand_relative(g: Graph, y: str, op: str) -> str:
    return str(g(op, g("GlobalAveragePool", y), g.ints(1, 3, 3)))


def tile(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, g.ints(1, 2, 1, 2)))


def expand_to_what_it_meets(g: Graph, y: str, op: str) -> str:
    """Divided by the length over channels: the target is written down."""
    length = g("ReduceL2", y, axes=[1], keepdims=1)
    return str(g("Div", y, g(op, length, g.ints(1, 8, 4, 4))))


def expand_to_what_it_measures(g: Graph, y: str, op: str) -> str:
    """... and the target is measured; the next node is no arithmetic."""
    length = g("ReduceL2", y, axes=[1], keepdims=1)
    g.shapes[stretched := g(op, length, g("Shape", y), shape=g.shapes[y])] = g.shapes[y]
    return str(g("Mul", y, g("Neg", stretched)))


def expand_a_gate(g: Graph, y: str, op: str) -> str:
    gate = g("Sigmoid", g.conv(y, 1, name="gate"))
    return str(g("Mul", g(op, gate, g.ints(8, 4, 4)), y))


def expand_without_channels(g: Graph, y: str, op: str) -> str:
    """Meets channels of another number: one more axis stands in front."""
    wide = g(op, g("ReduceL2", y, axes=[1], keepdims=1), g.ints(8, 1, 8, 4, 4))
    return str(g("ReduceSum", g("Add", wide, y), axes=[0], keepdims=0))


def tile_a_gate(g: Graph, y: str, op: str) -> str:
    gate = g("Sigmoid", g.conv(y, 1, name="gate"))
    return str(g("Mul", y, g(op, gate, g.ints(1, 8, 1, 1))))


ROWS = [
    *rows("Expand", ALL, expand),
    *rows("Expand", ALL, expand_relative),
    *rows("Expand", ALL, expand_to_what_it_meets),
    *rows("Expand", ALL, expand_to_what_it_measures),
    *rows("Expand", ALL, expand_a_gate),
    *rows("Expand", ALL, expand_without_channels),
    *rows("Tile", ALL, tile),
    *rows("Tile", ALL, tile_a_gate),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_row(row: Row) -> None:
    table.check(row)


def test_an_expand_over_channels_keeps_them() -> None:
    g = Graph(13)
    y = g("Expand", g.conv(g.input("x", (1, 3, 4, 4)), 1, name="one"), g.ints(1, 8, 4, 4), name="stretch")
    g.output(g.conv(y, 2))
    groups = table.find_groups(table.load_model(g.model()))
    assert [(f.cause.reason, f.cause.node) for f in groups.frozen if f.filters == "one"] == [
        (FreezeReason.FIXED_AXIS, "stretch")
    ]


def tokens(g: Graph) -> str:
    """(batch, 16, 8) from an image, of a batch that the file leaves open."""
    y = g.conv(g.input("x", (1, 3, 4, 4), dynamic={0: "batch"}), 8, name="stem")
    return str(g("Transpose", g("Reshape", y, shape=[0, 8, -1]), perm=[0, 2, 1]))


def class_token_expanded(g: Graph, y: str) -> str:
    """As torch.expand(batch, -1, -1) is exported: -1 in the target is replaced by 1."""
    batch = g("Unsqueeze", g("Gather", g("Shape", y), g.constant(np.int64(0))), axes=[0])
    target = g("Concat", batch, g.ints(-1), g.ints(-1), axis=0)
    ones = g("ConstantOfShape", g("Shape", target), value=onnx.numpy_helper.from_array(np.ones(1, np.int64)))
    unknown = g("Equal", target, g("Mul", ones, g.constant(np.int64(-1))))
    return str(g("Expand", g.weight(1, 1, 8, name="token"), g("Where", unknown, ones, target), shape=(1, 1, 8)))


def class_token_tiled(g: Graph, y: str) -> str:
    """As torch.repeat(batch, 1, 1) is exported."""
    batch = g("Unsqueeze", g("Gather", g("Shape", y), g.constant(np.int64(0))), axes=[0])
    repeats = g("Concat", batch, g.ints(1), g.ints(1), axis=0)
    return str(g("Tile", g.weight(1, 1, 8, name="token"), repeats, shape=(1, 1, 8)))


@pytest.mark.parametrize("stretch", [class_token_expanded, class_token_tiled])
def test_a_class_token_of_an_open_batch_is_pruned(stretch) -> None:
    g = Graph(17)
    y = tokens(g)
    y = g("Concat", stretch(g, y), y, axis=1, shape=(1, 17, 8))
    g.output(g("MatMul", g("Relu", y, shape=(1, 17, 8)), g.weight(8, 3), shape=(1, 17, 3)))
    result = prune(table.load_model(g.model()), "pruned.onnx", ratio=0.5, criterion="l1", compensate="none")
    assert [len(group.keep) for group in result.plan.groups] == [4]
    kept = {(name, e["axis"]): np.array(e["keep"]) for name, axes in result.plan.values.items() for e in axes}
    feeds = feeds_for(g.model(), batch=3)
    masked = oracle.mask_model(g.model(), kept, result.original.shapes)
    got = run_ort(onnx.load("pruned.onnx"), feeds)
    assert oracle.relative_error(got, run_ort(masked, feeds)) <= oracle.TOLERANCE
