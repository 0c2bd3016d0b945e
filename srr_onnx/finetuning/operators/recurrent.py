"""FINE-TUNE: RNN, GRU and LSTM. The tensors of the file are the parameters; gates are reordered on the way.

What torch has a kernel for goes through it; anything else (other activations, peepholes, lengths per sample, a GRU that
resets before its product) is computed step by step.

Source: the ONNX pages of RNN, GRU and LSTM, versions 7, 14 and 22.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from srr_onnx.finetuning.operators.call import Call, operator

Array = np.ndarray[Any, Any]
Activation: TypeAlias = Callable[[Tensor], Tensor]
State: TypeAlias = tuple[Tensor, ...]

_SINCE = (7, 14, 22)
_KERNELS: dict[str, Callable[..., tuple[Tensor, ...]]] = {"RNN": torch.rnn_tanh, "GRU": torch.gru, "LSTM": torch.lstm}
_DEFAULTS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
# Functions with their parameters alpha and beta, and the values that these have by default; None where no page has one.
_ACTIVATIONS: dict[str, tuple[Callable[..., Tensor], tuple[float | None, ...]]] = {
    "affine": (lambda x, alpha, beta: alpha * x + beta, (None, None)),
    "elu": (functional.elu, (1.0,)),
    "hardsigmoid": (lambda x, alpha, beta: (alpha * x + beta).clamp(0, 1), (0.2, 0.5)),
    "leakyrelu": (functional.leaky_relu, (0.01,)),
    "relu": (torch.relu, ()),
    "scaledtanh": (lambda x, alpha, beta: alpha * torch.tanh(beta * x), (None, None)),
    "sigmoid": (torch.sigmoid, ()),
    "softplus": (functional.softplus, ()),
    "softsign": (functional.softsign, ()),
    "tanh": (torch.tanh, ()),
}
# Which of ONNX's gates torch has in each place: i o f c there, i f g o here; z r h there, r z n here.
_ORDER = {"RNN": (0,), "GRU": (1, 0, 2), "LSTM": (0, 2, 3, 1)}


@dataclasses.dataclass(frozen=True, eq=False)
class _Direction:
    """What one direction computes with.

    Attributes:
        weight: Of the input, (gates H, I).
        recurrence: Of the state, (gates H, H).
        bias: Of the input, (gates H).
        recurrence_bias: Of the state, (gates H).
        activations: Functions, as many as the operator has.
        peephole: Weights of the cell in the gates i, o and f, (3 H); None where it has no part in them.
    """

    weight: Tensor
    recurrence: Tensor
    bias: Tensor
    recurrence_bias: Tensor
    activations: Sequence[Activation]
    peephole: Tensor | None = None


Step: TypeAlias = Callable[[Call, _Direction, Tensor, State], State]


@operator("RNN", since=_SINCE)
@operator("GRU", since=_SINCE)
def rnn(
    call: Call,
    x: Tensor,
    weight: Tensor,
    recurrence: Tensor,
    bias: Tensor | None = None,
    lengths: Tensor | None = None,
    state: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """All states and the last one of a recurrence with one state."""
    return _recur(call, x, weight, recurrence, bias, lengths, [state], None)


@operator("LSTM", since=_SINCE)
def lstm(
    call: Call,
    x: Tensor,
    weight: Tensor,
    recurrence: Tensor,
    bias: Tensor | None = None,
    lengths: Tensor | None = None,
    state: Tensor | None = None,
    cell: Tensor | None = None,
    peephole: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """All states, the last one, and the last cell of a recurrence with a state and a cell."""
    return _recur(call, x, weight, recurrence, bias, lengths, [state, cell], peephole)


def _recur(
    call: Call,
    x: Tensor,
    weight: Tensor,
    recurrence: Tensor,
    bias: Tensor | None,
    lengths: Tensor | None,
    starts: Sequence[Tensor | None],
    peephole: Tensor | None,
) -> tuple[Tensor, ...]:
    """Run all directions; the sequence comes first inside, whatever the layout."""
    if call.attribute("clip"):
        raise call.refuse(f"clips its gates (clip = {call.attribute('clip'):g})")
    is_batch_first = bool(call.attribute("layout", 0))
    if is_batch_first:
        x = x.transpose(0, 1)
        starts = [None if start is None else start.transpose(0, 1) for start in starts]
    count, _, hidden = recurrence.shape
    zeros = x.new_zeros(count, x.shape[1], hidden)
    # Each (D, N, H). torch's kernels do not look whether the batch fits; a state of one sample serves all.
    first = tuple(zeros if start is None else start.expand(zeros.shape).contiguous() for start in starts)
    if bias is None:
        bias = weight.new_zeros(count, 2 * weight.shape[1])
    parts = bias.chunk(2, 1)
    if lengths is None and peephole is None and _is_native(call, count):
        states, last = _native(call, x, weight, recurrence, parts, first)
    else:
        peepholes = [None] * count if peephole is None else list(peephole)
        functions = _activations(call, count)
        sets = [_Direction(*tensors) for tensors in zip(weight, recurrence, *parts, functions, peepholes, strict=True)]
        states, last = _step_by_step(call, x, sets, lengths, first)
    if is_batch_first:
        return states.permute(2, 0, 1, 3), *(value.transpose(0, 1) for value in last)
    return states, *last


def _activations(call: Call, directions: int) -> list[list[Activation]]:
    """The functions of every direction; those with parameters take the next of the lists alpha and beta."""
    given = iter(call.attribute("activation_alpha", ())), iter(call.attribute("activation_beta", ()))
    names = call.attribute("activations") or _DEFAULTS[call.node.op_type] * directions
    found: list[Activation] = []
    for name in names:
        if name.lower() not in _ACTIVATIONS:
            raise call.refuse(f"has the activation {name}")
        function, defaults = _ACTIVATIONS[name.lower()]
        numbers = [next(values, default) for values, default in zip(given, defaults, strict=False)]
        if None in numbers:
            raise call.refuse(f"has the activation {name} without its alpha and beta")
        found.append(_bind(function, numbers))
    share = len(found) // directions
    return [found[d * share : (d + 1) * share] for d in range(directions)]


def _bind(function: Callable[..., Tensor], numbers: Sequence[float | None]) -> Activation:
    return lambda x: function(x, *numbers)


def _is_native(call: Call, directions: int) -> bool:
    """Whether torch has a kernel for the node."""
    kind = call.node.op_type
    usual = [name.lower() for name in _DEFAULTS[kind]] * directions
    has_usual = [name.lower() for name in call.attribute("activations") or usual] == usual
    resets_behind = kind != "GRU" or call.attribute("linear_before_reset", 0)
    return bool(has_usual and resets_behind and not call.attribute("input_forget", 0))


def _native(
    call: Call, x: Tensor, weight: Tensor, recurrence: Tensor, biases: Sequence[Tensor], first: State
) -> tuple[Tensor, State]:
    """All states (T, D, N, H) and the last ones (D, N, H), by torch's kernel."""
    kind = call.node.op_type
    starts: Any = first if kind == "LSTM" else first[0]
    is_turned = call.attribute("direction", "forward") == "reverse"
    tensors = [_reorder(part[d], _ORDER[kind]) for d in range(len(weight)) for part in (weight, recurrence, *biases)]
    made = _KERNELS[kind](x.flip(0) if is_turned else x, starts, tensors, True, 1, 0.0, False, len(weight) == 2, False)
    states = torch.stack(made[0].chunk(len(weight), 2), 1)  # (T, N, D H) -> (T, D, N, H)
    return states.flip(0) if is_turned else states, tuple(made[1:])


