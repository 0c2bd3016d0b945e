"""Architectures of the model zoo that come with the onnx package, of opset 9, with random weights."""

from __future__ import annotations

import onnx
import pytest
from builders import load_recipe

from srr_onnx.graph.load import load_model
from srr_onnx.pipeline import prune


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet", "densenet121", "inception_v1", "inception_v2"])
def test_three_tenths_of_the_flops_go(name):
    script = load_recipe("fill_light")
    model = onnx.load(script.LIGHT / f"light_{name}.onnx")
    script.fill(model)
    result = prune(load_model(model), flops=0.3)
    assert 0.3 <= result.plan.macs_removed <= 0.305
    assert result.plan.proof["is_exact"]
    assert result.plan.proof["relative_error"] < 1e-4
    assert not [entry for entry in result.plan.frozen if entry["reason"] == "unproven"]
