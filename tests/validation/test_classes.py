"""Which axis of an output holds the classes, and that agreement is counted position by position."""

from __future__ import annotations

import numpy as np
import pytest
from builders import Graph

from srr_onnx.graph.load import load_model
from srr_onnx.targets.onnxruntime import Session
from srr_onnx.validation.agreement import AgreementCount
from srr_onnx.validation.classes import find_class_axis, has_classes


def conv(g, y):
    return g("Conv", y, g.weight(4, 6, 1))


def dense(g, y):
    return g("Add", g("MatMul", y, g.weight(5, 4)), g.weight(4))


FORMS = {
    "conv": (lambda g, y: g("Relu", conv(g, y)), 1),
    "softmax_second": (lambda g, y: g("Softmax", y, axis=1), 1),
    "softmax_last": (lambda g, y: g("LogSoftmax", y, axis=-1), 2),
    "conv_turned": (lambda g, y: g("Transpose", conv(g, y), perm=[0, 2, 1]), 2),
    "dense": (dense, 2),
    "dense_turned": (lambda g, y: g("Transpose", dense(g, y), perm=[0, 2, 1]), 1),
    "unknown": (lambda g, y: g("CumSum", y, g.ints(1)), 2),
    "dense_unturned": (lambda g, y: g("Transpose", dense(g, y), perm=[1, 2, 0]), 1),
    "pool": (lambda g, y: g("GlobalAveragePool", g("Unsqueeze", y, g.ints(3))), 1),
    "one_class": (lambda g, y: g("Conv", y, g.weight(1, 6, 1)), None),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_operator_that_made_the_scores_tells_their_axis(form: str) -> None:
    make, axis = FORMS[form]
    g = Graph(17)
    y = make(g, g.input("x", (2, 6, 5)))
    g.output(y)
    model = load_model(g.model())
    assert find_class_axis(model, y) == axis
    assert has_classes(model) == (axis is not None)


def test_positions_agree_one_by_one() -> None:
    g = Graph(17)
    y = conv(g, g.input("x", (2, 6, 5)))
    g.output(y)
    model = load_model(g.model())

    class Turned:
        """The same with the scores of the first position reversed."""

        outputs = (y,)

        def run(self, feeds):
            scores = Session(model).run(feeds)[y].copy()
            scores[:, :, 0] = -scores[:, :, 0]
            return {y: scores}

    feeds = {"x": np.random.default_rng(0).standard_normal((2, 6, 5)).astype(np.float32)}
    counts = AgreementCount(model.outputs, {y: find_class_axis(model, y)})
    counts.add(Session(model).run(feeds), Turned().run(feeds), 2)
    (found,) = counts.summarize()
    assert found.samples == 2
    assert found.top1.mean == pytest.approx(0.8)  # four of five positions
