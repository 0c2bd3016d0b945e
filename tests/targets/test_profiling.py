"""Events of the runtime become times of kernels, run by run."""

from __future__ import annotations

import numpy as np
import pytest

from srr_onnx.graph.load import load_model
from srr_onnx.graph.runtime import find_numbers, numbered_name
from srr_onnx.rewriting.verify import make_feeds
from srr_onnx.targets.profiling import read_recording, record_kernels
from srr_onnx.targets.target import Target
from tests.builders import Graph


def kernel(name, start, duration, op_type="Conv"):
    arguments = {"op_name": op_type, "provider": "CPUExecutionProvider"}
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": start, "dur": duration, "args": arguments}


def whole(start, duration):
    return {"cat": "Session", "name": "model_run", "ts": start, "dur": duration}


def test_kernels_are_counted_run_by_run_without_the_first():
    events = [
        {"cat": "Session", "name": "session_initialization", "ts": 0, "dur": 9},
        *(kernel("a", 10, 900), whole(5, 999)),
        *(kernel("a", 2000, 10), kernel("b", 2010, 20, "Relu"), whole(1990, 50)),
        *(kernel("a", 3000, 12), kernel("b", 3012, 18, "Relu"), whole(2990, 40)),
    ]
    found = read_recording(events, warm_up=1)
    assert [(k.name, k.op_type, k.provider) for k in found.kernels] == [
        ("a", "Conv", "CPUExecutionProvider"),
        ("b", "Relu", "CPUExecutionProvider"),
    ]
    np.testing.assert_allclose(found.kernels[0].seconds, [10e-6, 12e-6])
    np.testing.assert_allclose(found.kernels[1].seconds, [20e-6, 18e-6])
    np.testing.assert_allclose(found.run_seconds, [50e-6, 40e-6])


def test_the_body_of_a_loop_is_part_of_the_loop_and_runs_of_one_kernel_add_up():
    body = [kernel("inner", start, 5) for start in (101, 110)]
    events = [*body, kernel("loop", 100, 30, "Loop"), kernel("a", 130, 4), kernel("a", 134, 4), whole(99, 60)]
    found = {k.name: k.seconds.tolist() for k in read_recording(events).kernels}
    assert found == {"loop": [pytest.approx(30e-6)], "a": [pytest.approx(8e-6)]}


def test_kernels_that_begin_together_are_all_kept_unless_one_holds_the_other():
    events = [kernel("a", 100, 0), kernel("b", 100, 7), kernel("c", 107, 0), whole(99, 10)]
    assert {k.name for k in read_recording(events).kernels} >= {"b", "c"}


def test_models_are_recorded_and_no_file_is_left(tmp_path):
    g = Graph()
    g.output(g("Relu", g.conv(g.input("x", (1, 3, 8, 8)), 16, 3)))
    model = load_model(g.model())
    recordings = record_kernels(
        [model, model], Target(threads=1), [make_feeds(model)] * 2, 5, as_float32=[False, False]
    )
    for recording in recordings:
        assert recording.run_seconds.shape == (5,)
        assert all(found.seconds.shape == (5,) for found in recording.kernels)
        assert "Conv" in {found.op_type for found in recording.kernels}
        assert sum(found.seconds.sum() for found in recording.kernels) <= recording.run_seconds.sum()
    assert list(tmp_path.iterdir()) == []


def test_numbers_are_found_in_names_that_the_runtime_makes():
    first, second = numbered_name(3), numbered_name(12)
    assert find_numbers(f"fused {first}") == [3]
    assert find_numbers(f"{first}/{second}_token_2") == [3, 12]
    assert find_numbers("ReorderOutput_token_2") == []
