"""FINE-TUNE: operators that make values by a pattern: Range, Trilu."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from srr_onnx.finetuning.operators.call import Call, operator

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
