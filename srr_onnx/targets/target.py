"""VALIDATE: where a model runs, as a value: execution provider, threads, batch, options of the provider.

It names what is wanted; `targets/providers.py` finds out whether it is there, and whether it really took the model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from srr_onnx.errors import TargetError, UnknownNameError

CPU = "CPUExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"
_SUFFIX = "ExecutionProvider"
# Short names of onnxruntime's execution providers; any other is given by its full name.
PROVIDERS = MappingProxyType(
    {
        "cpu": CPU,
        "cuda": "CUDAExecutionProvider",
        "tensorrt": "TensorrtExecutionProvider",
        "openvino": OPENVINO,
        "coreml": "CoreMLExecutionProvider",
        "dml": "DmlExecutionProvider",
        "migraphx": "MIGraphXExecutionProvider",
        "nnapi": "NnapiExecutionProvider",
        "qnn": "QNNExecutionProvider",
        "webgpu": "WebGpuExecutionProvider",
        "xnnpack": "XnnpackExecutionProvider",
    }
)


@dataclasses.dataclass(frozen=True)
class Target:
    """Where and how a model runs.

    Attributes:
        provider: Short name from `PROVIDERS`, or the full name of any execution provider of onnxruntime.
        threads: Threads inside one operator; 0 lets the runtime choose.
        batch: Rows of one run, for inputs whose first axis the file leaves open; None takes what the file says, and 1
            where it leaves that open.
        options: Options of the provider, as onnxruntime's pages on it list them.

    Raises:
        UnknownNameError: No provider has this name.
        TargetError: A number is out of range, or the CPU is given options.
    """

    provider: str = "cpu"
    threads: int = 0
    batch: int | None = None
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.provider not in PROVIDERS and not self.provider.endswith(_SUFFIX):
            raise UnknownNameError("provider", self.provider, PROVIDERS)
        if self.threads < 0:
            raise TargetError(f"threads (={self.threads}) must be at least 1, or 0 for the runtime's choice")
        if self.batch is not None and self.batch < 1:
            raise TargetError(f"batch (={self.batch}) must be at least 1")
        if self.options and self.execution_provider == CPU:
            names = ", ".join(map(repr, self.options))
            raise TargetError(f"the provider cpu takes no options, {names} would change nothing: leave it out")

    @property
    def execution_provider(self) -> str:
        """Name that onnxruntime has for the provider."""
        return PROVIDERS.get(self.provider, self.provider)

    def to_json(self) -> dict[str, Any]:
        """Plain form."""
        return {**dataclasses.asdict(self), "options": dict(self.options)}


def short_name(execution_provider: str) -> str:
    """The name under which people ask for a provider."""
    return next((short for short, name in PROVIDERS.items() if name == execution_provider), execution_provider)
