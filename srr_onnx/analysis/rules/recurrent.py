"""Rules of recurrent operators.

Source: ONNX operators LSTM, GRU, RNN (7, 14, 22). W is (directions, gates * hidden, input), R is (directions,
gates * hidden, hidden), B is (directions, 2 * gates * hidden), P (LSTM only) is (directions, 3 * hidden).
"""

from __future__ import annotations

import numpy as np

from srr_onnx.analysis.groups import Role
from srr_onnx.analysis.labels import FreezeReason, Labels
from srr_onnx.analysis.rule import CannotFollow, Change, Op, channel_rule

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_SEQUENCE_LENGTHS, _INITIAL_H, _INITIAL_C, _PEEPHOLES = 4, 5, 6, 7


def repair_hidden_size(change: Change) -> None:
    """Set `hidden_size` to the number of hidden units that are left."""
    kept = change.kept(2, 2)
    if kept is not None:
        change.set_attribute("hidden_size", len(kept))


@channel_rule("LSTM", "GRU", "RNN", since=(7, 14, 22), repair=repair_hidden_size)
def recurrent(op: Op) -> None:
    """Inputs are summed over, like those of a Conv. Hidden units go inexactly: they also feed each other.

    All directions share their axes, so a hidden unit goes in every direction at once.
    """
    if not (op.is_constant(1) and op.is_constant(2)):
        raise CannotFollow(FreezeReason.COMPUTED_OPERAND, "weights")
    x, weight, recurrence = op.axes(0), op.axes(1), op.axes(2)
    op.unify(x[2], weight[2])
    op.freeze(x[:2], FreezeReason.FIXED_AXIS, "sequence or batch axis")
    op.role(1, 2, Role.INPUT)
    op.role(1, 1, Role.FILTER)
    hidden = recurrence[2]
    assert hidden is not None
    op.inexact(hidden)
    op.role(2, 2, Role.INPUT)
    op.role(2, 1, Role.FILTER)
    gates = _GATES[op.node.op_type]
    _tie_gates(op, weight[1], hidden, gates)
    _tie_gates(op, recurrence[1], hidden, gates)
    if op.has(3):
        _tie_gates(op, op.axes(3)[1], hidden, 2 * gates)
        op.role(3, 1, Role.SHIFT)
    if op.has(_PEEPHOLES):
        _tie_gates(op, op.axes(_PEEPHOLES)[1], hidden, 3)
    for slot in (_INITIAL_H, _INITIAL_C):
        if op.has(slot):
            op.unify(op.axes(slot)[2], hidden)
    for slot in range(len(op.node.outputs)):
        if op.node.outputs[slot]:
            op.out([None] * (len(op.out_shape(slot)) - 1) + [hidden], slot)


def _tie_gates(op: Op, labels: Labels | None, hidden: Labels, gates: int) -> None:
    """An axis that holds every hidden unit once per gate."""
    op.unify(labels, np.tile(hidden, gates))
