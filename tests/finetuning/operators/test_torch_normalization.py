from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from srr_onnx.errors import UnsupportedError
from srr_onnx.finetuning.operators.call import OPERATORS as REGISTERED
from srr_onnx.finetuning.operators.call import Call
from srr_onnx.graph.model import Node
from tests.finetuning.node_cases import call_node, check_gradients, failures, numbers, run_node

OPERATORS = [
    "BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization", "RMSNormalization",
    "LRN", "LpNormalization", "MeanVarianceNormalization",
]  # fmt: skip


@pytest.mark.parametrize("op_type", OPERATORS)
def test_node_cases(op_type: str) -> None:
    assert failures(op_type) == {}


@pytest.mark.parametrize("opset", [7, 8, 9, 13, 14, 15, 24])
@pytest.mark.parametrize("rank", [2, 3, 4, 5])
def test_batch_normalization_is_the_runtime_s(opset: int, rank: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 4, 5, 2, 3)[:rank]).astype(np.float32)
    parts = [*rng.standard_normal((3, 4)).astype(np.float32), rng.uniform(0.5, 2, 4).astype(np.float32)]
    for attributes in ({}, {"epsilon": 0.1}):
        (wanted,) = run_node("BatchNormalization", [x, *parts], opset, **attributes)
        (found,) = call_node("BatchNormalization", list(map(torch.tensor, [x, *parts])), opset, **attributes)
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-4, atol=1e-5)


def train(momentum: float, x: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    node = Node(0, "BatchNormalization", "", 15, "", ("x", "s", "b", "m", "v"), ("y",), {"momentum": momentum})
    entry = REGISTERED.get(("", "BatchNormalization", 15))
    ones = torch.ones_like(mean)
    found: Any = entry.function(Call(node, is_training=True), x, ones, 0 * ones, mean, variance)
    return found[0]  # type: ignore[no-any-return]


def test_training_uses_the_batch_and_moves_the_statistics() -> None:
    x, mean, variance = numbers(4, 3, 5), numbers(3), numbers(3).abs()
    start = mean.clone(), variance.clone()
    found = train(0.7, x, mean, variance)
    assert torch.allclose(found.mean((0, 2)), torch.zeros(3, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(mean, 0.7 * start[0] + 0.3 * x.mean((0, 2)))
    assert torch.allclose(variance, 0.7 * start[1] + 0.3 * x.var((0, 2), correction=0))  # of the population


def test_a_node_that_always_trains_leaves_the_statistics_alone_in_evaluation() -> None:
    x, mean, variance = numbers(4, 3, 5), numbers(3), numbers(3).abs()
    start = mean.clone()
    ones = torch.ones_like(mean)
    found, moved, _ = call_node("BatchNormalization", [x, ones, 0 * ones, mean, variance], 15, 3, training_mode=1)
    assert torch.allclose(found.mean((0, 2)), torch.zeros(3, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(moved, 0.9 * start + 0.1 * x.mean((0, 2)))
    assert torch.equal(mean, start)


def test_normalization_of_every_position_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="every position by itself"):
        call_node("BatchNormalization", [numbers(2, 3, 4), *(numbers(3, 4) for _ in range(4))], 7, spatial=0)


@pytest.mark.parametrize("opset", [18, 21])
def test_groups_have_their_scale_by_version(opset: int) -> None:
    x, count = numbers(2, 6, 5), 3 if opset == 18 else 6
    scale, bias = numbers(count), numbers(count) + 1
    (found,) = call_node("GroupNormalization", [x, scale, bias], opset, num_groups=3)
    rows = x.reshape(2, 3, 10)
    plain = (rows - rows.mean(2, keepdim=True)) / torch.sqrt(rows.var(2, correction=0, keepdim=True) + 1e-5)
    each = 6 // count
    wanted = plain.reshape(x.shape) * scale.repeat_interleave(each)[:, None] + bias.repeat_interleave(each)[:, None]
    assert torch.allclose(found, wanted)


@pytest.mark.parametrize(
    ("op_type", "shapes", "opset", "attributes"),
    [
        ("InstanceNormalization", [(3,), (3,)], 22, {}),
        ("LayerNormalization", [(4, 5), (4, 5)], 17, {"axis": 2}),
        ("LayerNormalization", [(5,)], 17, {"axis": 2}),
        ("GroupNormalization", [(3,), (3,)], 21, {"num_groups": 3}),
        ("RMSNormalization", [(5,)], 23, {}),
        ("LRN", [], 13, {"size": 2, "alpha": 0.5}),
        ("LpNormalization", [], 22, {"axis": 1}),
        ("MeanVarianceNormalization", [], 13, {}),
    ],
)
def test_gradients(op_type: str, shapes: list[Any], opset: int, attributes: dict[str, Any]) -> None:
    check_gradients(op_type, [numbers(2, 3, 4, 5), *(numbers(*shape) for shape in shapes)], opset, **attributes)


def test_batch_normalization_learns() -> None:
    x, mean, variance = numbers(4, 3, 5).requires_grad_(), numbers(3), numbers(3).abs()
    scale, bias = numbers(3).requires_grad_(), numbers(3).requires_grad_()

    def evaluate(*values: torch.Tensor) -> torch.Tensor:
        return call_node("BatchNormalization", [*values, mean, variance], 15)[0]  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(evaluate, (x, scale, bias))
    assert torch.autograd.gradcheck(lambda value: train(0.9, value, mean.clone(), variance.clone()), (x,))
