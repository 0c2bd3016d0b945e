"""FINE-TUNE: operators that make values by a pattern: Range, Trilu, EyeLike."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from srr_onnx.finetuning.operators.call import Call, operator
from srr_onnx.finetuning.operators.elementwise import to_dtype

Array = np.ndarray[Any, Any]


@operator("Range", since=(11,))
def range_(call: Call, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """Numbers from a start to before a limit."""
    first, last, step = (number.reshape(()) for number in (start, limit, delta))
    count = max(0, math.ceil((last - first).item() / step.item()))
    return first + torch.arange(count, device=first.device).to(first.dtype) * step


@operator("Trilu", since=(14,), host=(1,))
def trilu(call: Call, x: Tensor, k: Array | None = None) -> Tensor:
    """The upper or lower triangle of matrices, zeros elsewhere; `k` shifts the diagonal up."""
    diagonal = 0 if k is None else int(k.item())
    return x.triu(diagonal) if call.attribute("upper", 1) else x.tril(diagonal)


@operator("EyeLike", since=(9, 22))
def eye_like(call: Call, x: Tensor) -> Tensor:
    """Ones on a diagonal, zeros elsewhere, of the shape of a matrix."""
    kind = call.attribute("dtype")
    ones = torch.ones(x.shape, dtype=x.dtype if kind is None else to_dtype(call, kind), device=x.device)
    diagonal = call.attribute("k", 0)
    return ones.tril(diagonal).triu(diagonal)
