"""Weights and biases of a layer's own, made where there are none, without changing what is computed."""

from __future__ import annotations

import numpy as np
import pytest
from builders import Graph, feeds_for, run_ort
from compensating import norm, run_model
from onnx import numpy_helper
from random_models import BLOCKS, Recipe, build

from srr_onnx.calibration.layers import find_layers
from srr_onnx.graph.edit import Edits, apply_edits
from srr_onnx.graph.load import load_model
from srr_onnx.rewriting.sinks import find_sink, is_changeable, prepare


def with_offset(model, offset):
    """Add to a layer's output by way of its sink; the only layer of a model."""
    (layer,) = find_layers(model)
    sink = find_sink(model, layer)
    constant = model.constants[sink.constant]
    moved = constant + sink.factor * np.asarray(offset).reshape(constant.shape)
    return apply_edits(model, Edits(tensors={sink.constant: moved.astype(constant.dtype)}))


CASES = {
    "bias": lambda g, x: g.conv(x, 4, 3),
    "none": lambda g, x: g("Relu", g.conv(x, 4, bias=False)),
    "norm": lambda g, x: norm(g, g.conv(x, 4, bias=False)),
    "norm behind identity": lambda g, x: norm(g, g("Identity", g.conv(x, 4, bias=False))),
    "add": lambda g, x: g("Add", g.weight(4, 1, 1), g.conv(x, 4, bias=False)),
    "add of one": lambda g, x: g("Add", g.conv(x, 4, bias=False), g.weight(1)),
    "dense": lambda g, x: g("Gemm", g("Flatten", x), g.weight(48, 4), g.weight(4), beta=0.5),
    "row": lambda g, x: g("Gemm", g("Flatten", x), g.weight(48, 4), g.weight(1, 4)),
    "dense, none": lambda g, x: g("Gemm", g("Flatten", x), g.weight(48, 4), alpha=3.0),
    "product": lambda g, x: g("Add", g("MatMul", g("Flatten", x), g.weight(48, 4)), g.weight(4)),
    "product, row": lambda g, x: g("Add", g("MatMul", g("Flatten", x), g.weight(48, 4)), g.weight(1, 4)),
    "shared": lambda g, x: g("Conv", x, g.weight(4, 3, 1, 1), g.weight(4, name="twice")),
    "computed": lambda g, x: g("Conv", x, g("Identity", g.weight(4, 3, 1, 1)), g("Identity", g.weight(4))),
}
CREATED = {"none": 1, "add of one": 1, "dense, none": 1}


@pytest.mark.parametrize("case", CASES)
def test_an_offset_reaches_the_layers_output(case):
    g = Graph()
    value = CASES[case](g, g.input("x", (2, 3, 4, 4)))
    if case == "shared":
        g.output(g("Mul", value, g("Reshape", "twice", shape=(1, 4, 1, 1))))
    g.output(value)
    proto = g.model()
    model = load_model(proto)
    (layer,) = find_layers(model)
    prepared, created = prepare(model, {layer.output}, {layer.output})
    assert created == CREATED.get(case, 0)
    feeds = feeds_for(proto)
    shown = [layer.output, *model.outputs]
    before = run_ort(proto_with(proto, shown), feeds, outputs=shown)
    assert all(np.allclose(value, before[name], atol=1e-6) for name, value in run_model(prepared, feeds).items())
    moved = with_offset(prepared, [1, 2, 3, 4])
    (layer,) = find_layers(moved)
    # What a reader sees where the layer gives so much more.
    after = run_model(moved, feeds)
    axes = [-1 if axis == layer.output_axis else 1 for axis in range(before[layer.output].ndim)]
    changed = before[layer.output] + np.arange(1, 5, dtype=np.float32).reshape(axes)
    want = rest_of(proto, layer.output, changed, feeds)
    if case != "shared":
        assert all(np.allclose(value, want[name], rtol=1e-4, atol=1e-4) for name, value in after.items())
    assert is_changeable(moved, layer)


def proto_with(proto, names):
    shown = type(proto)()
    shown.CopyFrom(proto)
    known = {output.name for output in shown.graph.output}
    for name in names:
        if name not in known:
            shown.graph.output.add().name = name
    return shown


def rest_of(proto, name, value, feeds):
    """Outputs of the graph behind a value."""
    if name in {output.name for output in proto.graph.output}:
        return {name: value}
    rest = type(proto)()
    rest.CopyFrom(proto)
    node = next(node for node in rest.graph.node if name in node.output)
    rest.graph.node.remove(node)
    rest.graph.initializer.append(numpy_helper.from_array(value, name))
    return run_ort(rest, feeds)


@pytest.mark.parametrize("case", ["none", "dense, none"])
def test_no_bias_is_created_where_none_may_be_or_none_is_wanted(case):
    g = Graph()
    g.output(CASES[case](g, g.input("x", (2, 3, 4, 4))))
    model = load_model(g.model())
    (layer,) = find_layers(model)
    assert prepare(model, {layer.output}, {layer.output}, keep_structure=True) == (model, 0)
    assert prepare(model, {layer.output}, set()) == (model, 0)
    assert prepare(model, set(), {layer.output}) == (model, 0)


def test_a_bias_that_is_multiplied_with_nothing_is_no_sink():
    g = Graph(opset=13)
    g.output(g("Gemm", g("Flatten", g.input("x", (2, 3, 1, 1))), g.weight(3, 4), beta=0.0))
    model = load_model(g.model())
    (layer,) = find_layers(model)
    prepared, created = prepare(model, {layer.output}, {layer.output})
    assert (prepared, created) == (model, 0)
    assert find_sink(prepared, layer) is None


def test_new_names_are_nobody_elses():
    g = Graph()
    x = g.input("x", (2, 3, 4, 4))
    conv = g.conv(x, 4, bias=False, name="c")
    unknown = g("Unknown", conv, domain="custom", outputs=["c.weight_bias"])
    g.output(g("Relu", conv))
    g.output(unknown)
    model = load_model(g.model())
    prepared, created = prepare(model, {"c"}, {"c"})
    assert created == 1
    (layer,) = find_layers(prepared)
    assert layer.bias not in ("", "c.weight_bias")


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_random_models_compute_the_same(name):
    made = build(Recipe(20, 1, (("conv", 1), (name, 3), (name, 4))))
    model = load_model(made.proto.SerializeToString(), made.inputs)
    outputs = {layer.output for layer in find_layers(model)}
    prepared, _ = prepare(model, outputs, outputs)
    feeds = feeds_for(made.proto, sizes=made.sizes)
    want, got = run_ort(made.proto, feeds), run_model(prepared, feeds)
    assert all(np.allclose(got[key], want[key], rtol=1e-3, atol=1e-4) for key in want)
