"""FINE-TUNE: arithmetic on single elements, types, and what passes values on as they are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor
from torch.nn import functional

from srr_onnx.finetuning.operators.call import Call, operator

# Functions of one element, by operator: versions and what computes them.
_UNARY: dict[str, tuple[tuple[int, ...], Callable[[Tensor], Tensor]]] = {
    "Abs": ((6, 13), torch.abs),
    "Acos": ((7, 22), torch.acos),
    "Acosh": ((9, 22), torch.acosh),
    "Asin": ((7, 22), torch.asin),
    "Asinh": ((9, 22), torch.asinh),
    "Atan": ((7, 22), torch.atan),
    "Atanh": ((9, 22), torch.atanh),
    "Ceil": ((6, 13), torch.ceil),
    "Cos": ((7, 22), torch.cos),
    "Cosh": ((9, 22), torch.cosh),
    "Exp": ((6, 13), torch.exp),
    "Floor": ((6, 13), torch.floor),
    "Identity": ((1, 13, 14, 16, 19, 21, 23, 24), lambda x: x),
    "Log": ((6, 13), torch.log),
    "Neg": ((6, 13), torch.neg),
    "Reciprocal": ((6, 13), torch.reciprocal),
    "Round": ((11, 22), torch.round),
    "Sign": ((9, 13), torch.sign),
    "Sin": ((7, 22), torch.sin),
    "Sinh": ((9, 22), torch.sinh),
    "Sqrt": ((6, 13), torch.sqrt),
    "Tan": ((7, 22), torch.tan),
}
# Functions of two elements, broadcast against each other.
_BINARY: dict[str, tuple[tuple[int, ...], Callable[[Tensor, Tensor], Tensor]]] = {
    "Add": ((7, 13, 14), torch.add),
    "Mul": ((7, 13, 14), torch.mul),
    "Sub": ((7, 13, 14), torch.sub),
}
# Any number of operands, broadcast against one another.
_VARIADIC: dict[str, tuple[tuple[int, ...], Callable[[Tensor, Tensor], Tensor]]] = {
    "Max": ((6, 8, 12, 13), torch.maximum),
    "Min": ((6, 8, 12, 13), torch.minimum),
    "Sum": ((6, 8, 13), torch.add),
}
# Element types that are no floating-point numbers, by their number in ONNX.
_TYPES = {
    TensorProto.BOOL: torch.bool,
    TensorProto.INT8: torch.int8,
    TensorProto.INT16: torch.int16,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.UINT8: torch.uint8,
    TensorProto.UINT16: torch.uint16,
    TensorProto.UINT32: torch.uint32,
    TensorProto.UINT64: torch.uint64,
}
_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})


def _enter_unary(op_type: str, since: tuple[int, ...], function: Callable[[Tensor], Tensor]) -> None:
    operator(op_type, since)(lambda call, x: function(x))


def _enter_binary(op_type: str, since: tuple[int, ...], function: Callable[[Tensor, Tensor], Tensor]) -> None:
    operator(op_type, since)(lambda call, a, b: function(a, b))


def _enter_variadic(op_type: str, since: tuple[int, ...], function: Callable[[Tensor, Tensor], Tensor]) -> None:
    operator(op_type, since)(lambda call, *parts: functools.reduce(function, parts))


for _name, (_since, _one) in _UNARY.items():
    _enter_unary(_name, _since, _one)
for _name, (_since, _two) in _BINARY.items():
    _enter_binary(_name, _since, _two)
for _name, (_since, _two) in _VARIADIC.items():
    _enter_variadic(_name, _since, _two)


@operator("Mean", since=(6, 8, 13))
def mean(call: Call, *parts: Tensor) -> Tensor:
    """Mean over the operands."""
    return functools.reduce(torch.add, parts) / len(parts)


@operator("Div", since=(7, 13, 14))
def div(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """The quotient; that of integers is cut towards zero."""
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


@operator("Mod", since=(10, 13))
def mod(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """The remainder, with the sign of the divisor, or with `fmod` that of the dividend."""
    return torch.fmod(a, b) if call.attribute("fmod", 0) else torch.remainder(a, b)


@operator("Pow", since=(7, 12, 13, 15))
def power(call: Call, base: Tensor, exponent: Tensor) -> Tensor:
    """The power, in the type of the base."""
    return torch.pow(base, exponent).to(base.dtype)


@operator("Dropout", since=(7, 10, 12, 13, 22), host=(1, 2))
def dropout(
    call: Call, x: Tensor, ratio: np.ndarray | None = None, is_active: np.ndarray | None = None
) -> tuple[Tensor, Tensor]:
    """Nothing, but where the module is told to drop elements in training, or the file does it always."""
    share = float(call.attribute("ratio", 0.5) if ratio is None else ratio.item())
    kind = x.dtype if call.since < 10 else torch.bool
    if not call.drops and (is_active is None or not is_active.item()):
        # the mask of what stays; before version 12 onnxruntime leaves it empty where nothing is dropped
        return x, (torch.full_like(x, call.since >= 12, dtype=kind) if call.has_output(1) else x)
    mask = functional.dropout(torch.ones_like(x), share)
    return x * mask, (mask != 0).to(kind)


@operator("ConstantOfShape", since=(9, 20, 21, 23, 24), host=(0,))
def constant_of_shape(call: Call, shape: np.ndarray) -> Tensor:
    """One number everywhere."""
    value = call.attribute("value")
    fill = np.zeros(1, np.float32) if value is None else numpy_helper.to_array(value)
    dtype = to_dtype(call, TensorProto.FLOAT if value is None else value.data_type)
    return torch.full([int(size) for size in shape], fill.reshape(-1)[0].item(), dtype=dtype)


@operator("Cast", since=(6, 9, 13, 19, 21, 23, 24))
def cast(call: Call, x: Tensor) -> Tensor:
    """Another type. All floating-point types of the file are the one that the module computes in."""
    return x.to(to_dtype(call, call.attribute("to")))


@operator("CastLike", since=(15, 19, 21, 23, 24))
def cast_like(call: Call, x: Tensor, like: Tensor) -> Tensor:
    """The type of another value."""
    return x.to(like.dtype)


def to_dtype(call: Call, kind: Any) -> torch.dtype:
    """The type that the module has for one of ONNX, by its number.

    Raises:
        UnsupportedError: It has none.
    """
    if kind in _FLOATS:
        return call.dtype
    if kind not in _TYPES:
        raise call.refuse(f"makes {TensorProto.DataType.Name(kind)}")
    return _TYPES[kind]
