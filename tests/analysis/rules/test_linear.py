"""Gemm and MatMul."""

from __future__ import annotations

from typing import Any

import pytest
import rows as table
from builders import Graph
from rows import Row, rows

from srr_onnx.analysis.labels import FreezeReason


def row_of(g: Graph, y: str) -> str:
    return str(g("Flatten", g("GlobalAveragePool", y)))


def map_of(g: Graph, row: str, channels: int) -> str:
    return str(g("Reshape", row, shape=[1, channels, 1, 1]))


def gemm(g: Graph, y: str, op: str) -> str:
    return map_of(g, g(op, row_of(g, y), g.weight(8, 6), g.weight(6)), 6)


def gemm_turned(g: Graph, y: str, op: str) -> str:
    turned = g("Transpose", row_of(g, y), perm=[1, 0])
    return map_of(g, g(op, turned, g.weight(6, 8), g.weight(1, 6), transA=1, transB=1, beta=0.5), 6)


def matmul(g: Graph, y: str, op: str) -> str:
    return map_of(g, g(op, row_of(g, y), g.weight(8, 6)), 6)


def matmul_left(g: Graph, y: str, op: str) -> str:
    columns = g("Reshape", y, shape=[1, 8, 16])
    return str(g("Reshape", g(op, g.weight(6, 8), columns), shape=[1, 6, 4, 4]))


def einsum(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, g.weight(8, 6), equation="nchw, ck -> nkhw"))


def einsum_implicit(g: Graph, y: str, op: str) -> str:
    """Without an arrow, what stands once makes the result, in alphabetical order: (a, c, d, k), b is summed over."""
    return str(g("Transpose", g(op, y, g.weight(8, 6), equation="abcd,bk"), perm=[0, 3, 1, 2]))


def einsum_of_the_rest(g: Graph, y: str, op: str) -> str:
    """The ellipsis stands for rows and columns; the second operand is the same for all rows."""
    return str(g(op, y, g.weight(6, 8, 1, 4), equation="nc...,kc...->nk..."))


def einsum_scale(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, g.weight(8, scale=1.0), equation="...chw,c->...chw"))


def einsum_attention(g: Graph, y: str, op: str) -> str:
    scores = g("Einsum", g.conv(y, 6, name="q"), g.conv(y, 6, name="k"), equation="bchw,bcij->bhwij")
    return str(g(op, scores, g.conv(y, 6, name="v"), equation="bhwij,bcij->bchw"))


def einsum_of_three(g: Graph, y: str, op: str) -> str:
    """The letter k stands in the last two operands only."""
    return str(g(op, y, g.conv(y, 5, name="left"), g.weight(6, 5), equation="nchw,nkhw,mk->nmhw"))


def einsum_of_last(g: Graph, y: str, op: str) -> str:
    """Who checks from outside masks two operands, and nothing but the third knows k."""
    return str(g(op, y, g.weight(8, scale=1.0), g.conv(y, 6, name="last operand"), equation="nchw,c,nkhw->nchw"))


def einsum_diagonal(g: Graph, y: str, op: str) -> str:
    table = g("Reshape", y, shape=[1, 8, 2, 8])
    return str(g(op, table, g.weight(4, scale=1.0), equation="ncac,w->ncaw"))


ROWS = [
    *rows("Einsum", (12,), einsum, sizes=(8, 6), axes=frozenset({(1, 0), (1, 1)})),
    *rows("Einsum", (12,), einsum_implicit, sizes=(8, 6), axes=frozenset({(1, 0), (1, 1)})),
    *rows("Einsum", (12,), einsum_of_the_rest, sizes=(8, 6), axes=frozenset({(1, 0), (1, 1)})),
    *rows("Einsum", (12,), einsum_scale, axes=frozenset({(1, 0)})),
    *rows("Einsum", (12,), einsum_attention, sizes=(8, 6, 6)),
    *rows("Einsum", (12,), einsum_of_three, sizes=(8, 5, 6), axes=frozenset({(2, 0), (2, 1)})),
    *rows("Einsum", (12,), einsum_of_last, axes=frozenset({(1, 0)}), others=(6,)),
    *rows("Einsum", (12,), einsum_diagonal, sizes=(), reason=FreezeReason.MIXES_CHANNELS),
    *rows("Gemm", (7, 9, 11, 13), gemm, sizes=(8, 6), axes=frozenset({(1, 0), (1, 1), (2, 0)})),
    *rows("Gemm", (7, 9, 11, 13), gemm_turned, sizes=(8, 6), axes=frozenset({(1, 0), (1, 1), (2, 1)})),
    *rows("MatMul", (1, 9, 13), matmul, sizes=(8, 6), axes=frozenset({(1, 0), (1, 1)})),
    *rows("MatMul", (1, 9, 13), matmul_left, sizes=(8, 6), axes=frozenset({(0, 0), (0, 1)})),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_row(row: Row) -> None:
    table.check(row)


def test_both_operands_computed() -> None:
    """Attention: the inner axis of both sides goes together, the token axes stay."""

    def body(g: Graph, y: str) -> str:
        query, key, value = (g("Reshape", g.conv(y, 6, name=name), shape=[1, 6, 16]) for name in "qkv")
        scores = g("Softmax", g("MatMul", g("Transpose", query, perm=[0, 2, 1]), key), axis=-1)
        return str(g("Reshape", g("MatMul", value, g("Transpose", scores, perm=[0, 2, 1])), shape=[1, 6, 4, 4]))

    table.check(Row("MatMul", 13, body, sizes=(8, 6, 6)))


@pytest.mark.parametrize(
    ("form", "size"),
    [({}, 128), ({"reshape": [1, -1]}, 128), ({"reshape": [0, -1]}, 128), ({"reshape": [-1, 128]}, 128)],
)
def test_flattened_maps_lose_whole_blocks(form: dict[str, Any], size: int) -> None:
    def body(g: Graph, y: str) -> str:
        flat = g("Reshape", y, shape=form["reshape"]) if form else g("Flatten", y)
        return map_of(g, g("Gemm", flat, g.weight(size, 6)), 6)

    table.check(Row("Gemm", 13, body, sizes=(8, 6), axes=frozenset({(1, 0), (1, 1)})))
    g = Graph(13)
    body_out = body(g, g.conv(g.input("x", (1, 3, 4, 4)), 8))
    g.output(g.conv(body_out, 2))
    group = table.find_groups(table.load_model(g.model()))[0]
    member = next(member for member in group.members if member.positions.shape[1] > 1)
    assert member.positions[1].tolist() == list(range(16, 32))


def test_a_bias_of_size_one_stays() -> None:
    g = Graph(13)
    y = g("Flatten", g("GlobalAveragePool", g.conv(g.input("x", (1, 3, 4, 4)), 8)))
    g.output(g("Gemm", g("Gemm", y, g.weight(8, 6), g.weight(1), name="inner"), g.weight(6, 2)))
    groups = table.find_groups(table.load_model(g.model()))
    assert tuple(group.size for group in groups) == (8, 6)
    assert not [member for group in groups for member in group.members if member.use.slot == 2 and member.use.node == 3]
