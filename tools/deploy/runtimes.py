"""The runtimes that a pruned file has to drop into."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from pathlib import Path

TOOLS = Path(__file__).resolve().parent.parent


@dataclasses.dataclass(frozen=True)
class Runtime:
    """A runtime, and how it is started.

    Attributes:
        name: What it is called.
        worker: Python module with `VERSION` and `Session(path, threads)`, or an .mjs script beside this file.
        install: The command that installs it.
        python: Interpreter that has it; this one by default.
    """

    name: str
    worker: str
    install: str
    python: str = sys.executable

    def command(self, job: Path) -> list[str] | None:
        """The process that does a job; None where there is not even an interpreter for it."""
        if self.worker.endswith(".mjs"):
            node = shutil.which("node")
            return None if node is None else [node, str(TOOLS / "deploy" / self.worker), str(job)]
        return [self.python, "-m", "deploy.worker", self.worker, str(job)] if shutil.which(self.python) else None


def environment(threads: int) -> dict[str, str]:
    """Environment of a worker: it finds this package, and libraries on OpenMP keep to the number of threads."""
    paths = [str(TOOLS), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": str(threads)}


REFERENCE = Runtime("onnxruntime, as written", "deploy.ort_plain", "pip install onnxruntime")
ORT = Runtime("onnxruntime", "deploy.ort", "pip install onnxruntime")
PROVIDER = Runtime("onnxruntime, provider", "deploy.ort_provider", "pip install onnxruntime-openvino")
RUNTIMES = (
    ORT,
    PROVIDER,
    Runtime("OpenVINO", "deploy.openvino_cpu", "pip install openvino"),
    Runtime("OpenCV DNN", "deploy.opencv_dnn", "pip install opencv-python-headless"),
    Runtime("OpenCV DNN, classic", "deploy.opencv_classic", "pip install opencv-python-headless"),
    Runtime("onnxruntime-web", "web.mjs", "npm ci --prefix tools/deploy"),
)
