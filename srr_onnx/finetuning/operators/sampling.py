"""FINE-TUNE: operators that read pictures between the pixels: GridSample, RoiAlign."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from srr_onnx.finetuning.operators.call import Call, operator

# Names of modes from version 20 on, as torch has them.
_MODES = {"linear": "bilinear", "cubic": "bicubic"}


@operator("GridSample", since=(16, 20, 22))
def grid_sample(call: Call, x: Tensor, grid: Tensor) -> Tensor:
    """Values at places of a picture that run from -1 to 1."""
    mode = call.attribute("mode", "bilinear" if call.since < 20 else "linear")
    if x.ndim == 5 and mode in ("cubic", "bicubic"):
        raise call.refuse("samples volumes by cubic interpolation")
    padding, is_aligned = call.attribute("padding_mode", "zeros"), bool(call.attribute("align_corners", 0))
    return functional.grid_sample(x, grid, _MODES.get(mode, mode), padding, is_aligned)


@operator("RoiAlign", since=(10, 16, 22))
def roi_align(call: Call, x: Tensor, regions: Tensor, samples: Tensor) -> Tensor:
    """Means (or largest values) of points sampled in the cells of regions of pictures.

    Slopes flow to the pictures, not to the regions. One region after the other: meant for inference.
    """
    half = call.attribute("coordinate_transformation_mode", "half_pixel" if call.since >= 16 else "output_half_pixel")
    is_half = half == "half_pixel"
    rows, columns = call.attribute("output_height", 1), call.attribute("output_width", 1)
    made = [x.new_zeros(0, x.shape[1], rows, columns)]
    corners = (regions.detach() * call.attribute("spatial_scale", 1.0) - (0.5 if is_half else 0.0)).tolist()
    for (left, top, right, bottom), sample in zip(corners, samples.tolist(), strict=True):
        least = 0.0 if is_half else 1.0  # older versions widen what is narrower than a pixel
        ys = _points(call, top, max(bottom - top, least), rows, x)
        xs = _points(call, left, max(right - left, least), columns, x)
        made.append(_pool(call, x[sample], ys, xs)[None])
    return torch.cat(made)  # (regions, C, rows, columns)


def _points(call: Call, start: float, extent: float, cells: int, x: Tensor) -> Tensor:
    """Places of the points along one side of a region, (cells, points per cell)."""
    size = extent / cells
    count = call.attribute("sampling_ratio", 0) or max(1, -int(-size // 1))
    cell = torch.arange(cells, dtype=x.dtype, device=x.device)[:, None]
    point = torch.arange(count, dtype=x.dtype, device=x.device)
    return start + (cell + (point + 0.5) / count) * size


def _pool(call: Call, picture: Tensor, ys: Tensor, xs: Tensor) -> Tensor:
    """One value per cell (C, rows, columns) of a picture (C, H, W)."""
    low_y, high_y, above, below = _neighbors(ys, picture.shape[1])
    low_x, high_x, before, behind = _neighbors(xs, picture.shape[2])

    def corner(y: Tensor, x: Tensor, vertical: Tensor, horizontal: Tensor) -> Tensor:
        found = picture[:, y[:, :, None, None], x]  # (C, rows, points, columns, points)
        return found * vertical[:, :, None, None] * horizontal

    parts = torch.stack(
        [
            corner(low_y, low_x, above, before),
            corner(low_y, high_x, above, behind),
            corner(high_y, low_x, below, before),
            corner(high_y, high_x, below, behind),
        ]
    )
    if call.attribute("mode", "avg") == "avg":
        return parts.sum(0).mean((2, 4))
    return parts.amax((0, 3, 5))  # ONNX takes the largest of the weighted corners, not of their sums


def _neighbors(places: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The pixels around each place, and their weights: none where it is more than a pixel off the picture."""
    is_near = ((places >= -1) & (places <= size)).to(places.dtype)
    inside = places.clamp(0, size - 1)
    low = inside.floor().clamp(max=max(0, size - 2)) if size > 1 else torch.zeros_like(inside)
    part = inside - low
    high = (low + 1).clamp(max=size - 1)
    return low.long(), high.long(), (1 - part) * is_near, part * is_near
