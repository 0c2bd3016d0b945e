"""How long `prune --data` takes as a whole command, and how much memory.

    python benchmarks/compensation_time.py zoo/resnet50.ts_folded.onnx zoo/efficientnet_lite0.ts.onnx --data photos.npz

The samples are repeated up to the number asked for, mirrored every other time: what is measured is the time.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from machine import describe_machine
from prune_time import HERE, write_csv

sys.path.insert(0, str(HERE.parent / "tools"))
from markers import replace_between

PAGE = HERE.parent / "docs" / "performance.md"


def make_pictures(source: Path, count: int, folder: Path) -> Path:
    """Write pictures (uint8, NCHW) as an `.npz` that `--data` reads."""
    pictures = np.load(source)["x"]
    both = np.concatenate([pictures, pictures[..., ::-1]])
    path = folder / "pictures.npz"
    np.savez(path, x=both[np.arange(count) % len(both)])
    return path


def run_command(model: Path, pictures: Path, samples: int, folder: Path) -> dict[str, object]:
    """Run the whole command in a fresh process; wall clock and largest memory."""
    words = [sys.executable, "-m", "srr_onnx", "prune", str(model), "--flops", "0.44", "--data", str(pictures)]
    words += ["--preset", "imagenet", "--samples", str(samples), "-o", str(folder / "out.onnx"), "--force"]
    start = time.perf_counter()
    process = subprocess.Popen([*words, "--format", "json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise click.ClickException(f"{model.name}: the command ended with {os.waitstatus_to_exitcode(status)}")
    facts = json.loads(text)
    return {
        "model": model.name,
        "samples": samples,
        "seconds": round(seconds, 1),
        "memory_mb": usage.ru_maxrss // 1024,
        "layers": facts["compensation"]["layers"],
        "macs_removed": round(facts["removed"]["macs"], 4),
        "date": describe_machine()["date"],
    }


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True, help=".npz with `x`, uint8 NCHW.")
@click.option("--samples", default=512, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=HERE / "results", help="Folder for the CSV file.")
def main(models: tuple[Path, ...], data: Path, samples: int, out: Path) -> None:
    """Time `srr-onnx prune MODEL --flops 0.44 --data PICTURES`."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        pictures = make_pictures(data, round(samples / 0.8), Path(name))
        for model in models:
            rows.append(run_command(model, pictures, samples, Path(name)))
            click.echo(rows[-1])
    write_results(rows, out)


def write_results(rows: list[dict[str, object]], out: Path) -> None:
    """Write the CSV file and the table of docs/performance.md; rows of models that were not run again stay."""
    path, names = out / "compensation_time.csv", {row["model"] for row in rows}
    if path.exists():
        with path.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["model"] not in names] + rows
    rows.sort(key=lambda row: str(row["model"]))
    write_csv(path, tuple(rows[0]), rows)
    lines = ["| model | samples | whole command | largest memory |", "|---|---|---|---|"]
    lines += [
        f"| {r['model']} | {r['samples']} | {float(r['seconds']):.0f} s | {int(r['memory_mb']):,} MB |" for r in rows
    ]
    replace_between(PAGE, "compensation", "\n".join(lines))


if __name__ == "__main__":
    main()
