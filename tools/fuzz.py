"""Feed hostile files to the reader, the analysis and the pruning; write the counts into docs/reliability.md.

    python tools/fuzz.py --inputs 20000 --write

Inputs run in a child process that says which one it starts, so that a crash of a native library, a hang or a run out
of memory is put down to the input that caused it; the child is then replaced. Every input has to end within ten
seconds and 2 GB, in success or in a SrrError, without a file opened other than its own.
"""

from __future__ import annotations

import json
import math
import os
import resource
import select
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import click
from fuzz_mutations import PLACES, make_input, make_seeds
from markers import replace_between

SECONDS, BYTES = 10.0, 2 << 30
MACS, ELEMENTS = 100_000_000, 3_000_000
PAGE = Path(__file__).resolve().parent.parent / "docs/reliability.md"


def prepare_folder() -> Path:
    """Make a folder in which everything lies that a hostile file may point to."""
    home = Path(tempfile.mkdtemp(prefix="fuzz-"))
    folder = home / "models"
    (folder / "sub").mkdir(parents=True)
    (home / "secret.data").write_bytes(b"\0" * 100_000)
    (folder / "beside.data").write_bytes(b"\0" * 100_000)
    (folder / "short.data").write_bytes(b"\0" * 3)
    (folder / "link.data").symlink_to(home / "secret.data")
    (folder / "linked").symlink_to(home)
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    return folder


