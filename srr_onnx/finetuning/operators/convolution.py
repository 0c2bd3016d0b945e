"""FINE-TUNE: Conv and ConvTranspose in one to three dimensions, however they are padded."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional

from srr_onnx.finetuning.operators.call import Call, operator
from srr_onnx.finetuning.operators.windows import find_pads, is_even, pad, share, spread

# By number of spatial axes.
CONVOLUTIONS: dict[int, Any] = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED: dict[int, Any] = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


@operator("Conv", since=(1, 11, 22))
def conv(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Torch's own convolution; what it cannot pad is padded before."""
    rank = weight.dim() - 2
    if rank not in CONVOLUTIONS:
        raise call.refuse(f"has {rank} spatial axes")
    strides, dilations = spread(call, "strides", rank), spread(call, "dilations", rank)
    pads = find_pads(call, x.shape[2:], weight.shape[2:], strides, dilations)
    if not is_even(pads):
        x, pads = pad(x, pads), [(0, 0)] * rank
    padding = tuple(before for before, _ in pads)
    found: Tensor = CONVOLUTIONS[rank](x, weight, bias, strides, padding, dilations, call.attribute("group", 1))
    return found


@operator("ConvTranspose", since=(1, 11, 22))
def conv_transpose(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Torch's own; where it cannot crop, more is computed and cut off."""
    rank = weight.dim() - 2
    if rank not in _TRANSPOSED:
        raise call.refuse(f"has {rank} spatial axes")
    strides, dilations = spread(call, "strides", rank), spread(call, "dilations", rank)
    extra = list(spread(call, "output_padding", rank, 0))
    whole = [
        (size - 1) * stride + (length - 1) * dilation + 1 + more
        for size, stride, length, dilation, more in zip(
            x.shape[2:], strides, weight.shape[2:], dilations, extra, strict=True
        )
    ]
    kind, target = call.attribute("auto_pad", "NOTSET"), call.attribute("output_shape")
    if target is None and kind in ("NOTSET", "VALID"):
        pads = find_pads(call, x.shape[2:], weight.shape[2:], strides, dilations)
    else:
        same = [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)]
        pads = [share(max(full - size, 0), kind) for full, size in zip(whole, (target or same)[-rank:], strict=True)]
        if target is not None:  # SAME alone never adds anything, onnxruntime has it
            extra = [more + max(size - full, 0) for more, full, size in zip(extra, whole, target[-rank:], strict=True)]
    inner = [min(before, behind) for before, behind in pads] if all(min(p) >= 0 for p in pads) else [0] * rank
    groups = call.attribute("group", 1)
    found: Tensor = _TRANSPOSED[rank](x, weight, bias, strides, inner, extra, groups, dilations)
    return pad(found, [(cut - before, cut - behind) for cut, (before, behind) in zip(inner, pads, strict=True)])
