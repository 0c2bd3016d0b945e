"""VALIDATE: which widths a target likes, measured once per machine.

Three layers of one kind run at many widths. Time over width is a staircase whose steps end where a block of the vector
kernels is full; a width inside a step costs as much as the end of it, or more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from srr_onnx.graph.load import load_model
from srr_onnx.targets.cache import machine_key, read_cache, write_cache
from srr_onnx.targets.onnxruntime import Session
from srr_onnx.targets.target import Target

Array = np.ndarray[Any, Any]
Clock = Callable[[], float]

KINDS = ("pointwise", "spatial", "depthwise", "dense")
STEPS = (1, 2, 4, 8, 16, 32)
# Ends of the steps, and what lies between the last two of every step.
WIDTHS = (64, 65, 66, 68, 70, 72, 76, 80, 88, 96, 97, 98, 100, 104, 112, 120, 123, 124, 126, 127, 128)
# A step is as good as one twice as coarse if the widths that it adds are slower by less than this.
_CLOSE = 0.04
# Rounds at least, and at most while there is time, in seconds per kind: the more, the less a busy machine matters.
_ROUNDS, _MOST_ROUNDS, _PATIENCE = 15, 100, 2.0
_DEPTH, _SIDE = 3, 14


def probe_steps(target: Target, clock: Clock = time.perf_counter) -> dict[str, int]:
    """Find the steps of widths that a target likes, from the cache or by a few seconds of measuring.

    Args:
        target: Where models are to run.
        clock: Seconds since some moment.

    Returns:
        Channels per step, by kind of operator.

    Raises:
        TargetError: The target is not there.
    """
    key = {**machine_key(target), "widths": list(WIDTHS)}
    times = read_cache("staircase", key)
    if not _is_usable(times):
        times = {kind: measure_widths(target, kind, clock) for kind in KINDS}
        write_cache("staircase", key, times)
    return {kind: choose_step(WIDTHS, times[kind], is_square=kind != "depthwise") for kind in KINDS}


def _is_usable(times: Any) -> bool:
    return isinstance(times, dict) and all(
        isinstance(times.get(kind), list)
        and len(times[kind]) == len(WIDTHS)
        and all(isinstance(seconds, float) and 0 < seconds < math.inf for seconds in times[kind])
        for kind in KINDS
    )


def choose_step(widths: Sequence[int], times: Sequence[float], *, is_square: bool) -> int:
    """Find the finest step whose widths cost hardly more, for what they compute, than those of any coarser one.

    Args:
        widths: Measured widths.
        times: Time at each, in any unit.
        is_square: Whether what is computed grows with the square of the width.

    Returns:
        One of `STEPS`.
    """
    power = 2 if is_square else 1
    # What wide layers do better than narrow ones is no matter of steps: a line through the steps' ends takes it out.
    ends = [(width, seconds) for width, seconds in zip(widths, times, strict=True) if width % STEPS[-1] == 0]
    usual = np.polyfit([width for width, _ in ends], [seconds / width**power for width, seconds in ends], 1)
    prices = {
        width: seconds / width**power / float(np.polyval(usual, width))
        for width, seconds in zip(widths, times, strict=True)
    }
    step = STEPS[-1]
    for finer in reversed(STEPS[:-1]):
        allowed = [price for width, price in prices.items() if width % step == 0]
        added = [price for width, price in prices.items() if width % finer == 0 and width % step]
        if np.mean(added) > (1 + _CLOSE) * np.mean(allowed):
            break
        step = finer
    return step


def measure_widths(target: Target, kind: str, clock: Clock = time.perf_counter) -> list[float]:
    """Time layers of a kind at all `WIDTHS`, in turns; the fastest run of each counts.

    Args:
        target: Where they run.
        kind: One of `KINDS`.
        clock: Seconds since some moment.

    Returns:
        Seconds per width.

    Raises:
        TargetError: The target is not there.
    """
    models = [load_model(_make_layers(kind, width).SerializeToString()) for width in WIDTHS]
    sessions = [Session(model, target=target) for model in models]
    feeds: list[Mapping[str, Array]] = [
        {name: np.ones(shape, np.float32) for name, shape in model.inputs.items()} for model in models
    ]
    best = [math.inf] * len(WIDTHS)
    begin = clock()
    for done in range(_MOST_ROUNDS):
        if done >= _ROUNDS and clock() - begin > _PATIENCE:
            break
        for number, session in enumerate(sessions):
            start = clock()
            session.run(feeds[number])
            best[number] = min(best[number], clock() - start)
    return best


def _make_layers(kind: str, width: int) -> onnx.ModelProto:
    """Layers of one kind behind each other, all of one width."""
    rng = np.random.default_rng(width)
    side = 3 if kind in ("spatial", "depthwise") else 1
    shapes = {"dense": (width, width), "depthwise": (width, 1, side, side)}
    nodes, weights, value = [], [], "x"
    for number in range(_DEPTH):
        array = rng.standard_normal(shapes.get(kind, (width, width, side, side))).astype(np.float32) / width
        weights.append(numpy_helper.from_array(array, f"w{number}"))
        if kind == "dense":
            nodes.append(helper.make_node("MatMul", [value, f"w{number}"], [f"y{number}"]))
        else:
            groups = width if kind == "depthwise" else 1
            pads = [side // 2] * 4
            nodes.append(helper.make_node("Conv", [value, f"w{number}"], [f"y{number}"], pads=pads, group=groups))
        nodes.append(helper.make_node("Relu", [f"y{number}"], [f"r{number}"]))
        value = f"r{number}"
    shape = (_SIDE * _SIDE, width) if kind == "dense" else (1, width, _SIDE, _SIDE)
    graph = helper.make_graph(
        nodes,
        "staircase",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, shape)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
