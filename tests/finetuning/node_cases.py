"""Single nodes, run by the torch functions: ONNX's own test cases, and nodes made up by a test."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases

from srr_onnx.finetuning.bridge import to_torch
from srr_onnx.finetuning.operators.call import OPERATORS, Call
from srr_onnx.graph.nodes import make_nodes
from tests.builders import run_ort

Array = np.ndarray[Any, Any]

# Newest operator set that the functions know; cases of newer ones are run as this one.
NEWEST = 24


@functools.cache
def cases_of(op_type: str) -> Mapping[str, Any]:
    """ONNX's cases of an operator's node alone, by name; without those of attributes that came after `NEWEST`."""
    found = {}
    for case in _all_cases():
        graph = case.model.graph
        is_alone = [node.op_type for node in graph.node] == [op_type]
        if is_alone and [opset.domain for opset in case.model.opset_import] == [""]:
            known = onnx.defs.get_schema(op_type, min(NEWEST, case.model.opset_import[0].version)).attributes
            if all(attribute.name in known for attribute in graph.node[0].attribute):
                found[case.name] = case
    return found


@functools.cache
def _all_cases() -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some cases divide by zero on purpose
        return list(collect_testcases(None))


def failures(op_type: str) -> dict[str, str]:
    """Names of the cases of an operator that fail, and how."""
    found = {}
    for name, case in cases_of(op_type).items():
        try:
            _check(case)
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
    return found


def _check(case: Any) -> None:
    """Run a case as a module; raises if an output is not what it should be."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    model.opset_import[0].version = min(model.opset_import[0].version, NEWEST)
    for inputs, outputs in case.data_sets:
        made = _run(model, [_plain(value) for value in inputs])
        for value, given in zip(made, outputs, strict=True):
            expected = _plain(given)
            assert value.shape == expected.shape
            if expected.dtype.kind != "f":
                assert value.dtype == expected.dtype
            tolerance = 1e-2 if _is_short(_array(given)) else case.rtol
            np.testing.assert_allclose(value, expected, rtol=tolerance, atol=1e-6)


def _run(model: onnx.ModelProto, arrays: Sequence[Array]) -> list[Array]:
    if all(array.size for array in arrays):
        made = to_torch(model).eval()(*map(torch.tensor, arrays))
    else:  # a size of 0 in a file means that it is open
        names = [value.name for value in model.graph.input]
        by_name = call_model(model, dict(zip(names, arrays, strict=True)))
        made = tuple(by_name[value.name] for value in model.graph.output)
    return [np.asarray(value) for value in made]


def numbers(*shape: int) -> torch.Tensor:
    """Random float64 numbers, the same for the same shape."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def call_model(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs of a model of one node by name; arrays become tensors where the function takes tensors."""
    (node,) = make_nodes(model)
    entry = OPERATORS.get((node.domain, node.op_type, node.since_version))
    operands: list[Any] = []
    for slot, name in enumerate(node.inputs):
        value = feeds.get(name)
        is_array = isinstance(value, np.ndarray) and slot not in entry.host
        operands.append(torch.tensor(value) if is_array else value)
    made = entry.function(Call(node), *operands)
    return dict(zip(node.outputs, made if isinstance(made, tuple) else (made,), strict=False))


def call_node(op_type: str, operands: Sequence[Any], opset: int, outputs: int = 1, **attributes: Any) -> list[Any]:
    """The outputs of a node of these operands: tensors, arrays, or None where one is left out."""
    model, feeds = _make_model(op_type, operands, opset, outputs, attributes)
    made = call_model(model, feeds)
    return [made[value.name] for value in model.graph.output]


def run_node(op_type: str, operands: Sequence[Any], opset: int, outputs: int = 1, **attributes: Any) -> list[Array]:
    """What onnxruntime makes of a node of these operands: arrays, or None where one is left out."""
    model, feeds = _make_model(op_type, operands, opset, outputs, attributes)
    return list(run_ort(model, feeds).values())


def _make_model(
    op_type: str, operands: Sequence[Any], opset: int, outputs: int, attributes: Mapping[str, Any]
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """A model of one node, and what to feed it."""
    feeds = {f"x{slot}": operand for slot, operand in enumerate(operands) if operand is not None}
    names = [f"x{slot}" if f"x{slot}" in feeds else "" for slot in range(len(operands))]
    results = [f"y{slot}" for slot in range(outputs)]
    node = helper.make_node(op_type, names, results, **attributes)
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feeds.items()
        if isinstance(array, np.ndarray)
    ]
    made = [onnx.ValueInfoProto(name=name) for name in results]
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(helper.make_graph([node], "g", inputs, made), opset_imports=opsets, ir_version=10), feeds


def check_gradients(op_type: str, operands: Sequence[Any], opset: int, outputs: int = 1, **attributes: Any) -> None:
    """Hold the slopes of a node's float64 operands against differences; raises if they are not equal."""
    learning = [torch.is_tensor(operand) and operand.is_floating_point() for operand in operands]

    def function(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        left = iter(values)
        filled = [next(left) if learns else operand for operand, learns in zip(operands, learning, strict=True)]
        made = call_node(op_type, filled, opset, outputs, **attributes)
        return tuple(value for value in made if value.is_floating_point())

    starts = [operand.requires_grad_() for operand, learns in zip(operands, learning, strict=True) if learns]
    assert torch.autograd.gradcheck(function, starts)


def _array(value: Any) -> Array:
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)


def _is_short(array: Array) -> bool:
    return array.dtype.name in ("float16", "bfloat16")


def _plain(value: Any) -> Array:
    """An array of a kind that torch has; floating-point numbers are at least float32."""
    array = _array(value)
    return array.astype(np.float32) if _is_short(array) else array
