"""How long `srr-onnx --help` takes, in fresh processes, and which heavy modules it loads."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import click
from machine import describe_machine
from prune_time import HERE, write_csv

HEAVY = ("onnxruntime", "torch", "onnx", "onnx_graphsurgeon", "numpy", "rich", "click")
_LIST_MODULES = """
import sys
from srr_onnx.cli.main import main
sys.argv = ["srr-onnx", *sys.argv[1:]]
try:
    main()
except SystemExit:
    pass
print("\\nmodules:", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def time_command(command: list[str], repeats: int) -> list[float]:
    """Run a command in fresh processes; the first run, which may fill caches, does not count."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def find_modules(arguments: list[str]) -> set[str]:
    """List the top-level modules that are loaded once the command has answered."""
    command = [sys.executable, "-c", _LIST_MODULES, *arguments]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    return set(run.stdout.strip().splitlines()[-1].split()[1:])


@click.command()
@click.option("--repeats", default=20, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=HERE / "results", help="Folder for the CSV file.")
def main(repeats: int, out: Path) -> None:
    """Time `srr-onnx --help` and the help of every command, beside an empty Python."""
    tool = str(Path(sys.executable).with_name("srr-onnx"))
    commands = {"python -c pass": [sys.executable, "-c", "pass"], "srr-onnx --help": [tool, "--help"]}
    commands["srr-onnx prune --help"] = [tool, "prune", "--help"]
    rows: list[dict[str, object]] = []
    for name, command in commands.items():
        seconds = time_command(command, repeats)
        modules = find_modules(command[1:]) if command[0] == tool else set()
        row = {"command": name, "min": min(seconds), "median": statistics.median(seconds), "max": max(seconds)}
        rows.append(row | {"loads": " ".join(module for module in HEAVY if module in modules)})
        click.echo(f"{name:<24} min {min(seconds):.3f} s, median {row['median']:.3f} s, loads: {rows[-1]['loads']}")
    rows = [row | {"date": describe_machine()["date"]} for row in rows]
    write_csv(out / "startup.csv", tuple(rows[0]), rows)


if __name__ == "__main__":
    main()
