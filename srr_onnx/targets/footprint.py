"""VALIDATE: what a model costs the process that opens it: time to load, peak memory.

Measured in a process of its own, where nothing else has used memory before, with the runtime alone: as whoever deploys
the file would open it.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

import srr_onnx
from srr_onnx.errors import ModelError, SrrError, first_line
from srr_onnx.targets.providers import open_on_target
from srr_onnx.targets.target import Target

Array = np.ndarray[Any, Any]

_RUNS, _LOADS = 3, 3
_STATUS = Path("/proc/self/status")
# Folder first: a folder of the user's may have the package's name.
_SCRIPT = "import sys; sys.path.insert(0, sys.argv[1]); from srr_onnx.targets.footprint import main; main()"


@dataclasses.dataclass(frozen=True)
class Footprint:
    """What a model costs the process that opens it.

    Attributes:
        load_seconds: Time to open a session on the file, the median of three.
        peak_bytes: Memory at the highest point of opening and running it, beyond what the process had with the
            runtime loaded; None where the system does not tell. Memory of a GPU is not in it.
    """

    load_seconds: float
    peak_bytes: int | None


def measure_footprint(path: Path, target: Target, feeds: Mapping[str, Array]) -> Footprint:
    """Open and run a file in a process of its own.

    Args:
        path: ONNX file.
        target: Where it runs.
        feeds: One array per graph input.

    Returns:
        What was measured there.

    Raises:
        ModelError: The process could not open the file or run it; carries its reason.
    """
    arrays = io.BytesIO()
    np.savez(arrays, **{f"in_{place}": array for place, array in enumerate(feeds.values())})  # type: ignore[arg-type]
    task = {"path": str(path.resolve()), "target": target.to_json(), "names": list(feeds)}
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(Path(srr_onnx.__file__).parents[1])],
        input=json.dumps(task).encode() + b"\n" + arrays.getvalue(),
        capture_output=True,
        check=False,
    )
    lines = done.stdout.decode(errors="replace").splitlines()
    found = json.loads(lines[-1]) if lines and not done.returncode else {"error": f"exit code {done.returncode}"}
    if "error" in found:
        raise ModelError(f"{path.name!r} cannot be measured in a process of its own: {found['error']}")
    return Footprint(**found)


def main() -> None:
    """Measure what the standard input asks for, and write the result to the standard output."""
    task = json.loads(sys.stdin.buffer.readline())
    try:
        with np.load(io.BytesIO(sys.stdin.buffer.read())) as arrays:
            feeds = {name: arrays[f"in_{place}"] for place, name in enumerate(task["names"])}
        found = dataclasses.asdict(_measure(task["path"], Target(**task["target"]), feeds))
    except SrrError as error:
        found = {"error": str(error)}
    except Exception as error:  # whatever the runtime raises
        found = {"error": first_line(error)}
    os.write(1, json.dumps(found).encode() + b"\n")


def _measure(path: str, target: Target, feeds: Mapping[str, Array]) -> Footprint:
    before = _start_peak()
    start = time.perf_counter()
    session, _ = open_on_target(path, ort.SessionOptions(), target)
    loads = [time.perf_counter() - start]
    for _ in range(_RUNS):
        session.run(None, feeds)
    after = _read_memory("VmHWM")
    del session
    for _ in range(_LOADS - 1):
        start = time.perf_counter()
        open_on_target(path, ort.SessionOptions(), target)
        loads.append(time.perf_counter() - start)
    peak = None if before is None or after is None else max(0, after - before)
    return Footprint(statistics.median(loads), peak)


def _start_peak() -> int | None:
    """Make the system forget the highest point so far; gives the memory now, in bytes."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # what importing took counts as before, then
        return _read_memory("VmHWM")
    return _read_memory("VmRSS")


def _read_memory(field: str) -> int | None:
    """Memory of this process in bytes, where the system is Linux."""
    if not _STATUS.exists():
        return None
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
    return int(lines[field].split()[0]) * 1024 if field in lines else None
