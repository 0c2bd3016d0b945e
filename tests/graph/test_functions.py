"""Model-local functions: inlined on loading, so that what they hold is pruned; what cannot be inlined freezes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.inliner
import pytest
from builders import Graph, feeds_for, run_ort
from onnx import helper, numpy_helper

from srr_onnx.analysis.find import find_groups
from srr_onnx.analysis.labels import FreezeReason
from srr_onnx.graph.load import load_model
from srr_onnx.graph.save import save_model
from srr_onnx.pipeline import prune
from srr_onnx.planning.plan import Plan

LOCAL = helper.make_opsetid("local", 1)


def a_net(opset: int = 13) -> onnx.ModelProto:
    """A block that is called twice between convolutions; its slope is an attribute, a second function lies inside."""
    g = Graph(13)
    y = g.conv(g.input("x", (1, 3, 6, 6)), 32, name="first")
    for number in (1, 2):
        operands = [g.weight(32, 32, 3, 3, name=f"w{number}"), g.weight(32, name=f"b{number}")]
        y = g("Block", y, *operands, name=f"call{number}", domain="local", slope=0.1 * number, shape=(1, 32, 6, 6))
        g.dtypes[y] = onnx.TensorProto.FLOAT
    g.output(g.conv(y, 2, name="last"))
    proto = g.model()
    own = [helper.make_opsetid("", opset)]
    gain = numpy_helper.from_array(np.linspace(0.5, 2, 32 * 36, dtype=np.float32).reshape(1, 32, 6, 6))
    leaky = helper.make_node("LeakyRelu", ["a"], ["r"], name="act")
    leaky.attribute.add(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    soft = helper.make_function("local", "Soft", ["a"], ["r"], [leaky], own, ["slope"])
    call = helper.make_node("Soft", ["c"], ["s"], domain="local")
    call.attribute.add(name="slope", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    body = [
        helper.make_node("Conv", ["a", "w", "b"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        call,
        helper.make_node("Constant", [], ["gain"], value=gain),
        helper.make_node("Mul", ["s", "gain"], ["r"], name="mul"),
    ]
    block = helper.make_function("local", "Block", ["a", "w", "b"], ["r"], body, [*own, LOCAL], ["slope"])
    proto.functions.extend([soft, block])
    proto.metadata_props.add(key="names", value="{0: 'cat', 1: 'dog'}")
    for node in proto.graph.node:
        node.metadata_props.add(key="scope", value=node.name)
    return proto


def test_functions_are_inlined_and_their_insides_pruned() -> None:
    proto = a_net()
    onnx.save(proto, "net.onnx")
    result = prune("net.onnx", "pruned.onnx", flops=0.5, criterion="l1")
    filters = [node for group in find_groups(result.original) for node in group.nodes]
    assert [name.split("__")[0] for name in filters] == ["first", "conv", "conv"]
    pruned = onnx.load("pruned.onnx")
    onnx.checker.check_model(pruned, full_check=True)
    assert not pruned.functions
    assert {node.domain for node in pruned.graph.node} == {""}
    assert pruned.metadata_props == proto.metadata_props
    for node in (pruned.graph.node[0], pruned.graph.node[-1]):
        assert [(prop.key, prop.value) for prop in node.metadata_props] == [("scope", node.name)]
    assert result.plan.proof["relative_error"] <= 1e-4 < result.plan.proof["moved"]
    assert result.plan.after.macs <= result.plan.before.macs * 0.51


def test_inlining_changes_no_number() -> None:
    proto = a_net()
    feeds = feeds_for(proto)
    inlined = load_model(proto)
    save_model(inlined, "inlined.onnx")
    want, got = run_ort(proto, feeds), run_ort(onnx.load("inlined.onnx"), feeds)
    np.testing.assert_array_equal(got["last"], want["last"])


def test_a_function_that_cannot_be_inlined_freezes_what_reaches_it() -> None:
    """One of another operator set version: the inliner leaves it alone, and so do we."""
    model = load_model(a_net(opset=12))
    groups = find_groups(model)
    assert [group.nodes for group in groups] == []
    assert {(e.cause.reason, e.cause.node) for e in groups.frozen} >= {(FreezeReason.UNKNOWN_OPERATOR, "call1")}
    g = Graph(13)
    y = g("Relu", g.conv(g.conv(g.input("x", (1, 3, 6, 6)), 8, name="before"), 6, name="first"))
    y = g("Old", y, name="call", domain="local", shape=(1, 6, 6, 6))
    g.dtypes[y] = onnx.TensorProto.FLOAT
    g.output(g.conv(y, 2, name="last"))
    proto = g.model()
    old = helper.make_function("local", "Old", ["a"], ["r"], [helper.make_node("Neg", ["a"], ["r"])],
                               [helper.make_opsetid("", 12)])  # fmt: skip
    proto.functions.append(old)
    onnx.save(proto, "old.onnx")
    result = prune("old.onnx", "pruned.onnx", ratio=0.5, criterion="l1")
    assert [group.nodes for group in find_groups(result.original)] == [("before",)]
    assert list(onnx.load("pruned.onnx").functions) == [old]
    assert result.plan.proof["relative_error"] <= 1e-4


def test_a_plan_says_whose_names_it_uses() -> None:
    onnx.save(a_net(), "net.onnx")
    plan = prune("net.onnx", flops=0.5, criterion="l1").plan
    given = onnx.load("net.onnx")
    before, after = (
        {name for node in proto.graph.node for name in node.output}
        for proto in (given, onnx.inliner.inline_local_functions(given))
    )
    assert set(plan.values) <= after
    assert not set(plan.values) <= before
    assert plan.to_json()["inlined"] is True
    assert Plan.from_json(plan.to_json()).is_inlined
    assert not load_model(a_net(opset=12)).is_inlined


@pytest.mark.parametrize("opset", [13, 12])
def test_loading_twice_gives_the_same_names(opset: int) -> None:
    """A plan names nodes and constants, so inlining has to name them alike every time."""
    first, second = (load_model(a_net(opset)) for _ in range(2))
    assert first.proto == second.proto
