"""DATA: what a run was started with, as a file in its folder, so that it goes on with nothing else.

Files and data are told apart by hashes. The file is written whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from srr_onnx.data.dataset import Dataset
from srr_onnx.errors import SrrError
from srr_onnx.graph.save import make_folder, write_atomically

try:
    import fcntl
except ImportError:  # Windows has none: there nobody is kept out
    fcntl = None  # type: ignore[assignment]

SETTINGS = "settings.json"
# Samples whose content is looked at to tell data apart, besides the names and labels of all.
_LOOKED_AT = 16


class Claim:
    """Keeps other processes out of a run's folder, for as long as somebody holds it.

    It is the settings' file that is locked: so nothing is left behind, whatever ends the process, and no process that
    this one has forked keeps the lock.

    Args:
        folder: The folder; its settings are there.
        kind: Class of the error.

    Raises:
        SrrError: Of that class: another process is at work there.
    """

    def __init__(self, folder: Path, kind: type[SrrError]) -> None:
        self._file = -1
        try:
            self._file = os.open(folder / SETTINGS, os.O_RDWR)
            if fcntl is not None:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            if self._file < 0:  # cannot be written: whoever tries to will be told
                return
            raise kind(
                f"another process is at work in {str(folder)!r}: wait for its end, or give another --run-dir"
            ) from error
        except OSError:  # no settings, or a file system without locks
            pass

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)


def begin_run(
    folder: Path,
    schema: str,
    settings: Mapping[str, Any],
    *,
    resume: bool,
    force: bool,
    left: Iterable[Path],
    clear: Callable[[], None],
    kind: type[SrrError],
) -> Claim:
    """Make the folder of a run, or check that it holds the run that is to go on.

    Args:
        folder: The folder.
        schema: Name and version of the form of the settings.
        settings: What decides the result, in plain form.
        resume: Whether the run that is there goes on.
        force: Whether it may be thrown away.
        left: What a run leaves in the folder besides its settings: it is written over by no other unasked.
        clear: Removes what a run has left in the folder.
        kind: Class of the error where it cannot begin or go on.

    Returns:
        What keeps other processes out, to be held until the run has ended.

    Raises:
        SrrError: Of that class: there is a run already, or none to go on with, or it was started with other settings,
            or another process is at work on it.
        OutputError: The folder cannot be made.
    """
    Claim(folder, kind)
    text = json.dumps({"schema": schema, **settings}, indent=1)
    if resume:
        _check(folder, json.loads(text), kind)
        return Claim(folder, kind)  # not before: the lock goes as soon as this process closes the file once
    # settings alone are of a run that came to nothing, unless they are somebody else's
    if any(path.exists() for path in left) or _read(folder).get("schema", schema) != schema:
        if not force:
            raise kind(
                f"{str(folder)!r} holds a run already: give --resume to go on with it, --force to start anew, or "
                "another --run-dir"
            )
        clear()
    make_folder(folder)
    with write_atomically(folder / SETTINGS) as file:
        file.write(text.encode())
    return Claim(folder, kind)


def _check(folder: Path, wanted: Mapping[str, Any], kind: type[SrrError]) -> None:
    before = _read(folder)
    if before.get("schema") is None:
        raise kind(f"{str(folder)!r} holds no run to go on with: leave --resume out, or give its --run-dir")
    for key, value in wanted.items():
        if before.get(key) != value:
            raise kind(
                f"the run in {str(folder)!r} cannot go on: {_describe(key, before.get(key), value)}; give what it was "
                "started with, or leave --resume out"
            )


def _read(folder: Path) -> Mapping[str, Any]:
    """The settings in a folder; of a file that is none of ours only that it is there."""
    try:
        found = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError):
        found = None
    return found if isinstance(found, dict) and "schema" in found else {"schema": None}


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
