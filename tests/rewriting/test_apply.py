"""Slicing of constants: who reads what, and what becomes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import oracle
import pytest
from builders import Graph
from onnx import numpy_helper

from srr_onnx.analysis.find import find_groups
from srr_onnx.graph.cost import count_cost
from srr_onnx.graph.load import load_model
from srr_onnx.graph.model import Model
from srr_onnx.graph.save import save_model
from srr_onnx.rewriting.apply import kept_positions, prune_units


def prune(g: Graph, keep: list[int]) -> tuple[Model, onnx.ModelProto]:
    """Keep these units (numbered through all groups), prove it, and give the pruned model and its file."""
    original = g.model()
    model = load_model(original)
    groups = find_groups(model)
    is_kept = np.isin(np.arange(groups.num_units), keep)
    pruned = prune_units(model, groups, is_kept)
    saved = onnx.load(str(save_model(pruned, Path("pruned.onnx"), force=True)))
    kept = kept_positions(groups, is_kept)
    assert oracle.pruned_equals_masked(original, saved, kept, model.shapes) <= oracle.TOLERANCE
    return pruned, saved


def stored(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {init.name: numpy_helper.to_array(init) for init in proto.graph.initializer}


def test_the_filters_that_stay_are_the_ones_that_were_kept() -> None:
    g = Graph(13)
    g.output(g.conv(g.conv(g.input("x", (1, 3, 4, 4)), 8, name="first"), 2, name="last"))
    before = stored(g.model())
    _, after = prune(g, [1, 4, 6])
    rows = [1, 4, 6]
    assert np.array_equal(stored(after)["first.weight"], before["first.weight"][rows])
    assert np.array_equal(stored(after)["first.bias"], before["first.bias"][rows])
    assert np.array_equal(stored(after)["last.weight"], before["last.weight"][:, rows])
    assert np.array_equal(stored(after)["last.bias"], before["last.bias"])


def test_two_readers_that_keep_the_same_share_one_weight() -> None:
    g = Graph(13)
    x = g.input("x", (1, 3, 4, 4))
    weight = g.weight(8, 3, 1, 1, name="w")
    y = g("Add", g("Conv", x, weight), g("Conv", g("Relu", x), weight))
    g.output(g.conv(y, 2, name="last"))
    _, after = prune(g, [0, 1])
    assert {name for name in stored(after) if name.startswith("w")} == {"w"}
    assert stored(after)["w"].shape == (2, 3, 1, 1)


def test_two_readers_that_keep_different_channels_part() -> None:
    g = Graph(13)
    x = g.input("x", (1, 3, 4, 4))
    weight = g.weight(4, 3, 1, 1, name="w")
    first, second = g("Conv", x, weight), g("Conv", g("Relu", x), weight)
    g.output(g.conv(first, 2, name="a"))
    g.output(g.conv(second, 2, name="b"))
    _, after = prune(g, [0, 1, 2, 7])
    assert sorted(array.shape[0] for name, array in stored(after).items() if name.startswith("w")) == [1, 3]


@pytest.mark.parametrize("form", ["Constant", "Identity", "Transpose", "Mul", "Cast"])
def test_weights_behind_nodes(form: str) -> None:
    g = Graph(13)
    x = g.input("x", (1, 3, 4, 4))
    array = g.rng.standard_normal((8, 3, 1, 1)).astype(np.float32)
    if form == "Constant":
        weight = g("Constant", value=numpy_helper.from_array(array))
    elif form == "Transpose":
        weight = g("Transpose", g.constant(array.transpose(1, 0, 2, 3).copy(), "w"), perm=[1, 0, 2, 3])
    elif form == "Mul":
        weight = g("Mul", g.constant(array, "w"), g.constant(np.float32(0.5)))
    elif form == "Cast":
        weight = g("Cast", g.constant(array.astype(np.float16), "w"), to=1)
    else:
        weight = g("Identity", g.constant(array, "w"))
    g.output(g.conv(g("Conv", x, weight), 2, name="last"))
    pruned, after = prune(g, [2, 3])
    assert count_cost(pruned).params == 2 * 3 + 2 * 2 + 2
    assert len(after.graph.node) <= 4


def test_what_computed_a_weight_goes_with_outputs_that_nobody_read() -> None:
    g = Graph(17)
    x = g.input("x", (1, 3, 4, 4))
    rows = g("Reshape", g.weight(8, 3, 1, 1, name="w"), shape=(1, 8, 3))
    # Four constants: onnxruntime 1.31 writes the running statistics into those that are read.
    vectors = [g.constant(np.full(8, number, np.float32)) for number in (1, 0, 0, 1)]
    white, *_ = g("BatchNormalization", rows, *vectors, outputs=3, training_mode=1)
    g.output(g.conv(g("Conv", x, g("Reshape", white, shape=(8, 3, 1, 1))), 2, name="last"))
    pruned, after = prune(g, [2, 3])
    assert [node.op_type for node in after.graph.node] == ["Conv", "Conv"]
    assert count_cost(pruned).params == 2 * 3 + 2 * 2 + 2


def test_a_single_channel_is_left() -> None:
    g = Graph(13)
    y = g.conv(g.input("x", (1, 3, 4, 4)), 8, 3, group=1, name="first")
    y = g.conv(y, 8, 3, group=8, name="depthwise")
    g.output(g.conv(y, 2, name="last"))
    _, after = prune(g, [5])
    assert stored(after)["depthwise.weight"].shape == (1, 1, 3, 3)
    node = next(node for node in after.graph.node if node.name == "depthwise")
    assert [attribute.i for attribute in node.attribute if attribute.name == "group"] == [1]


def test_positions_that_stay() -> None:
    g = Graph(13)
    y = g("Concat", g.input("x", (1, 3, 4, 4)), g.conv("x", 4, name="first"), axis=1)
    g.output(g.conv(y, 2))
    groups = find_groups(load_model(g.model()))
    kept = kept_positions(groups, np.array([True, False, False, True]))
    assert {key: positions.tolist() for key, positions in kept.items()} == {
        ("first", 1): [0, 3],
        ("Concat_0", 1): [0, 1, 2, 3, 6],
    }
    assert kept_positions(groups, np.ones(4, bool)) == {}
