"""DATA: numpy's files, read without ever unpickling anything."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from srr_onnx.data.dataset import Array
from srr_onnx.errors import DataError, first_line

LABEL_KEYS = ("y", "labels", "label", "targets")


class Archive:
    """Arrays of an .npz file, each read when it is asked for.

    Args:
        path: The file.
        content: As numpy opened it.
    """

    def __init__(self, path: Path, content: Any) -> None:
        self._path, self._content = path, content
        self.keys: tuple[str, ...] = tuple(content.files)

    def __contains__(self, key: object) -> bool:
        return key in self.keys

    def __getitem__(self, key: str) -> Array:
        try:
            array = self._content[key]
        except Exception as error:  # numpy and zip meet damaged files with errors of any kind
            raise DataError(f"{str(self._path)!r}: array {key!r} cannot be read: {_explain(error)}") from error
        if not isinstance(array, np.ndarray):
            raise DataError(f"{str(self._path)!r}: {key!r} is no array")
        return array

    def list_keys(self) -> str:
        """Name the arrays, for messages; the first dozen if there are many."""
        return (", ".join(self.keys[:12]) + (" ..." if len(self.keys) > 12 else "")) or "no arrays"


@contextlib.contextmanager
def load_archive(path: Path) -> Iterator[Archive]:
    """Open an .npz file.

    Args:
        path: The file.

    Yields:
        Its arrays.

    Raises:
        DataError: It is none, or damaged.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb"))  # numpy leaves one open that it opened and could not read
            _check_kind(file)
            content = np.load(file, allow_pickle=False)
        except Exception as error:  # numpy and zip meet damaged files with errors of any kind
            raise DataError(f"{str(path)!r} cannot be read as .npz: {_explain(error)}") from error
        if not isinstance(content, np.lib.npyio.NpzFile):
            raise DataError(f"{str(path)!r} holds a single array, not an archive: name it .npy")
        stack.enter_context(content)
        yield Archive(path, content)


def load_array(path: Path) -> Array:
    """Open an .npy file; its rows are read when they are needed.

    Args:
        path: The file.

    Returns:
        The array, mapped from the file.

    Raises:
        DataError: It is none, or damaged.
    """
    if zipfile.is_zipfile(path):
        raise DataError(f"{str(path)!r} holds an archive of arrays: name it .npz")
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # numpy and zip meet damaged files with errors of any kind
        raise DataError(f"{str(path)!r} cannot be read as .npy: {_explain(error)}") from error


def _check_kind(file: BinaryIO) -> None:
    """Refuse what is neither an archive nor an array: numpy takes that for pickled objects."""
    is_known = zipfile.is_zipfile(file)
    file.seek(0)
    is_known = is_known or file.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX
    file.seek(0)
    if not is_known:
        raise ValueError("it is no archive of arrays")


def _explain(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else first_line(Exception(*error.args))
    if "pickle" in text or "Python objects" in text:
        return "it holds Python objects (pickle), which are never loaded; save it as numbers"
    return text[:200]
