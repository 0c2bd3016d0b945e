"""What makes a machine count as noisy."""

from __future__ import annotations

import pytest

from srr_onnx.validation.noise import NoiseWatch, judge_noise

QUIET = [1.0] * 95 + [1.05] * 5


@pytest.mark.parametrize(
    ("load", "spare", "loops", "drifts", "reason"),
    [
        (3.2, 1, QUIET, [0.0], "3.2 processes wanted a core before it began, and it leaves 1 to others"),
        (0.1, 1, [1.0] * 80 + [1.5] * 20, [0.0], "took 1.50 times as long as the fastest"),
        (0.1, 1, QUIET, [0.01, 0.2], "the last third of the runs was 20 % slower than the first"),
        (0.1, 1, QUIET, [-0.3, 0.2], "the last third of the runs was 30 % faster than the first"),
    ],
)
def test_every_reason_is_told(load, spare, loops, drifts, reason):
    noise = judge_noise(load, spare, loops, drifts)
    assert noise.is_noisy
    assert len(noise.reasons) == 1
    assert reason in noise.reasons[0]


@pytest.mark.parametrize(("load", "spare"), [(None, 0), (0.4, 0), (1.4, 1)])
def test_a_quiet_machine(load, spare):
    noise = judge_noise(load, spare, QUIET, [0.02, -0.03])
    assert not noise.is_noisy
    assert noise.drift == -0.03


def test_nothing_was_timed():
    assert judge_noise(None, 0, [], []).reasons == ()


def test_the_watch_leaves_to_others_what_the_measurement_does_not_use(monkeypatch):
    monkeypatch.setattr("os.getloadavg", lambda: (2.4, 0.0, 0.0), raising=False)
    for threads, spare in ((1, 3), (0, 0), (6, 0)):
        watch = NoiseWatch(threads, cores=4)
        reasons = [text for text in watch.summarize([]).reasons if "core" in text]
        assert reasons == (
            [f"2.4 processes wanted a core before it began, and it leaves {spare} to others"] * (not spare)
        )


def test_the_loop_is_not_timed_again_at_once(monkeypatch):
    now = iter([1.0, 1.1, 1.11, 5.0, 5.2])
    monkeypatch.setattr("srr_onnx.validation.noise.time.perf_counter", lambda: next(now))
    watch = NoiseWatch(1, cores=2)
    for _ in range(3):
        watch.look()
    assert watch.summarize([]).loop_spread == pytest.approx(0.19 / 0.1)
    assert next(now, None) is None
