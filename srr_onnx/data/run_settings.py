"""DATA: what a run was started with, as a JSON file in its folder, so that it goes on with nothing else.

Files and data are told apart by hashes. The file is written whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from srr_onnx.data.dataset import Dataset
from srr_onnx.graph.save import write_atomically

# Samples whose content is looked at to tell data apart, besides the names and labels of all.
_LOOKED_AT = 16


def write_settings(path: Path, schema: str, settings: Mapping[str, Any]) -> None:
    """Write what a run is started with.

    Args:
        path: The file.
        schema: Name and version of its form.
        settings: What decides the result, in plain form.

    Raises:
        OutputError: It cannot be written.
    """
    with write_atomically(path) as file:
        file.write(_write(schema, settings).encode())


def find_difference(path: Path, schema: str, settings: Mapping[str, Any]) -> str | None:
    """Compare what a run was started with and what it is to go on with.

    Args:
        path: The file.
        schema: Name and version of its form.
        settings: What it is to go on with.

    Returns:
        The first difference in words, empty where there is none; None where the file is missing or none of ours.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict):
        return None
    for key, value in json.loads(_write(schema, settings)).items():
        if found.get(key) != value:
            return _describe(key, found.get(key), value)
    return ""


def _write(schema: str, settings: Mapping[str, Any]) -> str:
    return json.dumps({"schema": schema, **settings}, indent=1)


def _describe(key: str, before: Any, after: Any) -> str:
    if isinstance(before, str) and isinstance(after, str) and max(len(before), len(after)) == 64:
        return f"the {key} is another file" if not key.endswith("data") else f"the {key} are others"
    return f"{key} was {before!r} and is {after!r} now"


def hash_json(value: Any) -> str:
    """Tell plain values apart by a hash."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def identify(dataset: Dataset) -> str:
    """Tell data apart: a hash of the names and labels of all samples, and of the content of some.

    Args:
        dataset: The data.

    Returns:
        SHA-256 in hexadecimal.
    """
    found = hashlib.sha256(dataset.describe().encode())
    for index in range(len(dataset)):
        found.update(dataset.name_of(index).encode() + b"\n")
    if dataset.labels is not None:
        found.update(dataset.labels.tobytes())
    for index in range(0, len(dataset), max(1, len(dataset) // _LOOKED_AT)):
        for name, array in (dataset.fetch(index) or {}).items():
            found.update(name.encode() + array.tobytes())
    return found.hexdigest()
