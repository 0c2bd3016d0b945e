"""What came of a file in a runtime, each in a process of its own, so that a crash is a row and not the end."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deploy.arrays import Array, read_arrays, write_arrays
from deploy.runtimes import REFERENCE, Runtime, environment

Outputs = Sequence[Mapping[str, Array]]

# Largest difference of any element from onnxruntime's, relative to the largest element of that output or, of a pruned
# file, of the original's: what a net finds after pruning may be next to nothing on some pictures. Rounding of
# float32 in another order gives 1e-7 to 1e-4 on deep nets; a wrong channel gives 1e-1 and more.
TOLERANCE = 1e-3
# Of int8 copies: a number that one runtime rounds up and another down is a step of a 256th off, layer by layer.
INT8_TOLERANCE = 0.2
# A runtime that is further off than that on the original may be so many times further off on the pruned file.
FACTOR = 10.0


@dataclasses.dataclass(frozen=True)
class Settings:
    """How files are run.

    Attributes:
        threads: Threads of every runtime, and the cores that it is kept on.
        seconds: Seconds in which models take turns, at least five rounds.
        rounds: Most rounds.
        patience: Seconds after which a process counts as hanging.
    """

    threads: int = 2
    seconds: float = 3.0
    rounds: int = 50
    patience: float = 240.0


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """What a process said.

    Attributes:
        version: Of the runtime; empty where it is missing.
        outputs: One entry per sample; empty where there are none.
        milliseconds: One list per model, where they were timed.
        problem: Why there are no outputs; empty where there are.
        is_missing: Whether the runtime is not here at all.
    """

    version: str = ""
    outputs: Outputs = ()
    milliseconds: Sequence[Sequence[float]] = ()
    problem: str = ""
    is_missing: bool = False

    @property
    def is_running(self) -> bool:
        """Whether the file ran."""
        return not self.problem and not self.is_missing


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether a pruned file drops in.

    Attributes:
        verdict: In words.
        is_failure: Whether the pruned file does worse than the original.
        error_original: Relative difference of the original's outputs from the reference; NaN where it did not run.
        error_pruned: The same of the pruned file.
    """

    verdict: str
    is_failure: bool = False
    error_original: float = math.nan
    error_pruned: float = math.nan


def run_file(runtime: Runtime, path: Path, samples: Outputs, settings: Settings) -> Outcome:
    """Run a file on samples, one after another."""
    return _work(runtime, "run", [path], samples, settings)


def time_files(runtime: Runtime, paths: Sequence[Path], sample: Mapping[str, Array], settings: Settings) -> Outcome:
    """Time files in turns on one sample."""
    return _work(runtime, "time", paths, [sample], settings)


def find_reference(path: Path, samples: Outputs, settings: Settings) -> Outputs:
    """What a file gives in onnxruntime, computed as it is written.

    Raises:
        RuntimeError: It does not run there.
    """
    found = run_file(REFERENCE, path, samples, settings)
    if found.problem:
        raise RuntimeError(f"{path} does not run in {REFERENCE.name}: {found.problem}")
    return found.outputs


def measure_error(wanted: Outputs, given: Outputs, scale: Outputs = ()) -> float:
    """Largest difference of any element, relative to the largest element of the same output on any sample.

    Args:
        wanted: The reference's outputs per sample.
        given: The runtime's. It may give them more names than one, and leave out axes of one element.
        scale: More outputs whose elements count in what is the largest.

    Returns:
        The difference; infinite where an output is missing or of another size, or either holds what is not finite.
    """
    worst = 0.0
    for name in wanted[0]:
        sizes = [np.abs(outputs[name].astype(np.float64)).max(initial=0.0) for outputs in scale]
        largest, difference = max([np.finfo(np.float32).tiny, *sizes]), 0.0
        for one, other in zip(wanted, given, strict=True):
            if name not in other or other[name].size != one[name].size:
                return math.inf
            expected, found = (array.astype(np.float64).ravel() for array in (one[name], other[name]))
            if not (np.isfinite(expected).all() and np.isfinite(found).all()):
                return math.inf
            largest = max(largest, np.abs(expected).max(initial=0.0))
            difference = max(difference, np.abs(found - expected).max(initial=0.0))
        worst = max(worst, difference / largest)
    return float(worst)


