"""Files into torch and back: what is right is told from what is wrong, refused or out of hand."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from builders import Graph
from click.testing import CliRunner
from onnx import numpy_helper

pytest.importorskip("torch", reason="the bridge needs torch")

import bridge_sweep


def write_net(path: Path, *, is_known: bool = True, learns: bool = True) -> Path:
    g = Graph(opset=17)
    x = g("Relu", g.input("x", (1, 3, 8, 8)))
    x = g.conv(x, 4) if learns else x
    g.output(x if is_known else g("Unheard", x, domain="elsewhere", shape=(1,)))
    onnx.save(g.model(), path)
    return path


def test_a_file_goes_there_and_back(tmp_path: Path) -> None:
    row = bridge_sweep.sweep_one(write_net(tmp_path / "net.onnx"))
    assert row["outcome"] == "agrees"
    assert (row["nodes"], row["tensors"], row["batch"], row["parted"]) == (2, 2, 2, 0)
    assert max(row["error"], row["written_error"]) < 1e-5
    assert row["moved"] > 1e-4


@pytest.mark.parametrize("what", ["module", "numbers", "node", "metadata"])
def test_what_is_wrong_is_found(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault is put into the module, or into the written file."""
    path = write_net(tmp_path / "net.onnx")
    save, make = bridge_sweep.save_model, bridge_sweep.to_torch

    def spoil(model: Any, target: Path) -> Path:
        proto = onnx.load(save(model, target))
        if what == "numbers":
            tensor = proto.graph.initializer[0]
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.1), tensor.name))
        elif what == "node":
            proto.graph.node[0].name = "another"
        elif what == "metadata":
            proto.metadata_props.add(key="key", value="value")
        onnx.save(proto, target)
        return target

    def make_wrong(model: Any, **options: Any) -> Any:
        module = make(model, **options)
        if what == "module":
            module.tensor("Conv_0.weight").data.mul_(1.1)
        return module

    monkeypatch.setattr(bridge_sweep, "save_model", spoil)
    monkeypatch.setattr(bridge_sweep, "to_torch", make_wrong)
    found = {
        "module": "the module differs by",
        "numbers": "the written file differs by",
        "node": "node 'another' (Relu) is another",
        "metadata": "metadata_props is another",
    }[what]
    assert bridge_sweep.sweep_one(path)["outcome"].startswith(f"FALLS SHORT: {found}")


def test_what_a_rounding_of_the_input_does_too_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    g = Graph(opset=17)
    x = g.conv(g.input("x", (1, 3, 8, 8)), 4)
    far = g("Sub", x, g.constant(np.float32(1e6)))
    g.output(g("Add", far, g.constant(np.float32(1e6))))  # what is left of the sum is its rounding
    onnx.save(g.model(), tmp_path / "net.onnx")
    monkeypatch.setattr(bridge_sweep, "TOLERANCE", -1.0)
    row = bridge_sweep.sweep_one(tmp_path / "net.onnx")
    assert row["outcome"].startswith("agrees; the module differs by")
    assert "the written file differs by" in row["outcome"]


def test_a_tensor_that_others_read_too_parts(tmp_path: Path) -> None:
    g = Graph(opset=17)
    zeros, ones = (g.constant(np.full(4, value, np.float32), name) for value, name in ((0, "zeros"), (1, "ones")))
    y = g("Conv", g.input("x", (1, 3, 8, 8)), g.weight(4, 3, 1, 1, name="w"), zeros)
    g.output(g("BatchNormalization", y, ones, zeros, zeros, ones))
    onnx.save(g.model(), tmp_path / "net.onnx")
    row = bridge_sweep.sweep_one(tmp_path / "net.onnx")
    assert (row["outcome"], row["parted"]) == ("agrees", 2)


def test_what_is_refused_or_learns_nothing_says_so(tmp_path: Path) -> None:
    row = bridge_sweep.sweep_one(write_net(tmp_path / "unknown.onnx", is_known=False))
    assert row["outcome"].startswith("refused: operator elsewhere.Unheard")
    row = bridge_sweep.sweep_one(write_net(tmp_path / "fixed.onnx", learns=False))
    assert row["outcome"].startswith("nothing learns")


def test_a_graph_is_cut_before_what_cannot_be_trained(tmp_path: Path) -> None:
    g = Graph(opset=17)
    x = g.conv(g.input("x", (1, 3, 8, 8)), 4)
    boxes = g("Reshape", g("Sigmoid", x), g.ints(1, 64, 4))
    scores = g("Transpose", g("Slice", boxes, g.ints(0), g.ints(1), g.ints(2)), perm=[0, 2, 1])
    picked = g("NonMaxSuppression", boxes, scores, g.ints(9))
    g.shapes[picked], g.dtypes[picked] = ("n", 3), onnx.TensorProto.INT64
    g.output(g("Relu", x))
    g.output(g("Identity", picked))
    onnx.save(g.model(), tmp_path / "net.onnx")
    row = bridge_sweep.sweep_one(tmp_path / "net.onnx")
    assert row["outcome"] == f"agrees; cut at {boxes}, {scores}, Relu_0"
    assert row["moved"] > 1e-4


def test_a_step_that_goes_too_far_is_taken_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge_sweep, "STEP", 1e9)
    row = bridge_sweep.sweep_one(write_net(tmp_path / "net.onnx"))
    assert row["outcome"] == "agrees"
    assert 1 < row["moved"] < 1e6


def test_rows_are_kept_and_the_page_is_written(tmp_path: Path) -> None:
    (tmp_path / "zoo").mkdir()
    write_net(tmp_path / "zoo" / "net.one.onnx")
    write_net(tmp_path / "zoo" / "net.two.onnx", is_known=False)
    (tmp_path / "zoo" / "torn.onnx").write_bytes(b"no model")
    page, table = tmp_path / "page.md", tmp_path / "rows.csv"
    page.write_text("<!-- sweep -->\n<!-- /sweep -->\n")
    words = [str(tmp_path / "zoo"), "--out", str(page), "--csv", str(table)]
    run = CliRunner().invoke(bridge_sweep.main, [*words, "--only", "net*"])
    assert run.exit_code == 0, run.output
    run = CliRunner().invoke(bridge_sweep.main, words)
    assert [line.split()[0] for line in run.output.splitlines()] == ["file=torn"]
    with table.open(newline="") as file:
        rows = {row["file"]: row["outcome"] for row in csv.DictReader(file)}
    assert list(rows) == ["net.one", "net.two", "torn"]
    assert rows["torn"].startswith("refused: ")
    assert "| net | 2 | 1 | 2 | 2 |" in page.read_text()
    assert "- `net.two`: refused: operator" in page.read_text()


def test_what_takes_too_long_is_ended_and_what_crashes_is_a_row(tmp_path: Path) -> None:
    g = Graph()
    g.output(g.conv(g.conv(g.input("x", (1, 64, 512, 512)), 64, 3), 64, 3))
    onnx.save(g.model(), tmp_path / "long.onnx")
    assert bridge_sweep.sweep_apart(tmp_path / "long.onnx", 1, 12)["outcome"].startswith(
        "not done: ended, as after 1 s"
    )
    g = Graph()
    g.output(g("Gather", g.conv(g.input("x", (1, 3, 8, 8)), 4), g.ints(99), axis=1))
    onnx.save(g.model(), tmp_path / "outside.onnx")
    assert bridge_sweep.sweep_apart(tmp_path / "outside.onnx", 45, 12)["outcome"].startswith("CRASHES: ")
