"""The demo: on the real bundled model, with real images."""

from __future__ import annotations

import importlib.util
import json
import re
import sys

from srr_onnx.graph.cost import count_cost
from srr_onnx.graph.load import load_model


def test_the_demo_prunes_proves_measures_and_trains(run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        for name in [name for name in sys.modules if name.startswith("srr_onnx.finetuning")]:
            patch.delitem(sys.modules, name)
        patch.setitem(sys.modules, "torch", None)  # as if it were not installed
        result = run("demo", "--out", "new/folder")
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
    assert "Not fine-tuned: fine-tuning needs PyTorch, which is not installed: pip install" in result.stdout
    if importlib.util.find_spec("torch") is None:
        return
    result = run("demo", "--out", folder, "--epochs", 1)  # its own files may be replaced
    assert (result.exit_code, result.stderr) == (0, "")
    assert sorted(path.name for path in folder.iterdir()) == ["finetuned.onnx", "plan.json", "pruned.onnx"]
    accuracies = re.search(r"accuracy on 1,062 images((?: +\S+ %){4})", result.stdout)[1]
    assert float(re.findall(r"[\d.]+", accuracies)[-1]) > 66
    assert count_cost(load_model(folder / "finetuned.onnx")).macs == after
    assert "Not fine-tuned" not in result.stdout