def measure_top1(wanted: Outputs, given: Outputs, class_axes: Mapping[str, int | None]) -> float:
    """Share of the positions at which both have the same class on top; NaN where no output has classes."""
    hits: list[Array] = []
    for one, other in zip(wanted, given, strict=True):
        for name, axis in class_axes.items():
            if axis is not None and name in other and other[name].size == one[name].size:
                tops = [array.reshape(one[name].shape).argmax(axis) for array in (one[name], other[name])]
                hits.append((tops[0] == tops[1]).ravel())
    return float(np.concatenate(hits).mean()) if hits else math.nan


def judge(
    runtime: Runtime, original: Outcome, pruned: Outcome, wanted: Sequence[Outputs], tolerance: float = TOLERANCE
) -> Verdict:
    """Compare a runtime's outputs with the reference, for the original and for the pruned file.

    Args:
        runtime: The runtime.
        original: What came of the original.
        pruned: What came of the pruned file.
        wanted: The reference's outputs for both.
        tolerance: Difference that counts as none.

    Returns:
        The verdict. What goes wrong for the original too is not held against the pruned file.
    """
    if original.is_missing:
        return Verdict(
            f"cannot run here: {original.problem}" if original.problem else f"not installed: {runtime.install}"
        )
    errors = [
        math.nan if found.problem else measure_error(reference, found.outputs, wanted[0])
        for found, reference in zip((original, pruned), wanted, strict=True)
    ]
    if original.problem and pruned.problem:
        return Verdict(f"refuses the original too: {original.problem}", False, *errors)
    if pruned.problem:
        return Verdict(f"FAILS on the pruned file only: {pruned.problem}", True, *errors)
    if errors[1] > max(tolerance, FACTOR * errors[0] if math.isfinite(errors[0]) else 0.0):
        if errors[0] == math.inf:
            return Verdict("gives other outputs for the original too", False, *errors)
        return Verdict("FAILS: other outputs for the pruned file", True, *errors)
    if original.problem:
        return Verdict(f"agrees; refuses the original: {original.problem}", False, *errors)
    return Verdict("agrees" if errors[1] <= tolerance else "differs for the original too", False, *errors)


def _work(runtime: Runtime, action: str, paths: Sequence[Path], samples: Outputs, settings: Settings) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="deploy-") as name:
        folder = Path(name)
        described = [write_arrays(folder, f"in{n}", sample) for n, sample in enumerate(samples)]
        job: dict[str, Any] = {
            "action": action,
            "models": [str(path.resolve()) for path in paths],
            "samples": described,
        }
        job |= {"threads": settings.threads, "seconds": settings.seconds, "rounds": settings.rounds}
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        command = runtime.command(folder)
        if command is None:
            return Outcome(is_missing=True)
        try:
            done = subprocess.run(
                command,
                env=environment(settings.threads),
                preexec_fn=lambda: _keep_on_cores(settings.threads),
                capture_output=True,
                timeout=settings.patience,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Outcome(problem=f"no answer in {settings.patience:g} s")
        if not (folder / "result.json").exists():
            return Outcome(problem=_describe_end(done.returncode))
        answer = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        return Outcome(
            answer.get("version", ""),
            [read_arrays(folder, entry) for entry in answer.get("outputs", ())],
            answer.get("milliseconds", ()),
            answer.get("refused") or answer.get("missing") or "",
            "missing" in answer,
        )


def _keep_on_cores(threads: int) -> None:
    """Runtimes that start threads of their own accord get no more cores than the others."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def _describe_end(code: int) -> str:
    return f"crashed ({signal.Signals(-code).name})" if code < 0 else f"ended without an answer (exit code {code})"
