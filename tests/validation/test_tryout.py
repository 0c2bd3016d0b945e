"""Compensation that saw no samples is kept only where made-up inputs say that it helps."""

from __future__ import annotations

import copy
import dataclasses
import json

import numpy as np
import onnx
import pytest
from builders import Graph
from onnx import TensorProto

import srr_onnx
from srr_onnx.graph.edit import Edits, apply_edits
from srr_onnx.graph.load import load_model
from srr_onnx.graph.model import Model
from srr_onnx.rewriting.compensate import Compensated
from srr_onnx.validation import tryout
from srr_onnx.validation.tryout import keep_if_closer, measure_distances

SHAPES = {"pictures": (1, 3, 8, 8), "a batch of pictures": (4, 8, 8, 3), "noise": (1, 5, 8, 8), "rows": (2, 6)}


def net(shape=(1, 3, 8, 8), ends=("Identity",)) -> Model:
    g = Graph(seed=5)
    x = g.input("x", shape)
    if len(shape) == 4:
        x = g("Transpose", x, perm=[0, 3, 1, 2]) if shape[3] == 3 else x
        x = g("Flatten", g("GlobalAveragePool", g("Relu", g.conv(x, 6, name="c"))))
    rows = g("Gemm", x, g.constant(g.rng.standard_normal((6, 4)), "w", dtype="f4"))
    for end in ends:
        g.output(g(end, rows))
    return load_model(g.model())


def change(model: Model, factor: float | np.ndarray) -> Model:
    return apply_edits(model, Edits(tensors={"w": (model.constants["w"] * factor).astype(np.float32)}))


def compensated(model: Model) -> Compensated:
    return Compensated(model, "merge", ("a",), 2)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_what_is_closer_is_kept(shape):
    model = net(shape)
    found = compensated(change(model, 0.9))
    kept = keep_if_closer(model, change(model, 0.5), found)
    assert (kept.model, kept.to_json()["kind"], kept.layers, kept.created) == (found.model, "merge", ("a",), 2)
    before, after = kept.tried
    assert after == pytest.approx(before / 25, rel=1e-3)  # 0.1**2 against 0.5**2


@pytest.mark.parametrize(
    "factor",
    [0.5, 0.4, -1.0, np.nan, np.inf],
    ids=["as far", "further", "turned", "nan", "inf"],
)
def test_what_is_not_closer_is_given_up(factor):
    model, proven = net(), change(net(), 0.5)
    kept = keep_if_closer(model, proven, compensated(change(model, factor)))
    assert kept.model is proven
    assert (kept.kind, kept.given_up, kept.layers, kept.created) == ("none", "merge", (), 0)
    json.dumps(kept.to_json(), allow_nan=False)


def test_outputs_that_only_shrink_are_not_closer():
    """A large wrong output that becomes small has less error, and is as wrong."""
    model = net(SHAPES["rows"])
    one, other = np.array([-3.0, 1, 1, 1]), np.array([-0.3, 0, 0, 0])
    before, after = measure_distances(model, (change(model, one), change(model, other)))
    assert after.errors.mean() < before.errors.mean()
    assert after.cosines.mean() < before.cosines.mean()
    proven = change(model, one)
    assert keep_if_closer(model, proven, compensated(change(model, other))).model is proven


@pytest.mark.parametrize(
    ("error", "cosine", "kind", "is_kept"),
    [
        (3.0, 0.1, "data-free", False),
        (3.0, 0.3, "data-free", True),
        (1.9, 0.1, "data-free", True),
        (1.9, 0.1, "merge", False),
        (1.9, 0.0, "data-free", False),
    ],
    ids=["only closer", "closer and better directed", "far closer", "far closer by merging", "far closer and turned"],
)
def test_a_smaller_error_needs_a_better_direction_or_has_to_be_far_smaller(monkeypatch, error, cosine, kind, is_kept):
    jitter = np.linspace(-0.1, 0.1, 32)
    pair = [tryout.Distance(4.0 + jitter, 0.1 + jitter), tryout.Distance(error - jitter, cosine + jitter[::-1] / 9)]
    pair[1] = tryout.Distance(pair[1].errors, np.where(cosine == 0.1, pair[0].cosines, pair[1].cosines))
    monkeypatch.setattr(tryout, "measure_distances", lambda *_: pair)
    model = net()
    found = dataclasses.replace(compensated(model), kind=kind)
    assert (keep_if_closer(model, model, found).kind == kind) == is_kept


