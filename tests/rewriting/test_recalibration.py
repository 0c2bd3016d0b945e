"""Statistics of normalizations from samples: in the result each is what its input has there."""

from __future__ import annotations

import numpy as np
import pytest
from builders import Graph, feeds_for, run_ort
from compensating import make_case, norm, run_model, to_proto
from onnx import ValueInfoProto

import srr_onnx
from srr_onnx.calibration.observe import Samples
from srr_onnx.errors import DataError, UnsupportedError
from srr_onnx.graph.load import load_model
from srr_onnx.rewriting.compensate import Compensated, recalibrate_norms
from srr_onnx.rewriting.recalibration import recalibrate

BATCH = 6


def chain(g, x):
    x = g("Relu", norm(g, g.conv(x, 10, 3, bias=False)))
    return g.conv(g("Relu", norm(g, g.conv(x, 8, bias=False))), 4)


def residual(g, x):
    x = g("Relu", norm(g, g.conv(x, 10, 3, bias=False)))
    inner = g("Relu", norm(g, g.conv(x, 8, bias=False)))
    return g.conv(g("Relu", g("Add", norm(g, g.conv(inner, 10, 3, bias=False)), x)), 4)


def before_convolutions(g, x):
    x = g("Concat", g.conv(x, 6), g.conv(x, 4, 3), axis=1)
    return g.conv(g("Relu", norm(g, norm(g, x))), 4)


def dense(g, x):
    x = g("GlobalAveragePool", g("Relu", g.conv(x, 12)))
    x = norm(g, g("Gemm", g("Flatten", x), g.weight(12, 9), g.weight(9)))
    return g("Gemm", g("Relu", x), g.weight(9, 3), g.weight(3))


def make(body, *, opset=17, **options):
    g = Graph(opset)
    g.output(body(g, g.input("x", (BATCH, 3, 8, 8))))
    return make_case(g, chunks=3, **options)


def samples(case, **options):
    return Samples(case.chunks, BATCH * len(case.chunks), **options)


def norms(model):
    return [node for node in model.nodes if node.op_type == "BatchNormalization"]


def read_inputs(model, chunks):
    """What every normalization of a model reads, over all chunks."""
    proto = to_proto(model)
    names = [node.inputs[0] for node in norms(model)]
    proto.graph.output.extend(ValueInfoProto(name=name) for name in names)
    ran = [run_ort(proto, chunk) for chunk in chunks]
    return [np.concatenate([values[name] for values in ran]).astype(np.float64) for name in names]


def per_channel(values):
    return np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)


