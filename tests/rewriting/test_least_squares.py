"""Compensation by least squares: what is removed and can be said by the rest is put back, and nothing gets worse."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from builders import Graph, feeds_for, run_ort
from compensating import make_case, norm, run_model, twins
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from random_models import build, recipes

from srr_onnx.analysis.find import find_groups
from srr_onnx.calibration.layers import find_layers
from srr_onnx.calibration.observe import Samples, observe
from srr_onnx.errors import DataError
from srr_onnx.graph.load import load_model
from srr_onnx.rewriting import least_squares
from srr_onnx.rewriting.apply import kept_positions, prune_units
from srr_onnx.rewriting.least_squares import compensate, find_disturbed

BATCH = 8


def plain(g, x):
    x = g("Relu", g.conv(x, 12, 3, name="one"))
    return g.conv(g("Relu", g.conv(x, 10, 3, name="two", bias=False)), 4, name="three")


def residual(g, x):
    x = g("Relu", norm(g, g.conv(x, 10, 3, bias=False)))
    for _ in range(2):
        inner = g("Relu", norm(g, g.conv(x, 8, bias=False)))
        x = g("Relu", g("Add", norm(g, g.conv(inner, 10, 3, bias=False)), x))
    return g.conv(x, 4)


def joined(g, x):
    parts = [g("Relu", g.conv(x, 8)), g("Relu", g.conv(x, 6, 3))]
    return g.conv(g("Relu", g.conv(g("Concat", *parts, axis=1), 8)), 4)


def grouped(g, x):
    x = g("Relu", g.conv(g("Relu", g.conv(x, 12)), 12, 3, group=2))
    x = g("Relu", g.conv(g("Relu", g.conv(x, 10)), 10, 3, group=10))
    return g.conv(x, 4)


def dense(g, x):
    x = g("Flatten", g("Relu", g.conv(x, 6, strides=[2, 2])))
    x = g("Relu", g("Gemm", x, g.weight(8, g.shapes[x][1]), g.weight(8), transB=1, alpha=0.5, beta=2.0))
    return g("Add", g("MatMul", x, g.weight(8, 4)), g.weight(4))


def transposed(g, x):
    x = g("Relu", g.conv(x, 8))
    x = g("Relu", g("ConvTranspose", x, g.weight(8, 6, 2, 2), strides=[2, 2]))
    return g.conv(x, 4)


NETS = [plain, residual, joined, grouped, dense, transposed]


def make(net, seed=0, **options):
    g = Graph(seed=seed)
    g.output(net(g, g.input("x", (BATCH, 3, 6, 6))))
    return make_case(g, seed=seed, **options)


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.__name__)
@pytest.mark.parametrize("seed", range(2))
def test_outputs_come_closer_to_the_originals(net, seed):
    case = make(net, seed, chunks=3)
    told = []
    found = compensate(case.pruned, case.kept, case.watch(), on_layer=lambda done, steps: told.append((done, steps)))
    assert found.fits
    assert told == [(number + 1, len(found.fits)) for number in range(len(found.fits))]
    assert all(fit.after <= fit.before for fit in found.fits)
    before, after = case.error(case.pruned), case.error(found.model)
    assert after < 0.8 * before
    # The last fit speaks of the outputs themselves.
    assert found.fits[-1].after == pytest.approx(after, rel=0.3)


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.__name__)
def test_pruning_nothing_changes_nothing(net):
    case = make(net, share=0.0)
    found = compensate(case.pruned, case.kept, case.watch())
    assert found.model is case.pruned
    assert found.fits == ()
    assert found.created == 0


@pytest.mark.parametrize("keep_structure", [False, True])
@pytest.mark.parametrize("net", [plain, residual], ids=lambda net: net.__name__)
def test_duplicates_are_compensated_to_almost_exact_outputs(net, keep_structure):
    g = Graph(seed=3)
    g.output(net(g, g.input("x", (BATCH, 3, 6, 6))))
    first = next(node.input for node in g.nodes if node.op_type == "Conv")
    vectors = [name for node in g.nodes[:2] if node.op_type == "BatchNormalization" for name in node.input[1:]]
    twins(g, *first[1:], *vectors, pairs=((0, 4), (1, 7)))
    if net is residual:  # the sum has to be alike too
        for node in g.nodes:
            if node.op_type == "Conv" and g.initializers[node.input[1]].shape[0] == 10:
                twins(g, node.input[1], pairs=((0, 4), (1, 7)))
            if node.op_type == "BatchNormalization" and g.initializers[node.input[1]].shape[0] == 10:
                twins(g, *node.input[1:], pairs=((0, 4), (1, 7)))
    case = make_case(g, gone=[4, 7])
    found = compensate(case.pruned, case.kept, case.watch(), keep_structure=keep_structure, ridge=1e-6)
    assert case.error(case.pruned) > 1e-3
    assert case.error(found.model) < 1e-6


@pytest.mark.parametrize("seed", range(2))
def test_permuting_channels_permutes_the_result(seed):
    results = []
    for order in (np.arange(12), np.random.default_rng(seed).permutation(12)):
        g = Graph(seed=seed)
        g.output(plain(g, g.input("x", (BATCH, 3, 6, 6))))
        for name in ("one.weight", "one.bias"):
            g.initializers[name] = g.initializers[name][order]
        g.initializers["two.weight"] = g.initializers["two.weight"][:, order]
        case = make_case(g, gone=np.flatnonzero(np.isin(order, [1, 2, 6, 9])).tolist())
        found = compensate(case.pruned, case.kept, case.watch())
        results.append(run_model(found.model, feeds_for(case.proto, 99))["three"])
    assert np.allclose(*results, rtol=1e-3, atol=1e-4)


def weights_of(model):
    return {name: np.asarray(model.constants[name]) for name in model.stored if name in model.constants}


def test_biases_are_created_where_that_is_allowed():
    case = make(plain)
    watched = case.watch()
    found = compensate(case.pruned, case.kept, watched)
    assert found.created == 1
    assert weights_of(found.model)["two.weight_bias"].any()
    same = compensate(case.pruned, case.kept, watched, keep_structure=True)
    assert same.created == 0
    assert weights_of(same.model).keys() == weights_of(case.pruned).keys()
    assert [len(node.inputs) for node in same.model.nodes] == [len(node.inputs) for node in case.pruned.nodes]
    assert case.error(same.model) < case.error(case.pruned)


def test_an_offset_goes_into_the_mean_of_a_norm():
    case = make(residual)
    found = compensate(case.pruned, case.kept, case.watch())
    assert found.created == 0
    before, after = weights_of(case.pruned), weights_of(found.model)
    assert before.keys() == after.keys()
    norms = [node for node in case.pruned.nodes if node.op_type == "BatchNormalization"][1:]
    for node in norms:
        assert not np.array_equal(before[node.inputs[3]], after[node.inputs[3]])
        assert all(np.array_equal(before[node.inputs[slot]], after[node.inputs[slot]]) for slot in (1, 2, 4))


def test_an_offset_goes_into_the_constant_added_to_a_product():
    case = make(dense)
    before = weights_of(case.pruned)
    found = compensate(case.pruned, case.kept, case.watch())
    after = weights_of(found.model)
    assert found.created == 0
    add = case.pruned.nodes[-1]
    assert not np.array_equal(before[add.inputs[1]], after[add.inputs[1]])


@pytest.mark.parametrize("form", ["shared", "captured", "output", "integers"])
def test_weights_that_stand_for_more_are_left_alone(form):
    g = Graph(opset=21)
    x = g.input("x", (BATCH, 3, 4, 4))
    value = g("Relu", g.conv(g("Relu", g.conv(x, 8, name="first")), 8, name="between"))
    weight = g.weight(8, 8, 1, 1, name="w")
    if form == "integers":
        steps = np.clip(np.round(g.initializers.pop("w") * 100), -127, 127).astype(np.int8)
        weight = g("DequantizeLinear", g.constant(steps, "steps"), g.constant(np.float32(0.01)))
    value = g("Relu", g("Conv", value, weight, name="second"))
    if form == "shared":
        value = g("Relu", g("Conv", value, weight))
    if form == "output":
        g.output(g("Identity", weight))
        g.outputs.append("w")
    if form == "captured":
        branch = helper.make_graph(
            [helper.make_node("ReduceSum", ["w"], ["s"], keepdims=0)],
            "b",
            [],
            [helper.make_tensor_value_info("s", 1, [])],
        )
        g.output(g("If", g.constant(np.array(True)), then_branch=branch, else_branch=branch, shape=()))
    g.output(g.conv(value, 3, name="last"))
    case = make_case(g, gone=[0, 1])
    found = compensate(case.pruned, case.kept, case.watch())
    assert "last" in {fit.layer for fit in found.fits}
    assert "second" not in {fit.layer for fit in found.fits}
    name = "steps" if form == "integers" else "w"
    before, after = weights_of(case.pruned), weights_of(found.model)
    changed = {name for name in before if not np.array_equal(before[name], after.get(name))}
    assert name not in changed
    assert {"between.weight", "last.weight", "last.bias"} <= changed


def test_weights_that_are_computed_become_stored():
    g = Graph()
    value = g("Relu", g.conv(g.input("x", (BATCH, 3, 4, 4)), 8))
    turned = g("Transpose", g.weight(8, 5, 1, 1, name="turned"), perm=[1, 0, 2, 3])
    bias = g.weight(5, name="shared")
    value = g("Relu", g("Conv", value, turned, bias, name="middle"))
    g.output(g("Add", g("Conv", value, g.weight(5, 5, 1, 1), bias, name="end"), g.weight(1, 5, 1, 1)))
    case = make_case(g, gone=[0, 1, 2])
    found = compensate(case.pruned, case.kept, case.watch())
    assert {fit.layer for fit in found.fits} == {"middle", "end"}
    assert case.error(found.model) < 0.8 * case.error(case.pruned)


@pytest.mark.parametrize("bias", ["activation", "rows", "one", "row"])
def test_a_bias_of_another_form_is_understood_or_left_alone(bias):
    g = Graph()
    x = g("Flatten", g.input("x", (BATCH, 3, 2, 2)))
    value = g("Relu", g("Gemm", x, g.weight(12, 10), g.weight(10)))
    bias = {
        "activation": lambda: g("MatMul", x, g.weight(12, 4, scale=2.0)),
        "rows": lambda: g.weight(BATCH, 4, scale=2.0),
        "one": lambda: g.weight(1, offset=5.0),
        "row": lambda: g.weight(1, 4, scale=2.0),
    }[bias]()
    g.output(g("Gemm", value, g.weight(10, 4), bias, name="last", beta=0.5))
    case = make_case(g, gone=[0, 1, 2, 3], chunks=4)
    before = case.error(case.pruned)
    found = compensate(case.pruned, case.kept, case.watch())
    assert case.error(found.model) <= before
    if found.fits:
        assert found.fits[0].before == pytest.approx(before, rel=0.2)


def test_half_precision_weights_stay_so():
    g = Graph()
    x = g.input("x", (BATCH, 6), dtype=onnx.TensorProto.FLOAT16)
    half = [g.constant(g.initializers.pop(g.weight(*shape)).astype(np.float16)) for shape in ((6, 8), (8, 4))]
    g.output(g("MatMul", g("Relu", g("MatMul", x, half[0])), half[1]))
    case = make_case(g, gone=[1, 5], chunks=4)
    found = compensate(case.pruned, case.kept, case.watch(as_float32=True))
    assert {array.dtype for array in weights_of(found.model).values()} == {np.dtype(np.float16)}
    assert case.error(found.model) < 0.9 * case.error(case.pruned)


def test_what_is_disturbed_follows_what_lost_inputs():
    case = make(joined, gone=[9])  # of the second group
    disturbed = find_disturbed(case.pruned, case.kept)
    layers = [layer.output for layer in find_layers(case.pruned)]
    assert [name in disturbed for name in layers] == [False, False, True, True]


def test_samples_that_blow_up_behind_the_pruned_layers_are_an_error():
    case = make(plain)
    watched = case.watch()
    huge = [{"x": np.full_like(chunk["x"], 1e38)} for chunk in case.chunks]
    watched.samples = dataclasses.replace(watched.samples, chunks=huge)
    with np.errstate(all="ignore"), pytest.raises(DataError, match="'two' cannot be fitted"):
        compensate(case.pruned, case.kept, watched)


@settings(max_examples=25)
@given(recipe=recipes(max_blocks=6), seed=st.integers(0, 999))
def test_random_models_are_fitted_and_run(recipe, seed):
    made = build(recipe)
    model = load_model(made.proto.SerializeToString(), made.inputs)
    groups = find_groups(model)
    is_kept = np.random.default_rng(seed).random(groups.num_units) < 0.7
    for group in groups:
        is_kept[group.first_unit] = True
    pruned, kept = prune_units(model, groups, is_kept), kept_positions(groups, is_kept)
    layers = find_layers(model)
    chunks = [feeds_for(made.proto, number, sizes=made.sizes) for number in range(2)]
    watched = observe(model, layers, Samples(chunks, 2), {}, {layer.output for layer in layers})
    found = compensate(pruned, kept, watched)
    assert all(fit.after <= fit.before * (1 + 1e-9) for fit in found.fits)
    result = run_model(found.model, chunks[0])
    assert {name: value.shape for name, value in result.items()} == {
        name: value.shape for name, value in run_ort(made.proto, chunks[0]).items()
    }
    if not kept:
        assert found.model is pruned
    watched.close()


def test_ridge_is_an_origin_not_a_pull_to_zero():
    case = make(plain)
    stiff = compensate(case.pruned, case.kept, case.watch(), keep_structure=True, ridge=1e9)
    before, after = weights_of(case.pruned), weights_of(stiff.model)
    assert all(np.allclose(before[name], after[name], atol=1e-5) for name in before if name.endswith("weight"))
    assert least_squares.RIDGE < 1
