"""What is said of a layer's tail holds for the numbers that onnxruntime computes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from builders import Graph, feeds_for, run_ort
from hypothesis import given, settings
from hypothesis import strategies as st

from srr_onnx.calibration.layers import find_layers
from srr_onnx.calibration.tails import find_settled, find_tail
from srr_onnx.graph.load import load_model


def norm(g, value, channels, **attributes):
    vectors = [g.weight(channels, scale=1.0) for _ in range(3)]
    return g(
        "BatchNormalization", value, *vectors, g.constant(g.rng.uniform(0.5, 2, channels), dtype="f4"), **attributes
    )


def start(g, kind):
    """A layer of four channels."""
    if kind == "conv":
        return g.conv(g.input("x", (2, 3, 4, 4)), 4, 3), (4, 1, 1)
    if kind == "depthwise":
        return g.conv(g.input("x", (2, 4, 4, 4)), 4, 3, group=4), (4, 1, 1)
    if kind == "gemm":
        return g("Gemm", g.input("x", (2, 3)), g.weight(3, 4), g.weight(4)), (4,)
    return g("MatMul", g.input("x", (2, 4, 3)), g.weight(3, 4)), (4,)


STEPS = {
    "identity": lambda g, v, shape: g("Identity", v),
    "dropout": lambda g, v, shape: g("Dropout", v),
    "norm": lambda g, v, shape: norm(g, v, 4, epsilon=0.1),
    "add": lambda g, v, shape: g("Add", v, g.weight(*shape)),
    "mul": lambda g, v, shape: g("Mul", g.weight(*shape), v),
    "scalar": lambda g, v, shape: g("Mul", v, g.constant(np.float32(-2))),
    "one": lambda g, v, shape: g("Add", g.constant(np.ones((1, 1), np.float32)), v),
    "longer": lambda g, v, shape: g("Add", v, g.constant(np.ones((1,) * 5, np.float32))),
    "picture": lambda g, v, shape: g("Add", v, g.weight(*g.shapes[v][1:])),
    "last": lambda g, v, shape: g("Mul", v, g.weight(4)),
    "relu": lambda g, v, shape: g("Relu", v),
    "sub": lambda g, v, shape: g("Sub", v, g.weight(*shape)),
    "sum": lambda g, v, shape: g("Add", g("Sigmoid", g.side), v),
    "double": lambda g, v, shape: g("Add", v, v),
    "square": lambda g, v, shape: g("Mul", v, v),
    "gate": lambda g, v, shape: g("Mul", v, g("Sigmoid", g.side)),
}


def shown(proto, names):
    known = {output.name for output in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    return proto


@settings(max_examples=100)
@given(
    kind=st.sampled_from(["conv", "depthwise", "gemm", "matmul"]),
    steps=st.lists(st.sampled_from(sorted(STEPS)), max_size=4),
    seed=st.integers(0, 99),
)
def test_total_is_scaled_shifted_and_added_to(kind, steps, seed):
    g = Graph(seed=seed)
    value, shape = start(g, kind)
    g.side = g.input("side", g.shapes[value])
    for step in steps:
        if len(g.shapes[value]) == len(g.shapes["side"]):
            value = STEPS[step](g, value, shape)
    g.output(value)
    proto = g.model()
    model = load_model(proto)
    (layer,) = find_layers(model)
    tail = find_tail(model, layer)
    names = [name for name in {layer.output, tail.inner, tail.total, tail.other} if name]
    values = run_ort(shown(proto, names), feeds_for(proto), outputs=names)
    vector = [-1 if axis == layer.output_axis else 1 for axis in range(values[layer.output].ndim)]
    assert tail.scale.shape == tail.shift.shape == (4,)
    made = values[layer.output] * tail.scale.reshape(vector) + tail.shift.reshape(vector)
    assert made.shape == values[tail.inner].shape
    assert np.allclose(made, values[tail.inner], rtol=1e-3, atol=1e-4)
    total = made if tail.other is None else made + values[tail.other]
    assert np.allclose(total, values[tail.total], rtol=1e-3, atol=1e-4)


def test_a_tail_goes_as_far_as_it_can():
    g = Graph()
    conv = g.conv(g.input("x", (2, 3, 4, 4)), 4)
    normed = norm(g, g("Identity", conv), 4)
    scaled = g("Mul", normed, g.weight(4, 1, 1))
    total = g("Add", g.input("side", g.shapes[conv]), scaled)
    g.output(g("Relu", total))
    model = load_model(g.model())
    tail = find_tail(model, find_layers(model)[0])
    assert (tail.inner, tail.total, tail.other) == (scaled, total, "side")
    assert tail.first.op_type == "BatchNormalization"


@pytest.mark.parametrize("where", ["output", "twice"])
def test_nothing_is_followed_past_what_somebody_else_reads(where):
    g = Graph()
    conv = g.conv(g.input("x", (2, 3, 4, 4)), 4)
    scaled = g("Mul", conv, g.weight(4, 1, 1))
    g.output(conv if where == "output" else g("Relu", conv))
    g.output(scaled)
    model = load_model(g.model())
    tail = find_tail(model, find_layers(model)[0])
    assert tail.inner == tail.total == conv
    assert tail.first is None


def test_a_norm_over_another_axis_is_no_scale_of_channels():
    g = Graph()
    tokens = g("MatMul", g.input("x", (2, 4, 3)), g.weight(3, 4))
    g.output(norm(g, tokens, 4))  # along the tokens, which happen to be as many
    model = load_model(g.model())
    assert find_tail(model, find_layers(model)[0]).total == tokens


def test_dropout_that_trains_is_not_followed():
    g = Graph(opset=13)
    conv = g.conv(g.input("x", (2, 3, 4, 4)), 4)
    g.output(g("Dropout", conv, g.constant(np.float32(0.5)), g.constant(np.array(True))))
    model = load_model(g.model())
    assert find_tail(model, find_layers(model)[0]).total == conv


@pytest.mark.parametrize("form", ["pixels", "training"])
def test_a_norm_of_another_kind_is_not_followed(form):
    g = Graph(opset=8 if form == "pixels" else 14)
    conv = g.conv(g.input("x", (2, 3, 2, 2)), 4)
    shape, outputs = ((4, 2, 2), ["y"]) if form == "pixels" else ((4,), ["y", "mean", "var"])
    attributes = {"spatial": 0} if form == "pixels" else {"training_mode": 1}
    vectors = [g.constant(np.ones(shape, np.float32)) for _ in range(4)]
    g("BatchNormalization", conv, *vectors, outputs=outputs, **attributes)
    g.output(g("Relu", "y", shape=(2, 4, 2, 2)))
    model = load_model(g.model())
    assert find_tail(model, find_layers(model)[0]).total == conv


def test_what_follows_a_layer_is_settled_with_it():
    g = Graph()
    x = g.input("x", (1, 3, 4, 4))
    first = g.conv(x, 4, name="first")
    second = g.conv(g("Relu", first), 4, name="second")
    total = g("Add", second, first)
    shift = g("Neg", x)
    g.output(total)
    g.output(shift)
    model = load_model(g.model())
    settled = find_settled(model, find_layers(model))
    assert [settled[name] for name in (first, "Relu_0", second, total, shift)] == [0, 0, 1, 1, -1]
