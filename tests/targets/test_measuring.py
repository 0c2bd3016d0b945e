"""Layers whose shapes only a run tells count all the same, and those that cannot be run are named."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from srr_onnx.graph.cost import count_cost, count_layers, find_uncounted
from srr_onnx.graph.load import load_model
from srr_onnx.pipeline import prune
from srr_onnx.rewriting.verify import make_feeds
from srr_onnx.targets.measuring import measure_shapes
from srr_onnx.targets.onnxruntime import Session
from tests.builders import Graph


def behind_if():
    """A convolution behind an If whose shape inference does not know."""
    g = Graph(opset=17)
    value = g("Relu", g.conv(g("Relu", g.conv(g.input("x", (1, 3, 8, 8)), 16, 3)), 16, 3))
    branches = {
        f"{kind}_branch": helper.make_graph(
            [helper.make_node(op_type, [value], [kind])],
            kind,
            [],
            [helper.make_tensor_value_info(kind, TensorProto.FLOAT, None)],
        )
        for kind, op_type in (("then", "Identity"), ("else", "Squeeze"))
    }
    chosen = g("If", g.constant(np.array(True)), shape=(1, 16, 8, 8), **branches)
    g.dtypes[chosen] = TensorProto.FLOAT
    g.output(g.conv(chosen, 5, 3, name="behind"))
    del g.shapes["behind"]
    return g


def behind_nonzero():
    """A product whose number of rows depends on the content of the input."""
    g = Graph(opset=17)
    x = g.input("x", (1, 3, 8, 8))
    g.output(g.conv(g("Relu", g.conv(x, 16, 3)), 4))
    places = g("NonZero", g("Greater", x, g.constant(np.float32(0))))
    places = g("Cast", g("Transpose", places, perm=[1, 0]), to=TensorProto.FLOAT)
    g.output(g("MatMul", places, g.weight(4, 7)))
    return g


def behind_foreign():
    """A convolution behind an operator that neither inference nor the runtime knows."""
    g = Graph(opset=17)
    first = g("Relu", g.conv(g("Relu", g.conv(g.input("x", (1, 3, 8, 8)), 16)), 8))
    g.output(g.conv(g("Mystery", first, domain="com.example", shape=(1, 8, 8, 8)), 5, name="behind"))
    del g.shapes["behind"]
    return g


@pytest.mark.parametrize("build", [behind_if, behind_nonzero])
def test_shapes_that_only_a_run_tells_are_measured(build):
    model = load_model(build().model())
    assert len(find_uncounted(model)) == 1
    measured = measure_shapes(model, make_feeds)
    assert find_uncounted(measured) == []
    assert not set(measured.measured) & set(model.shapes)
    rows = int(np.count_nonzero(make_feeds(model)["x"] > 0))
    behind = 5 * 16 * 9 * 64 if build is behind_if else rows * 4 * 7
    assert count_cost(measured).macs == count_cost(model).macs + behind
    assert sum(layer.macs for layer in count_layers(measured)) == count_cost(measured).macs


@pytest.mark.parametrize("build", [behind_if, behind_nonzero])
def test_a_budget_is_met_with_the_layers_that_had_no_shape(build):
    model = load_model(build().model())
    plan = prune(model, flops=0.2).plan
    assert plan.before.macs == count_cost(measure_shapes(model, make_feeds)).macs
    assert plan.macs_removed >= 0.2
    assert plan.uncounted == ()


def test_a_model_with_all_shapes_is_not_run(monkeypatch):
    g = Graph(opset=17)
    g.output(g.conv(g.conv(g.input("x", (1, 3, 8, 8)), 8), 4))
    model = load_model(g.model())
    monkeypatch.setattr(Session, "run", lambda self, feeds: pytest.fail("it was run"))
    assert measure_shapes(model, make_feeds) is model


def test_layers_that_cannot_be_measured_are_named():
    model = load_model(behind_foreign().model())
    assert measure_shapes(model, make_feeds) is model
    plan = prune(model, flops=0.2, verify=False).plan
    assert plan.uncounted == ("behind",)
    assert {layer.node.name: layer.macs for layer in count_layers(model)}["behind"] is None
