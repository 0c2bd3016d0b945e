from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from srr_onnx.errors import UnsupportedError
from tests.finetuning.node_cases import call_node, cases_of, check_gradients, failures, numbers, run_node


def test_node_cases() -> None:
    nodes = {name: case.model.graph.node[0] for name, case in cases_of("Attention").items()}
    padded = {name for name, node in nodes.items() if any(node.input[6:])}
    showing = {name for name, node in nodes.items() if any(node.output[3:])}
    failed = failures("Attention")
    assert set(failed) == padded | showing
    assert all("nonpad_kv_seqlen" in how or "gives its scores away" in how for how in failed.values())


@pytest.mark.parametrize("attributes", [{}, {"is_causal": 1}, {"scale": 0.3, "softcap": 2.0}])
@pytest.mark.parametrize("kind", [None, np.float32, np.bool_])
@pytest.mark.parametrize("past", [0, 2])
def test_attention_is_that_of_onnxruntime(attributes: dict[str, Any], kind: Any, past: int) -> None:
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((2, 4, 3, 6)).astype(np.float32)
    keys, values = (rng.standard_normal((2, 2, 5, 6)).astype(np.float32) for _ in range(2))  # two queries per head
    operands = [queries, keys, values]
    mask = rng.standard_normal((3, 5 + past)) > -1
    if kind is not None:
        operands.append(mask if kind is np.bool_ else mask.astype(np.float32))
    if past:
        operands += [None] * (4 - len(operands))
        operands += [rng.standard_normal((2, 2, past, 6)).astype(np.float32) for _ in range(2)]
    expected = run_node("Attention", operands, 23, 3 if past else 1, **attributes)
    found = call_node("Attention", operands, 23, 3 if past else 1, **attributes)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.numpy(), other, atol=1e-5)


def test_gradients() -> None:
    mask = torch.tensor([[True, True, False], [True, False, True]])
    operands = [numbers(1, 2, 4), numbers(1, 3, 2), numbers(1, 3, 2).flip(1), mask]
    check_gradients("Attention", operands, 23, q_num_heads=2, kv_num_heads=1, softcap=1.5)


def test_a_query_that_may_look_at_nothing_has_slopes() -> None:
    queries = torch.ones(1, 1, 2, 2, requires_grad=True)
    mask = torch.tensor([[True, True], [False, False]])
    (found,) = call_node("Attention", [queries, torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2), mask], 23)
    assert found[0, 0].tolist() == [[1, 1], [0, 0]]
    found.sum().backward()
    assert queries.grad is not None
    assert queries.grad.isfinite().all()


def test_what_is_refused() -> None:
    x = torch.ones(1, 1, 2, 2)
    with pytest.raises(UnsupportedError, match="nonpad_kv_seqlen"):
        call_node("Attention", [x, x, x, None, None, None, torch.tensor([2])], 24)
    with pytest.raises(UnsupportedError, match="scores"):
        call_node("Attention", [x, x, x], 23, 4)
