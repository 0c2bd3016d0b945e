"""FINE-TUNE: matrix products."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from srr_onnx.finetuning.operators.call import Call, operator


@operator("Gemm", since=(7, 9, 11, 13))
def gemm(call: Call, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """`alpha A B + beta C`, either matrix transposed if asked for."""
    alpha, beta = call.attribute("alpha", 1.0), call.attribute("beta", 1.0)
    left = a.t() if call.attribute("transA", 0) else a
    right = b if call.attribute("transB", 0) else b.t()  # (outputs, inputs)
    if alpha == beta == 1 and (c is None or c.shape == right.shape[:1]):
        return functional.linear(left, right, c)
    product = left @ right.t()
    product = product if alpha == 1 else alpha * product
    if c is None or beta == 0:
        return product
    return product + (c if beta == 1 else beta * c)


@operator("MatMul", since=(1, 9, 13))
def matmul(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """The product as numpy defines it."""
    return a @ b


@operator("Einsum", since=(12,))
def einsum(call: Call, *operands: Tensor) -> Tensor:
    """The sum as numpy defines it."""
    return torch.einsum(call.attribute("equation").replace(" ", ""), *operands)
