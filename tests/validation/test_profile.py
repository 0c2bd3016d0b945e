"""What a profile holds; how fast anything is, is nobody's promise."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import srr_onnx
from srr_onnx.errors import DataError, ModelError, TargetError
from srr_onnx.graph.load import load_model
from srr_onnx.targets.target import Target
from srr_onnx.validation.profile import make_batch, profile
from tests.builders import Graph
from tests.documented import documented_shape, mismatches

QUICK = {"rounds": 12, "budget_seconds": 2.0}


def net(width=8, dynamic=True, name="x"):
    g = Graph()
    x = g.input(name, (1, 3, 8, 8), dynamic={0: "batch"} if dynamic else {})
    x = g("GlobalAveragePool", g("Relu", g.conv(x, width, 3, name="first")))
    g.output(g("Flatten", x))
    return g


def save(path, graph):
    onnx.save(graph.model(), path)
    return path


def test_two_models_at_two_batches(tmp_path):
    paths = [save(tmp_path / name, net(width)) for name, width in (("wide.onnx", 64), ("slim.onnx", 8))]
    told = []
    found = profile(*paths, batches=[1, 4], on_stage=lambda *step: told.append(step[0]), **QUICK)
    assert [model.name for model in found.models] == ["wide.onnx", "slim.onnx"]
    for model in found.models:
        assert [times.batch for times in model.batches] == [1, 4]
        for times in model.batches:
            assert len(times.latency.seconds) == 12
            assert times.latency.fastest <= times.quantiles["median"].value <= times.quantiles["p90"].value
            assert times.quantiles["p99"] is None
            assert times.rows_per_second == pytest.approx(times.batch / times.latency.median)
            assert times.footprint.load_seconds > 0
        assert "first" in {row.node for row in model.layers.rows}
    (other,) = found.comparisons
    assert (other.name, len(other.speedups)) == ("slim.onnx", 2)
    assert list(dict.fromkeys(told)) == ["load", "measure", "record", "open"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["slim.onnx", "wide.onnx"]


def test_the_json_form_is_the_documented_one(tmp_path):
    path = save(tmp_path / "net.onnx", net())
    found = json.loads(json.dumps(srr_onnx.profile(path, path, **QUICK).to_json()))
    assert mismatches(documented_shape("profiling.md", "srr-onnx/profile/1"), found) == []
    assert [model["name"] for model in found["models"]] == ["net.onnx", "net.onnx (2)"]


def test_files_of_the_same_name_are_told_apart_by_their_folders(tmp_path):
    paths = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        paths.append(save(tmp_path / folder / "net.onnx", net()))
    found = profile(*paths, with_layers=False, **QUICK)
    assert [model.name for model in found.models] == list(map(str, paths))
    assert all(model.layers is None for model in found.models)


def test_a_loaded_model_has_no_file_to_open():
    found = profile(load_model(net().model()), **QUICK)
    assert found.models[0].name == "model"
    assert found.models[0].batches[0].footprint is None
    assert found.comparisons == ()


def test_models_with_different_inputs_are_measured_with_a_note():
    other = Graph()
    other.output(other("Relu", other.input("y", (2, 5))))
    found = profile(load_model(net().model()), load_model(other.model()), with_layers=False, **QUICK)
    assert [model.batches[0].batch for model in found.models] == [1, 2]
    assert any("take different inputs" in note for note in found.notes)


def test_a_run_of_microseconds_is_timed_many_at_a_time():
    g = Graph()
    g.output(g("Relu", g.input("x", (1, 4))))
    (times,) = profile(load_model(g.model()), with_layers=False, **QUICK).models[0].batches
    assert times.latency.runs_each > 1
    assert times.to_json()["runs_each"] == times.latency.runs_each


def test_half_precision_and_whole_numbers_are_fed():
    g = Graph()
    ids = g.input("ids", (1, 6), TensorProto.INT64)
    g.output(g("Gather", g.weight(2, 8), ids))
    model = load_model(g.model())
    assert set(make_batch(model)["ids"].ravel()) <= {0, 1}
    assert len(profile(model, **QUICK).models[0].batches) == 1


def test_a_batch_that_the_file_does_not_leave_open(tmp_path):
    path = save(tmp_path / "net.onnx", net(dynamic=False))
    with pytest.raises(DataError, match=r"a batch of 4 is not possible: 'net.onnx' takes 1 in one run"):
        profile(path, batches=[1, 4], **QUICK)
    assert profile(path, batches=[1], with_layers=False, **QUICK).models[0].batches[0].batch == 1


def test_an_open_batch_that_the_graph_does_not_take():
    g = Graph()
    x = g.input("x", (1, 4), dynamic={0: "batch"})
    g.output(g("Add", g("Reshape", x, g.ints(4), shape=(4,)), g.weight(4)))
    with pytest.raises(ModelError, match=r"with a batch of 3\)"):
        profile(load_model(g.model()), batches=[3], **QUICK)


def test_the_batch_of_the_target_is_taken():
    target = Target(threads=1, batch=3)
    found = profile(load_model(net().model()), target=target, with_layers=False, **QUICK)
    assert found.models[0].batches[0].batch == 3
    assert found.target is target


def test_only_axes_that_are_open_follow_the_batch():
    g = Graph()
    x = g.input("x", (1, 4), dynamic={0: "batch"})
    g.output(g("Mul", x, g.input("scale", (1, 4))))
    shapes = {name: array.shape for name, array in make_batch(load_model(g.model()), 5).items()}
    assert shapes == {"x": (5, 4), "scale": (1, 4)}


def test_inputs_are_seeded():
    model = load_model(net().model())
    same, other = make_batch(model, 2, seed=1), make_batch(model, 2, seed=2)
    np.testing.assert_array_equal(same["x"], make_batch(model, 2, seed=1)["x"])
    assert not np.array_equal(same["x"], other["x"])


def test_rounds_are_missed_only_where_the_time_was_too_short():
    model = load_model(net().model())
    told = "the time was enough for 3 rounds only: give more with --budget-seconds"
    assert told in profile(model, budget_seconds=1e-6, with_layers=False).notes
    assert profile(model, rounds=3, with_layers=False).notes == ()


@pytest.mark.parametrize(
    ("settings", "text"), [({"rounds": 0}, "rounds"), ({"budget_seconds": 0}, "budget of 0 seconds")]
)
def test_no_time_to_measure(settings, text):
    with pytest.raises(DataError, match=text):
        profile(load_model(net().model()), **settings)


def test_nothing_to_measure():
    with pytest.raises(DataError, match="no model"):
        profile()


def test_a_target_that_is_not_there():
    with pytest.raises(TargetError, match="has no provider"):
        profile(load_model(net().model()), target=Target("VitisAIExecutionProvider"))
