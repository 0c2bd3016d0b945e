"""Quantized weights and activations: scales and zero points go with the channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import oracle
import pytest
import rows as table
from builders import Graph, feeds_for, run_ort
from onnx import TensorProto
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from rows import Row, rows

from srr_onnx.analysis.find import find_groups
from srr_onnx.analysis.groups import Role
from srr_onnx.analysis.labels import FreezeReason
from srr_onnx.errors import ProofError, UnsupportedError
from srr_onnx.graph.load import load_model
from srr_onnx.pipeline import prune
from srr_onnx.rewriting.apply import kept_positions, prune_units
from srr_onnx.rewriting.verify import verify_pruned
from srr_onnx.scoring.slices import Slices
from srr_onnx.targets.onnxruntime import Session

VERSIONS = (10, 13, 19, 21, 23, 24, 25)


def of_tensor(g: Graph, y: str, op: str) -> str:
    """One scale, and a zero point that is not zero."""
    scale, zero = g.constant(np.float32(0.02)), g.constant(np.uint8(131))
    return str(g("DequantizeLinear", g("QuantizeLinear", y, scale, zero), scale, zero))


def of_channels(g: Graph, y: str, op: str) -> str:
    """One scale and one zero point per channel."""
    scale, zero = g.constant(np.linspace(0.01, 0.03, 8), dtype="f4"), g.constant(np.arange(120, 136, 2), dtype="u1")
    return str(g("DequantizeLinear", g("QuantizeLinear", y, scale, zero, axis=1), scale, zero, axis=-3))


BOTH = "QuantizeLinear DequantizeLinear"
ROWS = [
    *rows(BOTH, VERSIONS, of_tensor),
    *rows(BOTH, VERSIONS[1:], of_channels, axes=frozenset({(1, 0), (2, 0)})),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_row(row: Row) -> None:
    table.check(row)


def quantized(array: np.ndarray[Any, Any], scale: np.ndarray[Any, Any], zero: np.ndarray[Any, Any]) -> Any:
    bounds = np.iinfo(zero.dtype)
    return np.clip(np.round(array / scale) + zero, bounds.min, bounds.max).astype(zero.dtype)


def stored(g: Graph, name: str, shape: tuple[int, ...], axis: int | None, dtype: str = "i1") -> str:
    """A weight behind DequantizeLinear, with zero points that are not zero."""
    count = 1 if axis is None else shape[axis]
    rank = [-1 if place == axis else 1 for place in range(len(shape))]
    scale = np.linspace(0.004, 0.009, count).astype(np.float32)
    zero = (np.arange(count) % 3 + np.iinfo(dtype).max // 4).astype(dtype)
    array = quantized(g.rng.standard_normal(shape) * 0.3, scale.reshape(rank), zero.reshape(rank))
    parts = [array, scale, zero] if axis is not None else [array, scale[0], zero[0]]
    names = [g.constant(part, f"{name}.{label}") for part, label in zip(parts, ("int", "scale", "zero"), strict=True)]
    return str(g("DequantizeLinear", *names, **({} if axis is None else {"axis": axis})))


def a_net(axis: int | None, dtype: str = "i1") -> Graph:
    """Convolution, normalization, grouped and transposed convolution and a dense layer, all stored as integers."""
    g = Graph(13)
    count = None if axis is None else 0
    bias = g("DequantizeLinear", g.constant(np.arange(8) * 9, dtype="i4"), g.constant(np.float32(0.01)), axis=0)
    y = g("Conv", g.input("x", (1, 3, 6, 6)), stored(g, "first", (8, 3, 3, 3), count, dtype), bias, name="first")
    y = g("Relu", y)
    y = g("Conv", y, stored(g, "depth", (8, 1, 3, 3), count, dtype), group=8, name="depth")
    y = g("ConvTranspose", y, stored(g, "up", (8, 6, 2, 2), None if axis is None else 1, dtype), name="up")
    pooled = g("Flatten", g("GlobalAveragePool", y))
    g.output(g("MatMul", pooled, g("Transpose", stored(g, "dense", (4, 6), count, dtype), perm=[1, 0]), name="dense"))
    return g


@pytest.mark.parametrize("dtype", ["i1", "u1"])
@pytest.mark.parametrize("axis", [None, 0], ids=["per tensor", "per channel"])
def test_weights_stored_as_integers(axis: int | None, dtype: str) -> None:
    proto = a_net(axis, dtype).model()
    result = prune(load_model(proto), "half.onnx", ratio=0.5, criterion="l1")
    assert [(group.size, group.nodes) for group in find_groups(load_model(proto))] == [
        (8, ("first", "depth")),
        (6, ("up",)),
    ]
    sizes = {init.name: tuple(init.dims) for init in onnx.load("half.onnx").graph.initializer}
    assert sizes["first.int"] == (4, 3, 3, 3)
    assert sizes["up.int"] == (4, 3, 2, 2)
    assert sizes["dense.int"] == (4, 3)
    assert sizes["first.scale"] == sizes["first.zero"] == (() if axis is None else (4,))
    assert sizes["up.scale"] == (() if axis is None else (3,))
    assert result.plan.before.params > 8 * 27 + 8 * 9 + 8 * 6 * 4 + 24  # integers that stand for weights count
    kept = {(name, e["axis"]): np.array(e["keep"]) for name, axes in result.plan.values.items() for e in axes}
    # Not optimized: onnxruntime makes a product of eight-bit numbers of the dense layer, rounded in its own way.
    want = run_ort(oracle.mask_model(proto, kept, result.original.shapes), feeds_for(proto))
    assert oracle.relative_error(run_ort(onnx.load("half.onnx"), feeds_for(proto)), want) <= oracle.TOLERANCE


def filters_of(proto: onnx.ModelProto, node: str) -> np.ndarray[Any, Any]:
    model = load_model(proto)
    group = next(group for group in find_groups(model) if node in group.nodes)
    return Slices(model, group).with_role(Role.FILTER)[0]


@pytest.mark.parametrize("axis", [None, 0], ids=["per tensor", "per channel"])
def test_criteria_see_what_the_integers_stand_for(axis: int | None) -> None:
    g = a_net(axis)
    proto = g.model()
    proto.graph.output.append(onnx.ValueInfoProto(name="DequantizeLinear_1"))
    want = run_ort(proto, feeds_for(proto))["DequantizeLinear_1"]
    del proto.graph.output[-1]
    np.testing.assert_array_equal(filters_of(proto, "first"), want.reshape(8, -1))


def test_a_weight_that_is_quantized_in_the_graph() -> None:
    """The form of quantization-aware training: QuantizeLinear and DequantizeLinear behind a float weight."""
    g = Graph(13)
    scale, zero = g.constant(np.linspace(0.01, 0.02, 8), dtype="f4"), g.constant(np.zeros(8, np.int8))
    steps = g("QuantizeLinear", g.weight(8, 3, 3, 3, name="w"), scale, zero, axis=0)
    y = g("Conv", g.input("x", (1, 3, 6, 6)), g("DequantizeLinear", steps, scale, zero, axis=0), name="first")
    g.output(g.conv(g("Relu", y), 2))
    result = prune(load_model(g.model()), None, ratio=0.5, criterion="l1")
    np.testing.assert_array_equal(filters_of(g.model(), "first"), g.initializers["w"].reshape(8, -1))
    assert result.model.shapes["w"] == (4, 3, 3, 3)
    assert result.model.shapes[scale] == (4,)


def test_two_readers_of_one_quantized_weight_stay_tied() -> None:
    g = Graph(13)
    x = g.input("x", (1, 8, 4, 4))
    weight = stored(g, "shared", (8, 8, 1, 1), 0)
    g.output(g.conv(g("Relu", g("Conv", g("Relu", g("Conv", x, weight, name="a")), weight, name="b")), 2))
    proto = g.model()
    model = load_model(proto)
    groups = find_groups(model)
    is_kept = table.halve(groups)
    pruned = prune_units(model, groups, is_kept)
    assert verify_pruned(model, pruned, kept_positions(groups, is_kept)).relative_error <= oracle.TOLERANCE


def test_blocks_keep_their_axis() -> None:
    """Scales per block of two input channels: the filters are free, the input channels stay."""
    g = Graph(21)
    y = g.conv(g.input("x", (1, 3, 4, 4)), 8, name="first")
    scale, zero = g.constant(np.full((6, 4, 1, 1), 0.01), dtype="f4"), g.constant(np.ones((6, 4, 1, 1)), dtype="i1")
    array = g.constant(g.rng.integers(-100, 100, (6, 8, 1, 1)), "blocks", dtype="i1")
    weight = g("DequantizeLinear", array, scale, zero, axis=1, block_size=2)
    g.output(g.conv(g("Relu", g("Conv", g("Relu", y), weight, name="second")), 2, name="last"))
    proto = g.model()
    groups = find_groups(load_model(proto))
    assert [group.nodes for group in groups] == [("second",)]
    assert FreezeReason.LAYOUT in {entry.cause.reason for entry in groups.frozen if entry.filters == "first"}
    result = prune(load_model(proto), None, ratio=0.5, criterion="l1")
    assert result.model.shapes["blocks"] == (3, 8, 1, 1)
    np.testing.assert_allclose(filters_of(proto, "second"), (g.initializers["blocks"] - 1.0).reshape(6, 8) * 0.01, 1e-6)


def test_scales_that_are_computed_keep_nothing_wrong() -> None:
    """A scale that comes in from outside: one for all channels is harmless, one per channel keeps them."""
    found = []
    for shape in ((), (8,)):
        g = Graph(13)
        scale = g.input("scale", shape)
        q = g("QuantizeLinear", g.conv(g.input("x", (1, 3, 4, 4)), 8, name="first"), scale)
        g.output(g.conv(g("DequantizeLinear", q, scale), 2, name="last"))
        found.append([group.size for group in find_groups(load_model(g.model()))])
    assert found == [[8], []]


def test_four_bit_weights_freeze_and_survive() -> None:
    """numpy has no array for them: their layer stays, the rest goes."""
    g = Graph(21)
    y = g.conv(g("Relu", g.conv(g.input("x", (1, 3, 4, 4)), 8, name="first")), 6, name="second")
    scale = g.constant(np.float32(0.1))
    weight = g("DequantizeLinear", "nibbles", scale, shape=(5, 6, 1, 1))
    g.dtypes[weight] = TensorProto.FLOAT
    g.output(g.conv(g("Relu", g("Conv", g("Relu", y), weight, name="third")), 2, name="last"))
    proto = g.model()
    steps = g.rng.integers(-8, 8, (5, 6, 1, 1)).reshape(-1).tolist()
    proto.graph.initializer.append(onnx.helper.make_tensor("nibbles", TensorProto.INT4, (5, 6, 1, 1), steps))
    onnx.save(proto, "int4.onnx")
    result = prune("int4.onnx", "pruned.onnx", ratio=0.5, criterion="l1")
    assert [group.nodes for group in find_groups(result.original)] == [("first",)]
    assert result.plan.proof["relative_error"] <= oracle.TOLERANCE < result.plan.proof["moved"]
    assert onnx.load("pruned.onnx").graph.initializer[-1] == proto.graph.initializer[-1]


def test_integers_that_stand_for_bfloat16() -> None:
    """The type of the result is an attribute; the proof runs in float32, for which the runtime has kernels."""
    g = Graph(23)
    kind, dtype = TensorProto.BFLOAT16, onnx.helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)
    x, scale = g.input("x", (1, 3, 4, 4), dtype=kind), g.constant(np.float32(0.01))
    first = g.constant(g.rng.integers(-99, 99, (8, 3, 1, 1)), "first.int", dtype="i1")
    y = g("Relu", g("Conv", x, g("DequantizeLinear", first, scale, output_dtype=kind), name="first"))
    g.output(g("Conv", y, g.constant((g.rng.standard_normal((2, 8, 1, 1)) * 0.4).astype(dtype)), name="last"))
    result = prune(load_model(g.model()), None, ratio=0.5, criterion="l1")
    assert result.model.shapes["first.int"] == (4, 3, 1, 1)
    assert result.plan.proof["relative_error"] <= oracle.TOLERANCE < result.plan.proof["moved"]


def test_integers_behind_a_node_count_as_parameters() -> None:
    """A weight that is turned before it is dequantized: counted once, before and after."""
    g = Graph(13)
    array = g.constant(g.rng.integers(-99, 99, (3, 8, 1, 1)), "turned", dtype="i1")
    weight = g("DequantizeLinear", g("Transpose", array, perm=[1, 0, 2, 3]), g.constant(np.float32(0.01)))
    y = g("Conv", g.input("x", (1, 3, 4, 4)), weight, name="first")
    g.output(g.conv(g("Relu", y), 2, bias=False, name="last"))
    result = prune(load_model(g.model()), None, params=0.5, criterion="l1")
    assert result.plan.before.params == 24 + 1 + 16
    assert result.plan.after.params == 9 + 1 + 6
    assert result.plan.proof["relative_error"] <= oracle.TOLERANCE < result.plan.proof["moved"]


class Pictures(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, shape: tuple[int, ...]) -> None:
        self.left = [{"x": np.random.default_rng(seed).standard_normal(shape).astype(np.float32)} for seed in range(3)]

    def get_next(self) -> dict[str, Any] | None:
        return self.left.pop() if self.left else None


def a_float_file(sides: int = 12) -> str:
    g = Graph(13)
    y = g("Relu", g.conv(g.input("x", (1, 3, sides, sides)), 16, 3))
    deep = g("Relu", g.conv(g("Relu", g.conv(y, 24, 3)), 24, 3, group=24))
    y = g("Add", g.conv(deep, 16), y)
    y = g("Clip", g.conv(g("Concat", y, deep, axis=1), 32, 3), min=0.0, max=6.0)
    g.output(g("Gemm", g("Flatten", g("GlobalAveragePool", y)), g.weight(10, 32), g.weight(10), transB=1))
    onnx.save(g.model(), "float.onnx")
    return "float.onnx"


def a_qdq_file(*, per_channel: bool, activations: QuantType, sides: int = 12) -> str:
    quantize_static(
        a_float_file(sides),
        "int8.onnx",
        Pictures((1, 3, sides, sides)),
        quant_format=QuantFormat.QDQ,
        per_channel=per_channel,
        activation_type=activations,
        weight_type=QuantType.QInt8,
    )
    return "int8.onnx"


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("activations", [QuantType.QUInt8, QuantType.QInt8], ids=str)
def test_what_onnxruntime_quantizes_is_pruned_and_proven(per_channel: bool, activations: QuantType) -> None:
    source = a_qdq_file(per_channel=per_channel, activations=activations)
    result = prune(source, "pruned.onnx", flops=0.4)
    free = prune("float.onnx", None, flops=0.4, verify=False)
    sizes = [[group.size for group in find_groups(found.original)] for found in (result, free)]
    assert sizes[0] == sizes[1] == [16, 24, 32]
    assert result.plan.after.macs == pytest.approx(free.plan.after.macs, rel=0.02)
    assert result.plan.proof["relative_error"] <= oracle.TOLERANCE
    assert result.plan.proof["moved"] > 0.01
    assert result.plan.before.macs == free.plan.before.macs
    # What the plan says is checked once more by hand; a rounding boundary may be crossed, so steps are compared.
    kept = {(name, e["axis"]): np.array(e["keep"]) for name, axes in result.plan.values.items() for e in axes}
    proto = onnx.load(source)
    want = run_ort(oracle.mask_model(proto, kept, result.original.shapes), feeds_for(proto))
    assert oracle.relative_error(run_ort(onnx.load("pruned.onnx"), feeds_for(proto)), want) < 0.05


def test_without_the_rounding_a_wrong_pruning_is_still_caught() -> None:
    """Zero points swapped between channels that stay: the proof must not take the difference for rounding."""
    g = Graph(13)
    y = of_channels(g, g.conv(g.input("x", (1, 3, 4, 4)), 8, name="first"), "")
    g.output(g("Sigmoid", of_tensor(g, g.conv(y, 2, name="last"), "")))
    model = load_model(g.model())
    groups = find_groups(model)
    is_kept = table.halve(groups)
    pruned = prune_units(model, groups, is_kept)
    kept = kept_positions(groups, is_kept)
    assert verify_pruned(model, pruned, kept).relative_error <= oracle.TOLERANCE
    zeros = {name for name in pruned.constants if pruned.constants[name].dtype == np.uint8 and name in pruned.stored}
    name = next(name for name in sorted(zeros) if pruned.constants[name].shape == (5,))
    for init in pruned.proto.graph.initializer:
        if init.name == name:
            init.raw_data = pruned.constants[name][::-1].tobytes()
    with pytest.raises(ProofError, match="differs from the masked original"):
        verify_pruned(model, load_model(pruned.proto), kept)


def test_a_mistake_below_a_step_is_caught() -> None:
    """A bias that is off by a hundredth of a step of the output: rounded, the outputs would be the same."""
    g = Graph(13)
    y = g.conv(g.input("x", (1, 3, 4, 4)), 8, name="first")
    scale, zero = g.constant(np.float32(0.5)), g.constant(np.uint8(131))
    g.output(g("DequantizeLinear", g("QuantizeLinear", g.conv(y, 2, name="last"), scale, zero), scale, zero))
    model = load_model(g.model())
    groups = find_groups(model)
    is_kept = table.halve(groups)
    pruned, kept = prune_units(model, groups, is_kept), kept_positions(groups, is_kept)
    proof = verify_pruned(model, pruned, kept)
    assert proof.relative_error <= oracle.TOLERANCE < proof.moved
    assert not proof.is_rounded
    for init in pruned.proto.graph.initializer:
        if init.name == "last.bias":
            init.raw_data = (pruned.constants["last.bias"] + np.float32(0.005)).tobytes()
    wrong, feeds = load_model(pruned.proto), feeds_for(g.model())
    same = [run_ort(found.proto, feeds)[model.outputs[0]] for found in (pruned, wrong)]
    np.testing.assert_array_equal(*same)
    with pytest.raises(ProofError, match="differs from the masked original"):
        verify_pruned(model, wrong, kept)


def test_leaving_the_rounding_out_leaves_the_rest() -> None:
    """The form without rounding differs from the real one by the rounding only, half a step at most."""
    g = Graph(13)
    x = g.input("x", (1, 8, 4, 4))
    g.output(g("Relu", of_channels(g, x, "")))
    model = load_model(g.model())
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 8, 4, 4)).astype(np.float32)}
    rounded, smooth = (Session(model, is_rounded=flag).run(feeds)["Relu_0"] for flag in (True, False))
    step = np.linspace(0.01, 0.03, 8).reshape(1, 8, 1, 1) / 2
    assert np.abs(rounded - smooth).max() > 0
    assert (np.abs(rounded - smooth) <= step + 1e-6).all()


@pytest.mark.parametrize("form", ["QOperator", "dynamic"])
def test_integer_operators_are_refused_in_one_line(form: str) -> None:
    source = a_float_file()
    if form == "dynamic":
        quantize_dynamic(source, "int8.onnx", weight_type=QuantType.QUInt8)
    else:
        quantize_static(source, "int8.onnx", Pictures((1, 3, 12, 12)), quant_format=QuantFormat.QOperator)
    with pytest.raises(
        UnsupportedError, match=r"prune the floating-point model before .* or quantize it in the QDQ"
    ) as e:
        prune("int8.onnx", None, flops=0.3)
    assert "\n" not in str(e.value)
    assert ("ConvInteger" if form == "dynamic" else "QLinearConv") in str(e.value)


def test_an_integer_operator_freezes_its_part_only() -> None:
    g = Graph(13)
    y = g("Relu", g.conv(g.input("x", (1, 3, 4, 4)), 8, name="first"))
    y = g("Relu", g.conv(y, 6, name="second"))
    steps, scale, zero = g("DynamicQuantizeLinear", y, outputs=3)
    weight = g.constant(g.rng.integers(-9, 9, (2, 6, 1, 1)), dtype="i1")
    made = g("ConvInteger", steps, weight, zero, name="integers")
    g.output(g("Mul", g("Cast", made, to=TensorProto.FLOAT), scale))
    result = prune(load_model(g.model()), None, ratio=0.5, criterion="l1")
    assert [group.nodes for group in find_groups(result.original)] == [("first",)]
    assert result.plan.proof["relative_error"] <= 1e-4
