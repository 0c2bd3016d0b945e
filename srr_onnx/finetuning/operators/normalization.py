"""FINE-TUNE: normalizations."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from srr_onnx.finetuning.operators.call import Call, operator


@operator("BatchNormalization", since=(7, 9, 14, 15))
def batch_normalization(
    call: Call, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
) -> tuple[Tensor, ...]:
    """Per channel, to the running statistics; in training to those of the batch, which the running ones follow.

    The file's momentum is the share of the old statistics, and its variance is that of the population.
    """
    if not call.attribute("spatial", 1):
        raise call.refuse("normalizes every position by itself (spatial=0)")
    epsilon, momentum = call.attribute("epsilon", 1e-5), call.attribute("momentum", 0.9)
    is_batch = bool(call.attribute("training_mode", 0)) or (call.since < 14 and call.has_output(1))
    if not (is_batch or call.is_training):
        return (functional.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon),)
    new_mean, new_variance = mean.clone(), variance.clone()
    found = functional.batch_norm(x, new_mean, new_variance, scale, bias, True, 1 - momentum, epsilon)
    with torch.no_grad():
        # torch lets the running variance follow that of a sample, n / (n - 1) times as large
        count, kept = x.numel() // x.shape[1], variance * momentum
        new_variance = kept + (new_variance - kept) * ((count - 1) / count)
        if call.is_training:
            mean.copy_(new_mean)
            variance.copy_(new_variance)
    return found, new_mean, new_variance


@operator("InstanceNormalization", since=(6, 22))
def instance_normalization(call: Call, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Every map by itself."""
    return torch.group_norm(x, x.shape[1], scale, bias, call.attribute("epsilon", 1e-5))


@operator("GroupNormalization", since=(18, 21))
def group_normalization(call: Call, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Groups of channels; scale and shift are per group before version 21, per channel since then."""
    groups = call.attribute("num_groups")
    if call.since < 21:
        scale, bias = (part.repeat_interleave(x.shape[1] // groups) for part in (scale, bias))
    return torch.group_norm(x, groups, scale, bias, call.attribute("epsilon", 1e-5))


@operator("LayerNormalization", since=(17,))
def layer_normalization(call: Call, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> tuple[Tensor, ...]:
    """All axes from one on; mean and inverse deviation are given too where they have names."""
    axis, epsilon = call.attribute("axis", -1) % x.dim(), call.attribute("epsilon", 1e-5)
    shape = x.shape[axis:]
    if scale.shape == shape and (bias is None or bias.shape == shape):
        found = functional.layer_norm(x, shape, scale, bias, epsilon)
    else:
        found = functional.layer_norm(x, shape, None, None, epsilon) * scale
        found = found if bias is None else found + bias
    if not (call.has_output(1) or call.has_output(2)):
        return (found,)
    variance, mean = torch.var_mean(x, list(range(axis, x.dim())), correction=0, keepdim=True)
    return found, mean, torch.rsqrt(variance + epsilon)


@operator("RMSNormalization", since=(23,))
def rms_normalization(call: Call, x: Tensor, scale: Tensor) -> Tensor:
    """All axes from one on, by the root of their mean square."""
    axes = list(range(call.attribute("axis", -1) % x.dim(), x.dim()))
    return x * torch.rsqrt(x.square().mean(axes, keepdim=True) + call.attribute("epsilon", 1e-5)) * scale


@operator("LRN", since=(1, 13))
def local_response_normalization(call: Call, x: Tensor) -> Tensor:
    """By the squares of the channels around each."""
    size = call.attribute("size")
    before, behind = (size - 1) // 2, size // 2
    squares = functional.pad(x.square().reshape(x.shape[0], 1, x.shape[1], -1), (0, 0, before, behind))
    means = functional.avg_pool2d(squares, (size, 1), 1).reshape(x.shape)
    scale = torch.pow(call.attribute("bias", 1.0) + call.attribute("alpha", 1e-4) * means, call.attribute("beta", 0.75))
    return x / scale


@operator("LpNormalization", since=(1, 22))
def lp_normalization(call: Call, x: Tensor) -> Tensor:
    """By the norm along an axis; zeros stay zeros."""
    norm = torch.linalg.vector_norm(x, call.attribute("p", 2), call.attribute("axis", -1), keepdim=True)
    return x / torch.where(norm == 0, torch.ones((), dtype=x.dtype, device=x.device), norm)


@operator("MeanVarianceNormalization", since=(9, 13))
def mean_variance_normalization(call: Call, x: Tensor) -> Tensor:
    """To mean 0 and deviation 1 over some axes."""
    axes = [axis % x.dim() for axis in call.attribute("axes") or (0, 2, 3)]
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    return (x - mean) / (torch.sqrt(variance) + 1e-9)
