from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.finetuning.node_cases import call_node, check_gradients, failures, numbers

OPERATORS = [
    "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Tile", "Shape", "Size", "DepthToSpace",
    "SpaceToDepth",
]  # fmt: skip


@pytest.mark.parametrize("op_type", OPERATORS)
def test_node_cases(op_type: str) -> None:
    assert failures(op_type) == {}


@pytest.mark.parametrize(
    ("op_type", "shape", "operands", "opset", "attributes"),
    [
        ("Reshape", (2, 6), [np.array([0, 3, -1])], 13, {}),
        ("Transpose", (2, 3, 4), [], 13, {"perm": [2, 0, 1]}),
        ("Flatten", (2, 3, 4), [], 13, {"axis": -1}),
        ("Squeeze", (1, 3, 1), [], 11, {"axes": [-1]}),
        ("Unsqueeze", (3, 2), [np.array([-1, 0])], 13, {}),
        ("Expand", (3, 1), [np.array([2, 1, 4])], 13, {}),
        ("Tile", (2, 3), [np.array([2, 2])], 13, {}),
        ("DepthToSpace", (1, 8, 2, 3), [], 13, {"blocksize": 2, "mode": "CRD"}),
        ("SpaceToDepth", (1, 2, 4, 2), [], 13, {"blocksize": 2}),
    ],
)
def test_gradients(op_type: str, shape: Any, operands: list[Any], opset: int, attributes: dict[str, Any]) -> None:
    check_gradients(op_type, [numbers(*shape), *operands], opset, **attributes)


@pytest.mark.parametrize(
    ("opset", "attributes", "operands"), [(7, {"axes": [0, 2]}, []), (13, {}, [np.array([0, -1])])]
)
def test_axes_move_from_attribute_to_input(opset: int, attributes: dict[str, Any], operands: list[Any]) -> None:
    (wide,) = call_node("Unsqueeze", [numbers(3), *operands], opset, **attributes)
    assert wide.shape == (1, 3, 1)
    (narrow,) = call_node("Squeeze", [wide, *operands], opset, **attributes)
    assert torch.equal(narrow, numbers(3))


def test_reshape_of_nothing_finds_the_open_size() -> None:
    (found,) = call_node("Reshape", [torch.zeros(0, 4), np.array([-1, 2])], 13)
    assert found.shape == (0, 2)
    (literal,) = call_node("Reshape", [torch.zeros(0, 4), np.array([3, 0])], 14, allowzero=1)
    assert literal.shape == (3, 0)


def test_sizes_are_host_values() -> None:
    (shape,) = call_node("Shape", [torch.zeros(2, 3, 4)], 15, start=1, end=-1)
    assert isinstance(shape, np.ndarray)
    assert shape.tolist() == [3]
    (count,) = call_node("Size", [torch.zeros(2, 3)], 13)
    assert isinstance(count, np.ndarray)
    assert (count.tolist(), count.dtype) == (6, np.int64)


def test_integers_keep_their_type() -> None:
    (found,) = call_node("Unsqueeze", [torch.tensor([1, 2], dtype=torch.int32), np.array([0])], 13)
    assert found.dtype == torch.int32
