"""VALIDATE: how long every node of a model takes, and the whole of it.

A runtime fuses nodes and calls what it makes after one of them, or after what they give. The time of such a kernel is
put to the node that does the work; what belongs to no node is spread over all of them, so that the sum is the time of a
run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from srr_onnx.graph.model import Model, Node
from srr_onnx.graph.runtime import find_numbers
from srr_onnx.targets.onnxruntime import Session
from srr_onnx.targets.profiling import Kernel, record_kernels
from srr_onnx.targets.target import Target
from srr_onnx.validation.latency import measure_latency

Array = np.ndarray[Any, Any]

# What onnxruntime appends to the name of a value to name the kernel that makes it.
_ENDINGS = re.compile(r"(_token_\d+|_nchwc|_bn|_\d+)$")
# Operators that are done on the way out of the one before.
_PASSING = frozenset({"Relu", "Clip", "Sigmoid", "HardSigmoid", "LeakyRelu", "Tanh"})
_SUMS = frozenset({"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"})
# Seconds that a measurement may take beside the least number of runs.
_PATIENCE = 6.0
_LEAST, _MOST = 7, 60


def time_models(models: Sequence[Model], feeds: Mapping[str, Array], target: Target) -> list[float]:
    """Time models in turns; the fastest run of each counts.

    Args:
        models: Models with the same inputs.
        feeds: One array per input.
        target: Where they run.

    Returns:
        Nanoseconds of a run, by model.

    Raises:
        ModelError: The runtime refuses one of them.
        TargetError: The target is not there.
    """
    sessions = [Session(model, target=target) for model in models]
    first = measure_latency(sessions, feeds, rounds=2, warm_up=1)
    once = sum(latency.fastest for latency in first)
    rounds = max(_LEAST, min(_MOST, int(_PATIENCE / once)))
    found = measure_latency(sessions, feeds, rounds, warm_up=1)
    return [1e9 * min(a.fastest, b.fastest) for a, b in zip(first, found, strict=True)]


def time_nodes(
    model: Model, feeds: Mapping[str, Array], target: Target, total: float | None = None
) -> dict[str, float]:
    """Time every node of a model.

    Args:
        model: Loaded model.
        feeds: One array per input.
        target: Where it runs.
        total: Nanoseconds of a run without recording, which the times are to sum up to; as recorded if None.

    Returns:
        Nanoseconds by name of a node's first output; nodes that are done as part of others are missing.

    Raises:
        ModelError: The runtime refuses the model.
        TargetError: The target is not there.
    """
    once = 1.0 if total is None else total / 1e9
    runs = max(_LEAST, min(_MOST, int(_PATIENCE / 2 / once)))
    found: dict[str, float] = {}
    finder = _Finder(model)
    for kernel in record_kernels(model, target, feeds, runs).kernels:
        node = finder.find(kernel)
        if node is not None:
            name = node.outputs[0]
            found[name] = found.get(name, 0.0) + 1e9 * float(kernel.seconds.min())
    scale = 1.0 if total is None or not found else total / max(math.fsum(found.values()), 1.0)
    return {name: time * scale for name, time in found.items()}


class _Finder:
    """Which node of a model a kernel does the work of."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._by_index = {node.index: node for node in model.nodes}
        self._makers = {name: node for node in model.nodes for name in node.outputs if name}

    def find(self, kernel: Kernel) -> Node | None:
        """The node, None where the kernel only lays data out anew."""
        numbers = find_numbers(kernel.name)
        node = self._by_index.get(numbers[0]) if numbers else None
        name = kernel.name
        while node is None and name not in self._makers and _ENDINGS.search(name):
            name = _ENDINGS.sub("", name)
        node = node or self._makers.get(name)
        if node is None or kernel.op_type not in _SUMS:
            return node
        before = node
        while before.op_type in _PASSING and before.inputs[0] in self._makers:
            before = self._makers[before.inputs[0]]
        return before if before.op_type in ("Conv", "Gemm", "MatMul", "ConvTranspose") else node
