"""`evaluate` and `validate` from Python, on classifiers that are known exactly."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from builders import Graph

from srr_onnx import RunOptions, evaluate, open_data, validate
from srr_onnx.errors import DataError
from srr_onnx.graph.load import load_model

CLASSES = 6
RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((60, CLASSES)).astype(np.float32)
LABELS = np.where(RNG.random(60) < 0.7, ROWS.argmax(1), 0)
TOP1 = float((ROWS.argmax(1) == LABELS).mean())


def classifier(swapped=(), names=()):
    """Its outputs are its inputs, two of them exchanged."""
    g = Graph()
    order = np.arange(CLASSES)
    if swapped:
        order[list(swapped)] = order[list(reversed(swapped))]
    x = g.input("x", (1, CLASSES), dynamic={0: "batch"})
    g.output(g("MatMul", x, g.constant(np.eye(CLASSES, dtype=np.float32)[:, order]), outputs=["y"]))
    proto = g.model()
    if names:
        onnx.helper.set_model_props(proto, {"classes": str(list(names)).replace("'", '"')})
    return load_model(proto)


def data(labels=LABELS):
    return [(ROWS, labels)] if labels is not None else [ROWS]


def test_figures_are_those_of_a_count_by_hand():
    found = evaluate(classifier(), data())
    assert found.samples == found.accuracy.samples == 60
    assert found.accuracy.top1 == TOP1
    top5 = np.argsort(-ROWS, axis=1)[:, :5]
    assert found.accuracy.correct_top5 == (top5 == LABELS[:, None]).sum()
    facts = found.to_json()["accuracy"]
    assert sum(entry["samples"] for entry in facts["confusion"]) == 60
    assert facts["top1"]["low"] < facts["top1"]["mean"] < facts["top1"]["high"]
    assert sum(entry["correct"] for entry in facts["classes"]) == facts["correct"]


@pytest.mark.parametrize("workers", [1, 5])
def test_workers_and_batches_change_nothing(workers):
    expected = evaluate(classifier(), data(), options=RunOptions(workers=2)).to_json()
    assert evaluate(classifier(), data(), options=RunOptions(workers=workers, batch=7)).to_json() == expected


def test_a_limit_chooses_at_random_by_the_seed():
    labels = np.arange(60) % CLASSES
    found = [evaluate(classifier(), data(labels), options=RunOptions(limit=9, seed=seed)) for seed in (1, 1, 2)]
    assert [part.samples for part in found] == [9, 9, 9]
    assert found[0].accuracy.labels.tolist() == found[1].accuracy.labels.tolist()
    assert found[0].accuracy.labels.tolist() != found[2].accuracy.labels.tolist()


def test_without_labels_a_reference_is_enough():
    found = evaluate(classifier((0, 1)), data(None), reference=classifier())
    assert found.accuracy is None
    assert found.agreement[0].top1.mean == (ROWS.argmax(1) > 1).mean()


def test_gates_are_met_or_not():
    assert evaluate(classifier(), data(), min_accuracy=TOP1).gates[0].is_passed
    assert not evaluate(classifier(), data(), min_accuracy=TOP1 + 0.01).gates[0].is_passed


def test_names_come_from_the_metadata():
    names = [f"class {place}" for place in range(CLASSES)]
    found = evaluate(classifier(names=names), data())
    assert [entry["name"] for entry in found.to_json()["accuracy"]["classes"]] == [names[i] for i in np.unique(LABELS)]
    named = [(ROWS, np.array(["cat", "dog"])[LABELS % 2])]
    assert "not those of the model's metadata" in " ".join(evaluate(classifier(names=names), named).notes)
    assert "the data have 2 classes, the model 6" in " ".join(evaluate(classifier(), named).notes)


@pytest.mark.parametrize(
    ("labels", "more", "message"),
    [
        (None, {}, "no labels, so no accuracy can be measured: give --labels FILE, or --reference"),
        (None, {"reference": classifier(), "min_accuracy": 0.5}, "no labels, so no accuracy"),
        (np.full(60, CLASSES), {}, "labels from 6 to 6, but 'y' has 6 classes"),
    ],
)
def test_what_cannot_be_measured(labels, more, message):
    with pytest.raises(DataError, match=message):
        evaluate(classifier(), data(labels), **more)


def test_a_data_set_that_is_open_takes_no_labels():
    model = classifier()
    with pytest.raises(DataError, match="open already"):
        evaluate(model, open_data(data(), model), labels="labels.txt")


def test_maps_have_no_accuracy_but_agree():
    g = Graph()
    g.output(g("Relu", g.input("x", (1, 3, 4, 4), dynamic={0: "batch"}), outputs=["maps"]))
    model = load_model(g.model())
    maps = RNG.standard_normal((5, 3, 4, 4)).astype(np.float32)
    labelled = [(maps, np.arange(5) % 3)]
    with pytest.raises(DataError, match=r"column per class, the model has 'maps' \[1, 3, 4, 4\]"):
        evaluate(model, labelled)
    found = evaluate(model, labelled, reference=model)
    assert found.accuracy is None
    assert found.agreement[0].max_abs == 0
    assert "no accuracy" in " ".join(found.notes)


@pytest.mark.parametrize("batch", [None, 8])
def test_an_input_that_all_samples_share_is_fed_with_every_run(batch):
    """Sixty samples are no multiple of eight: the last run is filled up, the shared array is not."""
    g = Graph()
    x = g.input("x", (batch or 1, CLASSES), dynamic=None if batch else {0: "batch"})
    g.output(g("MatMul", x, g.input("turn", (CLASSES, CLASSES)), outputs=["y"]))
    model = load_model(g.model())
    np.savez("shared.npz", x=ROWS, turn=np.eye(CLASSES, dtype=np.float32), labels=LABELS)
    found = evaluate(model, "shared.npz", reference=model)
    assert (found.samples, found.accuracy.top1) == (60, TOP1)
    assert (found.agreement[0].samples, found.agreement[0].max_abs) == (60, 0)
    assert validate(model, model, "shared.npz").accuracy_drop.mean == 0


def test_classes_lie_where_the_operator_puts_them():
    def sequence(last):
        g = Graph()
        x = g.input("x", (1, 6, 5), dynamic={0: "batch"})
        g.output(g("Conv", x, g.constant(np.diag([1, 1, 1, 1, 1, last]).astype(np.float32)[:, :, None])))
        return load_model(g.model())

    samples = RNG.standard_normal((7, 6, 5)).astype(np.float32)
    other = np.concatenate([samples[:, :5], -samples[:, 5:]], 1)
    expected = (samples.argmax(1) == other.argmax(1)).mean()
    assert 0 < expected < 1
    assert validate(sequence(1), sequence(-1), [samples]).agreement[0].top1.mean == pytest.approx(expected)
    assert evaluate(sequence(-1), [samples], reference=sequence(1)).agreement[0].top1.mean == pytest.approx(expected)


def test_a_comparison_is_paired():
    found = validate(classifier(), classifier((0, 1)), data(), max_accuracy_drop=0.01, max_size=10_000)
    reference, candidate = (side.accuracy.top1 for side in (found.reference, found.candidate))
    assert reference == TOP1 > candidate
    assert found.accuracy_drop.mean == pytest.approx(reference - candidate)
    assert [(gate.name, gate.is_passed) for gate in found.gates] == [("accuracy_drop", False), ("size", True)]
    assert not found.is_passed


def test_made_up_inputs_say_so():
    found = validate(classifier(), classifier(), options=RunOptions(limit=5))
    assert (found.samples, found.is_made_up, found.accuracy_drop) == (5, True, None)
    assert found.agreement[0].max_abs == 0
    assert "made-up random inputs" in found.notes[0]


def test_a_size_that_the_candidate_leaves_open_is_that_of_the_reference():
    for name, dynamic in (("fixed.onnx", {}), ("open.onnx", {2: "height", 3: "width"})):
        g = Graph()
        g.output(g("GlobalAveragePool", g("Relu", g.input("x", (1, 3, 30, 30), dynamic=dynamic))))
        onnx.save(g.model(), name)
    assert validate("fixed.onnx", "open.onnx").agreement[0].max_abs == 0
    pixels = np.zeros((2, 3, 30, 30), np.float32)
    assert evaluate("fixed.onnx", [pixels], reference="open.onnx").agreement[0].max_abs == 0


@pytest.mark.parametrize("gate", ["max_accuracy_drop", "min_agreement"])
def test_gates_that_need_samples(gate):
    with pytest.raises(DataError, match="is measured on samples: give --data too"):
        validate(classifier(), classifier(), **{gate: 0.5})
