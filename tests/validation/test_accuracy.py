"""Accuracy of a classifier that is known exactly: it returns its input."""

from __future__ import annotations

import numpy as np
import pytest
from builders import Graph
from hypothesis import given
from hypothesis import strategies as st

from srr_onnx.errors import DataError
from srr_onnx.graph.load import load_model
from srr_onnx.targets.onnxruntime import Session
from srr_onnx.validation.accuracy import AccuracyCount, measure_accuracy, split_batches


@pytest.fixture
def session():
    g = Graph()
    g.output(g("Identity", g.input("x", (1, 3), dynamic={0: "batch"})))
    return Session(load_model(g.model()))


def test_counts_the_samples_whose_class_has_the_highest_output(session):
    rows = np.eye(3, dtype=np.float32)[[0, 1, 2, 2, 0]]
    found = measure_accuracy(session, split_batches("x", rows, np.array([0, 1, 2, 1, 0]), size=2))
    assert (found.correct, found.samples, found.top1) == (4, 5, 0.8)


def test_batches_are_cut_in_order(session):
    rows = np.arange(5, dtype=np.float32)[:, None]
    batches = list(split_batches("x", rows, np.arange(5), size=2))
    assert [feeds["x"][:, 0].tolist() for feeds, _ in batches] == [[0, 1], [2, 3], [4]]
    assert [labels.tolist() for _, labels in batches] == [[0, 1], [2, 3], [4]]


def test_no_samples(session):
    with pytest.raises(DataError, match="no labelled samples"):
        measure_accuracy(session, [])


def test_labels_beyond_the_classes(session):
    with pytest.raises(DataError, match="labels from 0 to 3, but 'Identity_0' has 3 classes"):
        measure_accuracy(session, split_batches("x", np.zeros((2, 3), np.float32), np.array([0, 3])))


def test_an_output_that_is_no_classification():
    g = Graph()
    g.output(g("Identity", g.input("x", (1, 3, 2))))
    session = Session(load_model(g.model()))
    with pytest.raises(DataError, match=r"shape \[1, 3, 2\] for 1 sample"):
        measure_accuracy(session, [({"x": np.zeros((1, 3, 2), np.float32)}, np.array([0]))])


def test_confusions_ranks_and_classes_are_those_of_a_count_by_hand():
    count = AccuracyCount("y")
    count.add({"y": np.array([[3.0, 2, 1], [1, 3, 2], [1, 3, 2]])}, np.array([0, 2, 0]))
    count.add({"y": np.array([[0.0, 0, 9]])}, np.array([2]))
    found = count.summarize()
    assert found.ranks.tolist() == [0, 1, 2, 0]
    assert found.count_confusions() == {(0, 0): 1, (0, 1): 1, (2, 1): 1, (2, 2): 1}
    assert {label: row[:2] for label, row in found.estimate_classes().items()} == {0: (1, 2), 2: (1, 2)}
    assert (found.correct, found.top1, found.correct_top5) == (2, 0.5, None)


def test_top5_looks_among_the_five_highest():
    rows = np.tile(np.arange(7.0), (7, 1))
    count = AccuracyCount("y")
    count.add({"y": rows}, np.arange(7))
    assert count.summarize().correct_top5 == 5


@given(st.integers(0, 9))
def test_of_equal_outputs_the_first_counts_as_in_argmax(seed):
    rng = np.random.default_rng(seed)
    rows, labels = rng.integers(0, 3, (50, 4)).astype(np.float32), rng.integers(0, 4, 50)
    count = AccuracyCount("y")
    count.add({"y": rows}, labels)
    assert (count.summarize().is_right == (rows.argmax(1) == labels)).all()


def test_maps_of_one_pixel_are_classes():
    count = AccuracyCount("y")
    count.add({"y": np.eye(3, dtype=np.float32)[:, :, None, None]}, np.array([0, 1, 1]))
    assert count.summarize().correct == 2


def test_nan_is_no_class():
    rows = np.array([[0, 1], [np.nan, 1]], np.float32)
    with pytest.raises(DataError, match="output 'y' is NaN on 1 of 2 samples"):
        AccuracyCount("y").add({"y": rows}, np.array([1, 1]))
