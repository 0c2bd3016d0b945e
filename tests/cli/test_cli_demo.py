"""The demo: on the real bundled model, with real images."""

from __future__ import annotations

import json
import re
import sys

import pytest

from srr_onnx.graph.cost import count_cost
from srr_onnx.graph.load import load_model


def test_the_demo_prunes_proves_and_measures(run, tmp_path):
    result = run("demo", "--out", "new/folder", "--epochs", 0)
    assert (result.exit_code, result.stderr) == (0, "")
    folder = tmp_path / "new" / "folder"
    assert sorted(path.name for path in folder.iterdir()) == ["plan.json", "pruned.onnx"]
    plan = json.loads((folder / "plan.json").read_text())
    before, after = plan["cost"]["before"]["macs"], plan["cost"]["after"]["macs"]
    assert 0.44 <= 1 - after / before <= 0.445
    assert count_cost(load_model(folder / "pruned.onnx")).macs == after
    assert plan["proof"]["relative_error"] < 1e-4
    accuracy = re.search(r"accuracy on 1,062 images +(\S+) % +(\S+) % +(\S+) % +(\S+) points", result.stdout)
    before, pruned, compensated = (float(accuracy[place]) for place in (1, 2, 3))
    assert before == 70.9
    # Right after pruning the net is little better than chance; least squares bring it back without labels or training.
    assert pruned < 40 and compensated > 68
    assert len(re.findall(r"latency.* ms +\S+ ms +\S+ ms", result.stdout)) == 2
    assert "trained nothing" in result.stdout


def test_the_demo_trains_too(run, tmp_path):
    pytest.importorskip("torch", reason="torch is not installed")
    result = run("demo", "--epochs", 1)
    assert (result.exit_code, result.stderr) == (0, "")
    accuracies = re.search(r"accuracy on 1,062 images((?: +\S+ %){4})", result.stdout)[1]
    before, _, compensated, tuned = map(float, re.findall(r"[\d.]+", accuracies))
    assert before == 70.9
    assert tuned > 66 and count_cost(load_model("finetuned.onnx")) == count_cost(load_model("pruned.onnx"))
    assert "pruned.onnx, plan.json, finetuned.onnx" in result.stdout and abs(tuned - compensated) < 5
    assert {path.name for path in tmp_path.iterdir()} == {"pruned.onnx", "plan.json", "finetuned.onnx"}


def test_without_torch_the_demo_says_what_to_install(run, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("srr_onnx.finetuning")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    result = run("demo")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "Not fine-tuned: fine-tuning needs PyTorch, which is not installed: pip install" in result.stdout
    assert not (tmp_path / "finetuned.onnx").exists()
    assert run("demo", "--epochs", 0).exit_code == 0  # its own files may be replaced
