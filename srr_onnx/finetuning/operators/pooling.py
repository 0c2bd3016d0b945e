"""FINE-TUNE: pooling over windows and over whole maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from srr_onnx.finetuning.operators.call import Call, operator
from srr_onnx.finetuning.operators.convolution import CONVOLUTIONS
from srr_onnx.finetuning.operators.windows import Pads, find_pads, is_even, pad, spread

# By number of spatial axes.
_MAXIMA: dict[int, Any] = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_MEANS: dict[int, Any] = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


class _Window:
    """A window and where it goes.

    Attributes:
        kernel: Its size.
        strides: How far it moves.
        dilations: How far its elements lie apart.
        pads: What lies around the input.
        extra: What more has to lie behind so that the last window is whole; part of no window's count.
    """

    def __init__(self, call: Call, x: Tensor) -> None:
        rank = x.dim() - 2
        if rank not in _MAXIMA:
            raise call.refuse(f"has {rank} spatial axes")
        self.rank = rank
        self.kernel: tuple[int, ...] = tuple(call.attribute("kernel_shape"))
        self.strides, self.dilations = spread(call, "strides", rank), spread(call, "dilations", rank)
        # onnxruntime looks at no dilation when it pads by itself
        self.pads: Pads = find_pads(call, x.shape[2:], self.kernel, self.strides, [1] * rank)
        self.extra = [0] * rank
        if call.attribute("ceil_mode", 0):
            self.extra = [self._missing(axis, size) for axis, size in enumerate(x.shape[2:])]

    def _missing(self, axis: int, size: int) -> int:
        before, behind = self.pads[axis]
        span, stride = (self.kernel[axis] - 1) * self.dilations[axis] + 1, self.strides[axis]
        count = -(-(size + before + behind - span) // stride) + 1
        if (count - 1) * stride >= size + before:  # a window that starts behind the input is left out
            count -= 1
        return max((count - 1) * stride + span - size - before - behind, 0)

    def around(self, x: Tensor, value: float) -> Tensor:
        """The input with all that lies around it."""
        return pad(
            x, [(before, behind + more) for (before, behind), more in zip(self.pads, self.extra, strict=True)], value
        )

    def sums(self, x: Tensor) -> Tensor:
        """Sums over the windows of a padded input `(N, C, ...)`."""
        rows = x.reshape(-1, 1, *x.shape[2:])
        ones = torch.ones(1, 1, *self.kernel, dtype=x.dtype, device=x.device)
        found: Tensor = CONVOLUTIONS[self.rank](rows, ones, None, self.strides, 0, self.dilations)
        return found.reshape(*x.shape[:2], *found.shape[2:])


@operator("MaxPool", since=(1, 8, 10, 11, 12, 22))
def max_pool(call: Call, x: Tensor) -> Tensor:
    """The largest element of every window; where it lies is not told."""
    if call.has_output(1):
        raise call.refuse("gives the places of the largest elements")
    if not x.is_floating_point():
        return max_pool(call, x.to(torch.float64)).to(x.dtype)
    window = _Window(call, x)
    padding: Sequence[int] = [before for before, _ in window.pads]
    is_narrow = all(2 * before <= size for before, size in zip(padding, window.kernel, strict=True))
    if any(window.extra) or not is_even(window.pads) or not is_narrow:
        x, padding = window.around(x, -math.inf), [0] * window.rank
    found: Tensor = _MAXIMA[window.rank](x, window.kernel, window.strides, padding, window.dilations)
    return found


@operator("AveragePool", since=(7, 10, 11, 19, 22))
def average_pool(call: Call, x: Tensor) -> Tensor:
    """The mean of every window, over what is padded too if asked for."""
    window = _Window(call, x)
    counts_pads = bool(call.attribute("count_include_pad", 0))
    padding = [before for before, _ in window.pads]
    is_narrow = all(2 * before <= size for before, size in zip(padding, window.kernel, strict=True))
    if not any(window.extra) and set(window.dilations) == {1} and is_even(window.pads) and is_narrow:
        found: Tensor = _MEANS[window.rank](x, window.kernel, window.strides, padding, False, counts_pads)
        return found
    counted = torch.ones(1, 1, *x.shape[2:], dtype=x.dtype, device=x.device)
    if counts_pads:
        counted = pad(counted, window.pads, 1.0)
        counted = pad(counted, [(0, more) for more in window.extra])
    else:
        counted = window.around(counted, 0.0)
    return window.sums(window.around(x, 0.0)) / window.sums(counted)


@operator("LpPool", since=(2, 11, 18, 22))
def lp_pool(call: Call, x: Tensor) -> Tensor:
    """The p-norm of every window."""
    p = call.attribute("p", 2)
    window = _Window(call, x)
    norms: Tensor = window.sums(window.around(x.abs() ** p, 0.0)) ** (1 / p)
    return norms


@operator("GlobalAveragePool", since=(1, 22))
def global_average_pool(call: Call, x: Tensor) -> Tensor:
    """The mean of every map."""
    return x.mean(list(range(2, x.dim())), keepdim=True)


@operator("GlobalMaxPool", since=(1, 22))
def global_max_pool(call: Call, x: Tensor) -> Tensor:
    """The largest element of every map."""
    return x.amax(list(range(2, x.dim())), keepdim=True)


@operator("GlobalLpPool", since=(2, 22))
def global_lp_pool(call: Call, x: Tensor) -> Tensor:
    """The p-norm of every map."""
    found: Tensor = torch.linalg.vector_norm(x, call.attribute("p", 2), list(range(2, x.dim())), keepdim=True)
    return found
