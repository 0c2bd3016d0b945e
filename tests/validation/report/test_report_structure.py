"""What the report says of layers, groups and what stays."""

from __future__ import annotations

import numpy as np
import pytest
from builders import Graph

import srr_onnx
from srr_onnx.graph.cost import count_cost
from srr_onnx.validation.report.structure import describe_structure


def write_residual(path):
    """Two convolutions that are added, one between, and a classifier."""
    g = Graph(17)
    stem = g("Relu", g.conv(g.input("x", (1, 3, 4, 4)), 8, 3, name="stem"))
    inner = g("Relu", g.conv(stem, 6, 3, name="inner"))
    x = g("Add", stem, g.conv(inner, 8, 3, name="outer"))
    x = g("Flatten", g("GlobalAveragePool", x))
    g.output(g("MatMul", x, g.weight(8, 4), name="head"))
    path.write_bytes(g.model().SerializeToString())
    return path


@pytest.fixture
def result(tmp_path):
    return srr_onnx.prune(write_residual(tmp_path / "net.onnx"), flops=0.4, only=("stem",), compensate="none")


def describe(result, **options):
    return describe_structure(
        result.original, result.model, result.groups, result.plan, scores=result.scores, gains=result.gains, **options
    )


def test_layers_have_their_widths_groups_and_costs(result):
    found = describe(result, latency_ms={"outer": (2.0, 1.0)})
    assert [layer.name for layer in found.layers] == ["stem", "inner", "outer", "head"]
    kept = len(result.plan.groups[0].keep)
    assert [layer.channels for layer in found.layers] == [(8, kept), (6, 6), (8, kept), (4, 4)]
    assert [layer.groups for layer in found.layers] == [("g0",), ("g1",), ("g0",), ()]
    for when, model in enumerate((result.original, result.model)):
        cost = count_cost(model)
        assert sum(layer.macs[when] for layer in found.layers) == cost.macs
        assert sum(layer.params[when] for layer in found.layers) == cost.params
    assert [layer.latency_ms for layer in found.layers] == [None, None, (2.0, 1.0), None]
    assert found.layers[3].measure is None


def test_groups_say_what_became_of_them_and_why(result):
    found = describe(result)
    pruned, frozen = found.groups
    assert (pruned.id, pruned.nodes, pruned.outcome) == ("g0", ("stem", "outer"), "pruned")
    assert (frozen.units, frozen.outcome) == ((6, 6), "frozen by request (not among --only)")
    assert pruned.macs_per_unit > 0
    reasons = {(entry.filters, entry.reason) for entry in found.frozen}
    assert reasons == {("head", "channels of a graph output"), ("inner", "frozen by request (not among --only)")}


def test_redundancy_is_that_of_the_criterion(result):
    found = describe(result)
    assert found.measure.label == "redundancy"
    assert [group.measure for group in found.groups] == [report.normalized for report in result.scores.reports]
    assert found.layers[0].measure == pytest.approx(found.groups[0].measure)


def test_errors_are_those_at_the_new_width(tmp_path):
    images = np.random.default_rng(0).random((40, 3, 4, 4), np.float32)
    result = srr_onnx.prune(write_residual(tmp_path / "net.onnx"), ratio=0.25, data=images, samples=32)
    found = describe(result)
    assert (found.measure.label, found.measure.form) == ("predicted error", "share")
    for group in found.groups:
        gone = group.units[0] - group.units[1]
        assert group.measure == result.scores.errors[group.id][gone - 1] and gone


def test_other_criteria_give_their_mean_score(tmp_path):
    result = srr_onnx.prune(write_residual(tmp_path / "net.onnx"), ratio=0.25, criterion="l1", compensate="none")
    found = describe(result)
    assert found.measure.label == "score" and "l1" in found.measure.text
    assert found.groups[0].measure == pytest.approx(result.scores.units["g0"].mean())


def test_lossless_groups_say_why_units_went(tmp_path):
    g = Graph(17)
    y = g("Relu", g.conv(g.input("x", (1, 3, 6, 6)), 6, 3, name="first"))
    g.output(g.conv(y, 2, name="last"))
    weight, bias = (g.initializers[f"first.{part}"] for part in ("weight", "bias"))
    weight[[1, 2]], bias[1], bias[2] = 0, -1, 1
    path = tmp_path / "net.onnx"
    path.write_bytes(g.model().SerializeToString())
    found = describe(srr_onnx.prune_lossless(path))
    assert [group.outcome for group in found.groups] == ["1 dead, 1 constant"]
    assert found.measure is None


def test_two_models_alone_give_layers(result):
    found = describe_structure(result.original, result.model)
    assert [layer.groups for layer in found.layers] == [()] * 4
    assert found.groups == found.frozen == ()
    assert found.layers[0].channels[1] < found.layers[0].channels[0]
