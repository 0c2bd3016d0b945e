"""REWRITE: facts of operators that move channels, or work along other axes than theirs.

Source: the ONNX operator pages of the operators named below.
"""

from __future__ import annotations

import math

import numpy as np

from srr_onnx.rewriting.exact.facts import Facts
from srr_onnx.rewriting.exact.follow import Step, followers


@followers.register("Concat")
def _follow_concat(step: Step) -> None:
    known = [step.facts(slot) for slot in range(len(step.node.inputs))]
    rank = step.rank(step.node.outputs[0])
    axis = step.node.attributes.get("axis", 1)
    axis += rank if axis < 0 else 0
    if any(facts is not None and facts.axis == axis for facts in known):
        parts = [step.knowledge.about(name, axis) for name in step.node.inputs]
        step.note(Facts(axis, np.concatenate([p.ids for p in parts]), np.concatenate([p.factors for p in parts])))


@followers.register("Split")
def _follow_split(step: Step) -> None:
    facts, start = step.facts(), 0
    if facts is None:
        return
    axis = step.node.attributes.get("axis", 0)
    is_along = facts.axis == axis % step.rank(step.node.inputs[0])
    for slot, name in enumerate(step.node.outputs):
        shape = step.model.shapes.get(name)
        if shape is None:
            return
        if not is_along:
            step.note_scaled(facts, slot=slot)
            continue
        end = start + shape[facts.axis]
        step.note(facts.take(np.arange(start, end)), slot)
        start = end


@followers.register("Slice")
def _follow_slice(step: Step) -> None:
    facts = step.facts()
    if facts is None:
        return
    if step.node.since_version < 10:
        given = [step.node.attributes.get(name) for name in ("starts", "ends", "axes")]
        starts, ends, axes = (None if part is None else np.asarray(part) for part in given)
        steps = None
    else:
        starts, ends, axes, steps = (step.constant(slot) for slot in range(1, 5))
        if any(step.node.input(slot) and step.constant(slot) is None for slot in range(1, 5)):
            return
    if starts is None or ends is None:
        return
    rank, count = step.rank(step.node.inputs[0]), len(starts)
    places = np.arange(count) if axes is None else np.where(axes < 0, axes + rank, axes)
    strides = np.ones(count, np.int64) if steps is None else steps
    indices = np.arange(len(facts.ids), dtype=np.int64)
    for axis, start, end, stride in zip(places.tolist(), starts.tolist(), ends.tolist(), strides.tolist(), strict=True):
        if axis == facts.axis:
            # Walking backwards, an end below the first position means "past it", which a slice says by None.
            is_open = stride < 0 and end < -len(indices)
            indices = indices[start : None if is_open else end : stride]
    if facts.axis in places:
        step.note(facts.take(indices))
    else:
        step.note_scaled(facts)


@followers.register("Gather")
def _follow_gather(step: Step) -> None:
    facts, indices = step.facts(), step.constant(1)
    axis = step.node.attributes.get("axis", 0) % max(1, step.rank(step.node.inputs[0]))
    if facts is not None and indices is not None and indices.ndim == 1 and axis == facts.axis:
        step.note(facts.take(indices.astype(np.int64)))


@followers.register("Transpose")
def _follow_transpose(step: Step) -> None:
    facts = step.facts()
    if facts is not None:
        order = step.node.attributes.get("perm") or list(reversed(range(step.rank(step.node.inputs[0]))))
        step.note_scaled(facts, axis=list(order).index(facts.axis))