def test_errors_are_relative_to_the_variance():
    model = net()
    (same,), (silent,) = measure_distances(model, (model,)), measure_distances(model, (change(model, 0),))
    np.testing.assert_allclose(same.errors, 0, atol=1e-9)
    np.testing.assert_allclose(same.cosines, 1, atol=1e-6)
    mean, spread = (silent.errors.mean(), silent.errors.std())
    assert mean > 1  # the variance, and the mean squared
    assert spread > 0


def test_outputs_without_numbers_leave_nothing_to_compare():
    model = net(ends=("ArgMax",))
    proven = change(model, 0.5)
    kept = keep_if_closer(model, proven, compensated(model))
    assert (kept.model, kept.given_up) == (proven, "merge")
    both = net(ends=("Identity", "ArgMax"))
    assert keep_if_closer(both, change(both, 0.5), compensated(both)).kind == "merge"


def test_scores_masked_by_infinity_say_nothing():
    def masked(factor):
        g = Graph(seed=5)
        weight = g.constant(factor * g.rng.standard_normal((48, 4)), dtype="f4")
        rows = g("Gemm", g("Flatten", g.input("x", (1, 3, 4, 4))), weight)
        g.output(g("Add", rows, g.constant(np.array([0, -np.inf, 0, 0]), dtype="f4")))
        return load_model(g.model())

    model, proven = masked(1.0), masked(0.5)
    kept = keep_if_closer(model, proven, compensated(masked(0.9)))
    assert kept.kind == "merge"
    assert np.isfinite(kept.tried).all()


def test_half_precision_is_tried_too():
    g = Graph(seed=5)
    weight = g.constant(g.rng.standard_normal((4, 3, 1, 1)), "w", dtype="f2")
    g.output(g("Conv", g.input("x", (1, 3, 4, 4), TensorProto.FLOAT16), weight))
    model = load_model(g.model())
    half = apply_edits(model, Edits(tensors={"w": model.constants["w"] * np.float16(0.5)}))
    assert keep_if_closer(model, half, compensated(model)).kind == "merge"


def test_the_pipeline_tries_and_tells(monkeypatch):
    g = Graph(seed=3)
    g.output(g.conv(g("Relu", g.conv(g.input("x", (1, 3, 8, 8)), 8, 3, name="c")), 4, 3))
    for name in ("c.weight", "c.bias"):
        g.initializers[name][4:] = g.initializers[name][:4]
    model = load_model(g.model())
    kept = srr_onnx.prune(model, ratio=0.5, compensate="merge")
    assert kept.plan.compensation["kind"] == "merge"
    error = kept.plan.compensation["made_up_error"]
    assert error["after"] < error["before"]
    monkeypatch.setattr(tryout, "_SURE", 1e9)
    left = srr_onnx.prune(model, ratio=0.5, compensate="merge")
    assert (left.plan.compensation["kind"], left.plan.compensation["given_up"]) == ("none", "merge")
    assert left.model is left.proven
    (text,) = left.notes
    assert text.startswith("compensation by merge was left out: made-up inputs do not show that it brings")


def test_what_cannot_be_tried_is_given_up():
    g = Graph(seed=5)
    g.output(g("Mystery", g.conv(g.input("x", (1, 3, 8, 8)), 4), domain="com.example", shape=(1, 4, 8, 8)))
    unknown = load_model(g.model())
    model = net()
    misled = dataclasses.replace(model, proto=copy.deepcopy(model.proto))
    onnx.helper.set_model_props(misled.proto, {"preprocessing": "no JSON"})
    for odd in (unknown, misled):
        kept = keep_if_closer(odd, odd, compensated(odd))
        assert (kept.model, kept.kind, kept.given_up, kept.tried) == (odd, "none", "merge", None)
