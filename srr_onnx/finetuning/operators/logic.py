"""FINE-TUNE: comparisons, logic, and what chooses between values by them. No gradient flows but through Where."""

from __future__ import annotations

import torch
from torch import Tensor

from srr_onnx.finetuning.operators.call import Call, operator


@operator("Equal", since=(7, 11, 13, 19))
def equal(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """Whether a = b, element by element."""
    return torch.eq(a, b)


@operator("Greater", since=(7, 9, 13))
def greater(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """Whether a > b, element by element."""
    return torch.gt(a, b)


@operator("GreaterOrEqual", since=(12, 16))
def greater_or_equal(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """Whether a >= b, element by element."""
    return torch.ge(a, b)


@operator("Less", since=(7, 9, 13))
def less(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """Whether a < b, element by element."""
    return torch.lt(a, b)


@operator("LessOrEqual", since=(12, 16))
def less_or_equal(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """Whether a <= b, element by element."""
    return torch.le(a, b)


@operator("And", since=(7,))
def logical_and(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """Whether both are true."""
    return torch.logical_and(a, b)


@operator("Or", since=(7,))
def logical_or(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """Whether one of them is true."""
    return torch.logical_or(a, b)


@operator("Xor", since=(7,))
def logical_xor(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """Whether exactly one of them is true."""
    return torch.logical_xor(a, b)


@operator("Not", since=(1,))
def logical_not(call: Call, x: Tensor) -> Tensor:
    """Whether it is false."""
    return torch.logical_not(x)


@operator("IsNaN", since=(9, 13, 20))
def is_nan(call: Call, x: Tensor) -> Tensor:
    """Whether it is no number."""
    return torch.isnan(x)


@operator("IsInf", since=(10, 20))
def is_inf(call: Call, x: Tensor) -> Tensor:
    """Whether it is infinite, of a sign that is asked for."""
    found = torch.zeros_like(x, dtype=torch.bool)
    if call.attribute("detect_positive", 1):
        found = found | torch.isposinf(x)
    if call.attribute("detect_negative", 1):
        found = found | torch.isneginf(x)
    return found


@operator("Where", since=(9, 16))
def where(call: Call, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The first where the condition holds, else the second."""
    return torch.where(condition, a, b)
