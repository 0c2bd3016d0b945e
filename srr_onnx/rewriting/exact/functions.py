"""REWRITE: facts of functions of one number, which are evaluated where a channel is constant.

Source: the ONNX operator pages of the operators named below. Only functions without steps are here: at a step a
rounding error would decide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from srr_onnx.graph.model import is_floating
from srr_onnx.rewriting.exact.facts import Facts
from srr_onnx.rewriting.exact.follow import Step, followers

Factors = np.ndarray[Any, np.dtype[np.float64]]
Attributes = Mapping[str, Any]


def _sigmoid(x: Factors) -> Factors:
    return np.asarray(1 / (1 + np.exp(-x)))


def _softplus(x: Factors) -> Factors:
    return np.asarray(np.logaddexp(0, x))


def _erf(x: Factors) -> Factors:
    return np.array([math.erf(value) for value in x])


def _elu(x: Factors, alpha: float, gamma: float = 1.0) -> Factors:
    return np.where(x < 0, gamma * alpha * np.expm1(np.minimum(x, 0)), gamma * x)


def _gelu(x: Factors, approximate: str) -> Factors:
    if approximate == "tanh":
        inner = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    else:
        inner = _erf(x / math.sqrt(2))
    return np.asarray(0.5 * x * (1 + inner))


def _hard_sigmoid(x: Factors, a: Attributes) -> Factors:
    return np.asarray(np.clip(a.get("alpha", 0.2) * x + a.get("beta", 0.5), 0, 1))


# Functions f with f(t x) = t f(x) for every positive t: channels that are equal up to a factor stay so.
HOMOGENEOUS: dict[str, Callable[[Factors, Attributes], Factors]] = {
    "Abs": lambda x, a: np.abs(x),
    "Identity": lambda x, a: x,
    "LeakyRelu": lambda x, a: np.where(x < 0, a.get("alpha", 0.01) * x, x),
    "Relu": lambda x, a: np.maximum(x, 0),
}

# Functions that keep equal channels equal, and no more.
POINTWISE: dict[str, Callable[[Factors, Attributes], Factors]] = {
    "Celu": lambda x, a: (
        np.maximum(x, 0) + np.minimum(0, a.get("alpha", 1.0) * np.expm1(np.minimum(x, 0) / a.get("alpha", 1.0)))
    ),
    "Cos": lambda x, a: np.cos(x),
    "Elu": lambda x, a: _elu(x, a.get("alpha", 1.0)),
    "Erf": lambda x, a: _erf(x),
    "Exp": lambda x, a: np.exp(x),
    "Gelu": lambda x, a: _gelu(x, a.get("approximate", "none")),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda x, a: x * np.clip(x / 6 + 0.5, 0, 1),
    "Log": lambda x, a: np.log(x),
    "Mish": lambda x, a: x * np.tanh(_softplus(x)),
    "Reciprocal": lambda x, a: 1 / x,
    "Selu": lambda x, a: _elu(x, a.get("alpha", 1.67326319217681884765625), a.get("gamma", 1.05070102214813232421875)),
    "Sigmoid": lambda x, a: _sigmoid(x),
    "Sin": lambda x, a: np.sin(x),
    "Softplus": lambda x, a: _softplus(x),
    "Softsign": lambda x, a: x / (1 + np.abs(x)),
    "Sqrt": lambda x, a: np.sqrt(x),
    "Tanh": lambda x, a: np.tanh(x),
}


@followers.register(*HOMOGENEOUS)
def _follow_homogeneous(step: Step) -> None:
    facts = step.facts()
    if facts is not None:
        step.note_scaled(facts, HOMOGENEOUS[step.node.op_type](facts.factors, step.node.attributes))


def _note_function(step: Step, facts: Facts, values: Factors, *more: Factors) -> None:
    keys = np.stack([facts.factors, *more], axis=1)
    step.note(Facts(facts.axis, *step.knowledge.apply(facts.ids, keys, values, facts.is_constant)))


@followers.register(*POINTWISE)
def _follow_pointwise(step: Step) -> None:
    facts = step.facts()
    if facts is not None:
        _note_function(step, facts, POINTWISE[step.node.op_type](facts.factors, step.node.attributes))


@followers.register("Clip")
def _follow_clip(step: Step) -> None:
    facts, bounds = step.facts(), [-np.inf, np.inf]
    for place, name in enumerate(("min", "max")):
        bounds[place] = float(step.node.attributes.get(name, bounds[place]))
        if step.node.input(place + 1):
            given = step.constant(place + 1)
            if given is None or given.size != 1:
                return
            bounds[place] = float(given.reshape(-1)[0])
    if facts is not None:
        _note_function(step, facts, np.minimum(np.maximum(facts.factors, bounds[0]), bounds[1]))


@followers.register("Cast")
def _follow_cast(step: Step) -> None:
    facts, dtype = step.facts(), step.model.dtypes.get(step.node.outputs[0])
    if facts is not None and dtype is not None and is_floating(dtype):
        _note_function(step, facts, facts.factors.astype(dtype).astype(np.float64))


@followers.register("PRelu")
def _follow_prelu(step: Step) -> None:
    facts, slope = step.facts(), step.constant(1)
    if facts is None or slope is None or step.node.since_version < 7:
        return
    distance = step.distance(0, facts)
    is_single = all(size == 1 for axis, size in enumerate(slope.shape) if axis != slope.ndim - 1 - distance)
    if slope.ndim > step.rank(step.node.inputs[0]) or not is_single or slope.size not in (1, len(facts.ids)):
        return
    slopes = np.broadcast_to(slope.reshape(-1).astype(np.float64), len(facts.ids))
    values = np.where(facts.factors < 0, slopes * facts.factors, facts.factors)
    ids, found = step.knowledge.apply(facts.ids, slopes[:, None], values, facts.is_constant)
    step.note(Facts(facts.axis, ids, np.where(facts.is_constant, found, facts.factors)))
