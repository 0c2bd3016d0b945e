from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.finetuning.node_cases import call_node, check_gradients, failures, numbers, run_node

# Operator, the oldest operator set that it is tried in, attributes.
FUNCTIONS: list[tuple[str, int, dict[str, Any]]] = [
    ("Relu", 7, {}),
    ("LeakyRelu", 7, {"alpha": 0.3}),
    ("Elu", 7, {"alpha": 0.5}),
    ("Selu", 7, {"alpha": 2.0, "gamma": 0.5}),
    ("Celu", 12, {"alpha": 0.5}),
    ("Sigmoid", 7, {}),
    ("HardSigmoid", 7, {"alpha": 0.3, "beta": 0.4}),
    ("HardSwish", 14, {}),
    ("Swish", 24, {"alpha": 0.5}),
    ("Mish", 18, {}),
    ("Softplus", 7, {}),
    ("Softsign", 7, {}),
    ("ThresholdedRelu", 10, {"alpha": 0.4}),
    ("Gelu", 20, {"approximate": "tanh"}),
    ("Gelu", 20, {}),
    ("Tanh", 7, {}),
    ("Erf", 9, {}),
    ("Clip", 7, {"min": -0.4, "max": 0.3}),
    ("Softmax", 7, {"axis": 1}),
    ("Softmax", 13, {"axis": 1}),
    ("LogSoftmax", 11, {"axis": 1}),
    ("LogSoftmax", 13, {}),
    ("Shrink", 9, {"bias": 0.2, "lambd": 0.3}),
]
NAMES = sorted({name for name, _, _ in FUNCTIONS} | {"PRelu", "Hardmax"})


@pytest.mark.parametrize("op_type", NAMES)
def test_node_cases(op_type: str) -> None:
    assert failures(op_type) == {}


@pytest.mark.parametrize(("op_type", "opset", "attributes"), FUNCTIONS)
def test_gradients(op_type: str, opset: int, attributes: dict[str, Any]) -> None:
    check_gradients(op_type, [numbers(2, 3, 4)], opset, **attributes)


@pytest.mark.parametrize("slope", [(1,), (3, 1), (2, 3, 4)])
def test_slopes_learn(slope: tuple[int, ...]) -> None:
    check_gradients("PRelu", [numbers(2, 3, 4), numbers(*slope)], 16)


@pytest.mark.parametrize(("op_type", "opset", "attributes"), [f for f in FUNCTIONS if f[0] not in ("Swish", "Mish")])
def test_functions_are_the_runtime_s(op_type: str, opset: int, attributes: dict[str, Any]) -> None:
    x = (4 * numbers(2, 3, 4)).float().numpy()
    (wanted,) = run_node(op_type, [x], opset, **attributes)
    (found,) = call_node(op_type, [torch.tensor(x)], opset, **attributes)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_before_version_13_all_axes_from_one_on_are_shared_out(op_type: str, axis: int) -> None:
    x = numbers(2, 3, 4).float().numpy()
    (wanted,) = run_node(op_type, [x], 11, axis=axis)
    (found,) = call_node(op_type, [torch.tensor(x)], 11, axis=axis)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5, atol=1e-6)


def test_crossed_bounds_give_the_upper_one() -> None:
    (found,) = call_node("Clip", [torch.tensor([-2.0, 0.0, 2.0]), np.array(1.0), np.array(-1.0)], 13)
    assert found.tolist() == [-1, -1, -1]


def test_at_the_bounds_there_is_no_gradient_as_in_torch_s_own_relu6() -> None:
    gradients = []
    for compute in (torch.nn.functional.relu6, lambda x: call_node("Clip", [x, np.array(0.0), np.array(6.0)], 13)[0]):
        x = torch.tensor([-1.0, 0.0, 3.0, 6.0, 7.0], requires_grad=True)
        compute(x).sum().backward()
        gradients.append(x.grad)
    assert torch.equal(*gradients)


def test_whole_numbers_are_clipped_too() -> None:
    (found,) = call_node("Clip", [torch.tensor([-2, 0, 2]), np.array(-1), np.array(1)], 13)
    assert found.tolist() == [-1, 0, 1]
