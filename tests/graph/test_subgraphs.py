"""If, Loop and Scan: what their bodies read stays, the rest is pruned; a model inside one of them is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from builders import Graph
from onnx import TensorProto, helper, numpy_helper

from srr_onnx.analysis.find import find_groups
from srr_onnx.analysis.labels import FreezeReason
from srr_onnx.errors import ModelError, UnsupportedError
from srr_onnx.graph.load import load_model
from srr_onnx.pipeline import prune

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def info(name: str, dtype: int = FLOAT, shape: list[int] | None = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def choice(g: Graph, captured: str) -> str:
    """If: one branch reads the map, the other a map of zeros."""
    branches = [
        helper.make_graph([helper.make_node(op, [captured], [op])], op, [], [info(op)]) for op in ("Relu", "Neg")
    ]
    above = g("Greater", g("ReduceSum", "x", keepdims=0), g.constant(np.float32(0)))
    return str(g("If", above, then_branch=branches[0], else_branch=branches[1], name="body", shape=g.shapes[captured]))


def repeated(g: Graph, captured: str) -> str:
    """Loop: adds the map three times to what it carries."""
    nodes = [
        helper.make_node("Add", ["carried", captured], ["sum"]),
        helper.make_node("Identity", ["go"], ["go_on"]),
    ]
    body = helper.make_graph(
        nodes, "loop", [info("i", INT64, []), info("go", BOOL, []), info("carried")], [info("go_on", BOOL), info("sum")]
    )
    start = g.constant(np.zeros(g.shapes[captured], np.float32))
    counted = g.constant(np.array(3, np.int64))
    made = g("Loop", counted, g.constant(np.array(True)), start, body=body, name="body", shape=g.shapes[captured])
    g.dtypes[made] = FLOAT
    return str(g("Reshape", made, shape=g.shapes[captured]))  # what a loop carries may change its shape


def scanned(g: Graph, captured: str) -> str:
    """Scan: over two slices, each with the map added."""
    nodes = [helper.make_node("Add", ["slice", captured], ["row"])]
    body = helper.make_graph(nodes, "scan", [info("slice")], [info("row")])
    slices = g.constant(np.ones((2, 1), np.float32))
    made = g("Scan", slices, body=body, num_scan_inputs=1, name="body", shape=(2, *g.shapes[captured]))
    g.dtypes[made] = FLOAT
    return str(g("ReduceSum", made, axes=[0], keepdims=0))


@pytest.mark.parametrize("build", [choice, repeated, scanned])
def test_what_a_body_reads_stays_and_the_rest_is_pruned(build: Callable[[Graph, str], str]) -> None:
    g = Graph(13)
    first = g("Relu", g.conv(g.input("x", (1, 3, 4, 4)), 8, name="first"))
    read = g.conv(first, 6, name="read")
    made = build(g, read)
    g.dtypes[made] = FLOAT
    g.output(g.conv(g("Relu", g.conv(made, 5, name="behind")), 2, name="last"))
    model = load_model(g.model())
    groups = find_groups(model)
    assert {node for group in groups for node in group.nodes} == {"first", "behind"}
    assert (FreezeReason.SUBGRAPH, "body", "read") in {
        (entry.cause.reason, entry.cause.node, entry.filters) for entry in groups.frozen
    }
    result = prune(model, "pruned.onnx", ratio=0.5, criterion="l1")
    assert result.plan.proof["relative_error"] <= 1e-4 < result.plan.proof["moved"]
    body = next(node for node in onnx.load("pruned.onnx").graph.node if node.name == "body")
    assert body.SerializeToString() == next(n for n in g.model().graph.node if n.name == "body").SerializeToString()


def inside(depth: int) -> onnx.ModelProto:
    """A model that is one If; its branches hold further ones, the innermost a convolution."""
    weight = numpy_helper.from_array(np.ones((4, 3, 1, 1), np.float32), "w")
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"])], "inner", [], [info("y")], [weight])
    for level in range(depth):
        other = helper.make_graph([helper.make_node("Neg", ["x"], [f"n{level}"])], "other", [], [info(f"n{level}")])
        name = f"y{level}"
        node = helper.make_node("If", ["c"], [name], name=f"if{level}", then_branch=graph, else_branch=other)
        graph = helper.make_graph([node], f"level{level}", [], [info(name)])
    graph.input.extend([info("x", shape=[1, 3, 4, 4]), info("c", BOOL, [])])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@pytest.mark.parametrize("depth", [1, 2, 25])
def test_a_model_inside_an_if_is_refused_in_one_line(depth: int) -> None:
    with pytest.raises(
        UnsupportedError, match=rf"all convolutions and products .*\(1\) lie inside 'if{depth - 1}'"
    ) as caught:
        prune(load_model(inside(depth)), None, flops=0.3)
    assert "\n" not in str(caught.value)


def test_sizes_are_not_asked_for_in_vain() -> None:
    proto = inside(1)
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    for axis in (1, 2, 3):
        dims[axis].dim_param = f"open{axis}"
    with pytest.raises(UnsupportedError, match=r"all convolutions and products .*\(1\) lie inside 'if0'"):
        load_model(proto)
    assert load_model(proto, {"x": (1, 3, 4, 4)}).inputs["x"] == (1, 3, 4, 4)


def field(number: int, payload: bytes) -> bytes:
    """A length-delimited protobuf field."""
    size, length = len(payload), b""
    while size > 127:
        length += bytes([size % 128 + 128])
        size //= 128
    return bytes([number * 8 + 2]) + length + bytes([size]) + payload


@pytest.mark.parametrize("depth", [40, 100, 1000])
def test_subgraphs_deeper_than_protobuf_reads_are_an_error_that_says_so(depth: int) -> None:
    message = helper.make_node("Neg", ["x"], ["y"]).SerializeToString()
    for _ in range(depth):
        graph = field(1, message) + field(12, info("y").SerializeToString())
        branches = [field(5, field(1, name) + field(6, graph) + bytes([20 << 3 & 127 | 128, 1, 5]))
                    for name in (b"then_branch",)]  # fmt: skip
        message = field(1, b"c") + field(2, b"y") + field(4, b"If") + b"".join(branches)
    opset = field(8, helper.make_opsetid("", 13).SerializeToString())
    data = b"\x08\x08" + field(7, field(1, message) + field(12, info("y").SerializeToString())) + opset
    with pytest.raises(ModelError, match="nested deeper than protobuf can read"):
        load_model(data)
