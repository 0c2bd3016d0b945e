"""The process that runs one Python runtime: python -m deploy.worker MODULE JOB.

The folder JOB holds `job.json`: `action` is "run" (each sample once, outputs written down) or "time" (the models take
turns). The answer is `result.json`: `version`, and `outputs` or `milliseconds`; or why there is none, `missing` or
`refused`. A process that ends without an answer has crashed. `web.mjs` does the same in JavaScript.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy.arrays import Array, read_arrays, write_arrays


def main(module: str, folder: Path) -> None:
    """Do a job and write down what came of it."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    (folder / "result.json").write_text(json.dumps(_answer(module, folder, job)), encoding="utf-8")


def _answer(module: str, folder: Path, job: Mapping[str, Any]) -> dict[str, Any]:
    try:
        runtime = importlib.import_module(module)
    except ModuleNotFoundError:
        return {"missing": ""}
    except ImportError as error:
        return {"missing": _first_line(error)}
    answer: dict[str, Any] = {"version": runtime.VERSION}
    samples = [read_arrays(folder, described) for described in job["samples"]]
    try:
        sessions = [runtime.Session(Path(path), job["threads"]) for path in job["models"]]
        if job["action"] == "time":
            answer["milliseconds"] = time_in_turns(sessions, samples[0], job["seconds"], job["rounds"])
        else:
            runs = [sessions[0].run(sample) for sample in samples]
            answer["outputs"] = [write_arrays(folder, f"out{n}", found) for n, found in enumerate(runs)]
    except Exception as error:  # whatever a runtime has against a file
        answer["refused"] = _first_line(error)
    return answer


def time_in_turns(
    sessions: Sequence[Any], feeds: Mapping[str, Array], seconds: float, rounds: int
) -> list[list[float]]:
    """Time models in turns, so that whatever else the machine does meets all of them alike.

    Args:
        sessions: What has a method `run`.
        feeds: One array per input.
        seconds: No new round is begun after these, but five are run in any case.
        rounds: Most rounds.

    Returns:
        Milliseconds per run, one list per session.
    """
    found: list[list[float]] = [[] for _ in sessions]
    for _ in range(2):  # the first runs allocate and tune
        for session in sessions:
            session.run(feeds)
    end = time.perf_counter() + seconds
    for turn in range(rounds):
        if turn >= 5 and time.perf_counter() > end:
            break
        order = range(len(sessions))
        for number in order if turn % 2 else reversed(order):  # who comes first finds colder caches
            start = time.perf_counter()
            sessions[number].run(feeds)
            found[number].append((time.perf_counter() - start) * 1e3)
    return found


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
