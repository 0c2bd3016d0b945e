"""FINE-TUNE: files with a batch written into them, at any other batch.

Exporters that are given a sample write its batch into the targets of Reshape and Resize. Where the first axis of what
such a node reads has grown, so does the first size of its target. Whether that is what the file means is tried out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from srr_onnx.calibration.runs import has_fixed_batch
from srr_onnx.errors import DataError, SrrError
from srr_onnx.finetuning.operators.call import Call
from srr_onnx.graph.model import Model

Array = np.ndarray[Any, Any]
Run = Callable[[Sequence[torch.Tensor]], Sequence[torch.Tensor]]

# Slots of targets that name every axis of the result.
_TARGETS = {"Reshape": 1, "Resize": 3}
# Sums in another order, as elsewhere; a batch that is mixed up differs by the values themselves.
_TOLERANCE = 1e-2


def find_batch(model: Model) -> int | None:
    """The batch of the shapes that a model was loaded with; None where the inputs do not share one."""
    sizes = {model.inputs.get(name, ())[:1] for name in model.fed}
    return next(iter(sizes))[0] if len(sizes) == 1 and () not in sizes else None


def find_baked(model: Model) -> dict[tuple[int, int], int]:
    """Find targets that a batch may be written into.

    Args:
        model: Loaded model.

    Returns:
        First size of what the node reads, at the shapes of the model, by node index and slot of the target.
    """
    batch = find_batch(model)
    found = {}
    for node in model.nodes:
        slot = _TARGETS.get(node.op_type) if not node.domain and batch else None
        if slot is None or not batch:
            continue
        target, shape = model.constants.get(node.input(slot)), model.shapes.get(node.inputs[0])
        if not shape or target is None or not target.size or node.inputs[0] in model.constants:
            continue
        if shape[0] % batch == 0 and target[0] > 0 and target[0] % batch == 0:
            found[node.index, slot] = shape[0]
    return found


def rescale(first: int) -> Callable[[Call, torch.Tensor, Array], Array]:
    """The step that lets a target grow with what is read: it was written for a first axis of this size."""

    def fit(call: Call, x: torch.Tensor, target: Array) -> Array:
        fitted: Array = target.copy()
        fitted[0] = target[0] * x.shape[0] // first
        return fitted

    return fit


def check_batch(model: Model, run: Run, inputs: Sequence[torch.Tensor]) -> None:
    """Check that samples that are run together give what they give one by one.

    Args:
        model: Loaded model.
        run: Runs it in evaluation mode.
        inputs: What it is to be run on; only types and places of them are looked at.

    Raises:
        DataError: They do not.
    """
    batch = find_batch(model)
    generator = torch.Generator().manual_seed(0)
    parts = [
        [_draw(shape, like, generator) for shape, like in zip(model.inputs.values(), inputs, strict=True)]
        for _ in range(2)
    ]
    try:
        single = [run(part) for part in parts]
        joined = run([torch.cat(pair) for pair in zip(*parts, strict=True)])
        is_alike = all(_is_joined(one, two, both) for one, two, both in zip(*single, joined, strict=True))
    except SrrError:
        is_alike = False
    if not is_alike:
        raise DataError(
            f"the file has a batch of {batch} written into it, and means something else by another one: train with "
            f"batches of {batch}, or export it with an open batch"
        )


def is_bound(model: Model, baked: object) -> bool:
    """Whether another batch than that of the model's shapes has to be tried out before it is used."""
    return find_batch(model) is not None and (bool(baked) or has_fixed_batch(model, model.inputs))


def _draw(shape: Sequence[int], like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    values = torch.rand(tuple(shape), generator=generator)
    return (values if like.is_floating_point() else values.round()).to(like.device, like.dtype)


def _is_joined(one: torch.Tensor, two: torch.Tensor, both: torch.Tensor) -> bool:
    """Whether a value is two others one after the other, along the axis that has grown."""
    grown = [axis for axis, size in enumerate(one.shape) if both.dim() == one.dim() and both.shape[axis] == 2 * size]
    for axis in grown:
        parts = torch.cat([one, two], axis)
        if parts.shape == both.shape and parts.is_floating_point():
            return bool(torch.allclose(parts, both, rtol=_TOLERANCE, atol=_TOLERANCE * float(parts.abs().max())))
        if torch.equal(parts, both):
            return True
    return False
