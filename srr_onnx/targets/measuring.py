"""PLAN: shapes that only a run tells, so that the layers behind them count.

Behind an If, a Loop or a NonZero, inference knows no shape. The analysis keeps channels there; their cost is part of
the model's all the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from srr_onnx.errors import ModelError
from srr_onnx.graph.cost import find_uncounted
from srr_onnx.graph.model import Model
from srr_onnx.targets.onnxruntime import Session

Array = np.ndarray[Any, Any]


def measure_shapes(model: Model, make_feeds: Callable[[Model], Mapping[str, Array]]) -> Model:
    """Run a model once to find the shapes that its counted layers lack; a model that lacks none is not run.

    Args:
        model: Loaded model.
        make_feeds: Makes one array per graph input.

    Returns:
        The model with `measured` shapes; as it was where the runtime cannot run it.
    """
    values = {name for node in find_uncounted(model) for name in (*node.inputs[:2], node.outputs[0])}
    missing = sorted(values - set(model.sizes) - {""})
    if not missing:
        return model
    for as_float32 in (False, True):
        try:
            found = Session(model, missing, is_exact=True, as_float32=as_float32).run(make_feeds(model))
        except ModelError:
            continue
        return dataclasses.replace(model, measured={name: np.shape(array) for name, array in found.items()})
    return model
