"""FINE-TUNE: operators that read or write elements by their numbers: Gather, Scatter, Compress, OneHot, TopK.

Numbers that count from the end are turned into places first; torch knows them only in part.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from srr_onnx.finetuning.operators.call import Call, operator

Array = np.ndarray[Any, Any]

# How ONNX's reductions of Scatter* are called in torch.
_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _places(indices: Tensor, size: int) -> Tensor:
    """Indices as int64, none of them counted from the end."""
    indices = indices.long()
    return torch.where(indices < 0, indices + size, indices)


@operator("Gather", since=(1, 11, 13))
def gather(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    """Slices by number; the axes of the indices take the place of the axis."""
    axis = call.attribute("axis", 0) % x.ndim
    places = _places(indices, x.shape[axis])
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    return x.index_select(axis, places.reshape(-1)).reshape(shape)


@operator("GatherElements", since=(11, 13))
def gather_elements(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    """Element by element, the number along one axis, the other axes where the index itself lies."""
    axis = call.attribute("axis", 0) % x.ndim
    return x.gather(axis, _places(indices, x.shape[axis]))


@operator("GatherND", since=(11, 12, 13))
def gather_nd(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    """Slices by vectors of numbers, one number per axis behind the batch axes."""
    batch = call.attribute("batch_dims", 0)
    depth = indices.shape[-1]
    kept = x.shape[batch + depth :]
    rows = x.reshape(x.shape[:batch].numel(), -1, *kept)  # (B, R, ...)
    places = _row_numbers(indices, x.shape[batch : batch + depth]).reshape(rows.shape[0], -1)  # (B, S)
    first = torch.arange(rows.shape[0], device=x.device)[:, None]
    return rows[first, places].reshape((*indices.shape[:-1], *kept))


def _row_numbers(indices: Tensor, sizes: torch.Size) -> Tensor:
    """Vectors of numbers (..., D) on axes of these sizes as single numbers (...), the last axis the fast one."""
    number = torch.zeros(indices.shape[:-1], dtype=torch.int64, device=indices.device)
    for axis, size in enumerate(sizes):
        number = number * size + _places(indices[..., axis], size)
    return number


@operator("Scatter", since=(9,))
@operator("ScatterElements", since=(11, 13, 16, 18))
def scatter_elements(call: Call, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """A copy with elements replaced, or added to, ..., by number along one axis."""
    axis = call.attribute("axis", 0) % x.ndim
    places, reduction = _places(indices, x.shape[axis]), call.attribute("reduction", "none")
    if reduction == "none":
        return x.scatter(axis, places, updates)
    return x.scatter_reduce(axis, places, updates, _REDUCTIONS[reduction])


@operator("ScatterND", since=(11, 13, 16, 18))
def scatter_nd(call: Call, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """A copy with slices replaced, or added to, ..., by vectors of numbers."""
    depth = indices.shape[-1]
    rows = x.reshape(x.shape[:depth].numel(), -1)  # (R, K)
    places = _row_numbers(indices, x.shape[:depth]).reshape(-1, 1).expand(-1, rows.shape[1])  # (S, K)
    new, reduction = updates.reshape(places.shape), call.attribute("reduction", "none")
    if reduction == "none":
        return rows.scatter(0, places, new).reshape(x.shape)
    return rows.scatter_reduce(0, places, new, _REDUCTIONS[reduction]).reshape(x.shape)


@operator("Compress", since=(9, 11))
def compress(call: Call, x: Tensor, condition: Tensor) -> Tensor:
    """The slices for which the condition holds, along an axis or of all elements; a short condition ends in False."""
    axis = call.attribute("axis")
    if axis is None:
        x, axis = x.reshape(-1), 0
    return x.index_select(axis, condition.nonzero().reshape(-1))


@operator("NonZero", since=(9, 13))
def non_zero(call: Call, x: Tensor) -> Tensor:
    """Where elements are not zero, one column (rank) per element."""
    return x.nonzero().T


@operator("OneHot", since=(9, 11), host=(1,))
def one_hot(call: Call, indices: Tensor, depth: Array, values: Tensor) -> Tensor:
    """A new axis on which one place is on and the others are off; a number out of range turns none on."""
    count = int(depth.item())
    axis = call.attribute("axis", -1) % (indices.ndim + 1)
    shape = [1] * (indices.ndim + 1)
    shape[axis] = count
    counter = torch.arange(count, device=indices.device).reshape(shape)
    return torch.where(_places(indices, count).unsqueeze(axis) == counter, values[1], values[0])


@operator("TopK", since=(1, 10, 11, 24), host=(1,))
def top_k(call: Call, x: Tensor, k: Array | None = None) -> tuple[Tensor, Tensor]:
    """The largest or smallest along an axis and their numbers; of equals the first comes first, sorted or not."""
    count = call.attribute("k") if k is None else int(k.item())
    axis = call.attribute("axis", -1)
    values, places = x.sort(dim=axis, descending=bool(call.attribute("largest", 1)), stable=True)
    return values.narrow(axis, 0, count), places.narrow(axis, 0, count)
