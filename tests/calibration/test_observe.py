"""What the original did on samples is recorded as it was."""

from __future__ import annotations

import numpy as np
import pytest
from builders import Graph, feeds_for, run_ort

from srr_onnx.calibration import observe as observing
from srr_onnx.calibration import stream
from srr_onnx.calibration.layers import find_layers
from srr_onnx.calibration.observe import Samples, observe
from srr_onnx.errors import DataError
from srr_onnx.graph.load import load_model


def residual():
    """Two layers, the second of which goes into a sum whose other summand the first settles."""
    g = Graph()
    first = g.conv(g.input("x", (4, 3, 6, 6)), 4, 3, name="first")
    inner = g.conv(g("Relu", first), 4, 3, name="second")
    g.output(g("Add", g("Mul", inner, g.weight(4, 1, 1)), first, name="sum", outputs=["sum"]))
    return g.model()


def watch(proto, samples):
    model = load_model(proto)
    layers = find_layers(model)
    names = {layer.output: None for layer in layers}
    return layers, observe(model, layers, samples, names, names)


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_moments_variances_and_targets_are_those_of_the_samples(limit, monkeypatch):
    monkeypatch.setattr(stream, "_MOST_RESIDENT", limit)
    proto = residual()
    chunks = [feeds_for(proto, seed) for seed in range(3)]
    layers, found = watch(proto, Samples(chunks, 12))
    assert [found.layers[layer.output].target for layer in layers] == ["first", "sum"]
    for layer in layers:
        target = found.layers[layer.output].target
        rows, outputs = [], []
        for chunk, feeds in enumerate(chunks):
            source = feeds["x"] if layer.source == "x" else None
            values = run_ort(with_outputs(proto, ["first", "Relu_0", "sum"]), feeds, outputs=["first", "Relu_0", "sum"])
            positions = found.choose(layer.output, chunk)
            assert len(positions) == 4 * observing.POSITIONS_PER_SAMPLE
            source = values["Relu_0"] if source is None else source
            rows.append(layer.take_rows(source, values[target].shape, positions)[:, 0])
            outputs.append(layer.take_outputs(values[target], positions))
            assert np.allclose(found.targets.get(layer.output, chunk), outputs[-1], atol=1e-5)
        assert np.allclose(found.layers[layer.output].variance, np.concatenate(outputs).var(axis=0), rtol=1e-4)
        covariance = found.layers[layer.output].moments.covariance()[0]
        assert np.allclose(covariance, np.cov(np.concatenate(rows), rowvar=False, bias=True), rtol=1e-3, atol=1e-4)
    found.close()


def with_outputs(proto, names):
    shown = type(proto)()
    shown.CopyFrom(proto)
    known = {output.name for output in shown.graph.output}
    for name in names:
        if name not in known:
            shown.graph.output.add().name = name
    return shown


def test_only_what_is_asked_for_is_kept():
    proto = residual()
    model = load_model(proto)
    layers = find_layers(model)
    told = []
    found = observe(
        model,
        layers,
        Samples([feeds_for(proto)], 4),
        {"second": np.array([0, 5])},
        {"first"},
        lambda done, steps: told.append((done, steps)),
    )
    assert told == [(1, 2), (2, 2)]
    assert found.has_target("first")
    assert not found.has_target("second")
    assert found.layers["first"].moments is None
    assert found.layers["second"].moments.covariance().shape == (1, 2, 2)


def test_few_positions_are_all_taken_and_many_are_drawn_from():
    samples = Samples([{}, {}], 8, seed=3)
    assert samples.choose(0, 5, 100).tolist() == list(range(100))
    chosen = samples.choose(0, 5, 1000)
    assert len(chosen) == len(set(chosen.tolist())) == 4 * observing.POSITIONS_PER_SAMPLE
    assert chosen.tolist() == sorted(chosen.tolist()) == samples.choose(0, 5, 1000).tolist()
    assert samples.choose(1, 5, 1000).tolist() != chosen.tolist() != samples.choose(0, 6, 1000).tolist()


def test_values_that_are_not_finite_are_told():
    proto = residual()
    feeds = feeds_for(proto)
    feeds["x"][0, 0, 0, 0] = np.nan
    with pytest.raises(DataError, match=r"'first' gives [\d,]+ numbers NaN"):
        watch(proto, Samples([feeds], 4))
