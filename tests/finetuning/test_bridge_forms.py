"""Odd forms of files as torch modules, and back: what exporters and old converters leave in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from builders import Graph, feeds_for, run_ort
from onnx import TensorProto, helper

from srr_onnx.graph.load import load_model
from srr_onnx.graph.save import save_model

torch = pytest.importorskip("torch", reason="the bridge needs torch")

from srr_onnx.finetuning.bridge import TorchGraph, from_torch, to_torch  # noqa: E402


def compute(module: TorchGraph, feeds: dict[str, Any]) -> list[Any]:
    with torch.no_grad():
        return [value.numpy() for value in module(*(torch.tensor(feeds[name]) for name in module.inputs))]


def there_and_back(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Change everything that learns a little, write it back, and compare: operators, and what both compute."""
    module = to_torch(load_model(proto)).eval()
    feeds = feeds_for(proto)
    for found, wanted in zip(compute(module, feeds), run_ort(proto, feeds).values(), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        for value in module.parameters():
            value += 0.1 * torch.rand(value.shape, generator=torch.Generator().manual_seed(value.numel()))
    written = onnx.load(save_model(from_torch(module), "written.onnx"))
    onnx.checker.check_model(written)
    assert [node.op_type for node in written.graph.node] == [node.op_type for node in proto.graph.node]
    for found, wanted in zip(compute(module, feeds), run_ort(written, feeds).values(), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    return written


@pytest.mark.parametrize("name", ["_layout", "_baked", "_stated", "_is_bound", "_programs"])
def test_names_of_the_module_s_own_attributes(name: str) -> None:
    g = Graph()
    g.output(g("Conv", g.input("x", (1, 2, 4, 4)), g.weight(2, 2, 1, 1, name=name)))
    there_and_back(g.model())


@pytest.mark.parametrize("way", ["Transpose", "Reshape", "Cast", "both"])
def test_a_table_that_is_a_weight_too_leaves_the_nodes_between(way: str) -> None:
    g = Graph(opset=13)
    ids = g.input("ids", (2, 3), dtype=TensorProto.INT64)
    table = g.weight(5, 5, name="table")
    y = g("MatMul", g("Gather", table, ids), g.weight(5, 5, name="dense"))
    turned = {
        "Transpose": lambda: g("Transpose", table, perm=[1, 0]),
        "Reshape": lambda: g("Reshape", table, shape=[1, 5, 5]),
        "Cast": lambda: g("Cast", table, to=TensorProto.FLOAT),
        "both": lambda: g("Identity", g("Transpose", table, perm=[1, 0])),
    }[way]()
    g.output(g("MatMul", y, turned))
    written = there_and_back(g.model())
    assert len(written.graph.initializer) == len(g.initializers) + 1


def test_a_weight_that_is_an_output_too() -> None:
    g = Graph(opset=13)
    x = g.input("x", (2, 3))
    shown, unread = g.weight(3, 3, name="shown"), g.weight(2, name="unread")
    g.output(g("MatMul", x, shown))
    for name in (shown, unread):
        g.output(name)
    there_and_back(g.model())


def test_before_version_4_of_the_format_a_new_tensor_is_declared_as_an_input() -> None:
    g = Graph(opset=8)
    zeros, ones = g.constant(np.zeros(4, np.float32), "zeros"), g.constant(np.ones(4, np.float32), "ones")
    y = g("Conv", g.input("x", (1, 3, 4, 4)), g.weight(4, 3, 1, 1, name="w"), zeros)
    g.output(g("BatchNormalization", y, ones, zeros, zeros, ones))
    proto = g.model()
    proto.ir_version = 3
    proto.graph.input.extend(
        helper.make_tensor_value_info(init.name, init.data_type, init.dims) for init in proto.graph.initializer
    )
    written = there_and_back(proto)
    assert {init.name for init in written.graph.initializer} <= {value.name for value in written.graph.input}


@pytest.mark.parametrize("size", [4, 400])
def test_weights_in_lists_of_constant_nodes(size: int) -> None:
    g = Graph(opset=13)
    bias = g("Constant", value_floats=[0.25 * n for n in range(size)])
    g.shapes[bias], g.dtypes[bias] = (size,), TensorProto.FLOAT
    g.output(g("Conv", g.input("x", (1, 3, 4, 4)), g.weight(size, 3, 1, 1, name="w"), bias))
    (constant, _) = there_and_back(g.model()).graph.node
    assert [attribute.name for attribute in constant.attribute] == ["value_floats"]
    assert constant.attribute[0].floats[0] != 0


@pytest.mark.parametrize("kind", ["float16", "float64"])
def test_inputs_are_taken_in_the_type_of_the_file(kind: str) -> None:
    g = Graph(opset=13)
    x = g.input("x", (2, 3), dtype=helper.np_dtype_to_tensor_dtype(np.dtype(kind)))
    g.output(g("MatMul", x, g.constant(np.ones((3, 2)), "w", kind)))
    module = to_torch(load_model(g.model()))
    values = torch.rand(2, 3)
    (found,) = module(values.to(getattr(torch, kind)))
    assert found.dtype == torch.float32
    assert torch.allclose(found, module(values)[0], rtol=1e-2)


def test_the_ends_of_a_range_do_not_learn() -> None:
    g = Graph(opset=13)
    y = g("MatMul", g.input("x", (2, 3)), g.weight(3, 4, name="w"))
    ends = [g.constant(np.float32(end), f"end_{end}") for end in (1, 5, 1.0)]
    g.output(g("Mul", y, g("Range", *ends)))
    assert [name for name, _ in to_torch(load_model(g.model())).named_parameters()] == ["w"]
    there_and_back(g.model())


def test_a_mask_of_infinities_does_not_learn() -> None:
    g = Graph(opset=13)
    y = g("MatMul", g.input("x", (2, 3)), g.weight(3, 4, name="w"))
    g.output(g("Softmax", g("Add", y, g.constant([0, 0, -np.inf, 0], "mask", np.float32))))
    assert [name for name, _ in to_torch(load_model(g.model())).named_parameters()] == ["w"]
    there_and_back(g.model())


def test_statistics_that_others_read_too_are_noted() -> None:
    g = Graph(opset=13)
    zeros, ones = g.constant(np.zeros(3, np.float32), "zeros"), g.constant(np.ones(3, np.float32), "ones")
    y = g.input("x", (1, 3, 4, 4))
    for part in range(2):
        y = g(
            "BatchNormalization", y, g.weight(3, name=f"scale_{part}"), g.weight(3, name=f"shift_{part}"), zeros, ones
        )
    g.output(y)
    (note,) = to_torch(load_model(g.model())).notes
    assert note.startswith("the statistics of 'BatchNormalization_0' with 1 more are read or made by others too")
    there_and_back(g.model())
