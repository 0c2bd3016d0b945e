"""REWRITE: a graph, executed on what is known of its channels.

Every operator that is taught here has a function that notes the facts of its output. Of any other operator's output
nothing is known, which is always right.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from srr_onnx.analysis.groups import Use
from srr_onnx.graph.model import Model, Node
from srr_onnx.registry import Registry
from srr_onnx.rewriting.exact.facts import Factors, Facts, Knowledge
from srr_onnx.rewriting.exact.linear import Weights

Array = np.ndarray[Any, Any]

# Versions later than those of opset 26 have not been read.
_NEWEST = 26


class Step:
    """One node to be followed.

    Args:
        node: The node.
        knowledge: Facts of the values before it.
        weights: Constants, as corrected so far.
    """

    def __init__(self, node: Node, knowledge: Knowledge, weights: Weights) -> None:
        self.node = node
        self.model = knowledge.model
        self.knowledge = knowledge
        self.weights = weights

    def facts(self, slot: int = 0) -> Facts | None:
        """What is known of an input, None where nothing."""
        return self.knowledge.known(self.node.input(slot))

    def constant(self, slot: int) -> Array | None:
        """A constant input, None where it is absent or computed."""
        return self.weights.read(Use(self.node.index, slot))

    def rank(self, name: str) -> int:
        """Number of axes of a value; 0 where unknown."""
        return self.model.rank(name) or 0

    def distance(self, slot: int, facts: Facts) -> int:
        """How far the channels of an input lie from its last axis, from which broadcasting counts."""
        return self.rank(self.node.inputs[slot]) - 1 - facts.axis

    def note(self, facts: Facts, slot: int = 0) -> None:
        """Enter the facts of an output."""
        if slot < len(self.node.outputs) and self.node.outputs[slot]:
            self.knowledge.note(self.node.outputs[slot], facts)

    def note_scaled(self, facts: Facts, values: Factors | None = None, slot: int = 0, axis: int | None = None) -> None:
        """Enter facts of a function with f(t x) = t f(x) for positive t.

        Args:
            facts: Facts of the input.
            values: The function at the constant channels; None where it leaves them as they are.
            slot: Output.
            axis: Axis of the channels in the output, if another one.
        """
        factors = facts.factors if values is None else np.where(facts.is_constant, values, facts.factors)
        axis = facts.axis if axis is None else axis
        self.note(forget_infinite(self.knowledge, Facts(axis, self.knowledge.renew(facts.ids), factors)), slot)


def forget_infinite(knowledge: Knowledge, facts: Facts) -> Facts:
    """Take constants that are not finite for unknown."""
    is_known = np.isfinite(facts.factors)
    if is_known.all():
        return facts
    ids = np.where(is_known, facts.ids, knowledge.fresh(len(facts.ids)))
    return Facts(facts.axis, ids, np.where(is_known, facts.factors, 1.0))


Follower = Callable[[Step], None]
followers: Registry[str, Follower] = Registry("operator that is followed")


def follow(model: Model, weights: Weights, rearrangements: Mapping[int, Any]) -> Knowledge:
    """Find what is known of every channel of every value.

    Args:
        model: Loaded model.
        weights: Its constants, as corrected so far.
        rearrangements: Result of `find_rearrangements(model)`.

    Returns:
        The facts.
    """
    knowledge = Knowledge(model)
    inner = {index for found in rearrangements.values() for index in found.inner}
    for node in model.nodes:
        if node.index in inner or node.captured or node.domain or node.since_version > _NEWEST:
            continue
        if all(name in model.constants or name in model.shape_values for name in node.outputs if name):
            continue
        step = Step(node, knowledge, weights)
        if node.index in rearrangements:
            found = rearrangements[node.index]
            step.note(knowledge.about(found.source, found.axis).take(found.indices))
            continue
        follower = followers.find(node.op_type)
        if follower is not None:
            # Of a node that no author thought of nothing is known; what is not finite counts as unknown too.
            with np.errstate(all="ignore"), contextlib.suppress(ArithmeticError, LookupError, TypeError, ValueError):
                follower(step)
    return knowledge
