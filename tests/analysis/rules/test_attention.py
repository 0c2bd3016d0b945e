"""Attention as one operator, rotary embeddings, and attention as exporters write it out."""

from __future__ import annotations

import numpy as np
import pytest
import rows as table
from builders import Graph
from rows import Row, rows

from srr_onnx.analysis.labels import FreezeReason

TOKENS = 16


def heads(g: Graph, y: str, count: int, width: int, name: str) -> str:
    """(1, count, 16, width) from a map."""
    folded = g("Reshape", g.conv(y, count * width, name=name), shape=[1, count, width, TOKENS])
    return str(g("Transpose", folded, perm=[0, 1, 3, 2]))


def tokens(g: Graph, y: str, size: int, name: str) -> str:
    """(1, 16, size) from a map."""
    return str(g("Transpose", g("Reshape", g.conv(y, size, name=name), shape=[1, size, TOKENS]), perm=[0, 2, 1]))


def map_of_heads(g: Graph, y: str) -> str:
    _, count, _, width = g.shapes[y]
    return str(g("Reshape", g("Transpose", y, perm=[0, 1, 3, 2]), shape=[1, count * width, 4, 4]))


def map_of_tokens(g: Graph, y: str) -> str:
    return str(g("Reshape", g("Transpose", y, perm=[0, 2, 1]), shape=[1, g.shapes[y][2], 4, 4]))


def attend(g: Graph, y: str, op: str, count: int, shared: int, width: int, **attributes: float) -> str:
    parts = [heads(g, y, number, width, name) for number, name in ((count, "q"), (shared, "k"), (shared, "v"))]
    return map_of_heads(g, g(op, *parts, **attributes))


def of_heads(g: Graph, y: str, op: str) -> str:
    return attend(g, y, op, 2, 2, 4)


def of_scaled_heads(g: Graph, y: str, op: str) -> str:
    return attend(g, y, op, 2, 2, 4, scale=0.3)


def of_many_heads(g: Graph, y: str, op: str) -> str:
    return attend(g, y, op, 6, 6, 2)


def of_heads_that_share(g: Graph, y: str, op: str) -> str:
    """Six heads of queries on three of keys and values: these go with two heads of queries each."""
    return attend(g, y, op, 6, 3, 2)


def of_masked_heads(g: Graph, y: str, op: str) -> str:
    parts = [heads(g, y, 6, 2, name) for name in "qkv"]
    return map_of_heads(g, g(op, *parts, g.weight(1, 6, TOKENS, TOKENS, scale=1.0)))


def of_folded_heads(g: Graph, y: str, op: str) -> str:
    parts = [tokens(g, y, size, name) for size, name in ((8, "q"), (8, "k"), (12, "v"))]
    return map_of_tokens(g, g(op, *parts, q_num_heads=2, kv_num_heads=2))


def of_many_folded_heads(g: Graph, y: str, op: str) -> str:
    """Of eight heads with two channels each more are left if they go whole."""
    parts = [tokens(g, y, 16, name) for name in "qkv"]
    mask = g.constant(np.random.default_rng(0).random((8, TOKENS, TOKENS)) > 0.3)
    return map_of_tokens(g, g(op, *parts, mask, q_num_heads=8, kv_num_heads=8))


def of_a_cache(g: Graph, y: str, op: str) -> str:
    parts = [heads(g, y, 2, 4, name) for name in "qkv"]
    past = [g.weight(1, 2, 5, 4) for _ in "kv"]
    return map_of_heads(g, g(op, *parts, "", *past, outputs=3)[0])


def turned(g: Graph, y: str, op: str, count: int, width: int, half: int, **attributes: int) -> str:
    angles = [g.weight(1, TOKENS, half, scale=1.0) for _ in range(2)]
    return map_of_heads(g, g(op, heads(g, y, count, width, "in"), *angles, **attributes))


def rotated(g: Graph, y: str, op: str) -> str:
    return turned(g, y, op, 2, 8, 4)


def rotated_in_turn(g: Graph, y: str, op: str) -> str:
    return turned(g, y, op, 2, 8, 4, interleaved=1)


def rotated_in_part(g: Graph, y: str, op: str) -> str:
    return turned(g, y, op, 2, 8, 2, rotary_embedding_dim=4)


def rotated_whole(g: Graph, y: str, op: str) -> str:
    return turned(g, y, op, 6, 4, 2)


def rotated_folded(g: Graph, y: str, op: str) -> str:
    angles = [g.weight(20, 4, scale=1.0) for _ in range(2)]
    places = g.constant(np.arange(TOKENS)[None])
    return map_of_tokens(g, g(op, tokens(g, y, 16, "in"), *angles, places, num_heads=2))


def rotated_folded_whole(g: Graph, y: str, op: str) -> str:
    angles = [g.weight(1, TOKENS, 1, scale=1.0) for _ in range(2)]
    return map_of_tokens(g, g(op, tokens(g, y, 12, "in"), *angles, num_heads=6))


