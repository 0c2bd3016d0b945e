"""FINE-TUNE: Resize and Upsample, place by place as onnxruntime computes them.

Axes are resized one after the other. A new place of an axis lies somewhere between the old ones: where is a matter of
the coordinate mode, computed in float32 as the runtime does, so that both round alike; how many old places it reads,
one, two or four, is a matter of the mode.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from srr_onnx.finetuning.operators.call import Call, operator
from srr_onnx.finetuning.operators.shaping import given_axes

Array = np.ndarray[Any, Any]

# A place so close to the middle of two counts as the middle; found in onnxruntime 1.31 by trial.
_TIE = 1e-6


@dataclasses.dataclass(frozen=True)
class _Span:
    """How one axis is resized.

    Attributes:
        axis: The axis.
        before: Its size.
        after: Its new size.
        scale: New size by old size, as the file has it: not whole sizes need not divide to it.
        start: Where the region of interest begins, as a share of the axis.
        end: Where it ends.
    """

    axis: int
    before: int
    after: int
    scale: float
    start: float = 0.0
    end: float = 1.0


@operator("Upsample", since=(7, 9), host=(1,))
@operator("Resize", since=(10,), host=(1,))
def upsample(call: Call, x: Tensor, scales: Array | None = None) -> Tensor:
    """Other sizes by scales; the first places of old and new axes lie on each other."""
    factors = call.attribute("scales") if scales is None else scales.tolist()
    return _resize(call, x, _by_scales(range(x.ndim), x.shape, factors), "asymmetric", "simple")


@operator("Resize", since=(11, 13, 18, 19), host=(1, 2, 3))
def resize(
    call: Call, x: Tensor, roi: Array | None = None, scales: Array | None = None, sizes: Array | None = None
) -> Tensor:
    """Other sizes by scales or sizes of some axes, or of a region of interest of them."""
    if call.attribute("antialias", 0):
        raise call.refuse("filters before it shrinks (antialias = 1)")
    axes = given_axes(call, None, x.ndim) or range(x.ndim)
    if scales is not None and scales.size:
        spans = _by_scales(axes, x.shape, scales.tolist())
    elif sizes is not None:
        spans = _by_sizes(axes, x.shape, sizes.tolist(), call.attribute("keep_aspect_ratio_policy", "stretch"))
    else:
        raise call.refuse("has neither scales nor sizes")
    coordinates = call.attribute("coordinate_transformation_mode", "half_pixel")
    if coordinates == "tf_crop_and_resize" and roi is not None:
        starts, ends = roi.tolist()[: len(spans)], roi.tolist()[len(spans) :]
        spans = [dataclasses.replace(s, start=low, end=high) for s, low, high in zip(spans, starts, ends, strict=True)]
    return _resize(call, x, spans, coordinates, call.attribute("nearest_mode", "round_prefer_floor"))


def _by_scales(axes: Sequence[int], shape: Sequence[int], scales: Sequence[float]) -> list[_Span]:
    """Axes that grow by scales; parts of places are cut off."""
    return [
        _Span(axis, shape[axis], int(_single(shape[axis] * scale)), scale)
        for axis, scale in zip(axes, scales, strict=True)
    ]


def _by_sizes(axes: Sequence[int], shape: Sequence[int], sizes: Sequence[int], policy: str) -> list[_Span]:
    """Axes that get sizes, or all the scale of the one that grows least (`not_larger`) or most (`not_smaller`)."""
    scales = [_single(size / shape[axis]) for axis, size in zip(axes, sizes, strict=True)]
    if policy != "stretch":
        scale = min(scales) if policy == "not_larger" else max(scales)
        return [_Span(axis, shape[axis], int(_single(scale * shape[axis]) + 0.5), scale) for axis in axes]
    return [_Span(axis, shape[axis], size, scale) for axis, size, scale in zip(axes, sizes, scales, strict=True)]


def _single(number: float) -> float:
    """A number rounded to float32, with nothing but arithmetic: so a compiled graph can follow it.

    Source: T. J. Dekker, "A floating-point technique for extending the available precision", 1971, section 5: the upper
    24 of 53 bits.
    """
    spread = number * (2.0**29 + 1)
    return spread - (spread - number)


def _resize(call: Call, x: Tensor, spans: Sequence[_Span], coordinates: str, nearest_mode: str) -> Tensor:
    if all(span.before == span.after for span in spans):  # whatever the scales are
        return x
    mode = call.attribute("mode", "nearest")
    dtype = x.dtype
    outside = torch.zeros((), dtype=torch.bool, device=x.device)
    if mode != "nearest" and not x.is_floating_point():
        x = x.float()
    for span in spans:
        if span.scale == 1:
            continue
        places = _COORDINATES[coordinates](torch.arange(span.after, dtype=torch.float32), span)
        if coordinates == "tf_crop_and_resize":
            beyond = (places < 0) | (places > span.before - 1)
            outside = outside | _along(beyond.to(x.device), span.axis, x.ndim)
        taps: list[tuple[Tensor, Tensor | None]]
        if mode == "nearest":
            taps = [(_NEAREST[nearest_mode](places, span), None)]
        elif mode == "linear":
            taps = _linear_taps(places, span.before)
        else:
            taps = _cubic_taps(places, span.before, call)
        x = _read(x, span, taps)
    if coordinates == "tf_crop_and_resize":
        x = torch.where(outside, call.attribute("extrapolation_value", 0.0), x)
    return x.to(dtype)


def _read(x: Tensor, span: _Span, taps: Iterable[tuple[Tensor, Tensor | None]]) -> Tensor:
    """The sum of old places, numbers beyond the edge meaning the edge, with weights."""
    total = None
    for numbers, weights in taps:
        part = x.index_select(span.axis, numbers.long().clamp(0, span.before - 1).to(x.device))
        if weights is not None:
            part = part * _along(weights.to(x), span.axis, x.ndim)
        total = part if total is None else total + part
    assert total is not None
    return total


def _along(vector: Tensor, axis: int, rank: int) -> Tensor:
    """A vector as a value that is broadcast along all other axes."""
    return vector.reshape([-1 if place == axis else 1 for place in range(rank)])


def _linear_taps(places: Tensor, size: int) -> list[tuple[Tensor, Tensor | None]]:
    """The two places around, the nearer with more weight."""
    inside = places.clamp(0, size - 1)
    low = inside.floor()
    return [(low, 1 - (inside - low)), (low + 1, inside - low)]


def _cubic_taps(places: Tensor, size: int, call: Call) -> list[tuple[Tensor, Tensor | None]]:
    """The four places around, by Keys' cubic weights; without those outside the others make up for them."""
    a = call.attribute("cubic_coeff_a", -0.75)
    low = places.floor()
    part = places - low
    far, near = [1 + part, 2 - part], [part, 1 - part]
    outer = [((a * t - 5 * a) * t + 8 * a) * t - 4 * a for t in far]
    inner = [((a + 2) * t - (a + 3)) * t * t + 1 for t in near]
    weights = torch.stack([outer[0], *inner, outer[1]])  # (4, places)
    numbers = torch.stack([low - 1, low, low + 1, low + 2])
    if call.attribute("exclude_outside", 0):
        weights = weights * ((numbers >= 0) & (numbers < size))
        weights = weights / weights.sum(0)
    return list(zip(numbers, weights, strict=True))


