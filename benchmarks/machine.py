"""What a benchmark ran on, and what a process took of it. Linux only."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("srr-onnx", "numpy", "onnx", "onnxruntime", "onnx-graphsurgeon", "torch", "torch-pruning", "onnxsim")


def describe_machine() -> dict[str, str]:
    """Name the processor, its cores, the versions of everything and the date."""
    facts = {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "commit": _find_commit(),
        "processor": _read_field(Path("/proc/cpuinfo"), "model name"),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory_gb": f"{int(_read_field(Path('/proc/meminfo'), 'MemTotal').split()[0]) / 2**20:.0f}",
        "python": platform.python_version(),
        "load": f"{os.getloadavg()[0]:.1f}",
    }
    for package in PACKAGES:
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            facts[package] = ""
    return facts


def read_peak_mb() -> float:
    """Read the most memory this process has held, in MB of 10^6 bytes.

    `ru_maxrss` will not do: a child inherits it from the process that started it.
    """
    return int(_read_field(Path("/proc/self/status"), "VmHWM").split()[0]) * 1024 / 1e6


def _read_field(path: Path, field: str) -> str:
    for line in path.read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return ""


def _find_commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return run.stdout.strip()
