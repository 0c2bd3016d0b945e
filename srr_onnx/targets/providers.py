"""VALIDATE: execution providers of onnxruntime: which are there, and which of them really took a model.

onnxruntime runs on the CPU, with a warning or without, what a provider cannot take or whose library is missing. Here
that is an error: figures of the CPU under another name are worse than none.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import onnxruntime as ort

from srr_onnx.errors import TargetError, first_line
from srr_onnx.targets.target import CPU, OPENVINO, Target, short_name

# Providers that come as libraries of their own, beside any onnxruntime, and the packages that hold them.
_PLUG_INS = {OPENVINO: "onnxruntime_ep_openvino"}
_INSTALL = {
    "CUDAExecutionProvider": "pip install onnxruntime-gpu, in place of onnxruntime, with NVIDIA's CUDA and cuDNN",
    "TensorrtExecutionProvider": "pip install onnxruntime-gpu, in place of onnxruntime, with NVIDIA's TensorRT",
    OPENVINO: "pip install 'srr-onnx[openvino]' on Intel hardware, else onnxruntime-openvino in place of onnxruntime",
    "DmlExecutionProvider": "pip install onnxruntime-directml, in place of onnxruntime, on Windows",
    "QNNExecutionProvider": "pip install onnxruntime-qnn, in place of onnxruntime",
    "CoreMLExecutionProvider": "it comes with onnxruntime on macOS",
}
_RECORD = "session.record_ep_graph_assignment_info"
# Threads of a session that waits would spin on, and take the cores from the session that is being timed.
_STOP_SPINNING = "session.force_spinning_stop"


@dataclasses.dataclass(frozen=True)
class Assignment:
    """Which nodes a provider took, and which run on the CPU all the same.

    Attributes:
        provider: Name that onnxruntime has for the provider.
        taken: Nodes that it took; None where this onnxruntime does not tell.
        on_cpu: Nodes on the CPU, by operator.
    """

    provider: str
    taken: int | None
    on_cpu: Mapping[str, int]

    def describe(self) -> str:
        """What the user should know; empty where all nodes are where they were asked for."""
        if not self.on_cpu:
            return ""
        count = sum(self.on_cpu.values())
        listed = ", ".join(f"{kind} ({number})" for kind, number in sorted(self.on_cpu.items()))
        total = count + (self.taken or 0)
        return f"{count} of {total} nodes run on the CPU, {short_name(self.provider)} does not take them: {listed}"


def find_available() -> list[str]:
    """Full names of the execution providers that can be asked for here, the CPU last."""
    names = [*ort.get_available_providers(), *(device.ep_name for device in _find_devices())]
    return sorted(set(names), key=lambda name: (name == CPU, name))


def open_on_target(
    source: bytes | str, options: ort.SessionOptions, target: Target, disabled: Sequence[str] | None = None
) -> tuple[ort.InferenceSession, Assignment]:
    """Open a model on a target, and see to it that it runs there.

    Args:
        source: Serialized model, or a file's path.
        options: Settings of the session; changed.
        target: Where it is to run.
        disabled: Names of optimizers that are left out.

    Returns:
        The session, and which nodes run where.

    Raises:
        TargetError: The provider is not there, does not start, or takes no node of the model.
    """
    name = target.execution_provider
    options.log_severity_level = 4
    options.intra_op_num_threads = target.threads
    options.add_session_config_entry(_STOP_SPINNING, "1")
    if name == CPU:
        session = ort.InferenceSession(source, options, providers=[CPU], disabled_optimizers=disabled)
        return session, Assignment(CPU, None, {})
    ort.set_default_logger_severity(4)  # what goes wrong is said here, in one line
    devices = [device for device in _find_devices() if device.ep_name == name]
    if not devices and name not in ort.get_available_providers():
        raise TargetError(_missing(name))
    options.add_session_config_entry(_RECORD, "1")
    settings = _set_threads(target)
    try:
        if name in ort.get_available_providers():
            session = ort.InferenceSession(
                source, options, providers=[(name, settings)], disabled_optimizers=disabled, enable_fallback=0
            )
        else:
            options.add_provider_for_devices(devices[:1], settings)
            session = ort.InferenceSession(source, options, disabled_optimizers=disabled, enable_fallback=0)
    except Exception as error:  # onnxruntime raises several kinds without a common base
        raise TargetError(f"the provider {target.provider} refuses the model: {_reason(error)}") from error
    return session, _check_taken(session, target)


def _check_taken(session: ort.InferenceSession, target: Target) -> Assignment:
    """Compare what was asked for with what was got."""
    name = target.execution_provider
    if name not in session.get_providers():
        raise TargetError(
            f"the provider {target.provider} does not start here, onnxruntime would run the model on the CPU instead: "
            f"check {'its options, ' if target.options else ''}its libraries, its driver and the device"
        )
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return Assignment(name, None, {})
    counts: dict[str, Counter[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        counts.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
    taken, on_cpu = sum(counts.get(name, Counter[str]()).values()), counts.get(CPU, Counter[str]())
    if on_cpu and not taken:
        raise TargetError(
            f"the provider {target.provider} takes no node of the model, all {sum(on_cpu.values())} would run on the "
            "CPU: measure on --provider cpu"
        )
    return Assignment(name, taken, dict(on_cpu))


def _reason(error: Exception) -> str:
    """A message of onnxruntime without the place in its source and the signature that it may begin with."""
    text = first_line(error)
    return text.rpartition(") ")[2] if text.startswith("/") else text


def _set_threads(target: Target) -> dict[str, str]:
    """Options of the provider; OpenVINO has threads of its own, which onnxruntime's setting does not reach."""
    options = dict(target.options)
    if (
        target.execution_provider == OPENVINO
        and target.threads
        and not {"load_config", "num_of_threads"} & set(options)
    ):
        options["load_config"] = json.dumps({"CPU": {"INFERENCE_NUM_THREADS": str(target.threads)}})
    return options


def _missing(name: str) -> str:
    have = ", ".join(map(short_name, find_available()))
    if name in _register_plug_ins():
        return (
            f"the provider {short_name(name)} finds no device here ({_PLUG_INS[name].replace('_', '-')} is installed, "
            f"and wants hardware of its maker): there is {have}"
        )
    hint = _INSTALL.get(name, "install a build of onnxruntime that has it")
    return f"onnxruntime {ort.__version__} has no provider {short_name(name)} here, it has {have}: {hint}"


def _find_devices() -> list[Any]:
    """Devices of providers that are libraries of their own."""
    _register_plug_ins()
    return list(ort.get_ep_devices()) if hasattr(ort, "get_ep_devices") else []


@functools.cache
def _register_plug_ins() -> frozenset[str]:
    """Load the libraries that are installed; once for the process. Gives the names of their providers."""
    found = set()
    for name, module in _PLUG_INS.items():
        if name in ort.get_available_providers() or not hasattr(ort, "register_execution_provider_library"):
            continue
        try:
            path = importlib.import_module(module).get_library_path()
            ort.register_execution_provider_library(name, path)
        except Exception:  # not installed, or built for another onnxruntime: then it is not there
            continue
        found.add(name)
    return frozenset(found)
