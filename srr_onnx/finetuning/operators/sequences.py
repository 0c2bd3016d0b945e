"""FINE-TUNE: sequences of tensors, which some exporters make of a split. In a run they are lists."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from srr_onnx.finetuning.operators.call import Call, operator

Array = np.ndarray[Any, Any]


@operator("SplitToSequence", since=(11, 24), host=(1,))
def split_to_sequence(call: Call, x: Tensor, sizes: Array | None = None) -> Any:
    """Parts along an axis: of one size, of the sizes given, or single slices, whose axis may go."""
    axis = call.attribute("axis", 0)
    if sizes is None:
        parts = torch.split(x, 1, axis)
        return list(parts) if call.attribute("keepdims", 1) else [part.squeeze(axis) for part in parts]
    return list(torch.split(x, sizes.tolist(), axis))


@operator("SequenceConstruct", since=(11,))
def sequence_construct(call: Call, *parts: Tensor) -> Any:
    """The operands as a sequence."""
    return list(parts)


@operator("SequenceAt", since=(11,), host=(1,))
def sequence_at(call: Call, parts: list[Tensor], place: Array) -> Tensor:
    """One of a sequence, counted from the end where negative."""
    return parts[int(place.item())]


@operator("ConcatFromSequence", since=(11,))
def concat_from_sequence(call: Call, parts: list[Tensor]) -> Tensor:
    """All of a sequence side by side, along an axis or along a new one."""
    axis = call.attribute("axis")
    return torch.stack(parts, axis) if call.attribute("new_axis", 0) else torch.cat(parts, axis)
