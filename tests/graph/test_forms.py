"""The same small net in the forms in which files come: every one is pruned, proven, and compared once more by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import oracle
import pytest
from builders import Graph, feeds_for, run_ort
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from srr_onnx.analysis.find import find_groups
from srr_onnx.analysis.labels import FreezeReason
from srr_onnx.graph.load import load_model
from srr_onnx.pipeline import prune
from srr_onnx.validation.result import Pruned

Run = Callable[[onnx.ModelProto, dict[str, Any]], dict[str, Any]]


def by_reference(proto: onnx.ModelProto, feeds: dict[str, Any]) -> dict[str, Any]:
    """Run in ONNX's reference implementation, which knows every element type."""
    found = ReferenceEvaluator(proto).run(None, feeds)
    return {output.name: value for output, value in zip(proto.graph.output, found, strict=True)}


def halved(
    proto: onnx.ModelProto, run: Run = run_ort, tolerance: float = oracle.TOLERANCE, dtype: Any = np.float32
) -> tuple[Pruned, onnx.ModelProto]:
    """Prune half of every group, from file to file, and compare with the masked original."""
    onnx.save(proto, "model.onnx")
    result = prune("model.onnx", "pruned.onnx", ratio=0.5, criterion="l1", compensate="none")
    pruned = onnx.load("pruned.onnx")
    onnx.checker.check_model(pruned, full_check=True)
    assert result.plan.proof["relative_error"] <= result.plan.proof["tolerance"] < result.plan.proof["moved"]
    kept = {(name, e["axis"]): np.array(e["keep"]) for name, axes in result.plan.values.items() for e in axes}
    masked, feeds = oracle.mask_model(proto, kept, result.original.shapes, dtype), feeds_for(proto, seed=3)
    assert oracle.relative_error(run(pruned, feeds), run(masked, feeds)) <= tolerance
    return result, pruned


def filters(result: Pruned) -> set[str]:
    return {node for group in find_groups(result.original) for node in group.nodes}


def normalized(g: Graph, x: str, name: str) -> str:
    size = g.shapes[x][1]
    vectors = [g.weight(size, name=f"{name}.{part}", scale=0.3, offset=1.0) for part in ("scale", "shift", "mean")]
    spread = g.constant(np.linspace(0.5, 2, size), f"{name}.var", dtype="f4")
    return str(g("BatchNormalization", x, *vectors, spread, name=name, shape=g.shapes[x]))


