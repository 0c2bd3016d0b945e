"""What onnxruntime does beside running models."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from builders import Graph

from srr_onnx.graph.load import load_model
from srr_onnx.graph.save import save_model

SCRIPT = """
from srr_onnx.graph.load import load_model
from srr_onnx.targets.onnxruntime import Session
import numpy as np
Session(load_model("net.onnx"), ["y"], is_exact=True).run({"x": np.zeros((1, 4), np.float32)})
"""


def test_onnxruntime_leaves_no_identifier_behind_and_reports_nothing():
    g = Graph()
    g.output(g("Relu", g.input("x", (1, 4)), outputs=["y"]))
    save_model(load_model(g.model()), "net.onnx")
    # On a machine of a test service it would do neither anyway.
    known = {key: os.environ[key] for key in ("PATH", "PYTHONPATH", "XDG_CACHE_HOME") if key in os.environ}
    here = {**known, "PYTHONPATH": str(Path(__file__).parents[2]), "HOME": os.getcwd()}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=here, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    left = [path for folder in (Path(), Path(here["XDG_CACHE_HOME"])) for path in folder.rglob("*") if path.is_file()]
    assert left == [Path("net.onnx")]
