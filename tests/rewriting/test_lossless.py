"""What changes no output goes, and the outputs stay; what cannot be proven stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from builders import Graph, feeds_for, run_ort
from hypothesis import given, settings
from hypothesis import strategies as st
from planting import check_facts, plant
from random_models import Recipe, recipes

from srr_onnx.analysis.find import find_groups
from srr_onnx.errors import ProofError
from srr_onnx.graph.load import load_model
from srr_onnx.graph.model import Model
from srr_onnx.graph.save import save_model
from srr_onnx.rewriting.differences import measure_differences
from srr_onnx.rewriting.exact.follow import Step, followers
from srr_onnx.rewriting.exact.functions import HOMOGENEOUS, POINTWISE
from srr_onnx.rewriting.exact.gains import Reason
from srr_onnx.rewriting.exact.search import find_exact
from srr_onnx.rewriting.lossless import prove_lossless, remove_exact
from srr_onnx.rewriting.taking_back import remove_proven

DEAD, CONSTANT, DUPLICATE = Reason.DEAD, Reason.CONSTANT, Reason.DUPLICATE
Array = np.ndarray[Any, Any]


def remove(g: Graph) -> tuple[dict[int, Reason], Model]:
    """Remove what can go, prove it, and give the reasons by unit and the smaller model."""
    proto = g.model()
    model = load_model(proto)
    groups = find_groups(model)
    result, is_kept, gains = remove_exact(model, groups)
    assert prove_lossless(model, result) <= (2e-3 if "tensor(float16)" in str(proto) else 1e-5)
    assert sorted(entry.unit for entry in gains.units) == np.flatnonzero(~is_kept).tolist()
    assert sum(sum(counts.values()) for counts in gains.counts.values()) == len(gains.units)
    onnx.checker.check_model(onnx.load(str(save_model(result, "result.onnx", force=True))), full_check=True)
    return {entry.unit: entry.reason for entry in gains.units}, result


def start(opset: int = 17, channels: int = 8, side: int = 6) -> tuple[Graph, str]:
    """A graph with one convolution; its filter 3 is zero with a bias of 0.5."""
    g = Graph(opset)
    y = g.conv(g.input("x", (1, 3, side, side)), channels, 3, name="first")
    g.initializers["first.weight"][3] = 0
    g.initializers["first.bias"][3] = 0.5
    return g, y


def finish(g: Graph, y: str, kernel: int = 1, **attributes: Any) -> Graph:
    g.output(g.conv(y, 2, kernel, name="last", **attributes))
    return g


def copy_filter(g: Graph, name: str, source: int, target: int, factor: float = 1.0) -> None:
    for part in ("weight", "bias"):
        array = g.initializers[f"{name}.{part}"]
        array[target] = array[source] * np.float32(factor)


@pytest.mark.parametrize("kernel", [1, 3])
def test_dead_filters_go_whatever_the_padding(kernel: int) -> None:
    g, y = start()
    g.initializers["first.bias"][3] = 0
    g.initializers["first.weight"][5] = 0
    g.initializers["first.bias"][5] = -1
    reasons, result = remove(finish(g, g("Relu", y), kernel))
    assert reasons == {3: DEAD, 5: DEAD}
    assert result.constants["first.weight"].shape[0] == 6
    assert np.array_equal(result.constants["last.weight"], g.initializers["last.weight"][:, [0, 1, 2, 4, 6, 7]])


def test_filters_that_nobody_weighs_go() -> None:
    g, y = start()
    g.initializers["first.weight"][3] = 1
    finish(g, g("Sigmoid", y), 3)
    g.initializers["last.weight"][:, 2] = 0
    assert remove(g)[0] == {2: DEAD}


def test_a_filter_that_only_dead_filters_read_goes_too() -> None:
    g = Graph(17)
    y = g("Relu", g.conv(g.input("x", (1, 3, 6, 6)), 4, 3, name="first"))
    y = g("Relu", g.conv(y, 4, 3, name="second"))
    finish(g, y)
    g.initializers["last.weight"][:, 1] = 0
    weight = g.initializers["second.weight"]
    weight[[0, 2, 3], 2] = 0  # filter 2 of the first is read by filter 1 of the second alone
    assert remove(g)[0] == {2: DEAD, 5: DEAD}


def test_batch_normalization_without_a_scale_is_dead() -> None:
    g = Graph(17)
    y = g.conv(g.input("x", (1, 3, 6, 6)), 4, 3, bias=False, name="first")
    scale, shift = g.constant([1.0, 0.0, 0.0, 1.0], "scale", np.float32), g.constant([0.1, 0, 0.3, 0], "b", np.float32)
    y = g("BatchNormalization", y, scale, shift, g.weight(4), g.constant(np.ones(4), dtype=np.float32))
    reasons, result = remove(finish(g, g("Relu", y)))
    assert reasons == {1: DEAD, 2: CONSTANT}
    assert result.constants["scale"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("bias", [True, False])
def test_a_constant_goes_into_the_bias(bias: bool) -> None:
    g, y = start()
    g.output(g.conv(g("Relu", y), 2, name="last", bias=bias))
    weight = g.initializers["last.weight"]
    before = g.initializers["last.bias"] if bias else np.zeros(2, np.float32)
    reasons, result = remove(g)
    assert reasons == {3: CONSTANT}
    node = next(node for node in result.nodes if node.name == "last")
    np.testing.assert_allclose(result.constants[node.inputs[2]], before + 0.5 * weight[:, 3, 0, 0], rtol=1e-6)
    assert result.constants[node.inputs[1]].shape == (2, 7, 1, 1)


@pytest.mark.parametrize(
    ("kernel", "attributes", "goes"),
    [
        (3, {"pads": [1, 1, 1, 1]}, False),
        (3, {"pads": [0, 0, 0, 1]}, False),
        (3, {"auto_pad": "SAME_UPPER"}, False),
        (3, {"auto_pad": "VALID"}, True),
        (3, {"pads": [0, 0, 0, 0]}, True),
        (3, {"pads": [0, 0, 0, 0], "strides": [2, 2], "dilations": [2, 2]}, True),
        (1, {"pads": [1, 1, 1, 1]}, False),
    ],
)
def test_a_constant_meets_padding(kernel: int, attributes: dict[str, Any], goes: bool) -> None:
    g, y = start()
    assert remove(finish(g, g("Relu", y), kernel, **attributes))[0] == ({3: CONSTANT} if goes else {})


def test_constants_that_meet_padding_are_merged() -> None:
    g, y = start()
    g.initializers["first.weight"][6] = 0
    g.initializers["first.bias"][6] = -2
    reasons, _ = remove(finish(g, y, 3))
    assert reasons == {6: DUPLICATE}


def number(g: Graph, value: float) -> str:
    return g.constant(np.array(value, np.float32))


STEPS: dict[str, Any] = {
    **{name: lambda g, y, name=name: g(name, y) for name in HOMOGENEOUS if name != "Identity"},
    **{name: lambda g, y, name=name: g(name, y) for name in POINTWISE},
    "GeluTanh": lambda g, y: g("Gelu", y, approximate="tanh"),
    "HardSigmoidSet": lambda g, y: g("HardSigmoid", y, alpha=0.3, beta=0.1),
    "LeakyReluSet": lambda g, y: g("LeakyRelu", g("Sub", y, number(g, 3.0)), alpha=0.3),
    "Clip": lambda g, y: g("Clip", y, min=-0.1, max=0.3),
    "ClipBelow": lambda g, y: g("Clip", y, number(g, 0.55)),
    "PRelu": lambda g, y: g("PRelu", g("Sub", y, number(g, 3.0)), g.weight(8, 1, 1)),
    "AddNumbers": lambda g, y: g("Add", y, g.weight(1, 8, 1, 1)),
    "SubFrom": lambda g, y: g("Sub", number(g, 2.0), y),
    "MulNumbers": lambda g, y: g("Mul", g.weight(8, 1, 1), y),
    "DivBy": lambda g, y: g("Div", y, number(g, -3.0)),
    "MaxPool": lambda g, y: g("MaxPool", y, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "AveragePool": lambda g, y: g("AveragePool", y, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "AveragePoolInside": lambda g, y: g("AveragePool", y, kernel_shape=[2, 2], strides=[2, 2]),
    "GlobalAveragePool": lambda g, y: g("GlobalAveragePool", y),
    "GlobalMaxPool": lambda g, y: g("GlobalMaxPool", y),
    "ReduceMean": lambda g, y: g("ReduceMean", y, axes=[2, 3], keepdims=1),
    "PadEdge": lambda g, y: g("Pad", y, pads=[0, 0, 1, 1, 0, 0, 1, 1], mode="edge"),
    "Resize": lambda g, y: g("Resize", y, "", g.constant(np.array([1, 1, 2, 2], np.float32)), mode="linear"),
    "Dropout": lambda g, y: g("Dropout", y),
    "TransposeTwice": lambda g, y: g("Transpose", g("Transpose", y, perm=[0, 2, 3, 1]), perm=[0, 3, 1, 2]),
    "SliceSpace": lambda g, y: g("Slice", y, starts=[1], ends=[4], axes=[2]),
    "Itself": lambda g, y: g("Mul", y, g("Sigmoid", y)),
    "Depthwise": lambda g, y: g.conv(y, 8, 3, group=8, pads=[0, 0, 0, 0], name="depthwise"),
}
SINCE = {"Gelu": 20, "GeluTanh": 20, "Mish": 18}


@pytest.mark.parametrize("step", STEPS)
def test_a_constant_goes_through(step: str) -> None:
    """What the function gives here is what the runtime gives: else the proof fails."""
    g, y = start(SINCE.get(step, 17))
    y = STEPS[step](g, g("Sigmoid", y))
    assert remove(finish(g, y))[0] == {3: CONSTANT}


@pytest.mark.parametrize("function", sorted({*HOMOGENEOUS, *POINTWISE} - {"Log", "Sqrt"}))
def test_a_negative_constant_goes_through(function: str) -> None:
    g, y = start(SINCE.get(function, 17))
    y = g(function, g("Sub", g("Sigmoid", y), number(g, 1.9)))
    assert remove(finish(g, y))[0] == {3: DEAD if function == "Relu" else CONSTANT}


@pytest.mark.parametrize("step", STEPS)
def test_duplicates_go_through(step: str) -> None:
    g, y = start(SINCE.get(step, 17))
    g.initializers["first.weight"][3] = 1
    copy_filter(g, "first", 2, 4)
    y = STEPS[step](g, g("Sigmoid", y))
    for name, array in g.initializers.items():
        if not name.startswith("first") and array.dtype == np.float32 and 8 in array.shape:
            rows = np.moveaxis(array, array.shape.index(8), 0)
            rows[4] = rows[2]
    assert remove(finish(g, y, 3))[0] == {4: DUPLICATE}


@pytest.mark.parametrize(
    "step",
    [
        lambda g, y: g("AveragePool", y, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
        lambda g, y: g("Pad", y, pads=[0, 0, 1, 1, 0, 0, 1, 1]),
        lambda g, y: g("Pad", y, pads=[0, 0, 1, 1, 0, 0, 1, 1], value=0.25),
        lambda g, y: g("Resize", y, "", g.constant(np.array([1, 1, 2, 2], np.float32)), mode="cubic"),
        lambda g, y: g("Add", y, g.weight(1, 8, 6, 6)),
        lambda g, y: g("Mul", y, g.weight(1, 1, 6, 6)),
        lambda g, y: g("Floor", y),
        lambda g, y: g.conv(y, 8, 3, group=8),
        lambda g, y: g("Add", y, g.conv("x", 8, name="other")),
    ],
    ids=["include_pad", "pad", "pad_value", "cubic", "add_map", "mul_map", "untaught", "depthwise", "residual"],
)
def test_what_is_not_provably_constant_stays(step: Any) -> None:
    g, y = start()
    assert remove(finish(g, step(g, y)))[0] == {}


def test_a_sum_is_constant_if_both_parts_are() -> None:
    g, y = start()
    y = g("Add", y, g.conv("x", 8, name="other"))
    for channel in (3, 5):
        g.initializers["other.weight"][channel] = 0
    assert remove(finish(g, y))[0] == {3: CONSTANT}


def test_a_residual_trunk_has_one_answer_for_all_its_readers() -> None:
    g, y = start()
    y = g("Relu", y)
    inner = g.conv(g("Relu", g.conv(y, 4, name="a")), 8, name="b")
    for channel in (3, 4):
        g.initializers["b.weight"][channel] = 0
    y = g("Relu", g("Add", y, inner))
    finish(g, y)
    assert remove(g)[0] == {3: CONSTANT}
    # A reader that pads keeps the unit for all of them.
    g, y = start()
    g.output(g.conv(g("Relu", y), 2, name="plain"))
    assert remove(finish(g, "Relu_0", 3))[0] == {}


def test_duplicates_are_merged_exactly() -> None:
    g, y = start()
    g.initializers["first.weight"][3] = 1
    copy_filter(g, "first", 1, 4)
    copy_filter(g, "first", 1, 6)
    finish(g, g("Sigmoid", y), 3)
    weight = g.initializers["last.weight"].copy()
    reasons, result = remove(g)
    assert reasons == {4: DUPLICATE, 6: DUPLICATE}
    want = (weight[:, 1].astype(np.float64) + weight[:, 6]).astype(np.float32) + weight[:, 4]
    np.testing.assert_array_equal(result.constants["last.weight"][:, 1], want)
    np.testing.assert_array_equal(result.constants["last.weight"][:, [0, 2, 3, 4, 5]], weight[:, [0, 2, 3, 5, 7]])


@pytest.mark.parametrize(("function", "goes"), [("Relu", True), ("LeakyRelu", True), ("Abs", True), ("Sigmoid", False)])
def test_multiples_go_where_a_factor_goes_through(function: str, goes: bool) -> None:
    g, y = start()
    g.initializers["first.weight"][3] = 1
    copy_filter(g, "first", 2, 5, 3.0)
    copy_filter(g, "first", 2, 6, -3.0)  # no positive factor
    y = g("MaxPool", g(function, y), kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    assert remove(finish(g, y, 3))[0] == ({5: DUPLICATE} if goes else {})


def test_slopes_tell_duplicates_apart() -> None:
    g, y = start()
    g.initializers["first.weight"][3] = 1
    copy_filter(g, "first", 1, 4)
    copy_filter(g, "first", 1, 6)
    slope = g.weight(8, 1, 1)
    g.initializers[slope][4] = g.initializers[slope][1]
    assert remove(finish(g, g("PRelu", y, slope), 3))[0] == {4: DUPLICATE}


def test_duplicates_in_a_concatenation() -> None:
    g = Graph(17)
    x = g.input("x", (1, 3, 6, 6))
    y = g("Concat", g.conv(x, 4, name="a"), g.conv(x, 4, name="b"), axis=1)
    finish(g, g("Relu", y), 3)
    for channel in range(2):
        for part in ("weight", "bias"):
            g.initializers[f"b.{part}"][channel] = g.initializers[f"a.{part}"][channel]
    # Filters are compared within one node only.
    assert remove(g)[0] == {}
    copy_filter(g, "b", 0, 3)
    assert remove(g)[0] == {7: DUPLICATE}


def test_flatten_spreads_a_channel_over_many_columns() -> None:
    g, y = start()
    copy_filter(g, "first", 0, 7, 2.0)
    y = g("Flatten", g("Relu", y))
    g.output(g("Gemm", y, g.weight(4, 8 * 36), transB=1, alpha=0.5))
    reasons, result = remove(g)
    assert reasons == {3: CONSTANT, 7: DUPLICATE}
    assert any(array.shape == (4, 6 * 36) for array in result.constants.values())


@pytest.mark.parametrize("bias", [None, "vector", "row", "number", "matrix"])
@pytest.mark.parametrize("transposed", [False, True])
def test_gemm(transposed: bool, bias: str | None) -> None:
    g = Graph(17)
    y = g("Gemm", g.input("x", (3, 5)), g.weight(5, 6, name="w"), g.weight(6, name="b"))
    g.initializers["w"][:, 1] = 0
    g.initializers["b"][1] = 0.5
    g.initializers["w"][:, 4] = g.initializers["w"][:, 2]
    g.initializers["b"][4] = g.initializers["b"][2]
    y = g("Relu", y)
    shapes = {"vector": (4,), "row": (1, 4), "number": (1,), "matrix": (3, 4)}
    third = [] if bias is None else [g.weight(*shapes[bias])]
    y = g("Transpose", y, perm=[1, 0]) if transposed else y
    weight = g.weight(4, 6) if transposed else g.weight(6, 4)
    y = g("Gemm", y, weight, *third, alpha=0.7, beta=0.3, transA=int(transposed), transB=int(transposed))
    g.output(y)
    reasons, _ = remove(g)
    assert reasons == ({4: DUPLICATE} if bias == "matrix" else {1: CONSTANT, 4: DUPLICATE})


@pytest.mark.parametrize(("form", "goes"), [("Add", True), ("AddNumber", True), ("none", False), ("Mul", False)])
def test_matmul_takes_a_constant_only_with_an_add(form: str, goes: bool) -> None:
    g = Graph(17)
    y = g("Add", g("MatMul", g.input("x", (2, 3, 5)), g.weight(5, 6, name="w")), g.weight(6, name="b"))
    g.initializers["w"][:, 1] = 0
    y = g("MatMul", g("Relu", g("Abs", y)), g.weight(6, 4))
    if form != "none":
        y = g(form.removesuffix("Number"), g.weight(1) if form == "AddNumber" else g.weight(4), y)
    g.output(y)
    assert remove(g)[0] == ({1: CONSTANT} if goes else {})


def test_transposed_convolutions() -> None:
    g = Graph(17)
    x = g.input("x", (1, 3, 6, 6))
    y = g("ConvTranspose", x, g.weight(3, 6, 2, 2, name="w"), g.weight(6, name="b"), strides=[2, 2])
    g.initializers["w"][:, 1] = 0
    g.initializers["w"][:, 4] = g.initializers["w"][:, 2]
    g.initializers["b"][4] = g.initializers["b"][2]
    y = g("Relu", g("Abs", y))
    one = g("ConvTranspose", y, g.weight(6, 2, 1, 1), g.weight(2))
    g.output(one)
    assert remove(g)[0] == {1: CONSTANT, 4: DUPLICATE}
    g.output(g("ConvTranspose", y, g.weight(6, 2, 3, 3), pads=[1, 1, 1, 1]))
    assert remove(g)[0] == {4: DUPLICATE}


def test_grouped_convolutions_are_corrected_in_their_own_group() -> None:
    g, y = start()
    g.initializers["first.weight"][7] = 0  # constant at the same offset of the other group
    copy_filter(g, "first", 0, 2)
    copy_filter(g, "first", 4, 6)
    y = g.conv(g("Relu", g("Abs", y)), 6, group=2, name="grouped")
    reasons, result = remove(finish(g, y))
    assert sorted(reasons.values(), key=str) == [CONSTANT, DUPLICATE]
    assert result.constants["grouped.weight"].shape == (6, 2, 1, 1)


def test_depthwise_duplicates_need_equal_filters() -> None:
    g, y = start()
    g.initializers["first.weight"][3] = 1
    copy_filter(g, "first", 1, 4)
    copy_filter(g, "first", 1, 6)
    y = g("Relu", g.conv(g("Relu", y), 8, 3, group=8, name="depthwise"))
    finish(g, y)
    copy_filter(g, "depthwise", 1, 6)
    assert remove(g)[0] == {6: DUPLICATE}


def test_a_shared_weight_is_corrected_for_one_reader_only() -> None:
    g = Graph(17)
    x = g.input("x", (1, 3, 6, 6))
    a, b = g("Relu", g.conv(x, 4, name="a")), g("Relu", g.conv(x, 4, name="b"))
    shared = g.weight(2, 4, 1, 1, name="shared")
    g.output(g("Conv", a, shared))
    g.output(g("Conv", b, shared))
    copy_filter(g, "a", 0, 2)
    before = g.initializers["shared"].copy()
    reasons, result = remove(g)
    assert reasons == {2: DUPLICATE}
    np.testing.assert_array_equal(result.constants["shared"], before)


@pytest.mark.parametrize("form", ["Constant", "Identity", "Transpose"])
def test_weights_behind_nodes_are_corrected(form: str) -> None:
    g, y = start()
    array = g.rng.standard_normal((2, 8, 1, 1)).astype(np.float32)
    if form == "Constant":
        weight = g("Constant", value=onnx.numpy_helper.from_array(array))
    elif form == "Transpose":
        weight = g("Transpose", g.constant(array.transpose(1, 0, 2, 3).copy(), "w"), perm=[1, 0, 2, 3])
    else:
        weight = g("Identity", g.constant(array, "w"))
    g.output(g("Conv", g("Relu", y), weight))
    assert remove(g)[0] == {3: CONSTANT}


def test_quantized_weights_are_left_alone() -> None:
    g, y = start()
    copy_filter(g, "first", 0, 5)
    integers = g.constant(g.rng.integers(-9, 9, (2, 8, 1, 1)).astype(np.int8))
    weight = g("DequantizeLinear", integers, g.constant(np.float32(0.1)), g.constant(np.int8(0)))
    g.output(g("Conv", g("Relu", y), weight))
    assert remove(g)[0] == {}


def test_float16() -> None:
    g = Graph(17)
    x = g.input("x", (1, 3, 6, 6), onnx.TensorProto.FLOAT16)
    weight = g.rng.standard_normal((6, 3, 1, 1)).astype(np.float16)
    bias = g.rng.standard_normal(6).astype(np.float16)
    weight[1], bias[1], weight[4], bias[4] = 0, 0.3, 2 * weight[2], 2 * bias[2]
    y = g("Relu", g("Conv", x, g.constant(weight), g.constant(bias)))
    g.output(g("Conv", y, g.constant(g.rng.standard_normal((2, 6, 1, 1)).astype(np.float16))))
    model = load_model(g.model())
    result, is_kept, _ = remove_exact(model, find_groups(model))
    assert np.flatnonzero(~is_kept).tolist() == [1, 4]
    assert prove_lossless(model, result) <= 2e-3


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_prove_nothing(value: float) -> None:
    g, y = start()
    copy_filter(g, "first", 0, 5)
    g.initializers["first.bias"][3] = value
    g.initializers["first.weight"][[0, 5], 0] = value
    finish(g, g("Relu", y))
    model = load_model(g.model())
    assert find_exact(model, find_groups(model)).units == ()


def test_a_group_keeps_a_unit() -> None:
    g, y = start()
    g.initializers["first.weight"][:] = 0
    reasons, result = remove(finish(g, y))
    assert set(reasons) == set(range(1, 8))
    assert result.constants["first.weight"].shape[0] == 1


def test_inexact_groups_stay() -> None:
    g = Graph(17)
    y = g("MatMul", g.input("x", (2, 3, 5)), g.weight(5, 6, name="w"))
    g.initializers["w"][:, 1] = 0
    y = g("LayerNormalization", y, g.weight(6), axis=-1)
    g.output(g("MatMul", y, g.weight(6, 4)))
    assert remove(g)[0] == {}


def test_nothing_planted_nothing_removed() -> None:
    g = Graph(17)
    y = g("Relu", g.conv(g.input("x", (1, 3, 6, 6)), 16, 3))
    y = g("Add", y, g.conv(g("Relu", g.conv(y, 24, 3)), 16, 3))
    y = g.conv(g("HardSwish", g.conv(y, 32)), 32, 3, group=32)
    g.output(g.conv(y, 2))
    model = load_model(g.model())
    result, is_kept, gains = remove_exact(model, find_groups(model))
    assert result is model
    assert is_kept.all()
    assert gains.counts == {}


def test_a_wrong_result_is_refused() -> None:
    g, y = start()
    model = load_model(finish(g, y).model())
    g.initializers["last.bias"] += 1e-3
    with pytest.raises(ProofError, match="differs from the original"):
        prove_lossless(model, load_model(g.model()))


@given(recipe=recipes(), seed=st.integers(0, 999))
def test_planted_units_go_and_no_output_changes(recipe: Recipe, seed: int) -> None:
    planted = plant(recipe, seed)
    check_facts(planted.model, planted.groups)
    result = remove_proven(planted.model, planted.groups).model
    assert prove_lossless(planted.model, result) <= 1e-5
    saved = onnx.load(str(save_model(result, "result.onnx", force=True)))
    feeds = feeds_for(planted.proto, sizes=planted.sizes)
    differences = measure_differences(run_ort(saved, feeds), run_ort(planted.proto, feeds), planted.model.outputs)
    assert differences.worst <= 1e-5


@settings(max_examples=settings().max_examples // 2)
@given(
    seed=st.integers(0, 999),
    kinds=st.lists(st.sampled_from(["", "dead", "constant", "duplicate"]), min_size=6, max_size=12),
    function=st.sampled_from(["Relu", "LeakyRelu", "HardSwish", "Sigmoid"]),
    kernel=st.sampled_from([1, 3]),
)
def test_what_is_planted_is_found(seed: int, kinds: list[str], function: str, kernel: int) -> None:
    g = Graph(17, seed)
    y = g.conv(g.input("x", (1, 3, 6, 6)), len(kinds) + 1, 3, name="first")
    weight, bias = (g.initializers[f"first.{part}"] for part in ("weight", "bias"))
    for channel, kind in enumerate(kinds, 1):
        if kind == "duplicate":
            copy_filter(g, "first", 0, channel)
        elif kind:
            weight[channel] = 0
            bias[channel] = 0 if kind == "dead" else channel
    finish(g, g(function, y), kernel, pads=[0] * 4)
    expected = {
        channel: DEAD if kind == "dead" and function != "Sigmoid" else DUPLICATE if kind == "duplicate" else CONSTANT
        for channel, kind in enumerate(kinds, 1)
        if kind
    }
    assert remove(g)[0] == expected


def test_a_node_that_cannot_be_followed_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(step: Step) -> None:
        raise IndexError

    g, y = start()
    finish(g, g("Relu", y))
    model = load_model(g.model())
    assert len(find_exact(model, find_groups(model)).units) == 1
    monkeypatch.setitem(followers._entries, "Relu", fail)
    assert find_exact(model, find_groups(model)).units == ()


def test_every_operator_that_is_followed_exists() -> None:
    assert len(followers) > 40
    assert all(onnx.defs.has(name) for name in followers)


def test_channels_are_followed_through_moves() -> None:
    """Split, Slice, Gather, Concat and a shuffle: a duplicate stays one wherever it goes."""
    g, y = start()
    g.initializers["first.weight"][3] = 1
    copy_filter(g, "first", 0, 3)
    first, second = g("Split", g("Relu", y), axis=1, outputs=2, split=[4, 4])
    first = g("Gather", first, g.ints(3, 2, 1, 0), axis=1)
    y = g("Concat", g("Slice", second, starts=[1], ends=[3], axes=[1]), first, axis=1)
    y = g("Reshape", g("Transpose", g("Reshape", y, shape=[1, 2, 3, 6, 6]), perm=[0, 2, 1, 3, 4]), shape=[1, 6, 6, 6])
    reasons, _ = remove(finish(g, y, 3))
    # Channels 4 and 7 are cut off: units 4 and 5, a group of their own, of which one stays.
    assert reasons == {3: DUPLICATE, 5: DEAD}


@pytest.mark.parametrize(("size", "goes"), [(1e-3, True), (1.0, True), (1e3, False), (1e6, False)])
def test_what_duplicates_differ_by_is_weighed_with_what_is_made_of_it(size: float, goes: bool) -> None:
    """Large weights of opposite signs make of a rounding all that there is of an output."""
    g, y = start()
    g.initializers["first.weight"][3] = 1
    copy_filter(g, "first", 2, 5, 1.7)  # a rounding off
    finish(g, g("Relu", y))
    weight = g.initializers["last.weight"]
    weight[0, [2, 5]] = size * np.array([1.7, -1], np.float32)[:, None, None]
    assert remove(g)[0] == ({5: DUPLICATE} if goes else {})


def test_filters_are_told_apart_by_what_is_left_of_twins_that_cancel() -> None:
    g, y = start()
    g.initializers["first.weight"][3] = 1
    copy_filter(g, "first", 1, 4)
    y = g("Relu", g.conv(g("Relu", y), 6, name="second"))
    weight = g.initializers["second.weight"]
    weight[:, 1], weight[:, 4] = 1e8, -1e8  # nothing, but far larger than the rest
    reasons, _ = remove(finish(g, y))
    assert not any(unit >= 8 for unit in reasons)
