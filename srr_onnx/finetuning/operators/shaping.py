"""FINE-TUNE: operators that order the same elements in another shape, repeat them, or measure the shape.

Sizes and axes are host values; what an operator moves may be of any type, so shape arithmetic runs through here too.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from srr_onnx.finetuning.operators.call import Call, operator

Array = np.ndarray[Any, Any]


def given_axes(call: Call, axes: Array | None, rank: int) -> list[int] | None:
    """Axes as a later version's input or as an earlier version's attribute gives them, none counted from the end.

    Args:
        call: Its attribute `axes` is read where there is no input.
        axes: The input, None where the version has none or the node leaves it out.
        rank: Number of axes that they are axes of.

    Returns:
        The axes; None where neither is there.
    """
    given = call.attribute("axes") if axes is None else axes.reshape(-1).tolist()
    return None if given is None else [int(axis) % rank for axis in given]


@operator("Reshape", since=(5, 13, 14, 19, 21, 23, 24), host=(1,))
def reshape(call: Call, x: Tensor, shape: Array) -> Tensor:
    """The same elements in another shape; 0 takes the size over, unless `allowzero` means it literally."""
    sizes = [int(size) for size in shape]
    if not call.attribute("allowzero", 0):
        sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    if -1 in sizes and x.numel() == 0:  # torch finds no size for -1 beside a size of 0
        rest = math.prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = x.numel() // rest if rest else 0
    return x.reshape(sizes)


@operator("Transpose", since=(1, 13, 21, 23, 24))
def transpose(call: Call, x: Tensor) -> Tensor:
    """Axes in another order, by default the reverse."""
    return x.permute(call.attribute("perm") or list(reversed(range(x.ndim))))


@operator("Flatten", since=(1, 9, 11, 13, 21, 23, 24))
def flatten(call: Call, x: Tensor) -> Tensor:
    """Two axes: what is before `axis`, and the rest."""
    axis = call.attribute("axis", 1)
    axis += x.ndim if axis < 0 else 0
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@operator("Squeeze", since=(1, 11, 13, 21, 23, 24), host=(1,))
def squeeze(call: Call, x: Tensor, axes: Array | None = None) -> Tensor:
    """Without the axes named, by default without all of size 1."""
    gone = given_axes(call, axes, x.ndim)
    if gone is None:
        gone = [axis for axis in range(x.ndim) if x.shape[axis] == 1]
    return x.reshape([size for axis, size in enumerate(x.shape) if axis not in gone])


@operator("Unsqueeze", since=(1, 11, 13, 21, 23, 24), host=(1,))
def unsqueeze(call: Call, x: Tensor, axes: Array | None = None) -> Tensor:
    """With axes of size 1 put in; they are counted in the result."""
    count = len(call.attribute("axes", ())) if axes is None else axes.size
    for axis in sorted(given_axes(call, axes, x.ndim + count) or ()):
        x = x.unsqueeze(axis)
    return x


@operator("Expand", since=(8, 13), host=(1,))
def expand(call: Call, x: Tensor, shape: Array) -> Tensor:
    """Repeated along axes of size 1; the target is broadcast too, so a 1 in it keeps a size."""
    return x.expand(torch.broadcast_shapes(x.shape, tuple(int(size) for size in shape)))  # type: ignore[no-untyped-call]


@operator("Tile", since=(6, 13), host=(1,))
def tile(call: Call, x: Tensor, repeats: Array) -> Tensor:
    """Copies of the whole, one after the other along every axis."""
    return x.repeat([int(count) for count in repeats])


@operator("Shape", since=(1, 13, 15, 19, 21, 23, 24))
def shape(call: Call, x: Tensor) -> Array:
    """The sizes from axis `start` to before axis `end`, as a host value."""
    return np.array(x.shape[call.attribute("start", 0) : call.attribute("end")], np.int64)


@operator("Size", since=(1, 13, 19, 21, 23, 24))
def size(call: Call, x: Tensor) -> Array:
    """The number of elements, as a host value."""
    return np.array(x.numel(), np.int64)


@operator("DepthToSpace", since=(1, 11, 13))
def depth_to_space(call: Call, x: Tensor) -> Tensor:
    """Channels become blocks of pixels; the place in a block is the channel's slow part (DCR) or fast part (CRD)."""
    n, channels, height, width = x.shape
    block = call.attribute("blocksize")
    depth = channels // block**2
    if call.attribute("mode", "DCR") == "DCR":
        blocks = x.reshape(n, block, block, depth, height, width).permute(0, 3, 4, 1, 5, 2)
    else:
        blocks = x.reshape(n, depth, block, block, height, width).permute(0, 1, 4, 2, 5, 3)
    return blocks.reshape(n, depth, height * block, width * block)  # (N, C / block^2, H * block, W * block)


@operator("SpaceToDepth", since=(1, 13))
def space_to_depth(call: Call, x: Tensor) -> Tensor:
    """Blocks of pixels become channels; the block's place is the slow part of the channel."""
    n, channels, height, width = x.shape
    block = call.attribute("blocksize")
    blocks = x.reshape(n, channels, height // block, block, width // block, block).permute(0, 3, 5, 1, 2, 4)
    return blocks.reshape(n, channels * block**2, height // block, width // block)
