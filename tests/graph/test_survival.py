"""What a rewrite does not concern, it does not touch: documentation, metadata, names, unused parts, other readers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import oracle
import pytest
from builders import Graph, feeds_for, run_ort
from onnx import TensorProto, helper, numpy_helper

from srr_onnx.analysis.find import find_groups
from srr_onnx.graph.load import load_model
from srr_onnx.graph.save import save_model
from srr_onnx.rewriting.apply import kept_positions, prune_units


def pruned(proto: onnx.ModelProto, tolerance: float = oracle.TOLERANCE, dtype: Any = np.float32) -> onnx.ModelProto:
    """Prune every other unit, prove it, save it, read it back."""
    model = load_model(proto)
    groups = find_groups(model)
    is_kept = np.arange(groups.num_units) % 2 == 0
    assert not is_kept.all()
    path = save_model(prune_units(model, groups, is_kept), Path("pruned.onnx"), force=True)
    result = onnx.load(str(path))
    onnx.checker.check_model(result, full_check=True)
    kept = kept_positions(groups, is_kept)
    assert oracle.pruned_equals_masked(proto, result, kept, model.shapes, dtype=dtype) <= tolerance
    return result


def a_graph(opset: int = 13) -> Graph:
    g = Graph(opset)
    y = g("Relu", g.conv(g.input("x", (1, 3, 8, 8)), 8, 3, name="first"), name="act")
    g.output(g.conv(y, 2, name="last"))
    return g


def documented() -> onnx.ModelProto:
    proto = a_graph().model(ir_version=10)
    proto.doc_string, proto.producer_name, proto.producer_version = "a classifier", "trainer", "3.1"
    proto.domain, proto.model_version = "org.example", 7
    proto.metadata_props.add(key="names", value="{0: 'cat', 1: 'dog'}")
    graph = proto.graph
    graph.name, graph.doc_string = "backbone", "made in the lab"
    graph.metadata_props.add(key="graph", value="yes")
    proto.opset_import.append(helper.make_opsetid("com.example", 3))
    for index, node in enumerate(graph.node):
        node.doc_string = f"node {index}"
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=f"['', 'layer.{index}']")
    for index, init in enumerate(graph.initializer):
        init.doc_string = f"tensor {index}"
        init.metadata_props.add(key="origin", value=str(index))
    for value, words in ((graph.input[0], "picture, RGB"), (graph.output[0], "scores")):
        value.doc_string = words
        value.metadata_props.add(key="layout", value="NCHW")
        value.type.denotation = "IMAGE"
    inner = helper.make_tensor_value_info("act", TensorProto.FLOAT, [1, 8, 8, 8])
    inner.doc_string = "after the activation"
    inner.type.tensor_type.shape.dim[1].denotation = "DATA_CHANNEL"
    inner.name = graph.node[1].output[0]
    graph.value_info.append(inner)
    note = graph.quantization_annotation.add(tensor_name="first.weight")
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="first.scale")
    graph.initializer.append(numpy_helper.from_array(np.float32(0.1), "first.scale"))
    return proto


def test_documentation_and_metadata_survive() -> None:
    before = documented()
    after = pruned(before)
    for field, value in before.ListFields():
        if field.name != "graph":
            assert getattr(after, field.name) == value, field.name
    for field in ("name", "doc_string", "metadata_props", "input", "output", "quantization_annotation"):
        assert getattr(after.graph, field) == getattr(before.graph, field), field
    for old, new in zip(before.graph.node, after.graph.node, strict=True):
        assert old == new
    for old, new in zip(before.graph.initializer, after.graph.initializer, strict=True):
        assert (old.name, old.doc_string, list(old.metadata_props), old.data_type) == (
            new.name, new.doc_string, list(new.metadata_props), new.data_type
        )  # fmt: skip
    (old_info,), (new_info,) = before.graph.value_info, after.graph.value_info
    assert new_info.doc_string == old_info.doc_string
    dims = new_info.type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims] == [1, 4, 8, 8]
    assert dims[1].denotation == "DATA_CHANNEL"


def test_recorded_shapes_follow_the_channels() -> None:
    proto = onnx.shape_inference.infer_shapes(a_graph().model())
    after = pruned(proto)
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in after.graph.value_info
    }
    assert shapes == {"first": [1, 4, 8, 8], "Relu_0": [1, 4, 8, 8]}


def test_recorded_open_sizes_stay_open() -> None:
    g = Graph(13)
    y = g("Relu", g.conv(g.input("x", (1, 3, 8, 8), dynamic={0: "N"}), 8, name="first"))
    g.output(g.conv(y, 2))
    proto = onnx.shape_inference.infer_shapes(g.model())
    after = pruned(proto)
    dims = next(value for value in after.graph.value_info if value.name == "first").type.tensor_type.shape.dim
    assert dims[0].dim_param == "N"
    assert dims[1].dim_value == 4


def test_unused_initializers_survive() -> None:
    proto = a_graph().model()
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((8, 3), np.float32), "anchors"))
    after = pruned(proto)
    kept = next(init for init in after.graph.initializer if init.name == "anchors")
    assert kept == proto.graph.initializer[-1]


def test_dead_nodes_survive() -> None:
    g = a_graph()
    g.conv("Relu_0", 4, name="dead")
    after = pruned(g.model())
    assert [node.name for node in after.graph.node] == ["first", "act", "last", "dead"]


def test_an_initializer_that_is_an_input_shrinks_in_both_places() -> None:
    proto = a_graph().model()
    for init in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(init.name, TensorProto.FLOAT, init.dims))
    after = pruned(proto)
    declared = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in after.graph.input}
    assert {init.name: list(init.dims) for init in after.graph.initializer} == {
        name: shape for name, shape in declared.items() if name != "x"
    }
    assert declared["first.weight"] == [4, 3, 3, 3]


@pytest.mark.parametrize("names", [["", "", ""], ["x", "first.weight", "Relu_0"], ["same", "", "same "]])
def test_node_names_may_be_empty_or_those_of_values(names: list[str]) -> None:
    proto = a_graph().model()
    for node, name in zip(proto.graph.node, names, strict=True):
        node.name = name
    assert [node.name for node in pruned(proto).graph.node] == names


def test_node_names_may_be_repeated() -> None:
    """ONNX forbids it and onnxruntime refuses it, but files have it: units are found by position, not by name."""
    proto = a_graph().model()
    for node in proto.graph.node:
        node.name = "same"
    model = load_model(proto)
    groups = find_groups(model)
    after = prune_units(model, groups, np.arange(groups.num_units) < 3)
    assert [list(init.dims) for init in after.proto.graph.initializer] == [[3, 3, 3, 3], [3], [2, 3, 1, 1], [2]]


def test_names_made_by_the_rewrite_do_not_clash() -> None:
    """Two readers of one weight part; the name wished for the second one is taken already."""
    g = Graph(13)
    x = g.input("x", (1, 4, 4, 4))
    weight = g.weight(4, 4, 1, 1, name="w")
    g.constant(np.zeros(3, np.float32), name="w_pruned")
    y = g("Relu", g("Conv", x, weight))
    g.output(g("Conv", y, weight, name="last"))
    after = pruned(g.model())
    names = [init.name for init in after.graph.initializer]
    assert len(names) == len(set(names))
    assert {"w", "w_pruned", "w_pruned_2"} <= set(names) | {"w"}


def test_a_weight_that_is_also_a_graph_output_stays_whole() -> None:
    g = a_graph()
    g.output("first.weight")
    after = pruned(g.model())
    assert next(init for init in after.graph.initializer if init.name == "first.weight").dims == [8, 3, 3, 3]


def test_a_value_computed_from_a_weight_that_is_a_graph_output_stays_whole() -> None:
    g = a_graph()
    g.output(g("Transpose", "first.weight", perm=[1, 0, 2, 3]))
    after = pruned(g.model())
    got = run_ort(after, feeds_for(after))
    assert got["Transpose_0"].shape == (3, 8, 3, 3)


def test_a_weight_that_a_subgraph_reads_stays_whole() -> None:
    g = a_graph()
    branch = helper.make_graph(
        [helper.make_node("ReduceSum", ["first.weight"], ["total"], keepdims=0)],
        "branch",
        [],
        [helper.make_tensor_value_info("total", TensorProto.FLOAT, [])],
    )
    condition = g("Cast", g.input("flag", ()), to=TensorProto.BOOL)
    g.output(g("If", condition, then_branch=branch, else_branch=branch, shape=()))
    g.dtypes[g.outputs[-1]] = TensorProto.FLOAT
    after = pruned(g.model())
    assert next(init for init in after.graph.initializer if init.name == "first.weight").dims == [8, 3, 3, 3]


def test_a_value_computed_from_a_weight_that_a_subgraph_reads_stays_whole() -> None:
    g = a_graph()
    turned = g("Transpose", "first.weight", perm=[1, 0, 2, 3])
    branch = helper.make_graph(
        [helper.make_node("Identity", [turned], ["same"])],
        "branch",
        [],
        [helper.make_tensor_value_info("same", TensorProto.FLOAT, [3, 8, 3, 3])],
    )
    condition = g("Cast", g.input("flag", ()), to=TensorProto.BOOL)
    g.output(g("If", condition, then_branch=branch, else_branch=branch, shape=(3, 8, 3, 3)))
    g.dtypes[g.outputs[-1]] = TensorProto.FLOAT
    after = pruned(g.model())
    assert run_ort(after, feeds_for(after))["If_0"].shape == (3, 8, 3, 3)


def test_only_what_changed_differs() -> None:
    """Nodes that no channel touches keep every byte, attributes that no schema knows included."""
    g = a_graph()
    y = g("Identity", g.input("other", (2, 2)), name="apart")
    g.output(y)
    proto = g.model()
    proto.graph.node[-1].overload = ""
    after = pruned(proto)
    assert after.graph.node[-1].SerializeToString() == proto.graph.node[-1].SerializeToString()


def test_fp16_weights_stay_fp16() -> None:
    g = Graph(13)
    x = g.input("x", (1, 3, 4, 4), dtype=TensorProto.FLOAT16)
    first, last = (
        g.constant((g.rng.standard_normal(shape) * 0.3).astype(np.float16), name=name)
        for shape, name in (((8, 3, 1, 1), "first.weight"), ((2, 8, 1, 1), "last.weight"))
    )
    g.output(g("Conv", g("Relu", g("Conv", x, first)), last))
    after = pruned(g.model(), tolerance=2e-2, dtype=np.float16)
    assert {init.data_type for init in after.graph.initializer} == {TensorProto.FLOAT16}


def test_an_initializer_that_is_an_input_leaves_both_places() -> None:
    g = Graph(opset=9)
    x = g.conv(g.input("x", (1, 3, 4, 4)), 8, 3, name="first")
    x = g("Reshape", x, g.ints(1, 2, 4, 4, 4, name="split"))  # a channel shuffle, which becomes one Gather
    x = g("Reshape", g("Transpose", x, perm=[0, 2, 1, 3, 4]), g.ints(1, 8, 4, 4, name="joined"))
    g.output(g.conv(x, 4, 3))
    proto = g.model()
    for tensor in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    after = pruned(proto)
    stored = {tensor.name for tensor in after.graph.initializer}
    assert "split" not in stored
    assert {value.name for value in after.graph.input} - stored == {"x"}
