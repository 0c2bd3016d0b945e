"""Accuracy of a classifier that is known exactly: it returns its input."""

from __future__ import annotations

import numpy as np
import pytest
from builders import Graph

from srr_onnx.errors import DataError
from srr_onnx.graph.load import load_model
from srr_onnx.targets.onnxruntime import Session
from srr_onnx.validation.accuracy import measure_accuracy, split_batches


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
    with pytest.raises(DataError, match=r"shape \[1, 3, 2\] for 1 samples"):
        measure_accuracy(session, [({"x": np.zeros((1, 3, 2), np.float32)}, np.array([0]))])
