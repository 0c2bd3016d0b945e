"""DATA: what a run was started with, as a file in its folder, so that it goes on with nothing else.

Files and data are told apart by hashes. The file is written whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from srr_onnx.data.dataset import Dataset
from srr_onnx.errors import SrrError
from srr_onnx.graph.save import make_folder, write_atomically

SETTINGS = "settings.json"
# Samples whose content is looked at to tell data apart, besides the names and labels of all.
_LOOKED_AT = 16


def begin_run(
    folder: Path,
    schema: str,
    settings: Mapping[str, Any],
    *,
    resume: bool,
    force: bool,
    clear: Callable[[], None],
    kind: type[SrrError],
) -> None:
    """Make the folder of a run, or check that it holds the run that is to go on.

    Args:
        folder: The folder.
        schema: Name and version of the form of the settings.
        settings: What decides the result, in plain form.
        resume: Whether the run that is there goes on.
        force: Whether it may be thrown away.
        clear: Removes what a run has left in the folder.
        kind: Class of the error where it cannot begin or go on.

    Raises:
        SrrError: Of that class: there is a run already, or none to go on with, or it was started with other settings.
        OutputError: The folder cannot be made.
    """
    text = json.dumps({"schema": schema, **settings}, indent=1)
    if resume:
        _check(folder, json.loads(text), kind)
        return
    if (folder / SETTINGS).exists():
        if not force:
            raise kind(
                f"{str(folder)!r} holds a run already: give --resume to go on with it, --force to start anew, or "
                "another --run-dir"
            )
        clear()
    make_folder(folder)
    with write_atomically(folder / SETTINGS) as file:
        file.write(text.encode())


def _check(folder: Path, wanted: Mapping[str, Any], kind: type[SrrError]) -> None:
    try:
        found = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        before = {key: found.get(key) for key in wanted}
    except (OSError, ValueError, AttributeError) as error:
        raise kind(f"{str(folder)!r} holds no run to go on with: leave --resume out, or give its --run-dir") from error
    for key, value in wanted.items():
        if before[key] != value:
            raise kind(
                f"the run in {str(folder)!r} cannot go on: {_describe(key, before[key], value)}; give what it was "
                "started with, or leave --resume out"
            )


def _describe(key: str, before: Any, after: Any) -> str:
    if isinstance(before, str) and isinstance(after, str) and max(len(before), len(after)) == 64:
        return f"the {key} are others" if key.endswith("data") else f"the {key} is another file"
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
