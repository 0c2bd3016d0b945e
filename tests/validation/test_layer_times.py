"""Every kernel's time goes to the node of the user's file that it comes from."""

from __future__ import annotations

import numpy as np
import pytest

from srr_onnx.graph.load import load_model
from srr_onnx.graph.runtime import numbered_name
from srr_onnx.rewriting.verify import make_feeds
from srr_onnx.targets.profiling import Kernel, Recording, record_kernels
from srr_onnx.targets.target import Target
from srr_onnx.validation.layers import LayerTime, LayerTimes, find_regressions, time_layers
from tests.builders import Graph


def residual():
    """Two convolutions, the second added to what the first gives; names of nodes are those of their outputs."""
    g = Graph()
    first = named(g, "Relu", g.conv(g.input("x", (1, 3, 8, 8)), 16, 3, name="first"), name="relu")
    total = named(g, "Add", g.conv(first, 16, 3, name="second"), first, name="sum")
    g.output(named(g, "GlobalAveragePool", named(g, "Relu", total, name="last"), name="pool"))
    return g.model()


def named(g, op_type, *inputs, name):
    return g(op_type, *inputs, name=name, outputs=[name])


def times(model, *kernels):
    """Times of kernels given by name, operator and microseconds."""
    found = [Kernel(name, kind, "CPUExecutionProvider", np.full(4, us * 1e-6)) for name, kind, us in kernels]
    return time_layers(model, Recording(tuple(found), np.full(4, 1e-3)))


def rows(layers):
    return {row.node: (row.op_type, row.kernels, round(row.seconds * 1e6)) for row in layers.rows}


def test_kernels_go_to_the_node_whose_name_they_carry():
    model = load_model(residual())
    index = {node.name: node.index for node in model.nodes}
    found = times(
        model,
        (numbered_name(index["pool"]), "GlobalAveragePool", 5),
        (f"fused {numbered_name(index['second'])}_token_7", "FusedConv", 20),
    )
    assert rows(found) == {
        "second": ("Conv", ("FusedConv",), 20),
        "pool": ("GlobalAveragePool", ("GlobalAveragePool",), 5),
    }
    assert [row.node for row in found.rows] == ["second", "pool"]
    assert found.rows[0].shape == (1, 16, 8, 8)


def test_kernels_named_by_a_value_go_to_the_convolution_that_was_fused_into_it():
    found = times(load_model(residual()), ("relu_nchwc", "Conv", 10), ("last_nchwc_token_3", "Conv", 20))
    assert rows(found) == {"first": ("Conv", ("Conv",), 10), "second": ("Conv", ("Conv",), 20)}


def test_a_convolution_with_a_kernel_of_its_own_does_not_get_that_of_another():
    """A shortcut: two convolutions are added, and the kernel of one does the addition."""
    g = Graph()
    x = g.input("x", (1, 3, 8, 8))
    g.output(named(g, "Add", g.conv(x, 16, 3, name="main"), g.conv(x, 16, 1, name="shortcut"), name="sum"))
    model = load_model(g.model())
    found = times(model, ("main_nchwc", "Conv", 10), ("sum_nchwc", "Conv", 20))
    assert rows(found) == {"main": ("Conv", ("Conv",), 10), "shortcut": ("Conv", ("Conv",), 20)}


def test_what_the_runtime_adds_is_told_apart_by_kind():
    found = times(
        load_model(residual()),
        ("ReorderOutput", "ReorderOutput", 3),
        ("ReorderOutput_token_5", "ReorderOutput", 4),
        ("InsertedPrecisionFreeCast_first", "Cast", 2),
        ("OpenVINO-EP-subgraph_1_0", "OpenVINO-EP-subgraph_1", 90),
        ("OpenVINO-EP-subgraph_2_0", "OpenVINO-EP-subgraph_2", 10),
    )
    assert rows(found) == {
        "runtime (OpenVINO-EP-subgraph)": ("", ("OpenVINO-EP-subgraph_1", "OpenVINO-EP-subgraph_2"), 100),
        "runtime (ReorderOutput)": ("", ("ReorderOutput",), 7),
        "runtime (Cast)": ("", ("Cast",), 2),
    }
    assert found.sum_seconds == pytest.approx(109e-6)


def test_nodes_without_a_name_or_with_a_repeated_one_are_told_apart():
    proto = residual()
    for node in proto.graph.node:
        node.name = "" if node.op_type == "Relu" else "twice"
    model = load_model(proto)
    found = times(model, *((numbered_name(node.index), node.op_type, 1) for node in model.nodes))
    repeated = {f"twice (node {number})" for number in (0, 2, 3, 5)}
    assert set(rows(found)) == {"Relu(relu)", "Relu(last)", *repeated}


def test_a_real_recording_loses_no_time_and_finds_both_convolutions():
    model = load_model(residual())
    (recording,) = record_kernels([model], Target(threads=1), [make_feeds(model)], 4, as_float32=[False])
    found = time_layers(model, recording)
    assert {"first", "second", "pool"} <= set(rows(found))
    assert len(found.rows) == len({row.node for row in found.rows})
    assert found.runs == 4
    named = {row.node for row in found.rows if row.op_type}
    assert named <= {node.label for node in model.nodes}


def test_disturbed_runs_do_not_count():
    model = load_model(residual())
    kernel = Kernel(numbered_name(0), "Conv", "CPUExecutionProvider", np.array([1, 1, 2, 2, 2, 2, 90, 99.0]))
    assert time_layers(model, Recording((kernel,), np.ones(8))).rows[0].seconds == 2.0


def layers(*rows):
    found = (LayerTime(name, "Conv", kinds, (), (1, 8), us, us * low, us * high) for name, kinds, us, low, high in rows)
    return LayerTimes(tuple(found), 1.0, 10)


def test_nodes_that_became_slower_are_found_the_largest_loss_first():
    plain, fused = ("Conv",), ("FusedConv",)
    before = layers(
        *(("a", plain, 10, 0.9, 1.1), ("b", plain, 10, 0.9, 1.1), ("c", plain, 10, 0.5, 1.9)),
        *(("d", plain, 10, 1, 1), ("gone", plain, 10, 1, 1)),
    )
    after = layers(
        *(("a", plain, 13, 0.9, 1.1), ("b", fused, 30, 0.9, 1.1), ("c", plain, 15, 0.5, 1.5)),
        *(("d", plain, 10.4, 1, 1), ("new", plain, 99, 1, 1)),
    )
    found = find_regressions(before, after)
    assert [slow.node for slow in found] == ["b", "a"]
    assert (found[0].reference_kernels, found[0].candidate_kernels) == (plain, fused)
    assert (found[1].reference_seconds, found[1].candidate_seconds) == (10, 13)
