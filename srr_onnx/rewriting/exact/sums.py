"""REWRITE: facts of sums and products of channels.

Source: ONNX operators Conv, ConvTranspose, Gemm, MatMul, BatchNormalization, Add, Sub, Mul and Div.
"""

from __future__ import annotations

import numpy as np

from srr_onnx.rewriting.exact.facts import Factors, Facts
from srr_onnx.rewriting.exact.follow import Step, followers
from srr_onnx.rewriting.exact.linear import describe_linear


@followers.register("Conv", "ConvTranspose", "Gemm", "MatMul")
def _follow_linear(step: Step) -> None:
    linear = describe_linear(step.model, step.node)
    if linear is None:
        return
    bias = step.weights.bias(linear)
    weight = step.weights.read(linear.weight)
    if bias is None or weight is None:
        return
    facts = step.knowledge.about(step.node.inputs[0], linear.axis)
    view = linear.view(weight)
    shape = (view.shape[0], view.shape[2])
    factors = facts.factors.reshape(shape) * linear.alpha
    if linear.alpha <= 0:
        return
    found = step.knowledge.combine(facts.ids.reshape(shape), factors, view, bias, has_border=linear.has_border)
    step.note(Facts(linear.out_axis, *found))


def _follow_affine(step: Step, facts: Facts, scale: Factors, shift: Factors) -> None:
    """Every channel times a number plus a number."""
    size = len(facts.ids)
    scale, shift = (np.broadcast_to(np.asarray(part, np.float64).reshape(-1), size) for part in (scale, shift))
    found = step.knowledge.combine(facts.ids[:, None], facts.factors[:, None], scale[:, None, None, None], shift)
    step.note(Facts(facts.axis, *found))


@followers.register("BatchNormalization")
def _follow_batch_normalization(step: Step) -> None:
    parts = [step.constant(slot) for slot in range(1, 5)]
    is_training = step.node.attributes.get("training_mode", 0) or any(step.node.outputs[1:])
    if is_training or step.node.since_version < 7 or step.rank(step.node.inputs[0]) < 2:
        return
    scale, shift, mean, variance = (None if part is None else part.astype(np.float64) for part in parts)
    if scale is None or shift is None or mean is None or variance is None:
        return
    slope = scale / np.sqrt(variance + step.node.attributes.get("epsilon", 1e-5))
    _follow_affine(step, step.knowledge.about(step.node.inputs[0], 1), slope, shift - slope * mean)


@followers.register("Add", "Sub", "Mul", "Div")
def _follow_arithmetic(step: Step) -> None:
    if step.node.since_version < 7:
        return
    for slot in (0, 1):
        if step.node.inputs[slot] in step.model.constants:
            _follow_operand(step, slot)
            return
    pair = _align(step)
    if pair is None:
        return
    first, second = pair
    kind = step.node.op_type
    ids = np.stack([first.ids, second.ids], axis=1)
    if kind in ("Add", "Sub"):
        weight = np.ones((len(ids), 1, 2, 1))
        weight[:, :, 1] = 1 if kind == "Add" else -1
        factors = np.stack([first.factors, second.factors], axis=1)
        found = step.knowledge.combine(ids, factors, weight, np.zeros(len(ids)))
        step.note(Facts(step.rank(step.node.outputs[0]) - 1 - step.distance(0, first), *found))
        return
    right = second.factors if kind == "Mul" else 1 / second.factors
    # A product with a constant is that channel, scaled; any other product is a base of its own per pair of bases.
    places = np.unique(np.where(ids == 0, -1, ids), axis=0, return_inverse=True)[1].reshape(-1)
    product = step.knowledge.renew(places + 1, step.knowledge.slack(ids).sum(axis=1))
    is_constant = first.is_constant & second.is_constant
    is_zero = (first.is_constant & (first.factors == 0)) | (second.is_constant & (second.factors == 0))
    is_zero &= kind == "Mul"
    bases = np.where(is_constant | is_zero, 0, product)
    values = np.where(is_zero, 0.0, first.factors * right)
    found = step.knowledge.combine(bases[:, None], values[:, None], np.ones((len(ids), 1, 1, 1)), np.zeros(len(ids)))
    step.note(Facts(step.rank(step.node.outputs[0]) - 1 - step.distance(0, first), *found))


def _distance(step: Step, slot: int, facts: Facts) -> int:
    """How far the channels lie from the last axis, where broadcasting starts to count."""
    return step.rank(step.node.inputs[slot]) - 1 - facts.axis


def _align(step: Step) -> tuple[Facts, Facts] | None:
    """Facts of two operands along the same axis of the result; None where there are none."""
    for slot in (0, 1):
        facts = step.facts(slot)
        if facts is None:
            continue
        other = step.node.inputs[1 - slot]
        axis = step.rank(other) - 1 - step.distance(slot, facts)
        shape = step.model.shapes.get(other, ())
        if 0 <= axis < len(shape) and shape[axis] == len(facts.ids):
            pair = (facts, step.knowledge.about(other, axis))
            return pair if slot == 0 else (pair[1], pair[0])
    return None


def _follow_operand(step: Step, slot: int) -> None:
    """Arithmetic with a constant: one number per channel, or one for all."""
    facts, operand = step.facts(1 - slot), step.constant(slot)
    if facts is None or operand is None or operand.dtype.kind in "iub":
        return
    distance = step.distance(1 - slot, facts)
    rank = step.rank(step.node.inputs[1 - slot])
    is_single = all(size == 1 for axis, size in enumerate(operand.shape) if axis != operand.ndim - 1 - distance)
    if operand.ndim > rank or not is_single or operand.size not in (1, len(facts.ids)):
        return
    numbers = operand.reshape(-1).astype(np.float64)
    one, none = np.ones(1), np.zeros(1)
    kind = step.node.op_type
    if kind == "Add":
        _follow_affine(step, facts, one, numbers)
    elif kind == "Mul":
        _follow_affine(step, facts, numbers, none)
    elif kind == "Sub":
        _follow_affine(step, facts, one if slot else -one, -numbers if slot else numbers)
    elif slot:
        _follow_affine(step, facts, 1 / numbers, none)