def _reorder(gates: Tensor, order: Sequence[int]) -> Tensor:
    """Gates along the first axis in another order."""
    blocks = gates.chunk(len(order))
    return torch.cat([blocks[place] for place in order]) if len(order) > 1 else gates


def _step_by_step(
    call: Call, x: Tensor, sets: Sequence[_Direction], lengths: Tensor | None, first: State
) -> tuple[Tensor, State]:
    """All states (T, D, N, H), zero beyond a sample's length, and the last ones (D, N, H) within it."""
    step = {"RNN": _step_rnn, "GRU": _step_gru, "LSTM": _step_lstm}[call.node.op_type]
    states, last = [], []
    for d, way in enumerate(sets):
        is_turned = d == 1 or call.attribute("direction", "forward") == "reverse"
        state: State = tuple(start[d] for start in first)
        made = []
        for t in reversed(range(len(x))) if is_turned else range(len(x)):
            new = step(call, way, x[t], state)
            if lengths is not None:  # a sample that has ended, or has not begun yet, keeps its state
                is_inside = (t < lengths)[:, None]
                new = tuple(torch.where(is_inside, now, before) for now, before in zip(new, state, strict=True))
                made.append(torch.where(is_inside, new[0], 0))
            else:
                made.append(new[0])
            state = new
        states.append(torch.stack(made[::-1] if is_turned else made))
        last.append(state)
    return torch.stack(states, 1), tuple(torch.stack(parts) for parts in zip(*last, strict=True))


def _step_rnn(call: Call, way: _Direction, x: Tensor, state: State) -> State:
    total = functional.linear(x, way.weight, way.bias) + functional.linear(
        state[0], way.recurrence, way.recurrence_bias
    )
    return (way.activations[0](total),)


def _step_gru(call: Call, way: _Direction, x: Tensor, state: State) -> State:
    f, g = way.activations
    (before,) = state
    from_x = functional.linear(x, way.weight, way.bias).chunk(3, 1)
    weights, biases = way.recurrence.chunk(3), way.recurrence_bias.chunk(3)
    update = f(from_x[0] + functional.linear(before, weights[0], biases[0]))
    reset = f(from_x[1] + functional.linear(before, weights[1], biases[1]))
    if call.attribute("linear_before_reset", 0):
        new = g(from_x[2] + reset * functional.linear(before, weights[2], biases[2]))
    else:
        new = g(from_x[2] + functional.linear(reset * before, weights[2], biases[2]))
    return ((1 - update) * new + update * before,)


def _step_lstm(call: Call, way: _Direction, x: Tensor, state: State) -> State:
    f, g, h = way.activations
    before, cell = state
    total = functional.linear(x, way.weight, way.bias) + functional.linear(before, way.recurrence, way.recurrence_bias)
    enter, leave, keep, new = total.chunk(4, 1)
    to_enter, to_leave, to_keep = way.peephole.chunk(3) if way.peephole is not None else (0, 0, 0)
    entering = f(enter + to_enter * cell)
    keeping = 1 - entering if call.attribute("input_forget", 0) else f(keep + to_keep * cell)
    cell = keeping * cell + entering * g(new)
    return f(leave + to_leave * cell) * h(cell), cell
