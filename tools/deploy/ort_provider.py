"""onnxruntime with the first provider that it has beside the CPU: CUDA, OpenVINO, CoreML, DirectML ..."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from deploy import ort

_PROVIDERS = [
    name
    for name in onnxruntime.get_available_providers()
    if name not in ("CPUExecutionProvider", "AzureExecutionProvider")  # Azure's calls a service
]
if not _PROVIDERS:
    raise ImportError("this onnxruntime has no provider beside the CPU")

VERSION = f"{ort.VERSION}, {_PROVIDERS[0].removesuffix('ExecutionProvider')}"


class Session(ort.Session):
    """A file opened with the provider; nodes that it does not take run on the CPU, as they would in use."""

    def _open(self, path: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
        session = onnxruntime.InferenceSession(path, options, providers=[_PROVIDERS[0], "CPUExecutionProvider"])
        if _PROVIDERS[0] not in session.get_providers():  # it falls back to the CPU without an error
            raise RuntimeError(f"{_PROVIDERS[0]} did not start")
        return session
