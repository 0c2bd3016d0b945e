"""FINE-TUNE: Attention with a mask, causal or not, over grouped heads, with keys and values of the past.

Source: the ONNX page of Attention, versions 23 and 24.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from srr_onnx.finetuning.operators.call import Call, operator


@operator("Attention", since=(23, 24))
def attention(
    call: Call,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None = None,
    past_keys: Tensor | None = None,
    past_values: Tensor | None = None,
    lengths: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Means of values, weighted by how well their keys fit a query; a query that may look at none gets zeros."""
    if lengths is not None:
        raise call.refuse("pads its keys per sample (nonpad_kv_seqlen)")
    if call.has_output(3):
        raise call.refuse("gives its scores away")
    is_flat = queries.ndim == 3
    if is_flat:
        queries = _split_heads(queries, call.attribute("q_num_heads"))
        keys, values = (_split_heads(part, call.attribute("kv_num_heads")) for part in (keys, values))
    offset = 0
    if past_keys is not None and past_values is not None:
        offset = past_keys.shape[2]
        keys, values = torch.cat([past_keys, keys], 2), torch.cat([past_values, values], 2)  # (N, H, K, D)
    share = queries.shape[1] // keys.shape[1]
    scale = call.attribute("scale") or 1 / math.sqrt(queries.shape[-1])
    scores = queries @ keys.repeat_interleave(share, 1).transpose(2, 3) * scale  # (N, H, Q, K)
    cap = call.attribute("softcap", 0.0)
    if cap > 0:
        scores = cap * torch.tanh(scores / cap)
    weights = _weigh(scores, _bias(call, scores, mask, offset))
    made = weights @ values.repeat_interleave(share, 1)  # (N, H, Q, D)
    return made.transpose(1, 2).flatten(2) if is_flat else made, keys, values


def _split_heads(x: Tensor, heads: int) -> Tensor:
    """(N, S, H D) -> (N, H, S, D)."""
    samples, length, width = x.shape
    return x.reshape(samples, length, heads, width // heads).transpose(1, 2)


def _bias(call: Call, scores: Tensor, mask: Tensor | None, offset: int) -> Tensor:
    """What is added to the scores: -inf where a query may not look."""
    asked, looked_at = scores.shape[-2:]
    bias = scores.new_zeros(asked, looked_at)
    if mask is not None:
        if mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, float("-inf"))
        bias = bias + functional.pad(mask, (0, looked_at - mask.shape[-1]), value=float("-inf"))
    if call.attribute("is_causal", 0):
        ahead = torch.ones_like(bias[..., :asked, :looked_at], dtype=torch.bool).triu(offset + 1)
        bias = bias.masked_fill(ahead, float("-inf"))
    return bias


def _weigh(scores: Tensor, bias: Tensor) -> Tensor:
    """Shares of every key; all zero where a query may look at none, without a slope that is no number."""
    is_blind = bias.isneginf().all(-1, keepdim=True)
    shares = (scores + bias.masked_fill(is_blind, 0)).softmax(-1)
    return shares.masked_fill(is_blind, 0)
