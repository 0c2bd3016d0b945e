"""Conv and ConvTranspose: dense, grouped, depthwise."""

from __future__ import annotations

import pytest
import rows as table
from builders import Graph
from rows import Row, rows

from srr_onnx.analysis.labels import FreezeReason

VERSIONS = (1, 11, 22)


def dense(g: Graph, y: str, op: str) -> str:
    return g.conv(y, 6, 3)


def transposed(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, g.weight(8, 6, 2, 2), g.weight(6), strides=[2, 2]))


def transposed_grouped(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, g.weight(8, 3, 2, 2), g.weight(12), group=4))


def deformed(g: Graph, y: str, op: str) -> str:
    offsets, mask = g.conv(y, 18, 3, name="offsets"), g("Sigmoid", g.conv(y, 9, 3, name="mask"))
    return str(g(op, y, g.weight(6, 8, 3, 3), offsets, g.weight(6), mask, pads=[1, 1, 1, 1]))


def deformed_in_two_ways(g: Graph, y: str, op: str) -> str:
    offsets = g.conv(y, 8, name="offsets")
    return str(g(op, y, g.weight(6, 8, 1, 2), offsets, pads=[0, 0, 0, 1], offset_group=2))


def deformed_groups(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, g.weight(8, 1, 1, 2), g.conv(y, 4, name="offsets"), pads=[0, 0, 0, 1], group=8))


def deformed_groups_in_two_ways(g: Graph, y: str, op: str) -> str:
    return str(g(op, y, g.weight(6, 4, 1, 2), g.conv(y, 8), pads=[0, 0, 0, 1], group=2, offset_group=2))


def on_each_channel(g: Graph, y: str, op: str) -> str:
    """Channels are folded into the batch: the same filter for all of them."""
    folded = g("Reshape", y, shape=[8, 1, 4, 4])
    return str(g("Reshape", g(op, folded, g.weight(1, 1, 3, 3), pads=[1, 1, 1, 1]), shape=[1, 8, 4, 4]))


ROWS = [
    *rows("Conv ConvTranspose", VERSIONS, on_each_channel),
    *rows("DeformConv", (19, 22), deformed, sizes=(6,), others=(8,), axes=frozenset({(1, 0), (1, 1), (3, 0)})),
    *rows("DeformConv", (19, 22), deformed_in_two_ways, sizes=(6,), others=(4,), axes=frozenset({(1, 0), (1, 1)})),
    *rows("DeformConv", (19, 22), deformed_groups, sizes=(8,), axes=frozenset({(1, 0)})),
    *rows(
        "DeformConv",
        (19, 22),
        deformed_groups_in_two_ways,
        sizes=(3,),
        axes=frozenset({(1, 0)}),
        reason=FreezeReason.LAYOUT,
    ),
    *rows("Conv", VERSIONS, dense, sizes=(8, 6)),
    *rows("ConvTranspose", VERSIONS, transposed, sizes=(8, 6), axes=frozenset({(1, 0), (1, 1), (2, 0)})),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_row(row: Row) -> None:
    table.check(row)


# Filters in, filters out, groups -> sizes of the pruning groups found, inputs first.
GROUPED = [
    (8, 8, 8, (8,)),  # depthwise: a filter goes with its channel
    (4, 12, 4, (4,)),  # three filters per channel go together
    (8, 12, 4, (2, 3)),  # same offsets in every group: 2 + 3 units rather than 4 whole groups
    (12, 4, 4, (4,)),  # whole groups leave 4, offsets 3 + 1: the tie goes to whole groups
    (12, 6, 2, (6, 3)),
    (6, 3, 3, (3,)),
]


@pytest.mark.parametrize(("channels", "filters", "conv_groups", "sizes"), GROUPED)
def test_grouped(channels: int, filters: int, conv_groups: int, sizes: tuple[int, ...]) -> None:
    def body(g: Graph, y: str) -> str:
        return g.conv(g.conv(y, channels), filters, 3, group=conv_groups)

    table.check(Row("Conv", 11, body, sizes=(8, *sizes)))


@pytest.mark.parametrize(
    ("channels", "per_group", "conv_groups", "sizes"),
    [(8, 1, 8, (8,)), (8, 3, 4, (2, 3)), (4, 2, 4, (4,)), (6, 1, 2, (3, 1))],
)
def test_grouped_transposed(channels: int, per_group: int, conv_groups: int, sizes: tuple[int, ...]) -> None:
    def body(g: Graph, y: str) -> str:
        weight, bias = g.weight(channels, per_group, 2, 2), g.weight(per_group * conv_groups)
        return str(g("ConvTranspose", g.conv(y, channels), weight, bias, group=conv_groups))

    g = Graph(13)
    y = body(g, g.conv(g.input("x", (1, 3, 4, 4)), 8))
    g.output(g.conv(y, 2))
    groups = table.find_groups(table.load_model(g.model()))
    assert tuple(group.size for group in groups) == (8, *sizes)


def test_one_output_channel_is_not_depthwise() -> None:
    g = Graph(13)
    y = g.conv(g.conv(g.input("x", (1, 3, 4, 4)), 1, name="one"), 1, name="two")
    g.output(g.conv(y, 2, name="last"))
    groups = table.find_groups(table.load_model(g.model()))
    assert [(group.size, group.nodes) for group in groups] == [(1, ("one",)), (1, ("two",))]


def test_a_computed_weight_is_followed_or_kept_but_never_cut_wrong() -> None:
    g = Graph(13)
    x = g.input("x", (1, 3, 4, 4))
    kernel = g("Reshape", g("GlobalAveragePool", g.conv(x, 24, name="kernels")), shape=[3, 8, 1, 1])
    g.output(g("Conv", g.conv(x, 8, name="data"), kernel, name="dynamic"))
    groups = table.find_groups(table.load_model(g.model()))
    model = table.load_model(g.model())
    is_kept = table.halve(groups)
    pruned = table.prune_units(model, groups, is_kept)
    kept = table.kept_positions(groups, is_kept)
    saved = table.onnx.load(str(table.save_model(pruned, "pruned.onnx")))
    assert table.oracle.pruned_equals_masked(g.model(), saved, kept, model.shapes) < table.oracle.TOLERANCE


def test_channels_in_a_batch_of_open_size_stay() -> None:
    """At run time they may lie there several times over, so no one mask fits."""
    g = Graph(17)
    y = g("Reshape", g.conv(g.input("x", (1, 3, 4, 4), dynamic={0: "N"}), 8, name="first"), shape=[-1, 1, 4, 4])
    y = g("Conv", y, g.weight(1, 1, 3, 3), pads=[1, 1, 1, 1], name="each")
    g.output(g.conv(g("Reshape", y, shape=[-1, 8, 4, 4]), 2))
    groups = table.find_groups(table.load_model(g.model()))
    assert [(f.cause.reason, f.cause.node) for f in groups.frozen if f.filters == "first"] == [
        (FreezeReason.FIXED_AXIS, "each")
    ]
