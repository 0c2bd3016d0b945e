"""Steps of widths follow from times; times are measured once and kept."""

from __future__ import annotations

import itertools
import json
import math
import os
from pathlib import Path

import pytest

from srr_onnx.targets import cache, staircase
from srr_onnx.targets.cache import machine_key, read_cache, write_cache
from srr_onnx.targets.staircase import KINDS, WIDTHS, choose_step, probe_steps
from srr_onnx.targets.target import Target


def stairs(step, power):
    """Times on a machine that fills blocks: a width costs what the end of its step costs."""
    return [float(math.ceil(width / step) * step) ** power for width in WIDTHS]


@pytest.mark.parametrize("step", [1, 8, 16, 32])
@pytest.mark.parametrize("is_square", [True, False])
def test_the_step_of_the_blocks_is_found(step, is_square):
    assert choose_step(WIDTHS, stairs(step, 2 if is_square else 1), is_square=is_square) == step


def test_a_coarser_step_that_gains_little_is_not_taken():
    times = [width * (1.3 if width % 4 else 1.005 if width % 8 else 1.0) for width in WIDTHS]
    assert choose_step(WIDTHS, times, is_square=False) == 4


def test_the_probe_runs_once(monkeypatch):
    runs = []

    def measure(target, kind, clock):
        runs.append(kind)
        return stairs(8, 1 if kind == "depthwise" else 2)

    monkeypatch.setattr(staircase, "measure_widths", measure)
    found = [probe_steps(Target(threads=1)) for _ in range(3)]
    assert found == [dict.fromkeys(KINDS, 8)] * 3
    assert runs == list(KINDS)
    probe_steps(Target(threads=2))
    assert len(runs) == 2 * len(KINDS)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"value": 3}', b"\xff\xfe", b'{"key": {}, "value": {"dense": [1]}}']
)
def test_a_broken_cache_is_written_anew(monkeypatch, content):
    monkeypatch.setattr(staircase, "measure_widths", lambda target, kind, clock: stairs(4, 2))
    expected = probe_steps(Target())
    (path,) = Path(os.environ["XDG_CACHE_HOME"]).rglob("staircase-*.json")
    good = path.read_bytes()
    path.write_bytes(content)
    assert probe_steps(Target()) == expected
    assert path.read_bytes() == good


def test_times_that_cannot_be_are_not_used(monkeypatch):
    monkeypatch.setattr(staircase, "measure_widths", lambda target, kind, clock: stairs(4, 2))
    probe_steps(Target())
    (path,) = Path(os.environ["XDG_CACHE_HOME"]).rglob("staircase-*.json")
    data = json.loads(path.read_text())
    data["value"]["dense"][0] = -1.0
    path.write_text(json.dumps(data))
    probe_steps(Target())
    assert json.loads(path.read_text())["value"]["dense"][0] > 0


def test_layers_run_at_every_width():
    ticks = itertools.count()
    for kind in KINDS:
        assert staircase.measure_widths(Target(threads=1), kind, lambda: float(next(ticks))) == [1.0] * len(WIDTHS)


def test_a_cache_that_cannot_be_written_stops_nobody(monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    write_cache("name", {"a": 1}, [1, 2])
    assert read_cache("name", {"a": 1}) is None


def test_a_measurement_belongs_to_its_key(monkeypatch):
    write_cache("name", {"a": 1}, [1, 2])
    assert read_cache("name", {"a": 1}) == [1, 2]
    assert read_cache("name", {"a": 2}) is None
    assert read_cache("other", {"a": 1}) is None
    keys = [machine_key(Target(threads=threads)) for threads in (1, 2)]
    assert keys[0] != keys[1]
    assert keys[0]["onnxruntime"] == cache.version()
