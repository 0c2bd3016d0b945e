"""Inputs without an axis for samples: all samples share them."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from builders import Graph
from click.testing import CliRunner

from srr_onnx.cli.main import program
from srr_onnx.data.read import open_data
from srr_onnx.errors import DataError
from srr_onnx.graph.load import load_model


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A picture, its strength as a single number, the state of two layers, and a second input of a batch of one."""
    monkeypatch.chdir(tmp_path)
    g = Graph(17)
    x = g("Mul", g.input("image", (1, 3, 8, 8), dynamic={0: "batch"}), g.input("strength", ()))
    x = g("Relu", g.conv(g("Add", x, g.input("bias", (1, 3, 1, 1))), 16))
    x = g("GlobalAveragePool", g("Relu", g.conv(x, 12)))
    x = g("Add", g.conv(x, 4), g("ReduceSum", g.input("state", (2, 1, 4)), keepdims=0))
    g.output(g("Flatten", x))
    onnx.save(g.model(), "net.onnx")
    return load_model("net.onnx")


def arrays(count: int = 20, **more):
    rng = np.random.default_rng(0)
    found = {
        "image": rng.standard_normal((count, 3, 8, 8)).astype(np.float32),
        "strength": np.float64(2.0),
        "bias": rng.standard_normal((1, 3, 1, 1)).astype(np.float32),
        "state": rng.standard_normal((2, 1, 4)).astype(np.float32),
        **more,
    }
    np.savez("data.npz", **found)
    return found


def test_every_batch_has_them(model):
    given = arrays(5)
    data = open_data("data.npz", model)
    assert len(data) == 5
    assert data.describe().startswith(
        "5 samples from arrays; arrays as they are (float32); strength, bias, state shared by"
    )
    for batch in data.batches(3):
        assert len(batch.feeds["image"]) == len(batch.indices)
        assert batch.feeds["strength"].dtype == np.float32
        for name in ("strength", "bias", "state"):
            np.testing.assert_array_equal(batch.feeds[name], given[name])


@pytest.mark.parametrize("samples", [1, 16])
def test_the_model_is_pruned_with_them(model, samples):
    arrays()
    words = ["prune", "net.onnx", "--ratio", "0.5", "--data", "data.npz", "--samples", str(samples), "--format", "json"]
    result = CliRunner().invoke(program, words)
    assert result.exit_code == 0, result.stderr
    (output,) = json.loads(result.stdout)["agreement"]["outputs"]
    assert output["samples"] == max(1, samples // 4)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"state": np.zeros((1, 1, 4), np.float32)},
            "different lengths .* or all share an array of exactly the input's",
        ),
        ({"strength": np.array([1.0])}, "input 'strength' is a single number: give one, which"),
        ({"strength": np.array("a")}, "'strength' has type <U1"),
        ({"strength": np.array(np.nan)}, "'strength' holds numbers that are NaN"),
        ({"image": np.float32(1)}, "different lengths .'image' 0"),
    ],
)
def test_what_does_not_fit_is_one_line(model, more, message):
    arrays(**more)
    with pytest.raises(DataError, match=message):
        open_data("data.npz", model)
