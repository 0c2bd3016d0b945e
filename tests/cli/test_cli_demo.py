"""The demo: on the real bundled model, with real images."""

from __future__ import annotations

import json
import re

from srr_onnx.graph.cost import count_cost
from srr_onnx.graph.load import load_model


def test_the_demo_prunes_proves_and_measures(run, tmp_path):
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
    assert "Nothing was trained" in result.stdout
    assert run("demo", "--out", folder).exit_code == 0  # its own files may be replaced
