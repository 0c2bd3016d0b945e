"""FINE-TUNE: operators that sum axes up in one way or another: Reduce*, ArgMax, ArgMin, CumSum."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from srr_onnx.finetuning.operators.call import Call, operator
from srr_onnx.finetuning.operators.shaping import given_axes

Array = np.ndarray[Any, Any]
# Takes a value, axes of it (one at least) and whether they stay with size 1.
Reduction: TypeAlias = Callable[[Tensor, list[int], bool], Tensor]

_SINCE = (1, 11, 13, 18)
# Largest and smallest learned more integers with 12, and truth values with 20.
_SINCE_EXTREME = (1, 11, 12, 13, 18, 20)


def _total(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Sum, in the type of what is summed."""
    return x.sum(axes, keep, dtype=x.dtype)


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Mean; of integers without the fraction."""
    if x.is_floating_point():
        return x.mean(axes, keep)
    count = math.prod(x.shape[axis] for axis in axes)
    return _total(x, axes, keep).div(count, rounding_mode="trunc")


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Product; torch multiplies along one axis at a time."""
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keep, dtype=x.dtype)
    return x


def _length(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Euclidean length, whose slope at 0 is 0 and not infinite; of integers without the fraction."""
    numbers = x if x.is_floating_point() else x.double()
    length: Tensor = torch.linalg.vector_norm(numbers, 2, axes, keep)
    return length.to(x.dtype)


def _largest(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """The largest element; of nothing, the smallest number there is."""
    return x.amax(axes, keep) if _has_elements(x, axes) else _filled(x, axes, keep, _range(x.dtype)[0])


def _smallest(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """The smallest element; of nothing, the largest number there is."""
    return x.amin(axes, keep) if _has_elements(x, axes) else _filled(x, axes, keep, _range(x.dtype)[1])


def _has_elements(x: Tensor, axes: list[int]) -> bool:
    return all(x.shape[axis] for axis in axes)


def _filled(x: Tensor, axes: list[int], keep: bool, number: float) -> Tensor:
    return torch.full_like(_total(x, axes, keep), number)


def _range(dtype: torch.dtype) -> tuple[float, float]:
    """The smallest and the largest number of a type."""
    if dtype.is_floating_point:
        return float("-inf"), float("inf")
    return (False, True) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)


def _enter(op_type: str, since: tuple[int, ...], reduction: Reduction) -> None:
    """Enter an operator: which axes go is the same for all of them."""

    def reduce(call: Call, x: Tensor, axes: Array | None = None) -> Tensor:
        """Reduce some axes; all of them where none is named, unless `noop_with_empty_axes` means none."""
        gone = given_axes(call, axes, x.ndim)
        if x.ndim and (gone or not call.attribute("noop_with_empty_axes", 0)):
            return reduction(x, gone or list(range(x.ndim)), bool(call.attribute("keepdims", 1)))
        # Each element is reduced by itself: so a sum of squares still squares.
        return reduction(x.unsqueeze(-1), [x.ndim], False)

    operator(op_type, since, host=(1,))(reduce)


_enter("ReduceSum", (1, 11, 13), _total)
_enter("ReduceMean", _SINCE, _mean)
_enter("ReduceProd", _SINCE, _product)
_enter("ReduceMax", _SINCE_EXTREME, _largest)
_enter("ReduceMin", _SINCE_EXTREME, _smallest)
_enter("ReduceL1", _SINCE, lambda x, axes, keep: _total(x.abs(), axes, keep))
_enter("ReduceL2", _SINCE, _length)
_enter("ReduceSumSquare", _SINCE, lambda x, axes, keep: _total(x * x, axes, keep))
_enter("ReduceLogSum", _SINCE, lambda x, axes, keep: _total(x, axes, keep).log())
_enter("ReduceLogSumExp", _SINCE, lambda x, axes, keep: x.logsumexp(axes, keep))


@operator("ArgMax", since=(1, 11, 12, 13))
def arg_max(call: Call, x: Tensor) -> Tensor:
    """The number of the largest element along an axis: the first of equals, or the last if asked for."""
    return _place(call, x, torch.argmax)


@operator("ArgMin", since=(1, 11, 12, 13))
def arg_min(call: Call, x: Tensor) -> Tensor:
    """The number of the smallest element along an axis: the first of equals, or the last if asked for."""
    return _place(call, x, torch.argmin)


def _place(call: Call, x: Tensor, find: Callable[[Tensor, int, bool], Tensor]) -> Tensor:
    axis: int = call.attribute("axis", 0)
    keep = bool(call.attribute("keepdims", 1))
    if not call.attribute("select_last_index", 0):
        return find(x, axis, keep)
    return x.shape[axis] - 1 - find(x.flip(axis), axis, keep)


@operator("CumSum", since=(11, 14), host=(1,))
def cumulative_sum(call: Call, x: Tensor, axis: Array) -> Tensor:
    """Sums of all up to here along an axis, without the element itself if `exclusive`, from the end if `reverse`."""
    along = int(axis.item())
    is_reversed = bool(call.attribute("reverse", 0))
    x = x.flip(along) if is_reversed else x
    if call.attribute("exclusive", 0) and x.shape[along]:
        x = torch.cat([torch.zeros_like(x.narrow(along, 0, 1)), x.narrow(along, 0, x.shape[along] - 1)], along)
    sums = x.cumsum(along, dtype=x.dtype)
    return sums.flip(along) if is_reversed else sums
