"""FINE-TUNE: functions of single elements that bend, and those that share out along an axis."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from srr_onnx.finetuning.operators.call import Call, operator

# Functions without attributes, by operator: versions and what computes them.
_PLAIN: dict[str, tuple[tuple[int, ...], Callable[[Tensor], Tensor]]] = {
    "HardSwish": ((14, 22), functional.hardswish),
    "Mish": ((18, 22), functional.mish),
    "Relu": ((6, 13, 14), torch.relu),
    "Sigmoid": ((6, 13), torch.sigmoid),
    "Softplus": ((1, 22), functional.softplus),
    "Softsign": ((1, 22), functional.softsign),
    "Tanh": ((6, 13), torch.tanh),
    "Erf": ((9, 13), torch.erf),
}


def _enter(op_type: str, since: tuple[int, ...], function: Callable[[Tensor], Tensor]) -> None:
    operator(op_type, since)(lambda call, x: function(x))


for _name, (_since, _function) in _PLAIN.items():
    _enter(_name, _since, _function)


@operator("LeakyRelu", since=(6, 16))
def leaky_relu(call: Call, x: Tensor) -> Tensor:
    """`x`, below zero `alpha x`."""
    return functional.leaky_relu(x, call.attribute("alpha", 0.01))


@operator("PRelu", since=(7, 9, 16))
def prelu(call: Call, x: Tensor, slope: Tensor) -> Tensor:
    """`x`, below zero `slope x`; the slope broadcasts."""
    return torch.where(x < 0, slope * x, x)


@operator("Elu", since=(6, 22))
def elu(call: Call, x: Tensor) -> Tensor:
    """`x`, below zero `alpha (e^x - 1)`."""
    return functional.elu(x, call.attribute("alpha", 1.0))


@operator("Selu", since=(6, 22))
def selu(call: Call, x: Tensor) -> Tensor:
    """`gamma x`, below zero `gamma alpha (e^x - 1)`."""
    gamma, alpha = (
        call.attribute("gamma", 1.05070102214813232421875),
        call.attribute("alpha", 1.67326319217681884765625),
    )
    return torch.mul(functional.elu(x, alpha), gamma)


@operator("Celu", since=(12,))
def celu(call: Call, x: Tensor) -> Tensor:
    """`x`, below zero `alpha (e^(x / alpha) - 1)`."""
    return functional.celu(x, call.attribute("alpha", 1.0))


@operator("HardSigmoid", since=(6, 22))
def hard_sigmoid(call: Call, x: Tensor) -> Tensor:
    """`alpha x + beta` between 0 and 1."""
    return torch.clamp(call.attribute("alpha", 0.2) * x + call.attribute("beta", 0.5), 0, 1)


@operator("Swish", since=(24,))
def swish(call: Call, x: Tensor) -> Tensor:
    """`x sigmoid(alpha x)`."""
    alpha = call.attribute("alpha", 1.0)
    return functional.silu(x) if alpha == 1 else x * torch.sigmoid(alpha * x)


@operator("ThresholdedRelu", since=(10, 22))
def thresholded_relu(call: Call, x: Tensor) -> Tensor:
    """`x` above a threshold, else 0."""
    return torch.where(x > call.attribute("alpha", 1.0), x, torch.zeros((), dtype=x.dtype, device=x.device))


@operator("Shrink", since=(9,))
def shrink(call: Call, x: Tensor) -> Tensor:
    """`x` drawn towards zero by a bias outside `[-lambd, lambd]`, 0 inside."""
    edge, bias = call.attribute("lambd", 0.5), call.attribute("bias", 0.0)
    zero = torch.zeros((), dtype=x.dtype, device=x.device)
    return torch.where(x < -edge, x + bias, torch.where(x > edge, x - bias, zero)).to(x.dtype)


@operator("Gelu", since=(20,))
def gelu(call: Call, x: Tensor) -> Tensor:
    """`x` times the normal distribution's share below it; by tanh if asked for."""
    return functional.gelu(x, approximate=call.attribute("approximate", "none"))


@operator("Clip", since=(6, 11, 12, 13), host=(1, 2))
def clip(call: Call, x: Tensor, least: np.ndarray | None = None, most: np.ndarray | None = None) -> Tensor:
    """Between two bounds; where they cross, the upper one counts. Attributes before version 11."""
    low = call.attribute("min") if least is None else least.item()
    high = call.attribute("max") if most is None else most.item()
    if low is not None and high is not None and low <= high and x.is_floating_point():
        # What torch's own ReLU6 is: no gradient at the bounds, in one pass over the numbers instead of three.
        return functional.hardtanh(x, low, high)
    return x if low is None and high is None else torch.clamp(x, low, high)


@operator("Softmax", since=(1, 11, 13))
def softmax(call: Call, x: Tensor) -> Tensor:
    """Shares that sum to 1 along an axis; before version 13 over all axes from that one on."""
    return _along(call, x, lambda rows, axis: torch.softmax(rows, axis))


@operator("LogSoftmax", since=(1, 11, 13))
def log_softmax(call: Call, x: Tensor) -> Tensor:
    """Logarithm of the softmax."""
    return _along(call, x, lambda rows, axis: torch.log_softmax(rows, axis))


@operator("Hardmax", since=(1, 11, 13))
def hardmax(call: Call, x: Tensor) -> Tensor:
    """1 at the first largest element, 0 elsewhere."""
    return _along(call, x, lambda rows, axis: torch.zeros_like(rows).scatter(axis, rows.argmax(axis, keepdim=True), 1))


def _along(call: Call, x: Tensor, function: Callable[[Tensor, int], Tensor]) -> Tensor:
    if call.since >= 13:
        return function(x, call.attribute("axis", -1))
    axis = call.attribute("axis", 1) % max(x.dim(), 1)
    return function(x.reshape(math.prod(x.shape[:axis]), -1), 1).reshape(x.shape)
