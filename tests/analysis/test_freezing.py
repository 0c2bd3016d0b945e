"""What cannot be followed is kept, with a reason and the node where it arises; nothing passes silently."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from builders import Graph
from onnx import TensorProto, helper

from srr_onnx.analysis.find import find_groups
from srr_onnx.analysis.labels import FreezeReason
from srr_onnx.analysis.rule import Op, channel_rule, rules
from srr_onnx.graph.load import load_model
from srr_onnx.pipeline import prune

Builder = Callable[[Graph, str], str]


def frozen(build: Builder, opset: int = 13) -> set[tuple[FreezeReason, str]]:
    """Why the filters of `first` stay, in a graph with one thing behind it; nothing of it may be in a group."""
    g = Graph(opset)
    y = build(g, g.conv(g.input("x", (1, 3, 4, 4)), 8, name="first"))
    g.output(g.conv(y, 2, name="last") if len(g.shapes.get(y, (0,) * 4)) == 4 and y in g.shapes else y)
    groups = find_groups(load_model(g.model()))
    assert "first" not in {node for group in groups for node in group.nodes}
    return {(cause.cause.reason, cause.cause.node) for cause in groups.frozen if cause.filters == "first"}


def graph_output(g: Graph, y: str) -> str:
    return g.output(y)


def unknown_operator(g: Graph, y: str) -> str:
    classes = g.constant(np.zeros((1, 4, 4), np.int64))
    return str(g("SoftmaxCrossEntropyLoss", y, classes, name="strange", reduction="none"))


def foreign_domain(g: Graph, y: str) -> str:
    return str(g("Mystery", y, name="strange", domain="com.example", shape=(1, 8, 4, 4)))


def unknown_version(g: Graph, y: str) -> str:
    return str(g("Celu", y, name="newer"))


def unknown_shape(g: Graph, y: str) -> str:
    size = g("Shape", g("NonZero", g.input("z", (1, 4))))
    return str(g("Reshape", y, size, name="unknowable"))


def computed_operand(g: Graph, y: str) -> str:
    amount = g("Cast", g("ArgMax", g.input("z", (1, 4)), axis=1, keepdims=0), to=TensorProto.INT64)
    pads = g("Concat", g.ints(0), amount, g.ints(0, 0, 0, 0, 0, 0), axis=0)
    return str(g("Pad", y, pads, name="computed", shape=(1, 9, 4, 4)))


def fixed_axis(g: Graph, y: str) -> str:
    return str(g("Add", y, g.input("z", (1, 8, 4, 4)), name="tied"))


def mixes_channels(g: Graph, y: str) -> str:
    return str(g("CumSum", y, g.constant(np.array(1, np.int64)), name="sums"))


def subgraph(g: Graph, y: str) -> str:
    branch = helper.make_graph(
        [helper.make_node("Relu", [y], ["inner"])],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, [1, 8, 4, 4])],
    )
    condition = g("Cast", g("ReduceMax", g.input("z", (1,)), keepdims=0), to=TensorProto.BOOL)
    chosen = g("If", condition, then_branch=branch, else_branch=branch, name="choice", shape=(1, 8, 4, 4))
    g.dtypes[chosen] = TensorProto.FLOAT
    return str(chosen)


def layout(g: Graph, y: str) -> str:
    number = g.constant(np.array(0, np.int64))
    one = g("Unsqueeze", g("Gather", y, number, axis=1, name="pick"), axes=[1])
    rest = g("Gather", y, g.ints(*[0] * 8), axis=1)
    return str(g("Add", g("Concat", *[one] * 8, axis=1), rest))


def shape_in_use(g: Graph, y: str) -> str:
    return str(g("Mul", y, g("Cast", g("Size", y, name="count"), to=TensorProto.FLOAT)))


CASES: list[tuple[FreezeReason, str, Builder, int]] = [
    (FreezeReason.GRAPH_OUTPUT, "first", graph_output, 13),
    (FreezeReason.UNKNOWN_OPERATOR, "strange", unknown_operator, 16),
    (FreezeReason.UNKNOWN_OPERATOR, "strange", foreign_domain, 13),
    (FreezeReason.UNKNOWN_VERSION, "newer", unknown_version, 28),
    (FreezeReason.UNKNOWN_SHAPE, "unknowable", unknown_shape, 13),
    (FreezeReason.COMPUTED_OPERAND, "computed", computed_operand, 13),
    (FreezeReason.FIXED_AXIS, "tied", fixed_axis, 13),
    (FreezeReason.MIXES_CHANNELS, "sums", mixes_channels, 13),
    (FreezeReason.SUBGRAPH, "choice", subgraph, 13),
    (FreezeReason.SHAPE_IN_USE, "count", shape_in_use, 13),
]


@pytest.mark.parametrize(
    ("reason", "node", "build", "opset"), CASES, ids=lambda value: getattr(value, "__name__", None)
)
def test_reason_and_node(reason: FreezeReason, node: str, build: Builder, opset: int) -> None:
    assert (reason, node) in frozen(build, opset)


def test_a_channel_picked_by_number_stays() -> None:
    g = Graph(13)
    y = layout(g, g.conv(g.input("x", (1, 3, 4, 4)), 8, name="first"))
    g.output(g.conv(y, 2))
    groups = find_groups(load_model(g.model()))
    assert [group.size for group in groups] == [7]
    assert (FreezeReason.LAYOUT, "pick", 1) in {(f.cause.reason, f.cause.node, f.units) for f in groups.frozen}


def test_a_rule_that_breaks_keeps_its_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "_entries", dict(rules._entries))
    rules._entries.pop(("", "Relu", 13))

    @channel_rule("Relu", since=(13,))
    def broken(op: Op) -> None:
        """Fails on every node."""
        raise IndexError("no such axis")

    assert (FreezeReason.RULE_FAILED, "Relu_0") in frozen(lambda g, y: str(g("Relu", y)))


def test_every_reason_of_the_analysis_is_tested() -> None:
    later = {FreezeReason.INEXACT, FreezeReason.USER, FreezeReason.UNPROVEN}  # these come with a plan
    here = {reason for reason, *_ in CASES} | {FreezeReason.LAYOUT, FreezeReason.RULE_FAILED}
    assert here | later == set(FreezeReason)
    assert all(reason.text for reason in FreezeReason)


SINGLE_INPUT = sorted(
    {
        schema.name
        for schema in onnx.defs.get_all_schemas()
        if not schema.domain and schema.min_input <= 1 <= schema.max_input and schema.min_output == 1
    }
)


@pytest.mark.parametrize("op_type", SINGLE_INPUT)
def test_operators_without_rule_freeze(op_type: str) -> None:
    """Any operator of ONNX that nobody wrote a rule for keeps what reaches it."""
    since = onnx.defs.get_schema(op_type, 21, "").since_version if onnx.defs.has(op_type, 21, "") else 0
    if ("", op_type, since) in rules or not since:
        assert since == 0 or rules.find(("", op_type, since)) is not None
        return
    reasons = frozen(lambda g, y: str(node_without_inference(g, op_type, y)), 21)
    assert {reason for reason, node in reasons if node == "strange"} & {
        FreezeReason.UNKNOWN_OPERATOR, FreezeReason.UNKNOWN_VERSION,
    }  # fmt: skip


def node_without_inference(g: Graph, op_type: str, y: str) -> str:
    output = g.fresh(op_type)
    g.nodes.append(helper.make_node(op_type, [y], [output], name="strange"))
    return output


def test_frozen_and_free_add_up() -> None:
    g = Graph(13)
    x = g.input("x", (1, 3, 4, 4))
    y = g.conv(x, 8, name="first")
    g.output(g("CumSum", g("Slice", y, starts=[0], ends=[3], axes=[1]), g.constant(np.array(1, np.int64))))
    g.output(g.conv(y, 2, name="last"))
    groups = find_groups(load_model(g.model()))
    free = sum(group.size for group in groups if "first" in group.nodes)
    assert free + sum(f.units for f in groups.frozen if f.filters == "first") == 8
    assert free == 5
    assert math.prod(group.size for group in groups) == 5


def test_an_output_of_unknown_shape_that_nobody_reads_is_no_obstacle():
    g = Graph(opset=7)
    x = g("Relu", g.conv(g.input("x", (1, 3, 4, 4)), 8, 3))
    x = g("Dropout", x, name="drop")
    g.output(g.conv(x, 4, 3))
    proto = g.model()
    next(node for node in proto.graph.node if node.op_type == "Dropout").output.append("mask")  # inference: no shape
    model = load_model(proto)
    assert "mask" not in model.shapes
    result = prune(model, ratio=0.5)
    assert [len(group.keep) for group in result.plan.groups] == [4]
    assert result.plan.proof["is_exact"]
