from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from srr_onnx.errors import UnsupportedError
from tests.finetuning.node_cases import call_node, check_gradients, failures, run_node

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
STEPS, SAMPLES, FEATURES, HIDDEN = 4, 3, 2, 3


def operands(op_type: str, directions: int = 1, *, states: bool = True, lengths: bool = False) -> list[Any]:
    """Everything that a recurrence reads, float64: X, W, R, B, lengths, initial state, initial cell, peepholes."""
    rng = np.random.default_rng(1)
    gates = GATES[op_type] * HIDDEN
    shapes = [(STEPS, SAMPLES, FEATURES), (directions, gates, FEATURES), (directions, gates, HIDDEN)]
    made: list[Any] = [rng.standard_normal(shape) for shape in [*shapes, (directions, 2 * gates)]]
    made.append(np.array([4, 1, 3], np.int32) if lengths else None)
    if states:
        cells = 2 if op_type == "LSTM" else 1
        made += [rng.standard_normal((directions, SAMPLES, HIDDEN)) for _ in range(cells)]
    return made


def compare(op_type: str, given: list[Any], opset: int, **attributes: Any) -> None:
    """Hold all outputs against those of onnxruntime."""
    single = [a.astype(np.float32) if a is not None and a.dtype == np.float64 else a for a in given]
    outputs = 3 if op_type == "LSTM" else 2
    expected = run_node(op_type, single, opset, outputs, hidden_size=HIDDEN, **attributes)
    found = call_node(op_type, single, opset, outputs, hidden_size=HIDDEN, **attributes)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.numpy(), other, atol=1e-5)


@pytest.mark.parametrize("op_type", GATES)
def test_node_cases(op_type: str) -> None:
    assert failures(op_type) == {}


@pytest.mark.parametrize("op_type", GATES)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("states", [False, True])
def test_recurrences_are_those_of_onnxruntime(op_type: str, direction: str, lengths: bool, states: bool) -> None:
    given = operands(op_type, 2 if direction == "bidirectional" else 1, states=states, lengths=lengths)
    for opset in (7, 14, 22):
        compare(op_type, given, opset, direction=direction)
    if op_type == "GRU":
        compare(op_type, given, 14, direction=direction, linear_before_reset=1)


@pytest.mark.parametrize("op_type", GATES)
def test_without_a_bias(op_type: str) -> None:
    compare(op_type, operands(op_type)[:3], 14)


@pytest.mark.parametrize("op_type", GATES)
def test_the_batch_first(op_type: str) -> None:
    given = operands(op_type, 2)
    outputs = 3 if op_type == "LSTM" else 2
    attributes = {"hidden_size": HIDDEN, "direction": "bidirectional"}
    expected = call_node(op_type, given, 14, outputs, **attributes)
    turned = [given[0].swapaxes(0, 1), *given[1:5], *(state.swapaxes(0, 1) for state in given[5:])]
    found = call_node(op_type, turned, 14, outputs, layout=1, **attributes)
    assert torch.allclose(found[0], expected[0].permute(2, 0, 1, 3))
    for one, other in zip(found[1:], expected[1:], strict=True):
        assert torch.allclose(one, other.transpose(0, 1))


@pytest.mark.parametrize(
    ("op_type", "attributes"),
    [
        ("RNN", {"activations": ["Relu"]}),
        ("RNN", {"activations": ["Affine", "ScaledTanh"], "activation_alpha": [0.7, 0.6], "activation_beta": [0.1, 0.8],
                 "direction": "bidirectional"}),
        ("GRU", {"activations": ["HardSigmoid", "Softsign"]}),
        ("LSTM", {"activations": ["HardSigmoid", "Tanh", "LeakyRelu"], "activation_alpha": [0.3, 0.05],
                  "activation_beta": [0.4]}),
        ("LSTM", {"input_forget": 1}),
    ],
)  # fmt: skip
def test_other_functions_are_those_of_onnxruntime(op_type: str, attributes: dict[str, Any]) -> None:
    compare(op_type, operands(op_type, 2 if "direction" in attributes else 1), 14, **attributes)


def test_peepholes_are_those_of_onnxruntime() -> None:
    peephole = np.random.default_rng(2).standard_normal((1, 3 * HIDDEN))
    compare("LSTM", [*operands("LSTM"), peephole], 14)


@pytest.mark.parametrize(
    ("op_type", "attributes"),
    [("RNN", {}), ("GRU", {}), ("GRU", {"linear_before_reset": 1}), ("LSTM", {}), ("LSTM", {"input_forget": 1})],
)
@pytest.mark.parametrize("direction", ["reverse", "bidirectional"])
def test_gradients(op_type: str, attributes: dict[str, Any], direction: str) -> None:
    given = operands(op_type, 2 if direction == "bidirectional" else 1)
    given = [None if array is None else torch.tensor(array) for array in given]
    outputs = 3 if op_type == "LSTM" else 2
    check_gradients(op_type, given, 14, outputs, hidden_size=HIDDEN, direction=direction, **attributes)


def test_what_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="clip"):
        call_node("LSTM", operands("LSTM"), 14, hidden_size=HIDDEN, clip=1.0)
    with pytest.raises(UnsupportedError, match="ThresholdedRelu"):
        call_node("RNN", operands("RNN"), 14, hidden_size=HIDDEN, activations=["ThresholdedRelu"])
    with pytest.raises(UnsupportedError, match="Affine without its alpha and beta"):
        call_node("RNN", operands("RNN"), 14, hidden_size=HIDDEN, activations=["Affine"], activation_alpha=[0.5])
