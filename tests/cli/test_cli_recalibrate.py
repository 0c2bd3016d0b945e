"""`prune --recalibrate-norms`."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from builders import Graph
from cli_models import small_graph


@pytest.fixture
def normed(tmp_path):
    """A net with two normalizations, and images for it."""
    g = Graph()
    x = g.input("image", (1, 3, 4, 4), dynamic={0: "batch"})
    for _ in range(2):
        vectors = [g.weight(16, offset=1.0) for _ in range(3)]
        variance = g.constant(np.linspace(0.5, 2, 16), dtype="f4")
        x = g("Relu", g("BatchNormalization", g.conv(x, 16, 3, bias=False), *vectors, variance))
    g.output(g("Gemm", g("Flatten", g("GlobalAveragePool", x)), g.weight(4, 16), transB=1))
    onnx.save(g.model(), tmp_path / "net.onnx")
    images = np.random.default_rng(0).standard_normal((80, 3, 4, 4)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    return tmp_path / "net.onnx", tmp_path / "images.npy"


def test_it_is_printed_and_recorded(run, normed, tmp_path):
    model, images = normed
    words = ("prune", model, "--flops", "30%", "--data", images, "--recalibrate-norms", "--compensate", "none")
    result = run(*words, "--plan", tmp_path / "plan.json")
    assert result.exit_code == 0, result.stderr
    assert "norms     statistics of 2 normalizations set anew from the samples" in result.stdout
    done = json.loads((tmp_path / "plan.json").read_text())["compensation"]
    assert (done["kind"], done["recalibrated_norms"]) == ("none", 2)
    plain = run(*[word for word in words if word != "--recalibrate-norms"], "-o", tmp_path / "plain.onnx")
    assert plain.exit_code == 0
    assert "norms     " not in plain.stdout


def test_without_data_it_is_wrong_usage(run, normed):
    result = run("prune", normed[0], "--flops", "30%", "--recalibrate-norms")
    assert result.exit_code == 2
    assert "--recalibrate-norms reads samples: give --data too" in result.stderr


def test_without_normalizations_nothing_is_written(run, normed, tmp_path):
    folder = tmp_path / "plain"
    folder.mkdir()
    onnx.save(small_graph().model(), folder / "net.onnx")
    result = run("prune", folder / "net.onnx", "--flops", "30%", "--data", normed[1], "--recalibrate-norms")
    assert result.exit_code == 1
    assert "there is no BatchNormalization with statistics of its own to recalibrate" in result.stderr
    assert [path.name for path in folder.iterdir()] == ["net.onnx"]


def test_it_does_not_go_with_lossless(run, normed):
    result = run("prune", normed[0], "--lossless", "--recalibrate-norms")
    assert result.exit_code == 2
    assert "--recalibrate-norms does not go with it" in result.stderr