class Watch:
    """Notes files that are opened although they are neither code nor the input."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.seen: list[str] = []
        self.is_on = False
        sys.addaudithook(self._note)

    def _note(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.is_on or event != "open" or not isinstance(args[0], (str, bytes)):
            return
        path = os.path.realpath(os.fsdecode(args[0]))
        is_written = isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        is_code = any(path.startswith(place) for place in {*sys.path, sys.prefix, sys.base_prefix} if place)
        if is_written or not (is_code or path.startswith((self.folder, "/sys/"))):
            self.seen.append(path)


def try_source(source: bytes | Path) -> str:
    """Load, analyze and prune one input. Networks that are large, damaged or not, take their time and are not pruned.

    Args:
        source: The file, or its content.

    Returns:
        "pruned", "analyzed", or the kind of SrrError. Anything else is raised.
    """
    from srr_onnx.analysis.find import find_groups
    from srr_onnx.errors import SrrError
    from srr_onnx.graph.cost import count_cost
    from srr_onnx.graph.load import load_model
    from srr_onnx.pipeline import prune

    try:
        model = load_model(source)
        find_groups(model)
        cost = count_cost(model)
        largest = max(math.prod(shape) for shape in model.shapes.values())
        if cost.macs > MACS or max(cost.params, largest) > ELEMENTS:
            return "analyzed"
        prune(model, ratio=0.5, criterion="l1")
    except SrrError as error:
        return type(error).__name__
    return "pruned"


def run_child(seed: int, start: int, stop: int) -> None:
    """Run inputs and report on each, one JSON object a line."""
    folder = prepare_folder()
    report = os.dup(1)
    os.dup2(2, 1)  # native libraries print, too
    resource.setrlimit(resource.RLIMIT_AS, (4 * BYTES, 4 * BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    make_seeds()
    try_source(make_seeds()[0][1])  # imports what is imported late
    watch = Watch(folder)
    for number in range(start, stop):
        name, data = make_input(seed, number)
        _say(report, {"number": number, "name": name})
        found = ""
        began = time.perf_counter()
        os.chdir(folder if number % 2 else "/")
        source: bytes | Path = data
        if number % 4 == 1 or "point_outside" in name:
            source = folder / "input.onnx"
            source.write_bytes(data)
        watch.is_on = True
        try:
            outcome = try_source(source)
        except Exception as error:  # the finding that this tool looks for
            outcome = "other error"
            frame = traceback.extract_tb(error.__traceback__)[-1]
            found = f"{type(error).__name__}: {str(error)[:200]} ({Path(frame.filename).name}:{frame.lineno})"
        watch.is_on = False
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if watch.seen:
            outcome, found, watch.seen = "foreign file", str(watch.seen[:3]), []
        elif peak > BYTES:
            outcome, found = "memory", f"{peak / 1e9:.1f} GB"
        _say(report, {"number": number, "outcome": outcome, "found": found, "seconds": time.perf_counter() - began,
              "peak": peak})  # fmt: skip
        if peak > BYTES:
            return


def _say(report: int, record: dict[str, Any]) -> None:
    os.write(report, (json.dumps(record) + "\n").encode())


class Child:
    """The process that runs inputs; gives its reports line by line."""

    def __init__(self, seed: int, start: int, stop: int, place: str) -> None:
        words = [sys.executable, __file__, "--child", "--seed", str(seed), "--start", str(start), "--inputs", str(stop)]
        self.process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, "TMPDIR": place}
        )
        self._waiting = b""

    def read(self, seconds: float) -> dict[str, Any] | None:
        """The next report; None where the process ended. Raises TimeoutError."""
        assert self.process.stdout is not None
        end = time.monotonic() + seconds
        while b"\n" not in self._waiting:
            if not select.select([self.process.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError
            part = os.read(self.process.stdout.fileno(), 1 << 16)
            if not part:
                return None
            self._waiting += part
        line, self._waiting = self._waiting.split(b"\n", 1)
        found: dict[str, Any] = json.loads(line)
        return found


def run_all(
    seed: int, start: int, stop: int, keep: Path | None, place: str
) -> tuple[Counter[str], list[dict[str, Any]], int]:
    """Run inputs in child processes.

    Returns:
        Inputs by outcome, the findings, and the largest memory of a child in bytes.
    """
    outcomes: Counter[str] = Counter()
    findings = []
    peak, number = 0, start
    while number < stop:
        child = Child(seed, number, stop, place)
        current: dict[str, Any] = {}
        while True:
            record: dict[str, Any] | None
            try:
                record = child.read(SECONDS if current else 120)
            except TimeoutError:
                record = {"number": number, "outcome": "hang", "found": f"over {SECONDS:.0f} s"}
                child.process.kill()
            if record is None:
                code = child.process.wait()
                if not current:
                    break
                record = {"number": number, "outcome": "crash", "found": f"ended with {code}"}
            if "outcome" not in record:
                current = record
                continue
            outcomes[record["outcome"]] += 1
            peak = max(peak, record.get("peak", 0))
            number = record["number"] + 1
            if record["found"]:
                findings.append(current | record)
                click.echo(json.dumps(findings[-1]))
                if keep is not None:
                    (keep / f"{seed}-{record['number']}.onnx").write_bytes(make_input(seed, record["number"])[1])
            current = {}
            if record["outcome"] in ("hang", "crash"):
                break
        child.process.wait()
    return outcomes, findings, peak


@click.command()
@click.option("--inputs", default=20_000, show_default=True, help="Number behind the last input.")
@click.option("--start", default=0, help="Number of the first input.")
@click.option("--seed", default=0, show_default=True)
@click.option("--keep", type=click.Path(path_type=Path), help="Folder for inputs that are findings.")
@click.option("--write", is_flag=True, help="Write the counts into docs/reliability.md.")
@click.option("--child", is_flag=True, hidden=True)
def main(inputs: int, start: int, seed: int, keep: Path | None, write: bool, child: bool) -> None:
    """Run hostile inputs."""
    if child:
        run_child(seed, start, inputs)
        return
    if keep is not None:
        keep.mkdir(exist_ok=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        outcomes, findings, peak = run_all(seed, start, inputs, keep, place)
    rows = [f"| {outcome} | {count:,} |" for outcome, count in outcomes.most_common()]
    text = "\n".join(["| ended in | inputs |", "|---|---|", *rows, f"| all | {outcomes.total():,} |"])
    text += (
        f"\n\nLargest memory of the process: {peak / 1e6:.0f} MB. {len(PLACES)} places for external data were tried."
    )
    click.echo(f"{text}\n{time.monotonic() - began:.0f} s, {len(findings)} findings")
    if write:
        replace_between(PAGE, "fuzz", f"`python tools/fuzz.py --inputs {inputs} --seed {seed}`\n\n{text}")
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
