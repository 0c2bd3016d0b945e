"""VALIDATE: how long every kernel of a run took, as onnxruntime itself records it."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from srr_onnx.graph.model import Model
from srr_onnx.graph.runtime import to_runtime_proto
from srr_onnx.targets.onnxruntime import Session
from srr_onnx.targets.target import Target

Array = np.ndarray[Any, Any]

_ENDING = "_kernel_time"


@dataclasses.dataclass(frozen=True, eq=False)
class Kernel:
    """What the runtime made of one node or several.

    Attributes:
        name: The runtime's name for it; those of the nodes are `graph.runtime.numbered_name`.
        op_type: The runtime's operator.
        provider: Execution provider that ran it.
        seconds: Time in every run, `(R,)`.
    """

    name: str
    op_type: str
    provider: str
    seconds: Array


@dataclasses.dataclass(frozen=True, eq=False)
class Recording:
    """Runs of a model, kernel by kernel.

    Attributes:
        kernels: In the order in which they ran.
        run_seconds: Time of every run as a whole, `(R,)`.
    """

    kernels: tuple[Kernel, ...]
    run_seconds: Array


class _ProfiledSession(Session):
    """A model opened with the runtime's recording on; nodes have numbered names."""

    def __init__(self, model: Model, target: Target, prefix: str, *, as_float32: bool) -> None:
        proto, external = to_runtime_proto(model, (), {}, as_float32=as_float32, is_numbered=True)
        self._open(proto, external, target, profile_prefix=prefix)
        self.outputs = list(model.outputs)

    def finish(self) -> Path:
        """End the recording; gives its file."""
        return Path(self._session.end_profiling())


def record_kernels(
    models: Sequence[Model],
    target: Target,
    feeds: Sequence[Mapping[str, Array]],
    runs: int,
    *,
    as_float32: Sequence[bool],
    warm_up: int = 3,
) -> list[Recording]:
    """Run models in turns with the runtime's recording on.

    Args:
        models: Loaded models.
        target: Where they run.
        feeds: One array per graph input, for each model.
        runs: Runs that are recorded, at least one.
        as_float32: For each model, whether to compute in float32 what the file computes in another type.
        warm_up: Runs before that are left out.

    Returns:
        The time of every kernel in every run, to the microsecond, in the order of the models.

    Raises:
        ModelError: The runtime refuses a model or cannot run it.
        TargetError: The target is not there, or takes no node of a model.
    """
    with tempfile.TemporaryDirectory(prefix="srr_onnx_") as folder:
        sessions: list[_ProfiledSession] = []
        try:
            for place, (model, is_float32) in enumerate(zip(models, as_float32, strict=True)):
                sessions.append(_ProfiledSession(model, target, str(Path(folder) / f"{place}"), as_float32=is_float32))
            for _ in range(warm_up + runs):
                for session, arrays in zip(sessions, feeds, strict=True):
                    session.run(arrays)
        finally:  # else the files are written when the sessions go, into a folder that is no more
            paths = [session.finish() for session in sessions]
        return [read_recording(json.loads(path.read_bytes()), warm_up) for path in paths]


def read_recording(events: list[dict[str, Any]], warm_up: int = 0) -> Recording:
    """Read onnxruntime's list of events.

    The kernels of a run come before the event of the run. What lies inside another kernel, the body of a Loop say,
    is part of that one.

    Args:
        events: The list as onnxruntime writes it; times in microseconds.
        warm_up: Runs to leave out, from the first on.
    """
    runs: list[list[dict[str, Any]]] = []
    totals: list[float] = []
    open_run: list[dict[str, Any]] = []
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_ENDING):
            open_run.append(event)
        elif event.get("cat") == "Session" and event["name"] == "model_run":
            runs.append(_outermost(open_run))
            totals.append(event["dur"] * 1e-6)
            open_run = []
    runs, totals = runs[warm_up:], totals[warm_up:]
    found: dict[tuple[str, str, str], Array] = {}
    for number, run in enumerate(runs):
        for event in run:
            key = event["name"].removesuffix(_ENDING), event["args"]["op_name"], event["args"].get("provider", "")
            found.setdefault(key, np.zeros(len(runs)))[number] += event["dur"] * 1e-6
    return Recording(tuple(Kernel(*key, seconds) for key, seconds in found.items()), np.array(totals))


def _outermost(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what ran while another kernel was at work."""
    kept: list[dict[str, Any]] = []
    end = -1.0
    for event in sorted(events, key=lambda event: (event["ts"], -event["dur"])):
        if event["ts"] + event["dur"] > end or event["ts"] >= end:
            kept.append(event)
            end = event["ts"] + event["dur"]
    return kept
