from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from tests.finetuning.node_cases import call_node, check_gradients, failures, numbers, run_node


@pytest.mark.parametrize("op_type", ["Gemm", "MatMul", "Einsum"])
def test_node_cases(op_type: str) -> None:
    assert failures(op_type) == {}


@pytest.mark.parametrize("opset", [7, 9, 11, 13])
def test_gemm_is_the_runtime_s(opset: int) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((3, 4)).astype(np.float32), rng.standard_normal((4, 5)).astype(np.float32)
    thirds = [rng.standard_normal(shape).astype(np.float32) for shape in ((5,), (1, 5), (3, 1), (3, 5), (1,))]
    for left, right, alpha, beta, c in itertools.product((0, 1), (0, 1), (1.0, 0.5), (1.0, 2.0), [*thirds, None]):
        if c is None and opset < 11:
            continue
        operands = [a.T.copy() if left else a, b.T.copy() if right else b, *([] if c is None else [c])]
        attributes = {"transA": left, "transB": right, "alpha": alpha, "beta": beta}
        (wanted,) = run_node("Gemm", operands, opset, **attributes)
        (found,) = call_node("Gemm", list(map(torch.tensor, operands)), opset, **attributes)
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5, atol=1e-5)


def test_gradients() -> None:
    check_gradients("Gemm", [numbers(4, 3), numbers(5, 4), numbers(5)], 13, transA=1, transB=1, alpha=0.5)
    check_gradients("Gemm", [numbers(3, 4), numbers(5, 4), numbers(5)], 13, transB=1)
    check_gradients("MatMul", [numbers(2, 3, 4), numbers(4, 5)], 13)
    check_gradients("Einsum", [numbers(2, 3), numbers(3, 4)], 12, equation="i j, j k -> i k")
