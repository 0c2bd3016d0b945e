from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from srr_onnx.errors import UnsupportedError
from tests.finetuning.node_cases import call_node, check_gradients, failures, numbers, run_node

PICTURES = np.random.default_rng(0).standard_normal((2, 3, 6, 8)).astype(np.float32)
REGIONS = np.array([[0, 0, 7, 5], [1.3, 0.7, 4.2, 5.9], [-3, -2, 2, 2], [5, 4, 5.2, 4.1], [6, 5, 12, 9]], np.float32)
SAMPLES = np.array([0, 1, 1, 0, 1])


@pytest.mark.parametrize("op_type", ["GridSample", "RoiAlign"])
def test_node_cases(op_type: str) -> None:
    assert failures(op_type) == {}


@pytest.mark.parametrize(("opset", "mode"), [(16, "bilinear"), (16, "bicubic"), (20, "linear"), (22, "cubic")])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("is_aligned", [0, 1])
def test_samples_are_those_of_onnxruntime(opset: int, mode: str, padding: str, is_aligned: int) -> None:
    grid = np.random.default_rng(1).uniform(-1.4, 1.4, (2, 4, 5, 2)).astype(np.float32)
    attributes = {"mode": mode, "padding_mode": padding, "align_corners": is_aligned}
    (expected,) = run_node("GridSample", [PICTURES, grid], opset, **attributes)
    (found,) = call_node("GridSample", [PICTURES, grid], opset, **attributes)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize(
    ("opset", "attributes"),
    [(10, {}), (16, {}), (16, {"coordinate_transformation_mode": "output_half_pixel"}), (16, {"spatial_scale": 0.5})],
)
def test_regions_are_those_of_onnxruntime(opset: int, attributes: dict[str, Any], mode: str, ratio: int) -> None:
    sizes = {"output_height": 3, "output_width": 2, "mode": mode, "sampling_ratio": ratio}
    (expected,) = run_node("RoiAlign", [PICTURES, REGIONS, SAMPLES], opset, **sizes, **attributes)
    (found,) = call_node("RoiAlign", [PICTURES, REGIONS, SAMPLES], opset, **sizes, **attributes)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    if opset == 16:  # the next version only takes more types, and onnxruntime has none of it
        (newest,) = call_node("RoiAlign", [PICTURES, REGIONS, SAMPLES], 22, **sizes, **attributes)
        assert torch.equal(newest, found)


def test_no_regions() -> None:
    (found,) = call_node("RoiAlign", [PICTURES, REGIONS[:0], SAMPLES[:0]], 16, output_height=3, output_width=2)
    assert found.shape == (0, 3, 3, 2)


def test_gradients() -> None:
    check_gradients("GridSample", [numbers(1, 2, 3, 3), numbers(1, 2, 2, 2) * 0.3], 16)
    x = numbers(1, 1, 5, 5)

    def function(x: torch.Tensor) -> torch.Tensor:
        operands = [x, torch.tensor([[0.3, 0.4, 3.0, 4.0]]), torch.tensor([0])]
        return call_node("RoiAlign", operands, 16, output_height=2, output_width=2, sampling_ratio=2)[0]  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(function, [x.requires_grad_()])


def test_cubic_volumes_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="volumes"):
        call_node("GridSample", [torch.zeros(1, 1, 2, 2, 2), torch.zeros(1, 1, 1, 1, 3)], 20, mode="cubic")
