"""REWRITE: statistics of normalizations set anew from samples, so that they fit what the pruned layers give.

Unlike least squares this has no target: the statistics become those of the samples. Images of another domain than the
model's own therefore do harm.

Source:
    Li et al., "EagleEye: Fast Sub-net Evaluation for Efficient Neural Network Pruning", ECCV 2020, arXiv:2007.02491,
    section 3.3 (adaptive batch normalization). Deviates: one normalization after the other, each on what the corrected
    ones before it give, and over all samples instead of a running mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from srr_onnx.calibration.moments import Variance
from srr_onnx.calibration.observe import Samples
from srr_onnx.calibration.stream import Stream
from srr_onnx.errors import DataError
from srr_onnx.graph.edit import Edits, apply_edits
from srr_onnx.graph.model import Model, Node
from srr_onnx.rewriting.sinks import is_own

Array = np.ndarray[Any, Any]

# Versions whose inference form this module knows; those before 7 tell it from training by an attribute.
_SINCE = (7, 9, 14, 15)


def recalibrate(
    model: Model, samples: Samples, on_layer: Callable[[int, int], None] = lambda done, steps: None
) -> tuple[Model, int]:
    """Set mean and variance of every normalization to those of its input on samples, in execution order.

    Args:
        model: Loaded model; not changed.
        samples: Inputs of the model's own domain.
        on_layer: Told the normalizations done and all of them.

    Returns:
        The model with new statistics, and how many normalizations have them; the model itself where none has.

    Raises:
        DataError: What a normalization reads is not finite on the samples.
        ModelError: onnxruntime cannot run the model on them.
    """
    norms = [node for node in model.nodes if _is_adjustable(model, node)]
    contents: dict[str, Array] = {}
    with Stream(model, samples.chunks, [{node.inputs[0]} for node in norms], as_float32=samples.as_float32) as stream:
        for number, node in enumerate(norms):
            found = Variance()
            with np.errstate(invalid="ignore", over="ignore"):  # told by what comes out
                for values in stream.advance(contents):
                    found.add(_to_rows(values[node.inputs[0]]))
                statistics = found.mean, found.get()
            if not all(np.isfinite(array).all() for array in statistics):
                raise DataError(
                    f"normalization {node.label!r} reads values that are NaN or infinite on the samples: check the "
                    "preprocessing, or leave out --recalibrate-norms"
                )
            for name, array in zip(node.inputs[3:5], statistics, strict=True):
                contents[name] = array.astype(model.constants[name].dtype)
            on_layer(number + 1, len(norms))
    return (apply_edits(model, Edits(tensors=contents)) if contents else model), len(norms)


def _to_rows(values: Array) -> Array:
    """Values `(N, C, ...)` as rows of channels, each channel contiguous: sums over it are ten times faster."""
    return np.asarray(np.moveaxis(values, 1, 0).reshape(values.shape[1], -1).T)


def _is_adjustable(model: Model, node: Node) -> bool:
    """Whether a node is a normalization in inference form whose statistics are stored and nobody else's."""
    if node.op_type != "BatchNormalization" or node.domain or node.since_version not in _SINCE:
        return False
    is_inference = not node.attributes.get("training_mode", 0) and not any(node.outputs[1:])
    is_per_channel = bool(node.attributes.get("spatial", 1))
    return is_inference and is_per_channel and all(is_own(model, name) for name in node.inputs[3:5])
