"""The program run inside the test, and small models in files."""

from __future__ import annotations

import onnx
import pytest
from builders import Graph
from click.testing import CliRunner

from srr_onnx.cli.main import program


@pytest.fixture
def run():
    """Call the program: `run("prune", path, "--flops", "44%")` gives exit code, stdout and stderr apart."""
    return lambda *words: CliRunner().invoke(program, [str(word) for word in words])


def small_graph(**options):
    """Two convolutions of 16 filters, pooled into a classifier with 4 outputs; 18,752 MACs."""
    g = Graph(**options)
    x = g("Relu", g.conv(g.input("image", (1, 3, 4, 4), dynamic={0: "batch"}), 16, 3, name="first"))
    x = g("GlobalAveragePool", g("Relu", g.conv(x, 16, 3, name="second")))
    x = g("Flatten", x)
    g.output(g("Gemm", x, g.weight(4, 16, name="head.weight"), name="head", transB=1))
    return g


@pytest.fixture
def model_path(tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(small_graph().model(), path)
    return path
