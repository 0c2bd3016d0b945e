"""Normalizations: over each channel, over groups of channels, and over all of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import rows as table
from builders import Graph
from rows import Row, rows


def vectors(g: Graph, count: int, number: int) -> list[str]:
    made = [g.weight(count, scale=1.0) for _ in range(min(number, 3))]
    if number == 4:
        made.append(g.constant(np.linspace(0.5, 2.0, count), dtype="f4"))
    return made


def batch(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, *vectors(g, 8, 4)))


def instance(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, *vectors(g, 8, 2)))


def instance_of_groups(count: int) -> Callable[[Graph, str, str], str]:
    """GroupNormalization as it is exported before opset 18: 8 / count channels share an axis with their pixels."""

    def body(g: Graph, y: str, op: str) -> str:
        folded = g("Reshape", y, shape=(1, count, 128 // count))
        return str(g("Reshape", g(op, folded, *vectors(g, count, 2)), shape=(1, 8, 4, 4)))

    return body


def group_of_columns(g: Graph, y: str, op: str) -> str:
    turned = g("Transpose", y, perm=[0, 2, 1, 3])
    normed = g(op, turned, *vectors(g, 2 if g.opset < 21 else 4, 2), num_groups=2, shape=g.shapes[turned])
    return str(g("Transpose", normed, perm=[0, 2, 1, 3]))


def group(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, *vectors(g, 4 if g.opset < 21 else 8, 2), num_groups=4, shape=g.shapes[y]))


def layer(g: Graph, y: str, op: str) -> str:
    last = g("Transpose", y, perm=[0, 2, 3, 1])
    operands = vectors(g, 8, 2 if op == "LayerNormalization" else 1)
    return str(g("Transpose", g(op, last, *operands, shape=g.shapes[last]), perm=[0, 3, 1, 2]))


def over_channels(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, axis=1))


def plain(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, shape=g.shapes[y]))


def mean_variance(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, axes=[1], shape=g.shapes[y]))


def over_columns(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, axis=3))


def layer_of_columns(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, *vectors(g, 4, 2 if op == "LayerNormalization" else 1), shape=g.shapes[y]))


def mean_variance_over_space(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, axes=[2, 3], shape=g.shapes[y]))


def neighbours(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, size=3))


ROWS = [
    *rows("BatchNormalization", (7, 9, 14, 15), batch, axes=frozenset((slot, 0) for slot in (1, 2, 3, 4))),
    *rows("InstanceNormalization", (1, 6, 22), instance, axes=frozenset({(1, 0), (2, 0)})),
    *rows("InstanceNormalization", (6, 22), instance_of_groups(2), sizes=(2,), axes=frozenset({(1, 0), (2, 0)})),
    *rows("InstanceNormalization", (6, 22), instance_of_groups(1), inexact=True),
    *rows("GroupNormalization", (18, 21), group_of_columns, inexact=True),
    *rows("GroupNormalization", (18, 21), group, sizes=(4,), axes=frozenset({(1, 0), (2, 0)})),
    *rows("LayerNormalization", (17,), layer, axes=frozenset({(1, 0), (2, 0)}), inexact=True),
    *rows("RMSNormalization", (23,), layer, axes=frozenset({(1, 0)}), inexact=True),
    *rows("LayerNormalization RMSNormalization", (17, 23), layer_of_columns),
    *rows("Softmax LogSoftmax Hardmax", (1, 11, 13), over_columns),
    *rows("LpNormalization", (1, 22), over_columns),
    *rows("MeanVarianceNormalization", (9, 13), mean_variance_over_space),
    *rows("Softmax LogSoftmax Hardmax", (1, 11, 13), over_channels, inexact=True),
    *rows("LpNormalization", (1, 22), over_channels, inexact=True),
    *rows("MeanVarianceNormalization", (9, 13), mean_variance, inexact=True),
    *rows("LRN", (1, 13), neighbours, inexact=True),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_row(row: Row) -> None:
    table.check(row)


@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax", "Hardmax"])
def test_before_version_13_all_axes_from_the_given_one_mix(op_type: str) -> None:
    def body(g: Graph, y: str) -> str:
        return str(g(op_type, y, axis=0))

    table.check(Row(op_type, 11, body, inexact=True))


def test_training_mode_has_more_outputs() -> None:
    def body(g: Graph, y: str) -> str:
        return str(g("BatchNormalization", y, *vectors(g, 8, 4), training_mode=1, outputs=["bn", "m", "v"])[0])

    g = Graph(15)
    y = body(g, g.conv(g.input("x", (1, 3, 4, 4)), 8))
    g.output(g.conv(y, 2))
    groups = table.find_groups(table.load_model(g.model()))
    assert tuple(group.size for group in groups) == (8,)
    assert {("m", 0), ("v", 0)} <= set(groups[0].values)