def _align_corners(place: Tensor, span: _Span) -> Tensor:
    return place * (span.before - 1) / (span.after - 1) if span.after > 1 else place * 0


def _crop(place: Tensor, span: _Span) -> Tensor:
    last = span.before - 1
    if span.after > 1:
        return _single(span.start * last) + place * (span.end - span.start) * last / (span.after - 1)
    return place * 0 + 0.5 * (span.start + span.end) * last


def _half_pixel(place: Tensor, span: _Span) -> Tensor:
    return (place + 0.5) / span.scale - 0.5


def _half_pixel_symmetric(place: Tensor, span: _Span) -> Tensor:
    adjustment = _single(span.after / _single(span.scale * span.before))
    offset = _single(span.before / 2 * _single(1 - adjustment))
    return (offset + (place.double() + 0.5) / span.scale - 0.5).float()  # the runtime changes to float64 here


# Where a new place lies among the old ones, by coordinate mode.
_COORDINATES: dict[str, Callable[[Tensor, _Span], Tensor]] = {
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _half_pixel_symmetric,
    "pytorch_half_pixel": lambda place, span: _half_pixel(place, span) if span.after > 1 else place * 0,
    "align_corners": _align_corners,
    "asymmetric": lambda place, span: place / span.scale,
    "tf_half_pixel_for_nn": lambda place, span: (place + 0.5) / span.scale,
    "tf_crop_and_resize": _crop,
}
# Which old place is the nearest, by mode. `simple` is that of Upsample: up when it shrinks, else down.
_NEAREST: dict[str, Callable[[Tensor, _Span], Tensor]] = {
    "round_prefer_floor": lambda place, span: place.floor() + (place - place.floor() > 0.5 + _TIE),
    "round_prefer_ceil": lambda place, span: place.floor() + (place - place.floor() >= 0.5 - _TIE),
    "floor": lambda place, span: place.floor(),
    "ceil": lambda place, span: place.ceil(),
    "simple": lambda place, span: place.ceil() if span.scale < 1 else place.floor(),
}
