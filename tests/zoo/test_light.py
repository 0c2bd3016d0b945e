"""Architectures of the model zoo that come with the onnx package, of opset 9, with random weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import onnx
import pytest

from srr_onnx.graph.load import load_model
from srr_onnx.pipeline import prune

SCRIPT = Path(__file__).resolve().parents[2] / "models" / "fill_light.py"


def recipe():
    spec = importlib.util.spec_from_file_location("fill_light", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet", "densenet121", "inception_v1", "inception_v2"])
def test_three_tenths_of_the_flops_go(name):
    script = recipe()
    model = onnx.load(script.LIGHT / f"light_{name}.onnx")
    script.fill(model)
    result = prune(load_model(model), flops=0.3)
    assert 0.3 <= result.plan.macs_removed <= 0.305
    assert result.plan.proof["is_exact"]
    assert result.plan.proof["relative_error"] < 1e-4
    assert not [entry for entry in result.plan.frozen if entry["reason"] == "unproven"]
