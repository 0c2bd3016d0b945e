"""The program run inside the test, and a small model in a file."""

from __future__ import annotations

import onnx
import pytest
from cli_models import small_graph
from click.testing import CliRunner

from srr_onnx.cli.main import program


@pytest.fixture
def run():
    """Call the program: `run("prune", path, "--flops", "44%")` gives exit code, stdout and stderr apart."""
    return lambda *words: CliRunner().invoke(program, [str(word) for word in words])


@pytest.fixture
def model_path(tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(small_graph().model(), path)
    return path
