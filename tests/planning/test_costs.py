"""Costs follow from widths also where the graph computes weights, shares them, or multiplies constants."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srr_onnx.analysis.find import find_groups
from srr_onnx.errors import PlanError, ProofError
from srr_onnx.graph.cost import count_cost, count_layers
from srr_onnx.graph.load import load_model
from srr_onnx.pipeline import prune
from srr_onnx.planning.costs import CostModel
from srr_onnx.rewriting.apply import prune_units
from tests.builders import Graph


def standardized():
    """Weights that a BatchNormalization in training mode standardizes, as timm's StdConv2d is exported."""
    g = Graph(opset=17)
    value = g.input("x", (1, 3, 8, 8))
    for width in (16, 24):
        channels = g.shapes[value][1]
        rows = g("Reshape", g.weight(width, channels, 3, 3), shape=(1, width, channels * 9))
        # Four constants: onnxruntime 1.31 writes the running statistics into those that are read.
        vectors = [g.constant(np.full(width, number, np.float32)) for number in (1, 0, 0, 1)]
        whitened, *_ = g("BatchNormalization", rows, *vectors, outputs=3, training_mode=1)
        weight = g("Reshape", whitened, shape=(width, channels, 3, 3))
        value = g("Relu", g.conv(value, width, 3, weight=weight))
    g.output(g.conv(value, 5))
    return g


def low_rank():
    """A weight that is the product of two factors."""
    g = Graph(opset=17)
    value = g("Relu", g.conv(g.input("x", (1, 3, 8, 8)), 16, 3))
    product = g("MatMul", g.weight(24, 200), g.weight(200, 144))
    value = g("Relu", g.conv(value, 24, 3, weight=g("Reshape", product, shape=(24, 16, 3, 3))))
    g.output(g.conv(value, 5))
    return g


def learned_queries():
    """A product of constants beside the activations, as DETR's queries are."""
    g = Graph(opset=17)
    value = g("Flatten", g("GlobalAveragePool", g("Relu", g.conv(g.input("x", (1, 3, 8, 8)), 16, 3))))
    queries = g("MatMul", g.weight(1, 64), g.weight(64, 48))
    keys = g("MatMul", value, g.weight(16, 48))
    g.output(g("MatMul", g("Mul", keys, queries), g.weight(48, 5)))
    return g


def shared():
    """One weight read by two convolutions of different groups, and by a third through a Transpose."""
    g = Graph(opset=17)
    weight = g.weight(16, 3, 3, 3)
    x = g.input("x", (1, 3, 8, 8))
    first, second = (g("Relu", g.conv(x, 16, 3, weight=weight)) for _ in range(2))
    turned = g("Transpose", weight, perm=[0, 1, 3, 2])
    third = g("Relu", g.conv(x, 16, 3, weight=turned))
    g.output(g("Add", g("Add", g.conv(first, 5), g.conv(second, 5)), g.conv(third, 5)))
    return g


def shown():
    """A standardized weight that is also a graph output."""
    g = standardized()
    g.output(next(node.output[0] for node in g.nodes if node.op_type == "BatchNormalization"))
    return g


MODELS = {
    "standardized": standardized,
    "low rank": low_rank,
    "queries": learned_queries,
    "shared": shared,
    "shown": shown,
}


@pytest.mark.parametrize("kind", MODELS)
@settings(max_examples=15)
@given(data=st.data())
def test_costs_are_those_of_the_rewritten_file(kind, data):
    model = load_model(MODELS[kind]().model())
    groups = find_groups(model)
    costs = CostModel(model, groups, "params")
    assert costs.all_costs() == count_cost(model)
    is_kept = np.ones(groups.num_units, bool)
    for number, group in enumerate(groups):
        gone = data.draw(st.permutations(range(group.size)))[: data.draw(st.integers(0, group.size - 1))]
        is_kept[[group.first_unit + unit for unit in gone]] = False
        before = costs.cost()
        saving = costs.saving(number, len(gone))
        costs.remove(number, len(gone))
        assert before - costs.cost() == saving
    found = count_cost(prune_units(model, groups, is_kept))
    assert found.macs == costs.all_costs().macs
    if kind != "shared":  # there slices may coincide by chance
        assert found == costs.all_costs()
    assert found.params <= costs.cost()


@pytest.mark.parametrize("kind", ["standardized", "low rank", "shown"])
@pytest.mark.parametrize("amount", [0.1, 0.4])
def test_parameters_go_where_the_graph_computes_weights(kind, amount):
    plan = prune(load_model(MODELS[kind]().model()), params=amount).plan
    assert plan.groups
    assert plan.params_removed >= amount


def test_parameters_that_cannot_go_are_an_error():
    with pytest.raises(PlanError, match="at most"):
        prune(load_model(shown().model()), params=0.99)


def test_a_computed_weight_leaves_nothing_beside_its_slice():
    model = load_model(standardized().model())
    pruned = prune(model, flops=0.3).model
    assert not {"BatchNormalization", "Reshape"} & {node.op_type for node in pruned.nodes}
    assert all(name in pruned.consumers for name in pruned.stored)
    assert count_cost(pruned).params < count_cost(model).params


def test_products_of_constants_count_before_and_go_after():
    model = load_model(learned_queries().model())
    cost = count_cost(model)
    assert cost.macs == 16 * 27 * 64 + 64 * 48 + 16 * 48 + 48 * 5
    assert sum(layer.macs for layer in count_layers(model)) == cost.macs
    assert sum(layer.params for layer in count_layers(model)) == cost.params


def test_a_file_that_has_more_parameters_than_promised_is_not_written(monkeypatch):
    model = load_model(standardized().model())

    def promise(self):
        return dataclasses.replace(exact(self), params=exact(self).params - 1)

    exact = CostModel.all_costs
    monkeypatch.setattr(CostModel, "all_costs", promise)
    with pytest.raises(ProofError, match="parameters, the plan promised"):
        prune(model, flops=0.3, verify=False)
