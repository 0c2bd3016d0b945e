from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.finetuning.node_cases import call_node, check_gradients, failures, numbers, run_node


@pytest.mark.parametrize("op_type", ["Concat", "Split", "Slice", "Pad"])
def test_node_cases(op_type: str) -> None:
    assert failures(op_type) == {}


@pytest.mark.parametrize(
    ("op_type", "operands", "opset", "outputs", "attributes"),
    [
        ("Concat", [numbers(2, 3), numbers(2, 1)], 13, 1, {"axis": -1}),
        ("Split", [numbers(5, 2), np.array([3, 2])], 13, 2, {}),
        ("Slice", [numbers(4, 5), np.array([1, 4]), np.array([3, -9]), np.array([0, 1]), np.array([1, -2])], 13, 1, {}),
        ("Pad", [numbers(2, 3), np.array([1, 0, 0, 2])], 13, 1, {}),
        ("Pad", [numbers(4, 3), np.array([2, 1, 0, 2])], 19, 1, {"mode": "reflect"}),
        ("Pad", [numbers(4, 3), np.array([2, 1, 0, 2])], 19, 1, {"mode": "edge"}),
        ("Pad", [numbers(4, 3), np.array([2, 1, 0, 2])], 19, 1, {"mode": "wrap"}),
    ],
)
def test_gradients(op_type: str, operands: list[Any], opset: int, outputs: int, attributes: dict[str, Any]) -> None:
    check_gradients(op_type, operands, opset, outputs, **attributes)


def test_split_by_attribute_and_by_the_number_of_outputs() -> None:
    x = numbers(5)
    sizes = [len(part) for part in call_node("Split", [x], 11, 2, split=[4, 1])]
    assert sizes == [4, 1]
    assert [len(part) for part in call_node("Split", [numbers(6)], 11, 3)] == [2, 2, 2]
    assert [len(part) for part in call_node("Split", [x], 18, 3, num_outputs=3)] == [2, 2, 1]


@pytest.mark.parametrize("step", [-3, -2, -1, 1, 2])
@pytest.mark.parametrize("end", [np.iinfo(np.int64).min, -9, -5, -1, 0, 2, 4, 9, np.iinfo(np.int64).max])
@pytest.mark.parametrize("start", [-9, -3, 0, 3, 9])
def test_slice_is_that_of_onnxruntime(start: int, end: int, step: int) -> None:
    x = np.arange(10).reshape(2, 5)
    bounds = [np.array([number]) for number in (start, end, 1, step)]
    (found,) = call_node("Slice", [x, *bounds], 13)
    (expected,) = run_node("Slice", [x, *bounds], 13)
    assert np.array_equal(found.numpy(), expected)


def test_slice_by_attributes() -> None:
    (found,) = call_node("Slice", [numbers(4, 5)], 7, starts=[1, -3], ends=[100, -1], axes=[1, 0])
    assert torch.equal(found, numbers(4, 5)[1:3, 1:])


@pytest.mark.parametrize("step", [np.iinfo(np.int32).min, -(2**40), 2**31, np.iinfo(np.int64).max])
def test_a_slice_may_step_beyond_everything(step: int) -> None:
    x = np.arange(10).reshape(5, 2)
    bounds = [np.array([number]) for number in (3, 0 if step < 0 else 5, 0, step)]
    (found,) = call_node("Slice", [x, *bounds], 13)
    (expected,) = run_node("Slice", [x, *bounds], 13)
    assert found.tolist() == expected.tolist() == [[6, 7]]


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
@pytest.mark.parametrize("pads", [[0, 2, 0, 1], [1, 0, 2, 3], [-1, 1, 0, -2], [2, 3, -1, -1], [-2, -2, 1, 2]])
def test_pad_is_that_of_onnxruntime(mode: str, pads: list[int]) -> None:
    x = np.arange(20, dtype=np.float32).reshape(4, 5)
    (expected,) = run_node("Pad", [x, np.array(pads)], 19, mode=mode)
    (found,) = call_node("Pad", [x, np.array(pads)], 19, mode=mode)
    assert np.array_equal(found.numpy(), expected)
    (old,) = call_node("Pad", [x], 7, mode=mode, pads=pads)
    assert np.array_equal(old.numpy(), expected)


def test_pad_with_a_number() -> None:
    (found,) = call_node("Pad", [numbers(2), np.array([1, 0]), np.array(7.0)], 11)
    assert found[0] == 7
    (old,) = call_node("Pad", [numbers(2)], 7, pads=[1, 0], value=5.0)
    assert old[0] == 5
