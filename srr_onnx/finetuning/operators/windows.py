"""FINE-TUNE: windows that move over an input: how they are padded."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from srr_onnx.finetuning.operators.call import Call

Pads = list[tuple[int, int]]


def spread(call: Call, name: str, rank: int, default: int = 1) -> tuple[int, ...]:
    """An attribute with one number per spatial axis."""
    return tuple(call.attribute(name) or [default] * rank)


def find_pads(
    call: Call, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> Pads:
    """Find how much lies before and behind an input along each spatial axis.

    Args:
        call: The node.
        sizes: Spatial size of the input.
        kernel: Size of the window.
        strides: How far it moves.
        dilations: How far its elements lie apart.

    Returns:
        Elements before and behind, per axis.
    """
    kind = call.attribute("auto_pad", "NOTSET")
    rank = len(sizes)
    if kind == "NOTSET":
        pads = call.attribute("pads") or [0] * (2 * rank)
        return list(zip(pads[:rank], pads[rank:], strict=True))
    if kind == "VALID":
        return [(0, 0)] * rank
    found = []
    for size, length, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = max((-(-size // stride) - 1) * stride + (length - 1) * dilation + 1 - size, 0)
        found.append(share(total, kind))
    return found


def share(total: int, kind: str) -> tuple[int, int]:
    """Share padding out to both sides; what is left over goes behind for SAME_UPPER, in front for any other."""
    less, more = total // 2, total - total // 2
    return (less, more) if kind == "SAME_UPPER" else (more, less)


def is_even(pads: Pads) -> bool:
    """Whether as much lies before as behind, everywhere: then torch pads by itself."""
    return all(before == behind >= 0 for before, behind in pads)


def pad(x: Tensor, pads: Pads, value: float = 0.0) -> Tensor:
    """Put a value around an input `(N, C, ...)`; negative amounts cut."""
    return functional.pad(x, list(itertools.chain.from_iterable(reversed(pads))), value=value)
