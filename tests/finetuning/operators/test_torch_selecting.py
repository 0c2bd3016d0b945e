from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.finetuning.node_cases import call_node, check_gradients, failures, numbers, run_node

OPERATORS = [
    "Gather", "GatherElements", "GatherND", "Scatter", "ScatterElements", "ScatterND", "Compress", "NonZero", "OneHot",
    "TopK", "Range", "Trilu", "EyeLike",
]  # fmt: skip
# Writes two elements to the same places.
TWICE = torch.tensor([[1, 0], [1, 0]])


@pytest.mark.parametrize("op_type", OPERATORS)
def test_node_cases(op_type: str) -> None:
    assert failures(op_type) == {}


@pytest.mark.parametrize(
    ("op_type", "operands", "opset", "outputs", "attributes"),
    [
        ("Gather", [numbers(3, 4), torch.tensor([[0, -1], [0, 2]])], 13, 1, {"axis": 1}),
        ("GatherElements", [numbers(3, 2), torch.tensor([[0, -1], [0, 2]])], 13, 1, {"axis": 0}),
        ("GatherND", [numbers(2, 3, 2), torch.tensor([[1], [-1]])], 13, 1, {"batch_dims": 1}),
        ("ScatterElements", [numbers(3, 2), torch.tensor([[0, -1]]), numbers(1, 2)], 13, 1, {}),
        ("ScatterElements", [numbers(3, 2), TWICE, numbers(2, 2)], 18, 1, {"reduction": "add"}),
        ("ScatterElements", [numbers(3, 2), TWICE, numbers(2, 2)], 18, 1, {"reduction": "mul"}),
        ("ScatterElements", [numbers(3, 2), TWICE, numbers(2, 2)], 18, 1, {"reduction": "max"}),
        ("ScatterND", [numbers(3, 2), torch.tensor([[-1], [0]]), numbers(2, 2)], 13, 1, {}),
        ("ScatterND", [numbers(3, 2), torch.tensor([[1], [1]]), numbers(2, 2)], 18, 1, {"reduction": "add"}),
        ("Compress", [numbers(3, 2), torch.tensor([True, False, True])], 11, 1, {"axis": 0}),
        ("OneHot", [torch.tensor([1, 0]), np.array(3), numbers(2)], 11, 1, {}),
        ("TopK", [numbers(2, 5), np.array([2])], 11, 2, {}),
        ("Trilu", [numbers(3, 3)], 14, 1, {"upper": 0}),
    ],
)  # fmt: skip
def test_gradients(op_type: str, operands: list[Any], opset: int, outputs: int, attributes: dict[str, Any]) -> None:
    check_gradients(op_type, operands, opset, outputs, **attributes)


@pytest.mark.parametrize("opset", [7, 11, 13])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("shape", [(), (1,), (2,), (2, 3), (0,)])
def test_gather_is_that_of_onnxruntime(opset: int, rank: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    for x in (rng.standard_normal((4, 3, 5)[:rank]).astype(np.float32), rng.integers(0, 9, (4, 3, 5)[:rank])):
        for axis in range(-rank if opset > 10 else 0, rank):
            size = x.shape[axis]
            for kind in (np.int32, np.int64):
                places = rng.integers(-size if opset > 10 else 0, size, shape).astype(kind)
                (expected,) = run_node("Gather", [x, places], opset, axis=axis)
                (found,) = call_node("Gather", [x, places], opset, axis=axis)
                assert np.array_equal(found.numpy(), expected)


@pytest.mark.parametrize("largest", [0, 1])
def test_top_of_equals_is_the_first(largest: int) -> None:
    x = np.array([[3, 1, 3, 1, 3, 1, 2]], np.float32)
    expected = run_node("TopK", [x, np.array([5])], 11, 2, largest=largest)
    found = call_node("TopK", [x, np.array([5])], 11, 2, largest=largest)
    for one, other in zip(found, expected, strict=True):
        assert one.tolist() == other.tolist()


def test_top_by_attribute() -> None:
    values, places = call_node("TopK", [torch.tensor([1.0, 3.0, 2.0])], 7, 2, k=2)
    assert (values.tolist(), places.tolist()) == ([3, 2], [1, 2])


def test_numbers_of_vectors_count_from_the_end() -> None:
    x, places = np.arange(6).reshape(2, 3), np.array([[-1, 0], [0, -1]])
    (expected,) = run_node("GatherND", [x, places], 13)
    (found,) = call_node("GatherND", [x, places], 13)
    assert found.tolist() == expected.tolist() == [3, 2]


def test_one_vector_may_name_one_number() -> None:
    x, place = np.arange(6).reshape(2, 3), np.array([1, -1])
    (expected,) = run_node("GatherND", [x, place], 13)
    (found,) = call_node("GatherND", [x, place], 13)
    assert found.tolist() == expected.tolist() == 5


@pytest.mark.parametrize(("start", "limit", "step"), [(1, 10, 4), (10, 1, -4), (3, 3, 1), (5, 1, 1)])
def test_range_is_that_of_onnxruntime(start: int, limit: int, step: int) -> None:
    for kind in (np.int64, np.float32):
        ends = [np.array(number, kind) for number in (start, limit, step)]
        (expected,) = run_node("Range", ends, 11)
        (found,) = call_node("Range", ends, 11)
        assert found.numpy().dtype == kind
        assert found.tolist() == expected.tolist()