@pytest.mark.parametrize("opset", range(7, 26))
def test_every_opset(opset: int) -> None:
    g = Graph(opset)
    y = g("Relu", normalized(g, g.conv(g.input("x", (1, 3, 8, 8)), 8, 3, name="first"), "bn"))
    y = g("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
    row = g("Relu", g("Gemm", g("Flatten", y), g.weight(6, 128, name="w"), g.weight(6), transB=1, name="hidden"))
    g.output(g("Softmax", g("Gemm", row, g.weight(4, 6), g.weight(4), transB=1, name="last")))
    result, pruned = halved(g.model())
    assert filters(result) == {"first", "hidden"}
    assert {init.name: tuple(init.dims) for init in pruned.graph.initializer}["w"] == (3, 64)
    assert pruned.opset_import[0].version == opset


def test_channels_last_between_transposes() -> None:
    """As tf2onnx writes it: convolutions between transposes, biases and means over the last axis."""
    g = Graph(13)
    x = g("Transpose", g.input("x", (1, 8, 8, 3)), perm=[0, 3, 1, 2])
    y = g("Transpose", g.conv(x, 8, 3, bias=False, name="first"), perm=[0, 2, 3, 1])
    y = g("Relu", g("Add", y, g.weight(8, name="first_bias")))
    z = g.conv(g("Transpose", y, perm=[0, 3, 1, 2]), 8, 3, group=8, name="depth")
    y = g("Add", y, g("Transpose", z, perm=[0, 2, 3, 1]))
    y = g("MatMul", y, g.weight(8, 6, name="mixer"), name="mix")
    y = g("ReduceMean", g("Relu", g("Add", y, g.weight(1, 1, 1, 6, name="mix_bias"))), axes=[1, 2], keepdims=0)
    g.output(g("Add", g("MatMul", y, g.weight(6, 4, name="head"), name="last"), g.weight(4)))
    result, pruned = halved(g.model())
    assert filters(result) == {"first", "depth", "mix"}
    sizes = {init.name: tuple(init.dims) for init in pruned.graph.initializer}
    assert (sizes["first_bias"], sizes["mixer"], sizes["mix_bias"], sizes["head"]) == (
        (4,),
        (4, 3),
        (1, 1, 1, 3),
        (3, 4),
    )


def as_identity(g: Graph, array: Any) -> str:
    return str(g("Identity", g.constant(array, "stored")))


def as_cast(g: Graph, array: Any) -> str:
    return str(g("Cast", g.constant(array.astype(np.float16), "stored"), to=TensorProto.FLOAT))


def as_transpose(g: Graph, array: Any) -> str:
    return str(g("Transpose", g.constant(array.transpose(2, 3, 1, 0), "stored"), perm=[3, 2, 0, 1]))


def as_reshape(g: Graph, array: Any) -> str:
    return str(g("Reshape", g.constant(array.reshape(-1), "stored"), shape=list(array.shape)))


def as_constant(g: Graph, array: Any) -> str:
    return str(g("Constant", value=numpy_helper.from_array(array), name="stored", outputs=["stored"]))


def as_scaled(g: Graph, array: Any) -> str:
    """Standardized in the graph: a weight times a gain per filter."""
    return str(g("Mul", g.constant(array, "stored"), g.weight(array.shape[0], 1, 1, 1, scale=0.3, offset=1.0)))


@pytest.mark.parametrize("form", [as_identity, as_cast, as_transpose, as_reshape, as_constant, as_scaled])
def test_weights_behind_a_node(form: Callable[[Graph, Any], str]) -> None:
    g = Graph(13)
    y = g.conv(g.input("x", (1, 3, 6, 6)), 6, name="first")
    array = (g.rng.standard_normal((8, 6, 3, 3)) * 0.2).astype(np.float32)
    weight = form(g, array)
    g.shapes[weight] = array.shape
    g.output(g.conv(g("Relu", g.conv(g("Relu", y), 8, name="middle", weight=weight, kernel=3)), 2, name="last"))
    result, pruned = halved(g.model())
    assert filters(result) == {"first", "middle"}
    floats = [init for init in pruned.graph.initializer if init.data_type == TensorProto.FLOAT]
    floats += [a.t for node in pruned.graph.node for a in node.attribute if a.name == "value"]
    assert (4, 3, 3, 3) in {tuple(tensor.dims) for tensor in floats}
    assert max(int(np.prod(tensor.dims)) for tensor in floats) <= 4 * 3 * 9


@pytest.mark.parametrize("rank", [3, 4])
@pytest.mark.parametrize("form", ["mul add", "sub div", "constants first"])
def test_a_normalization_spelled_out(form: str, rank: int) -> None:
    g = Graph(13)
    y = g.conv(g.input("x", (1, 3, 6, 6)), 8, 3, name="first")
    gain, shift = (g.weight(*[1] * (rank - 3), 8, 1, 1, name=name, scale=0.3, offset=1.5) for name in ("gain", "shift"))
    if form == "mul add":
        y = g("Add", g("Mul", y, gain), shift)
    elif form == "sub div":
        y = g("Div", g("Sub", y, shift), gain)
    else:
        y = g("Add", shift, g("Mul", gain, y))
    g.output(g.conv(g("Relu", y), 2, name="last"))
    _, pruned = halved(g.model())
    sizes = {init.name: tuple(init.dims) for init in pruned.graph.initializer}
    assert sizes["gain"] == sizes["shift"] == (*[1] * (rank - 3), 4, 1, 1)


def a_net() -> Graph:
    g = Graph(13)
    y = g("Relu", normalized(g, g.conv(g.input("x", (1, 3, 6, 6)), 8, 3, name="first"), "bn"))
    g.output(g.conv(g("Add", y, g.conv(y, 8, name="second")), 2, name="last"))
    return g


def test_nodes_in_any_order() -> None:
    """The checker wants them sorted; files that are not are still read, pruned and left in their order."""
    sorted_one, mixed = a_net().model(), a_net().model()
    order = np.random.default_rng(1).permutation(len(mixed.graph.node))
    nodes = [sorted_one.graph.node[place] for place in order]
    del mixed.graph.node[:]
    mixed.graph.node.extend(nodes)
    want, got = (
        prune(load_model(proto), None, ratio=0.5, criterion="l1", compensate="none") for proto in (sorted_one, mixed)
    )
    assert [node.name for node in got.model.proto.graph.node] == [node.name for node in nodes]
    assert got.plan.proof["relative_error"] <= oracle.TOLERANCE
    after = {init.name: init for init in got.model.proto.graph.initializer}
    for init in want.model.proto.graph.initializer:
        assert after[init.name] == init


def test_several_outputs_one_of_them_in_the_middle() -> None:
    g = Graph(13)
    y = g("Relu", g.conv(g.input("x", (1, 3, 6, 6)), 8, 3, name="first"))
    middle = g.output(g("Relu", g.conv(y, 6, name="middle")))
    z = g("Relu", g.conv(middle, 8, name="third"))
    g.output(g.conv(z, 2, name="head_a"))
    g.output(g("Flatten", g("GlobalAveragePool", g.conv(z, 3, name="head_b"))))
    result, pruned = halved(g.model())
    assert filters(result) == {"first", "third"}
    assert list(pruned.graph.output) == list(g.model().graph.output)
    assert (FreezeReason.GRAPH_OUTPUT.value, middle) in {(e["reason"], e["node"]) for e in result.plan.frozen}


def test_an_initializer_that_is_an_input_and_a_default() -> None:
    """Before IR version 4 every initializer was declared as an input too."""
    proto = a_net().model()
    proto.ir_version = 8
    for init in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(init.name, init.data_type, init.dims))
    onnx.save(proto, "model.onnx")
    result = prune("model.onnx", "pruned.onnx", ratio=0.5, criterion="l1", compensate="none")
    pruned = onnx.load("pruned.onnx")
    assert result.plan.proof["relative_error"] <= oracle.TOLERANCE
    declared = {
        value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim) for value in pruned.graph.input
    }
    for init in pruned.graph.initializer:
        assert declared[init.name] == tuple(init.dims)
    assert declared["first.weight"] == (4, 3, 3, 3)


