from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from srr_onnx.errors import UnsupportedError
from srr_onnx.finetuning.operators.call import OPERATORS as REGISTERED
from srr_onnx.finetuning.operators.call import Call
from srr_onnx.graph.model import Node
from tests.finetuning.node_cases import call_node, cases_of, check_gradients, failures, numbers, run_node

# What lies in the domain of every function.
UNARY: dict[str, tuple[int, float]] = {
    "Abs": (13, 1), "Acos": (22, 0.3), "Asin": (22, 0.3), "Asinh": (22, 1), "Atan": (22, 1), "Atanh": (22, 0.3),
    "Cos": (22, 1), "Cosh": (22, 1), "Exp": (13, 1), "Identity": (24, 1), "Neg": (13, 1), "Reciprocal": (13, 1),
    "Sin": (22, 1), "Sinh": (22, 1), "Tan": (22, 0.3),
}  # fmt: skip
PLAIN = ["Acosh", "Ceil", "Floor", "Log", "Round", "Sign", "Sqrt", "Add", "Sub", "Mul", "Div", "Pow", "Max", "Min",
         "Sum", "Mean", "Mod", "ConstantOfShape"]  # fmt: skip
# Cases that fail, and why.
FOREIGN = {
    r"test_(add|div|max|min|mod|sub)_uint(16|32|64)$": "torch does not compute in these types",
    r"test_identity_(opt|sequence)": "there are tensors only",
}
FOREIGN_TYPES = {
    "FLOAT8|FLOAT4|INT4|INT2|STRING|E8M0|e8m0": "torch has no such types, or they are refused",
    "to_BFLOAT16": "bfloat16 is computed in float32, so nothing is rounded",
}


@pytest.mark.parametrize("op_type", [*UNARY, *PLAIN])
def test_node_cases(op_type: str) -> None:
    failed = failures(op_type)
    assert set(failed) == {name for name in cases_of(op_type) if re.search("|".join(FOREIGN), name)}, failed


@pytest.mark.parametrize("op_type", ["Cast", "CastLike"])
def test_node_cases_of_types(op_type: str) -> None:
    failed = failures(op_type)
    expected = {name for name in cases_of(op_type) if re.search("|".join(FOREIGN_TYPES), name)}
    assert set(failed) <= expected, failed
    assert set(failed) > {name for name in expected if "FLOAT8" in name or "STRING" in name}


def test_node_cases_of_dropout() -> None:
    failed = failures("Dropout")
    assert {name for name in failed if "training" not in name} == set(), failed


@pytest.mark.parametrize("op_type", UNARY)
def test_gradients(op_type: str) -> None:
    opset, scale = UNARY[op_type]
    check_gradients(op_type, [(numbers(2, 3).clamp(-2, 2) * scale).detach()], opset)


@pytest.mark.parametrize("op_type", ["Acosh", "Log", "Sqrt"])
def test_gradients_above_one(op_type: str) -> None:
    check_gradients(op_type, [numbers(2, 3).abs() + 1.5], 22)


@pytest.mark.parametrize("op_type", ["Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean"])
@pytest.mark.parametrize("opset", [8, 14])
def test_gradients_of_two(op_type: str, opset: int) -> None:
    check_gradients(op_type, [numbers(2, 3, 4), numbers(3, 1) + 3], opset)


def test_gradients_of_powers() -> None:
    check_gradients("Pow", [numbers(2, 3).abs() + 1, numbers(3)], 15)


def test_quotients_of_integers_are_cut_towards_zero() -> None:
    (found,) = call_node("Div", [torch.tensor([-7, 7]), torch.tensor([2, -2])], 7)
    assert found.tolist() == [-3, -3]


def test_powers_keep_the_type_of_the_base() -> None:
    (found,) = call_node("Pow", [torch.tensor([2, 3]), torch.tensor([2.0, 0.5])], 15)
    assert found.dtype == torch.int64
    assert found.tolist() == [4, 1]


def drop(**call: bool) -> Any:
    node = Node(0, "Dropout", "", 13, "", ("x", "r"), ("y", "mask"), {})
    torch.manual_seed(0)
    function = REGISTERED.get(("", "Dropout", 13)).function
    return function(Call(node, **call), torch.ones(1000), np.array(0.25))


def test_dropout_does_nothing_unless_it_is_asked_for() -> None:
    found, mask = drop(is_training=True)
    assert torch.equal(found, torch.ones(1000))
    assert mask.all()
    found, mask = drop(is_training=True, drops=True)
    assert torch.allclose(found[mask], torch.tensor(4 / 3))
    assert torch.equal(found != 0, mask)
    assert 200 < 1000 - int(mask.sum()) < 300


@pytest.mark.parametrize("opset", [7, 10, 12, 13, 22])
def test_the_mask_of_dropout_is_that_of_onnxruntime(opset: int) -> None:
    x = np.ones((2, 3), np.float32)
    (_, expected), (_, found) = (run("Dropout", [x], opset, 2) for run in (run_node, call_node))
    assert np.asarray(found).dtype == expected.dtype
    assert found.tolist() == expected.tolist()


def test_types_that_torch_has_not_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="makes STRING"):
        call_node("Cast", [numbers(2)], 13, to=TensorProto.STRING)


def test_all_floats_are_the_module_s() -> None:
    for kind in (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE):
        (found,) = call_node("Cast", [torch.tensor([1e6])], 13, to=kind)
        assert found.dtype == torch.float32
        assert found.tolist() == [1e6]


def test_one_number_everywhere() -> None:
    value = helper.make_tensor("v", TensorProto.INT32, [1], [7])
    (found,) = call_node("ConstantOfShape", [np.array([2, 1])], 9, value=value)
    assert found.tolist() == [[7], [7]]
    assert found.dtype == torch.int32
