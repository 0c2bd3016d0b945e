from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.finetuning.node_cases import call_node, check_gradients, failures, numbers, run_node

REDUCTIONS = [f"Reduce{kind}" for kind in
              ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")]  # fmt: skip


@pytest.mark.parametrize("op_type", [*REDUCTIONS, "ArgMax", "ArgMin", "CumSum"])
def test_node_cases(op_type: str) -> None:
    assert failures(op_type) == {}


@pytest.mark.parametrize("op_type", REDUCTIONS)
@pytest.mark.parametrize("axes", [None, [1], [0, -1]])
def test_gradients(op_type: str, axes: list[int] | None) -> None:
    x = numbers(2, 3, 2).abs() + 0.1
    check_gradients(op_type, [x], 11, **({} if axes is None else {"axes": axes}))
    check_gradients(op_type, [x, None if axes is None else np.array(axes)], 18, keepdims=0)


def test_gradient_of_sums_up_to_here() -> None:
    check_gradients("CumSum", [numbers(2, 3), np.array(-1)], 14, reverse=1, exclusive=1)


@pytest.mark.parametrize("reverse", [0, 1])
def test_sums_of_what_came_before_lose_nothing(reverse: int) -> None:
    x = np.array([[3, 1e20, -np.inf, 5][:: 1 - 2 * reverse]], np.float32)
    (expected,) = run_node("CumSum", [x, np.array(1)], 14, exclusive=1, reverse=reverse)
    (found,) = call_node("CumSum", [x, np.array(1)], 14, exclusive=1, reverse=reverse)
    assert found.tolist() == expected.tolist()


def test_length_of_zero_has_a_slope() -> None:
    x = torch.zeros(3, requires_grad=True)
    call_node("ReduceL2", [x], 13)[0].sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 0, 0]


@pytest.mark.parametrize("op_type", REDUCTIONS)
@pytest.mark.parametrize("attributes", [{}, {"keepdims": 0}, {"noop_with_empty_axes": 1}])
def test_no_axes_are_those_of_onnxruntime(op_type: str, attributes: dict[str, Any]) -> None:
    x = np.abs(numbers(2, 3).numpy()).astype(np.float32) + np.float32(0.1)
    for axes in (None, np.zeros(0, np.int64)):
        (expected,) = run_node(op_type, [x, axes], 18, **attributes)
        (found,) = call_node(op_type, [x, axes], 18, **attributes)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("op_type", ["ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceMean", "ReduceL1"])
def test_integers_stay_integers(op_type: str) -> None:
    x = np.array([[1, -2], [7, 4]], np.int32)
    (expected,) = run_node(op_type, [x, np.array([0])], 18)
    (found,) = call_node(op_type, [x, np.array([0])], 18)
    assert found.dtype == torch.int32
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("op_type", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("last", [0, 1])
def test_of_equals_the_first_or_the_last(op_type: str, last: int) -> None:
    x = np.array([[1, 0, 1, 0]], np.float32)
    (expected,) = run_node(op_type, [x], 13, axis=1, select_last_index=last)
    (found,) = call_node(op_type, [x], 13, axis=1, select_last_index=last)
    assert found.tolist() == expected.tolist()
