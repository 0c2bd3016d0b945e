"""The proof: a rewrite that is wrong in any way does not pass."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from builders import Graph
from onnx import TensorProto, helper, numpy_helper

from srr_onnx.analysis.find import find_groups
from srr_onnx.analysis.rule import Op, rules
from srr_onnx.errors import ModelError, ProofError
from srr_onnx.graph.load import load_model
from srr_onnx.graph.model import Model
from srr_onnx.graph.save import save_model
from srr_onnx.rewriting.apply import kept_positions, prune_units
from srr_onnx.rewriting.verify import Proof, make_feeds, verify_pruned

Kept = dict[tuple[str, int], np.ndarray]


@pytest.fixture
def case() -> tuple[Model, onnx.ModelProto, Kept]:
    g = Graph(13)
    y = g("Relu", g.conv(g.input("x", (1, 3, 6, 6)), 8, 3, name="first"))
    g.output(g.conv(y, 4, name="last"))
    model = load_model(g.model())
    groups = find_groups(model)
    is_kept = np.arange(8) % 2 == 0
    pruned = prune_units(model, groups, is_kept)
    proto = onnx.load(str(save_model(pruned, "pruned.onnx")))
    return model, proto, kept_positions(groups, is_kept)


def change(proto: onnx.ModelProto, name: str, array: np.ndarray) -> Model:
    for init in proto.graph.initializer:
        if init.name == name:
            init.CopyFrom(numpy_helper.from_array(array, name))
    return load_model(proto)


def weight(proto: onnx.ModelProto, name: str) -> np.ndarray:
    return numpy_helper.to_array(next(init for init in proto.graph.initializer if init.name == name)).copy()


def test_a_right_rewrite_passes(case: tuple[Model, onnx.ModelProto, Kept]) -> None:
    model, proto, kept = case
    proof = verify_pruned(model, load_model(proto), kept)
    assert proof.relative_error <= proof.tolerance < proof.moved
    assert (proof.masks, proof.is_exact) == (1, True)


def test_swapped_filters_fail(case: tuple[Model, onnx.ModelProto, Kept]) -> None:
    model, proto, kept = case
    with pytest.raises(ProofError, match="differs from the masked original"):
        verify_pruned(model, change(proto, "first.weight", weight(proto, "first.weight")[[1, 0, 2, 3]]), kept)


def test_a_wrong_input_slice_fails(case: tuple[Model, onnx.ModelProto, Kept]) -> None:
    model, proto, kept = case
    with pytest.raises(ProofError):
        verify_pruned(model, change(proto, "last.weight", np.roll(weight(proto, "last.weight"), 1, axis=1)), kept)


def test_a_small_slip_fails(case: tuple[Model, onnx.ModelProto, Kept]) -> None:
    model, proto, kept = case
    bias = weight(proto, "first.bias")
    bias[0] += 0.01
    with pytest.raises(ProofError):
        verify_pruned(model, change(proto, "first.bias", bias), kept)


def test_numbers_that_are_none_fail(case: tuple[Model, onnx.ModelProto, Kept]) -> None:
    model, proto, kept = case
    with pytest.raises(ProofError):
        verify_pruned(model, change(proto, "last.bias", np.full(4, np.nan, np.float32)), kept)


def test_an_output_of_another_shape_fails(case: tuple[Model, onnx.ModelProto, Kept]) -> None:
    model, proto, kept = case
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    shorter = change(proto, "last.weight", weight(proto, "last.weight")[:3])
    for init in shorter.proto.graph.initializer:
        if init.name == "last.bias":
            init.CopyFrom(numpy_helper.from_array(np.zeros(3, np.float32), "last.bias"))
    with pytest.raises(ProofError, match="has shape"):
        verify_pruned(model, load_model(shorter.proto), kept)


def test_a_model_that_does_not_run_fails(case: tuple[Model, onnx.ModelProto, Kept]) -> None:
    model, proto, kept = case
    broken = dataclasses.replace(load_model(proto))
    broken.proto.graph.node[0].op_type = "Mystery"
    with pytest.raises(ModelError, match="onnxruntime"):
        verify_pruned(model, broken, kept)


def test_masks_that_are_too_few_fail(case: tuple[Model, onnx.ModelProto, Kept]) -> None:
    model, proto, _ = case
    with pytest.raises(ProofError):
        verify_pruned(model, load_model(proto), {})


def test_feeds_are_repeatable(case: tuple[Model, onnx.ModelProto, Kept]) -> None:
    model, _, _ = case
    first, second, other = make_feeds(model, 1), make_feeds(model, 1), make_feeds(model, 2)
    assert np.array_equal(first["x"], second["x"])
    assert not np.array_equal(first["x"], other["x"])
    assert first["x"].shape == (1, 3, 6, 6)


def prove_halved(g: Graph) -> Proof:
    """The proof of a model that loses every other unit."""
    model = load_model(g.model())
    groups = find_groups(model)
    is_kept = np.arange(groups.num_units) % 2 == 0
    return verify_pruned(model, prune_units(model, groups, is_kept), kept_positions(groups, is_kept))


def averaging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the rule of ReduceMean wrong: it takes an average over channels for exact."""

    def rule(op: Op) -> None:
        x = op.axes(0)
        op.out([x[0], None, *x[2:]])

    key = ("", "ReduceMean", 13)
    monkeypatch.setitem(rules._entries, key, dataclasses.replace(rules.get(key), propagate=rule))


