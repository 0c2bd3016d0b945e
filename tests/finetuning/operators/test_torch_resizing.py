from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from srr_onnx.errors import UnsupportedError
from tests.finetuning.node_cases import call_node, check_gradients, failures, numbers, run_node

COORDINATES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_half_pixel_for_nn",
               "tf_crop_and_resize", "half_pixel_symmetric"]  # fmt: skip
MODES: list[dict[str, Any]] = [
    *({"mode": "nearest", "nearest_mode": f"{kind}"} for kind in
      ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")),
    {"mode": "linear"},
    {"mode": "cubic"},
    {"mode": "cubic", "exclude_outside": 1, "cubic_coeff_a": -0.5},
]  # fmt: skip
# Of a picture of 5 x 7; scales times sizes are mostly not whole.
SCALES = [(1, 1), (2, 2), (1, 2), (0.6, 0.5), (1.3, 2.5), (1.1, 0.9), (0.35, 3.3), (1.1, 1.1)]
SIZES = [(5, 7), (10, 14), (3, 4), (1, 1), (6, 7), (7, 17), (5, 3)]
PICTURE = np.random.default_rng(0).standard_normal((1, 2, 5, 7)).astype(np.float32)
NOTHING = np.zeros(0, np.float32)


def test_node_cases() -> None:
    assert failures("Upsample") == {}
    failed = failures("Resize")
    # onnxruntime takes the whole size as the resized length, ONNX's reference the size with its fraction
    fractions = {f"test_resize_downsample_scales_{mode}_align_corners" for mode in ("linear", "cubic")}
    filters = {f"test_resize_downsample_{by}_{mode}_antialias" for by in ("scales", "sizes")
               for mode in ("linear", "cubic")}  # fmt: skip
    assert set(failed) == fractions | filters
    assert all("antialias" in failed[name] for name in filters)


@pytest.mark.parametrize("opset", [11, 13, 18, 19])
@pytest.mark.parametrize("coordinates", COORDINATES)
def test_resize_is_that_of_onnxruntime(opset: int, coordinates: str) -> None:
    attributes: dict[str, Any] = {"coordinate_transformation_mode": coordinates}
    roi = NOTHING if opset == 11 else None
    if coordinates == "tf_crop_and_resize":
        attributes["extrapolation_value"] = 3.5
        roi = np.array([0, 0, 0.1, 0.3, 1, 1, 0.8, 1.2], np.float32)
    targets = [[roi, np.array([1, 1, *scales], np.float32)] for scales in SCALES]
    targets += [[roi, NOTHING if opset == 11 else None, np.array([1, 2, *sizes])] for sizes in SIZES]
    for target in targets:
        for mode in MODES:
            (expected,) = run_node("Resize", [PICTURE, *target], opset, **attributes, **mode)
            (found,) = call_node("Resize", [PICTURE, *target], opset, **attributes, **mode)
            assert found.shape == expected.shape
            np.testing.assert_allclose(found.numpy(), expected, atol=1e-5, err_msg=f"{target} {mode}")


@pytest.mark.parametrize("nearest", ["round_prefer_floor", "round_prefer_ceil"])
def test_a_place_near_the_middle_is_rounded_as_onnxruntime_does(nearest: str) -> None:
    for before in range(1, 16):
        x = np.arange(before, dtype=np.float32).reshape(1, 1, 1, before)
        for after in range(1, 16):
            target = [None, None, np.array([1, 1, 1, after])]
            mode = {"nearest_mode": nearest, "coordinate_transformation_mode": "asymmetric"}
            (expected,) = run_node("Resize", [x, *target], 18, **mode)
            (found,) = call_node("Resize", [x, *target], 18, **mode)
            assert found.tolist() == expected.tolist()


@pytest.mark.parametrize(("op_type", "opset"), [("Upsample", 7), ("Upsample", 9), ("Resize", 10)])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_old_versions_are_those_of_onnxruntime(op_type: str, opset: int, mode: str) -> None:
    for scales in ((2, 2), (1, 2), (1.3, 2.5), (1.5, 1), (0.6, 0.5)):
        if op_type == "Upsample" and min(scales) < 1:
            continue
        operands = [np.array([1, 1, *scales], np.float32)] if opset > 7 else []
        attributes = {} if opset > 7 else {"scales": [1.0, 1.0, *map(float, scales)]}
        (expected,) = run_node(op_type, [PICTURE, *operands], opset, mode=mode, **attributes)
        (found,) = call_node(op_type, [PICTURE, *operands], opset, mode=mode, **attributes)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("policy", ["stretch", "not_larger", "not_smaller"])
@pytest.mark.parametrize("axes", [[2, 3], [3, 2]])
def test_policies_are_those_of_onnxruntime(policy: str, axes: list[int]) -> None:
    for sizes in ((9, 10), (3, 9), (4, 4)):
        target = [None, None, np.array(sizes)]
        attributes = {"axes": axes, "keep_aspect_ratio_policy": policy, "mode": "nearest"}
        (expected,) = run_node("Resize", [PICTURE, *target], 18, **attributes)
        (found,) = call_node("Resize", [PICTURE, *target], 18, **attributes)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(7,), (5, 7), (2, 3, 5), (1, 1, 2, 3, 4)])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_other_ranks_are_those_of_onnxruntime(shape: tuple[int, ...], mode: str) -> None:
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    scales = np.array([1.6] * len(shape) if len(shape) < 3 else [1] * (len(shape) - 2) + [1.6, 2.3], np.float32)
    if mode == "linear" and len(shape) == 1:
        return  # the runtime refuses it
    (expected,) = run_node("Resize", [x, None, scales], 13, mode=mode)
    (found,) = call_node("Resize", [x, None, scales], 13, mode=mode)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("scale", [0.6, 1.7])
def test_gradients(mode: str, scale: float) -> None:
    scales = np.array([1, 1, scale, 2], np.float32)
    check_gradients("Resize", [numbers(1, 2, 4, 3), None, scales], 13, mode=mode)


def test_integers_stay_integers() -> None:
    x = (PICTURE * 50).astype(np.int32)
    target = [None, np.array([1, 1, 2, 2], np.float32)]
    (expected,) = run_node("Resize", [x, *target], 13, mode="nearest")
    (found,) = call_node("Resize", [x, *target], 13, mode="nearest")
    assert found.dtype == torch.int32
    assert np.array_equal(found.numpy(), expected)


def test_a_filter_is_refused() -> None:
    scales = np.array([1, 1, 0.5, 0.5], np.float32)
    with pytest.raises(UnsupportedError, match="antialias"):
        call_node("Resize", [PICTURE, None, scales], 18, mode="linear", antialias=1)