@followers.register("Flatten", "Reshape", "Squeeze", "Unsqueeze")
def _follow_reshape(step: Step) -> None:
    """Followed where the axes before the channels stay, and the channels stay or are joined with all axes behind."""
    facts = step.facts()
    before, after = (step.model.shapes.get(name) for name in (step.node.inputs[0], step.node.outputs[0]))
    if facts is None or before is None or after is None:
        return
    axis = facts.axis
    if axis >= len(after) or before[:axis] != after[:axis]:
        return
    if step.node.op_type == "Reshape" and axis > 0 and step.model.is_dynamic:
        target = step.constant(1)
        if target is not None and target.reshape(-1)[0] > 0:
            return  # the batch has this size by chance
    behind = math.prod(before[axis + 1 :])
    if after[axis] == before[axis]:
        step.note_scaled(facts)
    elif after[axis] == before[axis] * behind:
        spread = np.where(facts.is_constant[:, None], 0, facts.ids[:, None] * behind + np.arange(behind)).reshape(-1)
        ids = step.knowledge.renew(spread, np.repeat(step.knowledge.slack(facts.ids), behind))
        step.note(Facts(axis, ids, np.repeat(facts.factors, behind)))


@followers.register("Dropout")
def _follow_dropout(step: Step) -> None:
    facts, training = step.facts(), step.constant(2)
    is_off = not step.node.input(2) or (training is not None and not training.any())
    if facts is not None and is_off and step.node.since_version >= 7:
        step.note_scaled(facts)


@followers.register("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
def _follow_pool(step: Step) -> None:
    facts, node = step.facts(), step.node
    if facts is None or facts.axis != 1 or any(node.outputs[1:]):
        return
    if node.op_type == "AveragePool" and (node.attributes.get("count_include_pad") or node.attributes.get("ceil_mode")):
        facts = _forget_constants(step, facts)
    elif node.op_type == "MaxPool" and node.attributes.get("ceil_mode"):  # a window may hold nothing but padding
        facts = _forget_constants(step, facts, is_zero_kept=False)
    step.note_scaled(facts)


def _forget_constants(step: Step, facts: Facts, *, is_zero_kept: bool = True) -> Facts:
    """Facts of an operator that reads something else beyond the border; where it reads zeros, a zero stays one."""
    is_lost = facts.is_constant & ((facts.factors != 0) | (not is_zero_kept))
    ids = np.where(is_lost, step.knowledge.fresh(len(facts.ids)), facts.ids)
    return Facts(facts.axis, ids, np.where(is_lost, 1.0, facts.factors))


@followers.register("ReduceMean", "ReduceMax", "ReduceMin")
def _follow_reduction(step: Step) -> None:
    facts, node = step.facts(), step.node
    given = np.asarray(node.attributes["axes"]) if "axes" in node.attributes else step.constant(1)
    if facts is None or given is None or given.size == 0:
        return
    rank = step.rank(node.inputs[0])
    axes = {int(axis) % rank for axis in given.reshape(-1)}
    if facts.axis in axes:
        return
    gone = 0 if node.attributes.get("keepdims", 1) else sum(axis < facts.axis for axis in axes)
    step.note_scaled(facts, axis=facts.axis - gone)


@followers.register("Pad")
def _follow_pad(step: Step) -> None:
    facts, node = step.facts(), step.node
    pads = np.asarray(node.attributes["pads"]) if "pads" in node.attributes else step.constant(1)
    if facts is None or pads is None or node.since_version < 2 or (len(node.inputs) > 3 and node.inputs[3]):
        return
    rank = step.rank(node.inputs[0])
    if len(pads) != 2 * rank or pads[facts.axis] or pads[facts.axis + rank]:
        return
    if node.attributes.get("mode", "constant") != "constant":
        step.note_scaled(facts)
        return
    filler = step.constant(2) if node.input(2) else np.asarray(node.attributes.get("value", 0.0))
    if filler is not None and not filler.any():
        step.note_scaled(_forget_constants(step, facts))


@followers.register("Resize", "Upsample")
def _follow_resize(step: Step) -> None:
    """Weights of nearest and linear interpolation are not negative and sum up to one."""
    facts, attributes = step.facts(), step.node.attributes
    is_plain = attributes.get("mode", "nearest") in ("nearest", "linear")
    is_inside = attributes.get("coordinate_transformation_mode", "") != "tf_crop_and_resize"
    shape = step.model.shapes.get(step.node.outputs[0], ())
    if facts is not None and is_plain and is_inside and shape[facts.axis : facts.axis + 1] == facts.ids.shape:
        step.note_scaled(facts)