@pytest.mark.parametrize("kind", ["class", "flag", "sequence"])
def test_a_mistake_before_an_output_that_is_no_number_fails(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Beside an output that moves as it should."""
    averaging(monkeypatch)
    g = Graph(17)
    y = g.conv(g.input("x", (1, 3, 8, 8)), 8, 3)
    g.output(g.conv(y, 2, name="aux"))
    mean = g("ReduceMean", y, axes=[1], keepdims=1)
    scores = g("Add", g.constant(np.zeros((1, 3, 1, 1), np.float32)), g("Sub", mean, g.weight(1, 3, 1, 1)))
    if kind == "class":
        g.output(g("ArgMax", scores, axis=1))
        g.dtypes[g.outputs[-1]] = TensorProto.INT64
    elif kind == "flag":
        g.output(g("Greater", scores, g.constant(np.float32(0))))
        g.dtypes[g.outputs[-1]] = TensorProto.BOOL
    else:
        g.output(g("SplitToSequence", scores, g.ints(1, 2), axis=1))
        proto = g.model()
        proto.graph.output[1].type.CopyFrom(helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, None)))
        g.model = lambda: proto
    with pytest.raises(ProofError):
        prove_halved(g)


def test_class_numbers_and_flags_beside_numbers_pass() -> None:
    g = Graph(17)
    y = g("Relu", g.conv(g.input("x", (1, 3, 8, 8)), 8, 3))
    scores = g.conv(y, 4)
    g.output(g.conv(y, 2, name="aux"))
    g.output(g("ArgMax", scores, axis=1))
    g.output(g("Greater", scores, g.constant(np.float32(0))))
    g.dtypes |= {g.outputs[1]: TensorProto.INT64, g.outputs[2]: TensorProto.BOOL}
    proof = prove_halved(g)
    assert proof.relative_error <= proof.tolerance < proof.moved


def test_class_numbers_that_differ_although_the_scores_agree_fail() -> None:
    """What comes behind the last number is not the same: nothing but the outputs shows it."""
    g = Graph(17)
    scores = g.conv(g("Relu", g.conv(g.input("x", (1, 3, 8, 8)), 8, 3)), 4, name="scores")
    g.output(g("Add", g("ArgMax", scores, axis=1, name="best"), g.constant(np.int64(1), name="first")))
    g.dtypes[g.outputs[0]] = TensorProto.INT64
    model = load_model(g.model())
    groups = find_groups(model)
    is_kept = np.arange(8) % 2 == 0
    proto = onnx.load(str(save_model(prune_units(model, groups, is_kept), "pruned.onnx")))
    with pytest.raises(ProofError, match="100% of the elements"):
        verify_pruned(model, change(proto, "first", np.array(2)), kept_positions(groups, is_kept))


def test_a_sequence_of_unequal_parts_passes() -> None:
    g = Graph(17)
    y = g.conv(g("Relu", g.conv(g.input("x", (1, 3, 8, 8)), 8, 3)), 6)
    g.output(g("SplitToSequence", y, g.ints(2, 4), axis=1))
    proto = g.model()
    proto.graph.output[0].type.CopyFrom(helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, None)))
    g.model = lambda: proto
    proof = prove_halved(g)
    assert proof.relative_error <= proof.tolerance < proof.moved


def in_half(g: Graph) -> Graph:
    """The same model in float16."""
    for name, array in g.initializers.items():
        if array.dtype == np.float32:
            g.initializers[name], g.dtypes[name] = array.astype(np.float16), TensorProto.FLOAT16
    g.dtypes |= {name: TensorProto.FLOAT16 for name in g.outputs if g.dtypes[name] == TensorProto.FLOAT}
    g.inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT16, g.shapes["x"])]
    return g


def test_a_mistake_below_the_rounding_of_float16_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    averaging(monkeypatch)
    g = Graph(17)
    y = g.conv(g.input("x", (1, 3, 8, 8)), 8, 3)
    slight = g("Mul", g("ReduceMean", y, axes=[1], keepdims=1), g.constant(np.float32(0.02)))
    g.output(g("Add", g.conv(y, 2), slight))
    with pytest.raises(ProofError, match=r"by 0\.00"):
        prove_halved(in_half(g))


def test_float16_is_proven_as_closely_as_float32() -> None:
    g = Graph(17)
    y = g.conv(g("Relu", g.conv(g.input("x", (1, 3, 8, 8)), 32, 3)), 32, 3)
    g.output(g.conv(g("Relu", y), 4))
    proof = prove_halved(in_half(g))
    assert proof.relative_error <= 1e-4 == proof.tolerance < proof.moved


def change_half(name: str, array: np.ndarray) -> None:
    """Prove a model in float16 after one of its constants was changed."""
    g = Graph(17)
    y = g.conv(g.input("x", (1, 3, 8, 8)), 8, name="first")
    g.output(g.conv(y, 4, name="last"))
    nearly = g("Add", g("Mul", g.outputs[0], g.constant(np.float32(0))), g.constant(np.float32(65504)))
    g.output(g("Add", nearly, g.constant(np.float32(13), name="slack")))
    model = load_model(in_half(g).model())
    groups = find_groups(model)
    is_kept = np.arange(8) % 2 == 0
    proto = onnx.load(str(save_model(prune_units(model, groups, is_kept), "pruned.onnx", force=True)))
    verify_pruned(model, change(proto, name, array), kept_positions(groups, is_kept))


def test_what_overflows_in_its_own_type_only_fails() -> None:
    change_half("slack", np.array(13, np.float16))
    with pytest.raises(ProofError, match="overflows its element type"):
        change_half("slack", np.array(18, np.float16))


def test_what_does_not_run_in_its_own_types_fails() -> None:
    """In float32 two types that must not meet are one."""
    g = Graph(17)
    g.output(g.conv(g.conv(g.input("x", (1, 3, 8, 8)), 8), 4, name="last"))
    model = load_model(in_half(g).model())
    groups = find_groups(model)
    is_kept = np.arange(8) % 2 == 0
    pruned = prune_units(model, groups, is_kept)
    other = next(init for init in pruned.proto.graph.initializer if init.name == "last.bias")
    other.CopyFrom(numpy_helper.from_array(np.asarray(pruned.constants["last.bias"], np.float32), "last.bias"))
    broken = dataclasses.replace(pruned, detached=pruned.detached - {"last.bias"})
    with pytest.raises(ProofError, match="does not run in its own types"):
        verify_pruned(model, broken, kept_positions(groups, is_kept))


@pytest.mark.parametrize("kind", ["RandomNormalLike", "RandomUniformLike", "Bernoulli", "Dropout"])
def test_random_numbers_are_the_same_in_all_models(kind: str) -> None:
    g = Graph(17)
    x = g.input("x", (1, 3, 8, 8))
    y = g.conv(g("Relu", g.conv(x, 8, 3)), 3)
    if kind == "Dropout":
        drawn = g(kind, x, g.constant(np.float32(0.5)), g.constant(np.array(True)), shape=g.shapes[y])
    elif kind == "Bernoulli":
        drawn = g(kind, g("Sigmoid", y), shape=g.shapes[y])
    else:
        drawn = g(kind, y, shape=g.shapes[y])
    g.output(g("Add", y, drawn, shape=g.shapes[y]))
    proof = prove_halved(g)
    assert proof.relative_error <= proof.tolerance < proof.moved
