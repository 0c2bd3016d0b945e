"""Who is timed when; the times themselves are nobody's promise."""

from __future__ import annotations

import pytest

from srr_onnx.errors import DataError
from srr_onnx.validation.latency import Latency, measure_latency


class Recorder:
    def __init__(self, name, log):
        self.name, self.log = name, log

    def run(self, feeds):
        self.log.append(self.name)


def test_models_take_turns_and_each_comes_first_in_half_of_them():
    log = []
    timings = measure_latency([Recorder("a", log), Recorder("b", log)], {}, rounds=4, warm_up=2)
    assert [len(timing.seconds) for timing in timings] == [4, 4]
    turns = ["".join(log[i : i + 2]) for i in range(0, len(log), 2)]
    assert turns == ["ba", "ab", "ba", "ab", "ba", "ab"]


def test_median_and_fastest():
    timing = Latency((3.0, 1.0, 2.0, 10.0))
    assert (timing.median, timing.fastest) == (2.5, 1.0)


def test_nothing_to_measure():
    with pytest.raises(DataError, match="rounds"):
        measure_latency([], {}, rounds=0)
