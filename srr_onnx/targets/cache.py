"""VALIDATE: what was measured on this machine, kept between runs.

One JSON file per measurement in the user's cache folder. What cannot be read is measured anew, what cannot be written
is not kept: a cache never stops anybody.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs

from srr_onnx.errors import OutputError
from srr_onnx.graph.save import write_atomically
from srr_onnx.targets.onnxruntime import version
from srr_onnx.targets.target import Target

# To be raised when times come to be taken in another way: those that were kept are not comparable then.
_METHOD = 2


def machine_key(target: Target) -> dict[str, Any]:
    """What a time depends on besides the model: processor, runtime, and where and how it runs."""
    return {"method": _METHOD, "processor": _processor(), "onnxruntime": version(), **target.to_json()}


def read_cache(name: str, key: Mapping[str, Any]) -> Any:
    """Find a measurement.

    Args:
        name: What was measured.
        key: Everything that it depends on, in JSON's types.

    Returns:
        What was stored; None where nothing usable is.
    """
    with contextlib.suppress(OSError, ValueError):
        data = json.loads(_path(name, key).read_text(encoding="utf-8"))
        if isinstance(data, dict) and data.get("key") == dict(key):
            return data.get("value")
    return None


def write_cache(name: str, key: Mapping[str, Any], value: Any) -> None:
    """Keep a measurement.

    Args:
        name: What was measured.
        key: Everything that it depends on.
        value: The result, in JSON's types.
    """
    with contextlib.suppress(OSError, OutputError):
        path = _path(name, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path) as file:
            file.write(json.dumps({"key": dict(key), "value": value}).encode())


def _path(name: str, key: Mapping[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:16]
    return Path(platformdirs.user_cache_dir("srr-onnx", appauthor=False)) / f"{name}-{digest}.json"


def _processor() -> str:
    """Model of the processor with the size of its vectors, as far as the system says."""
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        fields: dict[str, str] = {}
        for line in text.splitlines():
            field, _, content = line.partition(":")
            fields.setdefault(field.strip(), content.strip())
        vectors = sorted(flag for flag in fields.get("flags", "").split() if flag.startswith(("avx", "amx")))
        return " ".join([fields.get("model name", platform.machine()), *vectors])
    return platform.processor() or platform.machine()
