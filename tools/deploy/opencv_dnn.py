"""OpenCV's DNN module on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

VERSION = cv2.__version__


class Session:
    """A file opened in OpenCV.

    Args:
        path: The file.
        threads: Threads of the whole library.
    """

    def __init__(self, path: Path, threads: int) -> None:
        cv2.setNumThreads(threads)
        self._net = self._read(str(path))
        self._outputs = list(self._net.getUnconnectedOutLayersNames())

    def _read(self, path: str) -> cv2.dnn.Net:
        return cv2.dnn.readNetFromONNX(path)

    def run(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """Run once: one array per input, one per output."""
        for name, array in feeds.items():
            self._net.setInput(array, name)
        return dict(zip(self._outputs, self._net.forward(self._outputs), strict=True))
