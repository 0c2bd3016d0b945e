from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from srr_onnx.errors import UnsupportedError
from tests.finetuning.node_cases import call_node, check_gradients, failures, numbers, run_node

OPERATORS = ["MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"]
EXPECTED = {
    "test_maxpool_with_argmax_2d_precomputed_pads": "the places of the largest elements are refused",
    "test_maxpool_with_argmax_2d_precomputed_strides": "the places of the largest elements are refused",
}


@pytest.mark.parametrize("op_type", OPERATORS)
def test_node_cases(op_type: str) -> None:
    failed = failures(op_type)
    assert set(failed) == {name for name in EXPECTED if name.startswith(f"test_{op_type.lower()}_")}, failed


@pytest.mark.parametrize(
    ("op_type", "opset"),
    [("MaxPool", 7), ("MaxPool", 10), ("MaxPool", 12), ("MaxPool", 22), ("AveragePool", 7), ("AveragePool", 10),
     ("AveragePool", 11), ("AveragePool", 19), ("AveragePool", 22), ("LpPool", 18), ("LpPool", 22)],
)  # fmt: skip
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_windows_are_the_runtime_s(op_type: str, opset: int, rank: int) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, *(9, 8, 7)[:rank])).astype(np.float32)
    paddings: list[dict[str, Any]] = [{"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"}, {"auto_pad": "VALID"}]
    paddings += [{"pads": [1] * (2 * rank)}, {"pads": [0] * rank + [1] * rank}, {"pads": [1] * rank + [0] * rank}]
    has_dilations = opset >= (10 if op_type == "MaxPool" else 18)
    for padding, stride, ceil, dilation, counts in itertools.product(paddings, (1, 2), (0, 1), (1, 2), (0, 1)):
        attributes = {"kernel_shape": [3, 2, 3][:rank], "strides": [stride] * rank, **padding}
        if (ceil and opset < 10) or (dilation > 1 and not has_dilations) or (counts and op_type != "AveragePool"):
            continue  # attributes that the version has not
        attributes |= {"ceil_mode": 1} if ceil else {}
        attributes |= {"dilations": [dilation] * rank} if dilation > 1 else {}
        attributes |= {"count_include_pad": 1} if counts else {}
        (wanted,) = run_node(op_type, [x], opset, **attributes)
        (found,) = call_node(op_type, [torch.tensor(x)], opset, **attributes)
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-4, atol=1e-5, err_msg=str(attributes))


@pytest.mark.parametrize(
    ("op_type", "attributes"),
    [
        ("MaxPool", {"kernel_shape": [2, 3], "pads": [1, 0, 0, 1], "strides": [2, 1]}),
        ("AveragePool", {"kernel_shape": [2, 3], "pads": [1, 0, 0, 1], "count_include_pad": 1}),
        ("AveragePool", {"kernel_shape": [3, 3], "ceil_mode": 1, "strides": [2, 2]}),
        ("LpPool", {"kernel_shape": [2, 2]}),
        ("GlobalAveragePool", {}),
        ("GlobalMaxPool", {}),
        ("GlobalLpPool", {}),
    ],
)
def test_gradients(op_type: str, attributes: dict[str, Any]) -> None:
    check_gradients(op_type, [numbers(2, 2, 4, 5)], 22, **attributes)


def test_integers_are_pooled() -> None:
    x = np.array([[[3, 1, 2, 7]]], np.uint8)
    (found,) = call_node("MaxPool", [torch.tensor(x)], 12, kernel_shape=[2], strides=[2])
    assert found.tolist() == [[[3, 7]]]
    assert found.dtype == torch.uint8


def test_four_axes_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="4 spatial axes"):
        call_node("MaxPool", [numbers(1, 1, 2, 2, 2, 2)], 12, kernel_shape=[1] * 4)
