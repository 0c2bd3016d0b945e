"""OpenVINO on the CPU, reading the ONNX file itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino

VERSION = openvino.__version__.split("-")[0]


class Session:
    """A file opened in OpenVINO.

    Args:
        path: The file.
        threads: Threads inside one run.
    """

    def __init__(self, path: Path, threads: int) -> None:
        # Processors with bfloat16 would use it by default; outputs are compared in float32.
        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        self._model = openvino.Core().compile_model(path, "CPU", settings)

    def run(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """Run once: one array per input, one per output under every name that it has."""
        found = self._model(dict(feeds))
        return {name: np.array(found[output]) for output in self._model.outputs for name in output.names}
