"""DATA: pictures in a folder, with sub-folders as classes or without labels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from srr_onnx.data.dataset import Dataset
from srr_onnx.data.labels import are_numbers, encode_labels, order_classes, read_classes
from srr_onnx.data.pictures import SUFFIXES
from srr_onnx.data.reader import Request, reader
from srr_onnx.data.readers.cifar import is_cifar
from srr_onnx.errors import DataError
from srr_onnx.wording import counted

# Parts of a data set, not classes.
_PARTS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})


def _is_pictures(source: Any) -> bool:
    if not isinstance(source, Path):
        return False
    return not is_cifar(source) if source.is_dir() else source.suffix.lower() in SUFFIXES


@reader("folder", _is_pictures)
def read_folder(source: Path, request: Request) -> Dataset:
    """Read a folder of pictures, or a single picture.

    Pictures at the top make it a folder without labels, which is read with all folders below. Otherwise its sub-folders
    are the classes: in the order of the model's metadata where these name them all; by number where all are called
    by one; else sorted by name.

    Args:
        source: The folder.
        request: What for.

    Returns:
        The data set; names are paths below the folder.

    Raises:
        DataError: There are no pictures, the sub-folders are the parts of a data set, or one is a number below 0.
    """
    if source.is_file():
        return request.make_from_pictures(source.parent, [source.name], source.name, "a picture")
    try:
        entries = [entry for entry in source.iterdir() if _is_visible(entry.name)]
    except OSError as error:
        raise DataError(f"the folder {str(source)!r} cannot be read: {error.strerror}") from error
    names = sorted(_find_pictures(source))
    if not names:
        what = f"{len(entries)} entries, none of them a picture" if entries else "it is empty"
        raise DataError(f"the folder {str(source)!r} holds no pictures: {what}")
    name = source.resolve().name or str(source)
    if not all(os.sep in entry for entry in names):
        return request.make_from_pictures(source, names, name, counted(len(names), "picture"))
    folders = sorted(entry.name for entry in entries if entry.is_dir())
    used = {entry.split(os.sep, 1)[0] for entry in names}
    if {folder.lower() for folder in used} <= _PARTS:
        parts = ", ".join(sorted(used))
        raise DataError(
            f"{str(source)!r} holds the parts of a data set ({parts}), not classes: give one of these folders"
        )
    known = read_classes(request.model)
    words = [entry.split(os.sep, 1)[0] for entry in names]
    if are_numbers(folders) and not set(folders) <= set(known):
        labels, classes = encode_labels(words, known, repr(str(source)))
        order = "as their folders are called"
    else:
        classes = order_classes(folders, known) if set(folders) <= set(known) else tuple(folders)
        place = {folder: index for index, folder in enumerate(classes)}
        labels = np.array([place[word] for word in words], np.int64)
        order = "in the model's order" if known and classes == known else "by name"
    text = f"{counted(len(names), 'picture')} of {counted(len(used), 'class', 'classes')}, numbered {order}"
    return request.make_from_pictures(source, names, name, text, labels, classes)


def _refuse(error: OSError) -> None:
    raise DataError(f"the folder {error.filename!r} cannot be read: {error.strerror}") from error


def _is_visible(name: str) -> bool:
    return not name.startswith((".", "__MACOSX"))


def _find_pictures(folder: Path) -> Iterator[str]:
    """Paths of all pictures in and below a folder, relative to it; links are followed, circles of them are not."""
    seen: set[tuple[int, int]] = set()
    for here, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        status = os.stat(here)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(filter(_is_visible, folders))
        below = os.path.relpath(here, folder)
        for name in files:
            if _is_visible(name) and os.path.splitext(name)[1].lower() in SUFFIXES:
                yield name if below == os.curdir else os.path.join(below, name)
