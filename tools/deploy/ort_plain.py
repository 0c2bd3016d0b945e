"""The reference: onnxruntime on the CPU without graph optimizations, so that nodes are computed as they are written."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from deploy import ort
from deploy.ort import VERSION as VERSION


class Session(ort.Session):
    """A file opened in onnxruntime, as it is written."""

    def _open(self, path: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return super()._open(path, options)
