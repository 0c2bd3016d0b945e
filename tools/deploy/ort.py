"""onnxruntime on the CPU, with all its graph optimizations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

VERSION = onnxruntime.__version__


class Session:
    """A file opened in onnxruntime.

    Args:
        path: The file.
        threads: Threads inside one operator.
    """

    def __init__(self, path: Path, threads: int) -> None:
        self._session = self._open(path, make_options(threads))
        self._outputs = [value.name for value in self._session.get_outputs()]

    def _open(self, path: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """Run once: one array per input, one per output."""
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(feeds)), strict=True))


def make_options(threads: int) -> onnxruntime.SessionOptions:
    """Options for a fixed number of threads, and silence."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    # Two files run in turns: the threads of the one that waits must not keep the cores busy.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options