@pytest.mark.parametrize("body", [chain, residual, before_convolutions, dense])
@pytest.mark.parametrize("opset", [7, 9, 14, 17])
def test_every_normalization_has_the_statistics_of_what_it_reads(body, opset):
    case = make(body, opset=opset)
    told = []
    model, count = recalibrate(case.pruned, samples(case), lambda *done: told.append(done))
    assert count == len(norms(case.model))
    assert told == [(number + 1, count) for number in range(count)]
    for node, values in zip(norms(model), read_inputs(model, case.chunks), strict=True):
        rows = per_channel(values)
        np.testing.assert_allclose(model.constants[node.inputs[3]], rows.mean(1), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(model.constants[node.inputs[4]], rows.var(1), rtol=1e-4, atol=1e-6)


def test_nothing_but_statistics_changes_and_the_input_model_stays():
    case = make(residual)
    before = {name: array.copy() for name, array in case.pruned.constants.items()}
    model, _ = recalibrate(case.pruned, samples(case))
    statistics = {name for node in norms(model) for name in node.inputs[3:5]}
    for name, array in before.items():
        np.testing.assert_array_equal(case.pruned.constants[name], array)
        assert np.array_equal(model.constants[name], array) == (name not in statistics), name
    again, _ = recalibrate(model, samples(case))
    for name in statistics:
        np.testing.assert_allclose(again.constants[name], model.constants[name], rtol=1e-5, atol=1e-6)


def test_chunks_of_several_sizes_and_means_count_by_their_samples():
    g = Graph()
    g.output(g.conv(norm(g, g("Relu", g.input("x", (1, 4, 5, 5), dynamic={0: "N"}))), 2))
    model = load_model(g.model().SerializeToString())
    rng = np.random.default_rng(0)
    # Far from zero, where squares less the squared mean would leave nothing in float32.
    parts = [(3e4 + rng.normal(shift, 2, (n, 4, 5, 5))).astype(np.float32) for n, shift in ((1, 0), (7, 5), (3, -9))]
    found, _ = recalibrate(model, Samples([{"x": part} for part in parts], 11))
    rows = per_channel(np.concatenate(parts).astype(np.float64))
    (node,) = norms(found)
    np.testing.assert_allclose(found.constants[node.inputs[3]], rows.mean(1), rtol=1e-6)
    np.testing.assert_allclose(found.constants[node.inputs[4]], rows.var(1), rtol=1e-4)


def test_what_a_convolution_before_it_is_scaled_by_is_taken_back():
    g = Graph()
    output = chain(g, g.input("x", (BATCH, 3, 8, 8)))
    g.output(output)
    feeds = feeds_for(g.model())
    plain = recalibrate(load_model(g.model().SerializeToString()), Samples([feeds], BATCH))[0]
    g.initializers[g.nodes[0].input[1]] = g.initializers[g.nodes[0].input[1]] * 5
    scaled = load_model(g.model().SerializeToString())
    want = run_model(plain, feeds)[output]
    assert not np.allclose(run_model(scaled, feeds)[output], want, atol=0.1)
    found = run_model(recalibrate(scaled, Samples([feeds], BATCH))[0], feeds)[output]
    np.testing.assert_allclose(found, want, rtol=1e-3, atol=1e-3)


def test_statistics_that_are_shared_or_computed_are_left_alone():
    g = Graph()
    x = g.input("x", (BATCH, 3, 6, 6))
    mean, variance = g.weight(6), g.constant(np.linspace(1, 2, 6), dtype="f4")
    for _ in range(2):
        x = g("BatchNormalization", g.conv(x, 6), g.weight(6), g.weight(6), mean, variance)
    computed = g("Abs", g.weight(6, offset=2.0))
    x = g("BatchNormalization", g.conv(x, 6), g.weight(6), g.weight(6), g.weight(6), computed)
    x = g("BatchNormalization", g.conv(x, 6), g.weight(6), g.weight(6), variance_twice := g.weight(6), variance_twice)
    g.output(g.conv(x, 2))
    model = load_model(g.model().SerializeToString())
    assert recalibrate(model, Samples([feeds_for(g.model())], BATCH)) == (model, 0)


def test_the_training_form_is_left_alone():
    g = Graph(15)
    x = g.conv(g.input("x", (BATCH, 3, 6, 6)), 4)
    vectors = [g.weight(4), g.weight(4), g.weight(4), g.constant(np.ones(4), dtype="f4")]
    y, *_ = g("BatchNormalization", x, *vectors, outputs=["y", "mean_out", "variance_out"], training_mode=1)
    g.output(g.conv(y, 2))
    model = load_model(g.model().SerializeToString())
    assert recalibrate(model, Samples([feeds_for(g.model())], BATCH)) == (model, 0)


def test_values_that_are_not_finite_are_an_error():
    case = make(chain)
    case.chunks[1]["x"][0, 0, 0, 0] = np.inf
    with pytest.raises(DataError, match="'BatchNormalization_0' reads values that are NaN or infinite"):
        recalibrate(case.pruned, samples(case))


def make_file(g):
    g.output(g("Flatten", g("GlobalAveragePool", residual(g, g.input("x", (1, 3, 8, 8), dynamic={0: "N"})))))
    return load_model(g.model().SerializeToString())


def test_prune_records_it_in_the_plan():
    model, rng = make_file(Graph()), np.random.default_rng(0)
    data = [rng.standard_normal((16, 3, 8, 8)).astype(np.float32) for _ in range(6)]
    plain = srr_onnx.prune(model, ratio=0.3, data=data)
    result = srr_onnx.prune(model, ratio=0.3, data=data, recalibrate=True)
    assert plain.plan.compensation["recalibrated_norms"] == 0
    assert result.plan.compensation == {**plain.plan.compensation, "recalibrated_norms": 3}
    first = norms(plain.model)[0]
    assert not np.allclose(plain.model.constants[first.inputs[4]], result.model.constants[first.inputs[4]])


def test_prune_needs_samples_and_normalizations():
    with pytest.raises(DataError, match="--recalibrate-norms needs samples"):
        srr_onnx.prune(make_file(Graph()), ratio=0.3, recalibrate=True)
    g = Graph()
    g.output(g.conv(g("Relu", g.conv(g.input("x", (2, 3, 4, 4)), 8)), 2))
    model = load_model(g.model().SerializeToString())
    with pytest.raises(UnsupportedError, match="no BatchNormalization with statistics of its own"):
        recalibrate_norms(Compensated(model, "none"), Samples([feeds_for(g.model())], 2))