def test_sparse_weights_freeze_and_survive() -> None:
    g = Graph(13)
    y = g("Relu", g.conv(g.input("x", (1, 3, 6, 6)), 8, 3, name="first"))
    y = g("Relu", g("Conv", y, "sparse", name="second", shape=(1, 6, 6, 6)))
    y = g("Relu", g.conv(y, 10, name="third"))
    g.output(g.conv(g("Relu", g.conv(y, 8, name="fourth")), 2, name="last"))
    proto = g.model()
    places = np.arange(0, 48, 5)
    values = numpy_helper.from_array(np.linspace(-1, 1, len(places), dtype=np.float32), "sparse")
    stored = helper.make_sparse_tensor(values, numpy_helper.from_array(places, "places"), [6, 8, 1, 1])
    proto.graph.sparse_initializer.append(stored)
    onnx.save(proto, "model.onnx")
    result = prune("model.onnx", "pruned.onnx", ratio=0.5, criterion="l1", compensate="none")
    assert "first" not in filters(result)
    assert list(onnx.load("pruned.onnx").graph.sparse_initializer) == [stored]
    assert result.plan.proof["relative_error"] <= oracle.TOLERANCE
    assert "third" in filters(result)


@pytest.mark.parametrize("word", ["", "first", "x", "конв/слой:0", "a b\tc", "g0"])
def test_any_name_for_every_node(word: str) -> None:
    """Node names say nothing: they may be empty, repeated, or those of values, inputs and groups."""
    proto = a_net().model()
    for node in proto.graph.node:
        node.name = word
    onnx.save(proto, "model.onnx")
    result = prune("model.onnx", "pruned.onnx", ratio=0.5, criterion="l1", compensate="none")
    assert result.plan.proof["relative_error"] <= oracle.TOLERANCE
    assert [node.name for node in onnx.load("pruned.onnx").graph.node] == [word] * len(proto.graph.node)


