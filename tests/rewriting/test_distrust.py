"""A wrong rule costs its group, never the user's model: the proof fails, the group stays, the rest is pruned."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from srr_onnx.analysis.labels import FreezeReason
from srr_onnx.analysis.rule import rules
from srr_onnx.errors import UnsupportedError
from srr_onnx.graph.load import load_model
from srr_onnx.pipeline import prune
from tests.builders import Graph


def two_branches() -> bytes:
    """One Conv whose channels are swapped on the way (by a Concat of two), and two that are not."""
    g = Graph(opset=17)
    x = g.input("x", (1, 3, 8, 8))
    joined = g("Concat", g.conv(x, 8), g.conv(x, 8), axis=1)
    straight = g("Relu", g.conv(g.conv(joined, 8), 8))
    g.output(g.conv(straight, 4))
    return g.model().SerializeToString()


def rolled(op):
    """Concat that shifts its channels by one: wrong on purpose."""
    parts = [op.axes(slot) for slot in range(len(op.node.inputs))]
    labels = np.concatenate([part[1] for part in parts])
    op.out([None, np.roll(labels, 1), None, None])


def crashing(op):
    """A rule with a mistake."""
    return op.axes(0)[7]


@pytest.fixture
def wrong_concat(monkeypatch):
    def use(function):
        key = ("", "Concat", 13)
        monkeypatch.setitem(rules._entries, key, dataclasses.replace(rules.get(key), propagate=function))

    return use


def test_a_wrong_rule_is_caught_and_the_rest_is_pruned(wrong_concat):
    honest = prune(load_model(two_branches()), ratio=0.5, criterion="l1").plan
    wrong_concat(rolled)
    plan = prune(load_model(two_branches()), ratio=0.5, criterion="l1").plan
    unproven = {entry["filters"] for entry in plan.frozen if entry["reason"] == FreezeReason.UNPROVEN.value}
    assert unproven == {"Conv_0", "Conv_2"}  # the two that are joined
    assert plan.proof["relative_error"] < 1e-4
    assert 0 < len(plan.groups) < len(honest.groups)


def test_a_rule_that_fails_freezes_what_it_touches(wrong_concat):
    wrong_concat(crashing)
    plan = prune(load_model(two_branches()), ratio=0.5, criterion="l1").plan
    failed = [entry for entry in plan.frozen if entry["reason"] == FreezeReason.RULE_FAILED.value]
    assert {entry["node"] for entry in failed} == {"Concat_0"}
    assert "IndexError" in failed[0]["detail"]
    assert plan.groups


def test_where_nothing_provable_is_left_the_refusal_is_clear(wrong_concat):
    g = Graph(opset=17)
    x = g.input("x", (1, 3, 8, 8))
    g.output(g.conv(g("Concat", g.conv(x, 8), g.conv(x, 8), axis=1), 4))
    wrong_concat(rolled)
    with pytest.raises(UnsupportedError, match="proof"):
        prune(load_model(g.model().SerializeToString()), ratio=0.5, criterion="l1")
