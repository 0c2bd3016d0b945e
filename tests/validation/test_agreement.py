"""Agreement of two models on samples, counted by hand beside it."""

from __future__ import annotations

import numpy as np
import pytest

from srr_onnx.errors import DataError
from srr_onnx.validation.agreement import AgreementCount

AXES = {"y": 1}


class Fixed:
    """A model that answers with what it was given: the input is the output."""

    def __init__(self, change=lambda rows: rows, outputs=("y",)):
        self.outputs = list(outputs)
        self._change = change

    def run(self, feeds):
        return {name: self._change(feeds["x"]) for name in self.outputs}


def measure_agreement(reference, candidate, batches, class_axes):
    counts = AgreementCount(reference.outputs, class_axes)
    for feeds in batches:
        counts.add(reference.run(feeds), candidate.run(feeds), len(feeds["x"]))
    return counts.summarize()


def batches(rows, size=3):
    return [{"x": rows[start : start + size]} for start in range(0, len(rows), size)]


def scores(count=10, classes=5, seed=0):
    return np.random.default_rng(seed).standard_normal((count, classes)).astype(np.float32)


def test_a_model_agrees_with_itself():
    (found,) = measure_agreement(Fixed(), Fixed(), batches(scores()), AXES)
    assert (found.samples, found.max_abs) == (10, 0.0)
    assert (found.top1.mean, found.cosine.mean, found.kl.mean) == pytest.approx((1, 1, 0))
    assert found.top1.low < 1 == found.top1.high  # ten samples prove little


def test_figures_are_those_of_a_count_by_hand():
    rows, noise = scores(40), 0.7 * scores(40, seed=1)
    (found,) = measure_agreement(Fixed(), Fixed(lambda x: x + noise[: len(x)]), [{"x": rows}], AXES)
    other = rows + noise
    assert found.top1.mean == (rows.argmax(1) == other.argmax(1)).mean()
    cosines = (rows * other).sum(1) / np.linalg.norm(rows, axis=1) / np.linalg.norm(other, axis=1)
    assert found.cosine.mean == pytest.approx(cosines.mean(), rel=1e-5)
    p, q = (np.exp(part) / np.exp(part).sum(1, keepdims=True) for part in (rows, other))
    assert found.kl.mean == pytest.approx((p * np.log(p / q)).sum(1).mean(), rel=1e-4)
    assert found.max_abs == pytest.approx(np.abs(noise).max(), rel=1e-5)
    assert found.cosine.low < found.cosine.mean < found.cosine.high


def test_probabilities_are_known_as_such():
    p = np.exp(scores())
    (found,) = measure_agreement(Fixed(), Fixed(), batches(p / p.sum(1, keepdims=True)), AXES)
    assert found.is_probability
    assert not measure_agreement(Fixed(), Fixed(), batches(scores()), AXES)[0].is_probability


def test_maps_are_compared_pixel_by_pixel():
    rows = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)
    (found,) = measure_agreement(
        Fixed(), Fixed(lambda x: np.concatenate([-x[:, :, :2], x[:, :, 2:]], 2)), [{"x": rows}], AXES
    )
    want = (rows.argmax(1) == np.concatenate([-rows[:, :, :2], rows[:, :, 2:]], 2).argmax(1)).mean()
    assert found.top1.mean == pytest.approx(want)


def test_what_is_masked_in_the_reference_is_left_out_and_what_breaks_in_the_candidate_is_an_error():
    rows = scores()
    rows[:, 2] = -np.inf
    assert measure_agreement(Fixed(), Fixed(), batches(rows), AXES)[0].max_abs == 0
    with pytest.raises(DataError, match="'y' of the candidate is NaN"):
        measure_agreement(Fixed(), Fixed(lambda x: np.full_like(x, np.nan)), batches(scores()), AXES)


def test_nothing_to_compare_is_an_error():
    with pytest.raises(DataError, match="nothing to compare"):
        measure_agreement(Fixed(), Fixed(), [], AXES)


def test_a_reference_that_gives_no_numbers_is_an_error_and_no_agreement():
    rows = scores()
    rows[4] = np.nan
    with pytest.raises(DataError, match="'y' of the original is NaN"):
        measure_agreement(Fixed(), Fixed(np.nan_to_num), batches(rows), AXES)
    with pytest.raises(DataError, match="'y' of the original is NaN"):
        measure_agreement(Fixed(), Fixed(), batches(np.full_like(rows, np.inf)), AXES)