ALL = tuple(range(1, 26))
ANGLES = frozenset({(1, 2), (2, 2)})
ROWS = [
    *rows("Attention", ALL, of_heads, sizes=(8, 4), others=(4,)),
    *rows("Attention", ALL, of_scaled_heads, sizes=(8, 4), others=(4,)),
    *rows("Attention", ALL, of_many_heads, sizes=(8, 6)),
    *rows("Attention", ALL, of_heads_that_share, sizes=(8, 3)),
    *rows("Attention", ALL, of_masked_heads, sizes=(8, 6), axes=frozenset({(3, 1)})),
    *rows("Attention", ALL, of_folded_heads, sizes=(8, 2)),
    *rows("Attention", ALL, of_many_folded_heads, sizes=(8, 8), axes=frozenset({(3, 0)})),
    *rows("Attention", ALL, of_a_cache, sizes=(8,), reason=FreezeReason.COMPUTED_OPERAND),
    *rows("RotaryEmbedding", ALL, rotated, sizes=(8, 4), axes=ANGLES),
    *rows("RotaryEmbedding", ALL, rotated_in_turn, sizes=(8, 4), axes=ANGLES),
    *rows("RotaryEmbedding", ALL, rotated_in_part, sizes=(8, 2, 4), axes=ANGLES),
    *rows("RotaryEmbedding", ALL, rotated_whole, sizes=(8, 6)),
    *rows("RotaryEmbedding", ALL, rotated_folded, sizes=(8, 4), axes=frozenset({(1, 1), (2, 1)})),
    *rows("RotaryEmbedding", ALL, rotated_folded_whole, sizes=(8, 6)),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_row(row: Row) -> None:
    table.check(row)


def test_as_many_heads_as_channels_in_one() -> None:
    """Queries alone do not tell heads from their channels, keys and values in one tensor do: all take the channels."""

    def body(g: Graph, y: str) -> str:
        query = heads(g, y, 4, 4, "q")
        both = g("Reshape", g.conv(y, 40, name="kv"), shape=[1, 4, 10, TOKENS])
        key, value = g("Split", both, axis=2, split=[4, 6], outputs=2)
        scores = g("Softmax", g("MatMul", query, key), axis=-1)
        return map_of_heads(g, g("MatMul", scores, g("Transpose", value, perm=[0, 1, 3, 2])))

    table.check(Row("Softmax", 13, body, sizes=(8, 4, 6)))


def attend_by_hand(g: Graph, parts: list[str]) -> str:
    """Attention over tokens, of queries, keys and values (1, heads, tokens, width)."""
    query, key, value = parts
    scores = g("MatMul", query, g("Transpose", key, perm=[0, 1, 3, 2]))
    scores = g("Softmax", g("Mul", scores, g.weight(1, g.shapes[query][1], 1, 1, scale=1.0)), axis=-1)
    return map_of_heads(g, g("MatMul", scores, value))


def in_one(g: Graph, y: str, count: int, width: int) -> list[str]:
    """Queries, keys and values from one product, as vision transformers have it."""
    folded = g("Reshape", tokens(g, y, 3 * count * width, "qkv"), shape=[1, TOKENS, 3, count, width])
    parts = g("Split", g("Transpose", folded, perm=[2, 0, 3, 1, 4]), axis=0, split=[1, 1, 1], outputs=3)
    return [g("Squeeze", part, axes=[0]) for part in parts]


def test_written_out_in_one_product() -> None:
    """A place in the heads goes with queries, keys and values alike: they are cut out of one tensor."""
    table.check(Row("Softmax", 13, lambda g, y: attend_by_hand(g, in_one(g, y, 2, 4)), sizes=(8, 4)))


def test_more_heads_than_channels_in_one_go_whole() -> None:
    def body(g: Graph, y: str) -> str:
        return attend_by_hand(g, [heads(g, y, 6, 2, name) for name in "qkv"])

    table.check(Row("Softmax", 13, body, sizes=(8, 6)))


def test_more_heads_than_channels_beside_wider_values() -> None:
    """Queries alone would give up whole heads, keys and values in one channels: nothing would fit, so one gives way."""

    def body(g: Graph, y: str) -> str:
        both = g("Reshape", g.conv(y, 36, name="kv"), shape=[1, 4, 9, TOKENS])
        key, value = (
            g("Transpose", part, perm=[0, 1, 3, 2]) for part in g("Split", both, axis=2, split=[3, 6], outputs=2)
        )
        return attend_by_hand(g, [heads(g, y, 4, 3, "q"), key, value])

    table.check(Row("Softmax", 13, body, sizes=(8, 3, 6)))


def test_attention_between_channels_gives_up_whole_heads() -> None:
    """A softmax over channels is inexact for the channels of a head, exact for heads."""

    def body(g: Graph, y: str) -> str:
        query, key, value = in_one(g, y, 3, 4)
        query, value = (g("Transpose", part, perm=[0, 1, 3, 2]) for part in (query, value))
        scores = g("Softmax", g("MatMul", query, key), axis=-1)  # (1, heads, width, width)
        mixed = g("Transpose", g("MatMul", scores, value), perm=[0, 1, 3, 2])
        return map_of_heads(g, mixed)

    table.check(Row("Softmax", 13, body, sizes=(8, 3)))
