"""What a model costs the process that opens it."""

from __future__ import annotations

import sys

import onnx
import pytest

from srr_onnx.errors import ModelError
from srr_onnx.graph.load import load_model
from srr_onnx.rewriting.verify import make_feeds
from srr_onnx.targets.footprint import measure_footprint
from srr_onnx.targets.target import Target
from tests.builders import Graph

MEGABYTE = 10**6


def save(path, width):
    """A dense layer of width x width weights."""
    g = Graph()
    g.output(g("MatMul", g.input("x", (1, width)), g.weight(width, width)))
    onnx.save(g.model(), path)
    return load_model(path)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_memory_grows_with_the_weights_and_time_passes(tmp_path):
    small, large = (
        measure_footprint(tmp_path / "net.onnx", Target(threads=1), make_feeds(save(tmp_path / "net.onnx", width)))
        for width in (16, 2048)
    )
    assert large.peak_bytes - small.peak_bytes > 15 * MEGABYTE  # 16.8 MB of weights, at least once
    assert small.peak_bytes < 15 * MEGABYTE
    assert small.load_seconds > 0


def test_a_folder_with_the_packages_name_is_in_nobodys_way(tmp_path):
    model = save(tmp_path / "net.onnx", 4)
    (tmp_path / "srr_onnx").mkdir()
    (tmp_path / "srr_onnx" / "__init__.py").write_text("raise RuntimeError('the wrong one')")
    assert measure_footprint(tmp_path / "net.onnx", Target(), make_feeds(model)).load_seconds > 0


def test_what_the_process_says_is_passed_on(tmp_path):
    model = save(tmp_path / "net.onnx", 4)
    feeds = make_feeds(model, shapes={"x": (1, 5)})
    with pytest.raises(ModelError, match=r"'net.onnx' cannot be measured in a process of its own: .*dimensions"):
        measure_footprint(tmp_path / "net.onnx", Target(), feeds)


def test_a_target_that_is_not_there_is_passed_on(tmp_path):
    model = save(tmp_path / "net.onnx", 4)
    with pytest.raises(ModelError, match="has no provider VitisAIExecutionProvider here"):
        measure_footprint(tmp_path / "net.onnx", Target("VitisAIExecutionProvider"), make_feeds(model))
