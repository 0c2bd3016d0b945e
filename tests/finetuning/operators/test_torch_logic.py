from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.finetuning.node_cases import call_node, cases_of, check_gradients, failures, numbers

COMPARISONS = ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"]


@pytest.mark.parametrize("op_type", ["And", "Or", "Xor", "Not", "IsNaN", "IsInf", "Where"])
def test_node_cases(op_type: str) -> None:
    assert failures(op_type) == {}


@pytest.mark.parametrize("op_type", COMPARISONS)
def test_node_cases_of_comparisons(op_type: str) -> None:
    # torch has no text, and compares no unsigned integers of more than 8 bits but for being equal
    foreign = ("string",) if op_type == "Equal" else ("uint16", "uint32", "uint64")
    assert set(failures(op_type)) == {name for name in cases_of(op_type) if any(kind in name for kind in foreign)}


def test_gradients() -> None:
    check_gradients("Where", [torch.tensor([True, False, True]), numbers(2, 3), numbers(1, 3)], 16)


@pytest.mark.parametrize("op_type", COMPARISONS)
@pytest.mark.parametrize("opset", [7, 12, 19])
def test_comparisons_are_the_same_in_all_versions(op_type: str, opset: int) -> None:
    if op_type.endswith("OrEqual") and opset < 12:
        return
    a, b = np.array([1, 2, 3]), np.array([2])
    expected = {
        "Equal": a == b, "Greater": a > b, "GreaterOrEqual": a >= b, "Less": a < b, "LessOrEqual": a <= b
    }[op_type]  # fmt: skip
    (found,) = call_node(op_type, [a, b], opset)
    assert found.tolist() == expected.tolist()
