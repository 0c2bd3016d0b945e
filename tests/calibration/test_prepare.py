"""A file that states a batch of one is run on several samples where its operators take them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from builders import Graph
from onnx import TensorProto

from srr_onnx.calibration import runs
from srr_onnx.calibration.layers import find_layers
from srr_onnx.calibration.observe import observe
from srr_onnx.calibration.prepare import calibrate
from srr_onnx.calibration.runs import find_chunk_size
from srr_onnx.data.read import open_data
from srr_onnx.graph.load import load_model


def make_model(shape, batch=1):
    """A convolution and a dense layer; the Reshape between them has `shape` written into it."""
    g = Graph(opset=13)
    x = g.input("x", (batch, 3, 4, 4))
    hidden = g("Relu", g.conv(x, 5))
    g.output(g("MatMul", g("Reshape", hidden, g.ints(*shape)), g.weight(80, 4)))
    return load_model(g.model().SerializeToString())


@pytest.mark.parametrize(
    ("shape", "batch", "expected"), [((-1, 80), 1, 16), ((0, 80), 1, 16), ((1, 80), 1, 1), ((2, 80), 2, 2)]
)
def test_several_samples_at_once_where_they_give_what_single_ones_give(shape, batch, expected):
    model = make_model(shape, batch)
    feeds = {"x": np.random.default_rng(0).standard_normal((8, 3, 4, 4)).astype(np.float32)}
    assert find_chunk_size(model, batch, feeds, as_float32=False) == expected


def test_nothing_is_left_out_of_the_last_run(monkeypatch):
    monkeypatch.setattr(runs, "RUN", 4)
    model = make_model((-1, 80))
    samples = np.random.default_rng(0).standard_normal((12, 3, 4, 4)).astype(np.float32)
    found = calibrate(model, open_data(iter([{"x": samples}]), model), 10, 0)
    assert found.run == 1  # what the file itself says, for those who run it as a whole
    assert [len(chunk["x"]) for chunk in found.samples.chunks] == [4, 4, 2]
    assert found.samples.count == 10


def test_what_overflows_inside_a_half_precision_model_is_calibrated_in_single_precision():
    g = Graph(opset=13)
    x = g.input("x", (1, 3, 4, 4), dtype=TensorProto.FLOAT16)
    hidden = g("Conv", x, g.constant((g.rng.standard_normal((5, 3, 1, 1)) * 3e4).astype(np.float16)))
    g.output(g("Flatten", g("Clip", hidden, g.constant(np.float16(0)), g.constant(np.float16(6)))))
    model = load_model(g.model().SerializeToString())
    samples = (np.random.default_rng(0).standard_normal((12, 3, 4, 4)) * 9).astype(np.float16)
    found = calibrate(model, open_data(iter([{"x": samples}]), model), 8, 0)
    assert found.samples.as_float32 and not found.as_float32
    layers = find_layers(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen = observe(model, layers, found.samples, {layers[0].output: None}, set())
    assert np.isfinite(seen.layers[layers[0].output].variance).all()
