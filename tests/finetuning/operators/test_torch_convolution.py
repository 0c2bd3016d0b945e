from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from srr_onnx.errors import UnsupportedError
from tests.finetuning.node_cases import call_node, check_gradients, failures, numbers, run_node

RNG = np.random.default_rng(0)
OPSETS = (7, 11, 22)  # the versions are 1, 11 and 22; from 7 on they differ in the types they allow only


def draw(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.standard_normal(shape).astype(np.float32)


def agree(op_type: str, operands: list[Any], opset: int, **attributes: Any) -> None:
    wanted = run_node(op_type, operands, opset, **attributes)
    found = call_node(op_type, [None if part is None else torch.tensor(part) for part in operands], opset, **attributes)
    assert found[0].shape == wanted[0].shape
    np.testing.assert_allclose(found[0].numpy(), wanted[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("op_type", ["Conv", "ConvTranspose"])
def test_node_cases(op_type: str) -> None:
    assert failures(op_type) == {}


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("padding", ["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID", "even", "uneven"])
def test_conv_is_the_runtime_s(opset: int, rank: int, groups: int, padding: str) -> None:
    x, weight, bias = draw(2, 4, *(9, 8, 7)[:rank]), draw(6, 4 // groups, *(3, 2, 4)[:rank]), draw(6)
    for stride, dilation, has_bias in itertools.product((1, 2, 3), (1, 2), (True, False)):
        attributes: dict[str, Any] = {"strides": [stride] * rank, "dilations": [dilation] * rank, "group": groups}
        if padding in ("even", "uneven"):
            attributes["pads"] = ([1] * (2 * rank)) if padding == "even" else [2, 0, 1][:rank] + [0, 3, 1][:rank]
        else:
            attributes["auto_pad"] = padding
        if padding.startswith("SAME") and dilation > 1:
            continue  # the runtime refuses it
        agree("Conv", [x, weight, bias] if has_bias else [x, weight], opset, **attributes)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"pads": [1, 1]},
        {"pads": [2, 0]},
        {"output_padding": [1]},
        {"pads": [0, 1], "output_padding": [1]},
        {"auto_pad": "SAME_UPPER"},
        {"auto_pad": "SAME_LOWER"},
        {"output_shape": [13]},
        {"output_shape": [12], "auto_pad": "SAME_UPPER"},
    ],
)
def test_conv_transpose_is_the_runtime_s(opset: int, rank: int, groups: int, attributes: dict[str, Any]) -> None:
    x, weight, bias = draw(2, 4, *(6, 6, 6)[:rank]), draw(4, 6 // groups, *(3, 3, 3)[:rank]), draw(6)
    spread: dict[str, Any] = {"strides": [2] * rank, "group": groups}
    for name, value in attributes.items():
        if name == "pads":
            spread[name] = [value[0]] * rank + [value[1]] * rank
        else:
            spread[name] = value * rank if isinstance(value, list) else value
    agree("ConvTranspose", [x, weight, bias], opset, **spread)


@pytest.mark.parametrize("padding", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("attributes", [{}, {"output_padding": [1, 2]}, {"output_shape": [18, 18]}])
def test_a_transposed_window_may_be_shorter_than_its_stride(padding: str, attributes: dict[str, Any]) -> None:
    x, weight, bias = draw(1, 2, 6, 6), draw(2, 3, 2, 1), draw(3)
    agree("ConvTranspose", [x, weight, bias], 11, strides=[3, 3], auto_pad=padding, **attributes)


@pytest.mark.parametrize("op_type", ["Conv", "ConvTranspose"])
def test_gradients(op_type: str) -> None:
    weight = numbers(4, 2, 3, 2) if op_type == "Conv" else numbers(2, 4, 3, 2)
    check_gradients(op_type, [numbers(2, 2, 5, 4), weight, numbers(4)], 11, pads=[1, 0, 0, 2], strides=[2, 1])


@pytest.mark.parametrize("op_type", ["Conv", "ConvTranspose"])
def test_four_axes_are_refused(op_type: str) -> None:
    with pytest.raises(UnsupportedError, match=rf"{op_type}-11\) has 4 spatial axes, which cannot be trained: cut"):
        call_node(op_type, [numbers(1, 1, 2, 2, 2, 2), numbers(1, 1, 1, 1, 1, 1)], 11)
