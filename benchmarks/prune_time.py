"""Time and memory of pruning from file to file, beside Torch-Pruning's way and onnxsim.

Every run is a process of its own; the ways take turns, so that a change of the machine's speed meets all of them.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import click
from machine import ROOT, describe_machine

sys.path.insert(0, str(ROOT / "tools"))
from outside import count_macs, make_feeds

NETS = ("resnet18", "resnet50", "mobilenet_v2", "densenet121", "vgg16_bn")
WAYS = ("srr", "srr_proof", "torch_pruning", "onnxsim")
HERE = Path(__file__).resolve().parent
FIELDS = (
    "net",
    "way",
    "repeat",
    "seconds",
    "cpu",
    "import",
    "build",
    "prune",
    "export",
    "process",
    "peak_mb",
    "file_mb",
)


def run_once(python: str, way: str, net: str, source: Path, output: Path) -> dict[str, float]:
    """Prune once in a fresh process.

    Args:
        python: Interpreter that has all packages.
        way: One of `WAYS`.
        net: Name of the net.
        source: Its file, which Torch-Pruning cannot read: it builds the net.
        output: File to write.

    Returns:
        Seconds by phase ("seconds" are those of all phases but the import, "cpu" the processor time over them), of the
        whole process, and peak memory.

    Raises:
        RuntimeError: The run failed.
    """
    if way == "torch_pruning":
        command = [python, "-W", "ignore", str(HERE / "torch_pruning_way.py"), net, str(output)]
    else:
        command = [python, str(HERE / "one_run.py"), way, str(source), str(output)]
    start = time.perf_counter()
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    process = time.perf_counter() - start
    if run.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {run.stderr.strip().splitlines()[-1:]}")
    found = json.loads(run.stdout.strip().splitlines()[-1])
    phases: Mapping[str, float] = found["seconds"]
    total = sum(seconds for phase, seconds in phases.items() if phase != "import")
    return {**phases, "seconds": total, "process": process, "cpu": found["cpu"], "peak_mb": found["peak_mb"]}


def write_csv(path: Path, fields: tuple[str, ...], rows: list[dict[str, object]]) -> None:
    """Write rows; numbers with four digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fields, restval="", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()})


@click.command()
@click.option("--zoo", type=click.Path(exists=True, file_okay=False, path_type=Path), default="zoo", show_default=True)
@click.option("--nets", default=",".join(NETS), show_default=True, help="Comma-separated nets.")
@click.option("--ways", default=",".join(WAYS), show_default=True, help="Comma-separated ways.")
@click.option("--repeats", default=7, show_default=True, help="Rounds; every way runs once in each.")
@click.option("--python", default=sys.executable, help="Interpreter with torch, torch-pruning and onnxsim.")
@click.option("--out", type=click.Path(path_type=Path), default=HERE / "results", help="Folder for the CSV files.")
def main(zoo: Path, nets: str, ways: str, repeats: int, python: str, out: Path) -> None:
    """Measure NET.ts_folded.onnx of every net; one untimed round goes ahead."""
    rows: list[dict[str, object]] = []
    left: list[dict[str, object]] = []
    for net in nets.split(","):
        source = zoo / f"{net}.ts_folded.onnx"
        file_mb = source.stat().st_size / 1e6
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            output = Path(folder) / "pruned.onnx"
            for repeat in range(repeats + 1):
                for way in ways.split(","):
                    output.unlink(missing_ok=True)  # freeing the last one's pages is nobody's work
                    found = run_once(python, way, net, source, output)
                    if repeat == 0:
                        left.append({"net": net, "way": way, "macs_left": measure_left(source, output)})
                        continue
                    rows.append({"net": net, "way": way, "repeat": repeat, "file_mb": file_mb, **found})
                    click.echo(
                        f"{net:<14} {way:<14} {found['seconds']:7.3f} s, {found['cpu']:7.3f} s of processor, "
                        f"{found['peak_mb']:6.0f} MB"
                    )
                write_csv(out / "prune_time.csv", FIELDS, rows)
        write_csv(out / "macs_left.csv", ("net", "way", "macs_left"), left)
    facts = describe_machine()
    write_csv(out / "machine.csv", tuple(facts), [dict(facts)])


def measure_left(source: Path, output: Path) -> float:
    """Measure the share of the MACs that is left, by running both files."""
    shape = {"input": (1, 3, 224, 224)}
    feeds = make_feeds(shape)
    return count_macs(output, feeds) / count_macs(source, feeds)


if __name__ == "__main__":
    main()