def test_value_names_that_the_rewrite_would_like_itself() -> None:
    g = Graph(13)
    y = g("Relu", g.conv(g.input("x", (1, 3, 6, 6)), 8, name="first"))
    shared = g.weight(4, 8, 1, 1, name="shared")
    left, right = (g("Relu", g.conv(g.conv(y, 8, name=f"own{n}"), 4, name=f"b{n}", weight=shared)) for n in (1, 2))
    for taken in ("shared_pruned", "shared_pruned_2", "first.weight_pruned"):
        g.output(g("Identity", g.constant(np.float32(1)), outputs=[taken], name=taken))
    g.output(g.conv(g("Concat", left, right, axis=1), 2, name="last"))
    result, _ = halved(g.model())
    assert {"own1", "own2"} <= filters(result)


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
def test_other_floating_point_types(kind: str) -> None:
    """Weights keep their type; what onnxruntime has no kernels for is proven in float32."""
    dtype = helper.tensor_dtype_to_np_dtype(
        {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16, "float64": TensorProto.DOUBLE}[kind]
    )
    g = Graph(22)

    def weight(name: str, *shape: int) -> str:
        return g.constant((g.rng.standard_normal(shape) * 0.4).astype(dtype), name)

    x = g.input("x", (1, 3, 4, 4), dtype=helper.np_dtype_to_tensor_dtype(dtype))
    y = g("Conv", x, weight("w1", 8, 3, 1, 1), weight("b1", 8), name="first")
    y = g("Relu", g("Add", g("Mul", y, weight("gain", 8, 1, 1)), weight("shift", 8, 1, 1)))
    g.output(g("Conv", y, weight("w2", 2, 8, 1, 1), name="last"))
    tolerance = {"float16": 2e-2, "bfloat16": 0.1, "float64": 1e-10}[kind]
    proto = g.model()
    onnx.save(proto, "model.onnx")
    result = prune("model.onnx", "pruned.onnx", ratio=0.5, criterion="l1", compensate="none")
    pruned = onnx.load("pruned.onnx")
    assert {init.data_type for init in pruned.graph.initializer} == {helper.np_dtype_to_tensor_dtype(dtype)}
    assert result.plan.proof["relative_error"] <= result.plan.proof["tolerance"] < result.plan.proof["moved"]
    kept = {(name, e["axis"]): np.array(e["keep"]) for name, axes in result.plan.values.items() for e in axes}
    masked, feeds = oracle.mask_model(proto, kept, result.original.shapes, dtype), feeds_for(proto, seed=3)
    feeds = {name: array.astype(dtype) for name, array in feeds.items()}
    got, want = (by_reference(model, feeds)[g.outputs[0]].astype(np.float64) for model in (pruned, masked))
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= tolerance * np.abs(want).max()


def test_a_bias_in_a_list_is_cut_in_its_place() -> None:
    g = Graph(opset=13)
    bias = g("Constant", value_floats=[0.5 * n for n in range(8)])
    g.shapes[bias], g.dtypes[bias] = (8,), TensorProto.FLOAT
    y = g("Conv", g.input("x", (1, 3, 8, 8)), g.weight(8, 3, 3, 3, name="w"), bias, name="first")
    g.output(g.conv(g("Relu", y), 4, name="head"))
    _, pruned = halved(g.model())
    assert len(pruned.graph.node[0].attribute[0].floats) == 4
