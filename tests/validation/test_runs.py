"""Runs over samples: order, workers, batches that are filled up, models that do not go together."""

from __future__ import annotations

import numpy as np
import pytest
from builders import Graph
from onnx import TensorProto

from srr_onnx.data.read import open_data
from srr_onnx.errors import DataError, ModelError
from srr_onnx.graph.load import load_model
from srr_onnx.validation.runs import choose_batch, open_models, run_models

ROWS = np.random.default_rng(0).standard_normal((11, 4)).astype(np.float32)


def net(batch=None, name="x", width=4, dtype=TensorProto.FLOAT, output="y", baked=False):
    """Twice its input; an open batch, one that the file states, or one that a Reshape has written into it."""
    g = Graph()
    x = g.input(name, (batch or 1, width), dtype, dynamic=None if batch else {0: "batch"})
    if baked:
        x = g("Reshape", x, g.constant(np.array([1, width])))
    g.output(g("Add", x, x, outputs=[output]))
    return load_model(g.model())


def run_all(models, size=None, workers=2, rows=ROWS):
    opened = open_models(*models)
    data = open_data([rows], models[0])
    size = choose_batch(opened, data, np.arange(len(data)), size)
    runs = list(run_models(opened, data.batches(size), size, workers))
    (name,) = models[0].outputs
    return size, [run.batch.indices.tolist() for run in runs], np.concatenate([run.outputs[-1][name] for run in runs])


@pytest.mark.parametrize("workers", [1, 3, 16])
def test_results_come_in_order_whatever_the_workers(workers):
    size, indices, found = run_all([net()], size=2, workers=workers)
    assert size == 2
    assert indices == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10]]
    assert (found == 2 * ROWS).all()


def test_batches_that_the_file_states_are_filled_up_and_cut():
    size, indices, found = run_all([net(batch=4)])
    assert size == 4
    assert [len(part) for part in indices] == [4, 4, 3]
    assert (found == 2 * ROWS).all()


def test_a_batch_that_is_written_into_the_graph_is_found_out():
    assert run_all([net(baked=True)])[0] == 1
    with pytest.raises(DataError, match="batches of 8 are not possible: one run of the model takes 1 sample"):
        run_all([net(baked=True)], size=8)
    with pytest.raises(DataError, match="takes 4 samples"):
        run_all([net(batch=4)], size=8)


def test_a_stated_batch_holds_for_both_models():
    assert run_all([net(), net(batch=4)])[0] == 4
    with pytest.raises(DataError, match="the models take 2 and 4 samples in one run"):
        run_all([net(batch=2), net(batch=4)])


def test_a_narrower_candidate_gets_its_own_element_type():
    _, _, found = run_all([net(), net(dtype=TensorProto.FLOAT16)])
    assert found.dtype == np.float16
    assert np.abs(found - 2 * ROWS).max() < 0.01


def test_a_reference_that_the_runtime_does_not_take_and_another_width():
    _, _, found = run_all([net(dtype=TensorProto.BFLOAT16), net(dtype=TensorProto.FLOAT16)])
    assert found.dtype == np.float16
    assert np.abs(found - 2 * ROWS).max() < 0.1


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"name": "z"}, r"inputs differ: the reference has 'x' \(float 4\), the candidate 'z' \(float 4\)"),
        ({"width": 5}, r"inputs differ: the reference has 'x' \(float 4\), the candidate 'x' \(float 5\)"),
        ({"dtype": TensorProto.INT32}, r"the candidate 'x' \(int32 4\)"),
        ({"output": "z"}, r"outputs differ: the reference has 'y' \(float 4\), the candidate 'z' \(float 4\)"),
    ],
)
def test_models_that_take_or_give_other_things(other, message):
    with pytest.raises(DataError, match=message):
        open_models(net(), net(**other))


def test_a_shape_that_is_not_known_is_left_to_the_run():
    g = Graph()
    x = g.input("x", (1, 4), dynamic={0: "batch"})
    g.output(g("Gelu", x, domain="com.microsoft", outputs=["y"]))  # onnx knows no shape behind it
    size, _, found = run_all([net(), load_model(g.model())])
    assert found.shape == (11, 4)
    assert size > 1
    with pytest.raises(DataError, match=r"outputs differ: .* 'z' \(float 4\), the candidate 'y'"):
        open_models(net(output="z"), load_model(g.model()))


def test_an_error_in_a_worker_is_the_models():
    g = Graph()
    index = g("Cast", g("ReduceMax", g.input("x", (1, 4), dynamic={0: "batch"}), axes=[1], keepdims=0), to=7)
    g.output(g("Gather", g.constant(np.zeros((3, 2), np.float32)), index))
    rows = np.zeros((9, 4), np.float32)
    rows[7] = 50
    with pytest.raises(ModelError, match="onnxruntime cannot run the model"):
        run_all([load_model(g.model())], size=1, rows=rows)
