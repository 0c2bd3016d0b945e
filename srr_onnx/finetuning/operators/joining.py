"""FINE-TUNE: operators that put values side by side, cut them apart, or lengthen and shorten them: Concat to Pad."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from srr_onnx.finetuning.operators.call import Call, operator
from srr_onnx.finetuning.operators.shaping import given_axes

Array = np.ndarray[Any, Any]

# Ends that mean "all the rest", whichever way a slice goes; so exporters write it, and so onnxruntime reads it.
_FAR = (np.iinfo(np.int32).max, np.iinfo(np.int64).max)


@operator("Concat", since=(4, 11, 13))
def concat(call: Call, *parts: Tensor) -> Tensor:
    """Side by side along an axis."""
    return torch.cat(parts, call.attribute("axis"))


@operator("Split", since=(2, 11, 13, 18), host=(1,))
def split(call: Call, x: Tensor, sizes: Array | None = None) -> tuple[Tensor, ...]:
    """Parts along an axis: of sizes given, or as many as there are outputs, the last one smaller if need be."""
    axis = call.attribute("axis", 0)
    given = call.attribute("split") if sizes is None else sizes.tolist()
    if given is None:
        count, total = len(call.node.outputs), x.shape[axis]
        largest = -(-total // count)
        given = [max(0, min(largest, total - largest * part)) for part in range(count)]
    return torch.split(x, given, axis)


@operator("Slice", since=(1, 10, 11, 13), host=(1, 2, 3, 4))
def slice_(
    call: Call,
    x: Tensor,
    starts: Array | None = None,
    ends: Array | None = None,
    axes: Array | None = None,
    steps: Array | None = None,
) -> Tensor:
    """Every step-th from a start to before an end, along some axes; backwards too."""
    first = call.attribute("starts") if starts is None else starts.tolist()
    last = call.attribute("ends") if ends is None else ends.tolist()
    where = given_axes(call, axes, x.ndim) or range(len(first))
    strides = [1] * len(first) if steps is None else steps.tolist()
    for axis, start, end, step in zip(where, first, last, strides, strict=True):
        x = _stride(x, axis, _selected(start, end, step, x.shape[axis]))
    return x


def _selected(start: int, end: int, step: int, size: int) -> range:
    """The numbers that a slice selects on an axis; what is out of range is moved to its end."""
    begin = start + size if start < 0 else start
    stop = end + size if end < 0 else end
    if size == 0:
        return range(0)
    if step > 0:
        return range(min(max(begin, 0), size), min(max(stop, 0), size), step)
    if end in _FAR:
        stop = -1
    return range(min(max(begin, 0), size - 1), min(max(stop, -1), size - 1), step)


def _stride(x: Tensor, axis: int, selected: range) -> Tensor:
    """Some places of an axis; torch does not step backwards, so it is turned round afterwards."""
    if not selected:
        return x.narrow(axis, 0, 0)
    low, high = min(selected[0], selected[-1]), max(selected[0], selected[-1])
    step = min(abs(selected.step), x.shape[axis])  # one that leads out of the axis may be too large for torch
    window = (slice(None),) * axis + (slice(low, high + 1, step),)
    return x[window] if selected.step > 0 else x[window].flip(axis)


@operator("Pad", since=(2, 11, 13, 18, 19, 21, 23, 24), host=(1, 2, 3))
def pad(
    call: Call, x: Tensor, pads: Array | None = None, value: Array | None = None, axes: Array | None = None
) -> Tensor:
    """Longer at both ends of some axes, or shorter where a number is negative.

    With a constant, or with what is there: mirrored without the edge (`reflect`), the edge again (`edge`), or from the
    other end (`wrap`).
    """
    amounts = [int(n) for n in (call.attribute("pads") if pads is None else pads)]
    where = range(x.ndim) if axes is None else [int(axis) % x.ndim for axis in axes]
    ends = {axis: (amounts[place], amounts[place + len(where)]) for place, axis in enumerate(where)}
    mode = call.attribute("mode", "constant")
    if mode == "constant":
        constant = call.attribute("value", 0.0) if value is None or not value.size else value.item()
        flat = [n for axis in reversed(range(x.ndim)) for n in ends.get(axis, (0, 0))]
        return functional.pad(x, flat, value=constant)
    for axis, (before, after) in ends.items():
        if before or after:
            start, size = max(-before, 0), x.shape[axis] + min(before, 0) + min(after, 0)  # of what is not cut away
            place = torch.arange(-max(before, 0), size + max(after, 0), device=x.device)
            x = x.index_select(axis, start + _SOURCES[mode](place, size))
    return x


def _reflect(place: Tensor, size: int) -> Tensor:
    """Back and forth between the edges: a wave of period 2 (size - 1)."""
    period = max(1, 2 * (size - 1))
    place = place.remainder(period)
    return torch.minimum(place, period - place) if size > 1 else place


# Where what lies outside is read from, by mode.
_SOURCES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "reflect": _reflect,
    "edge": lambda place, size: place.clamp(0, size - 1),
    "wrap": lambda place, size: place.remainder(size),
}
