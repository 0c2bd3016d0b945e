"""DATA: labels, from arrays, names and files, to one class per sample."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from srr_onnx.data.archives import LABEL_KEYS, load_archive, load_array
from srr_onnx.data.dataset import Array, Dataset, Labels
from srr_onnx.errors import DataError
from srr_onnx.graph.model import Model
from srr_onnx.wording import counted

LABEL_COLUMNS = frozenset({"label", "labels", "class", "classes", "target", "targets", "category", "y"})
PATH_COLUMNS = frozenset({"path", "paths", "file", "files", "filename", "file_name", "image", "image_path", "name"})


def read_classes(model: Model) -> tuple[str, ...]:
    """Read the class names in a model's metadata, a JSON list under "classes"; empty where there are none."""
    text = next((entry.value for entry in model.proto.metadata_props if entry.key == "classes"), "")
    try:
        classes = json.loads(text or "[]")
    except (ValueError, RecursionError):
        return ()
    is_list = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    return tuple(classes) if is_list and len(set(classes)) == len(classes) else ()


def order_classes(names: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Order class names: as the model has them where it knows them all, else by name.

    Args:
        names: Names that occur in the data.
        known: The model's classes, in its order.

    Returns:
        All classes; the place of a name is its class.
    """
    return tuple(known) if known and set(names) <= set(known) else tuple(sorted(set(names)))


def are_numbers(words: Sequence[str]) -> bool:
    """Whether labels are written as whole numbers, which are classes then, not names."""
    return all(word.lstrip("+-").isdecimal() for word in words)


def encode_labels(words: Sequence[str], known: Sequence[str], where: str) -> tuple[Labels, tuple[str, ...]]:
    """Turn written labels, all whole numbers or all class names, into classes.

    Args:
        words: One per sample.
        known: The model's classes.
        where: For messages.

    Returns:
        Labels `(N,)`, and the class names (the model's where the labels are numbers).

    Raises:
        DataError: A label is missing, or below 0.
    """
    words = [word.strip() for word in words]
    if "" in words:
        raise DataError(f"{where}: sample {words.index('')} has no label")
    if are_numbers(words):
        try:
            numbers = np.array([int(word) for word in words], np.int64)
        except (ValueError, OverflowError):
            raise DataError(f"{where}: a label is no class, such as 0, 1, 2") from None
        return check_labels(numbers, where), tuple(known)
    classes = order_classes(words, known)
    place = {name: index for index, name in enumerate(classes)}
    return np.array([place[word] for word in words], np.int64), classes


def check_labels(array: Array, where: str) -> Labels:
    """Check that an array holds one class per sample.

    Args:
        array: `(N,)` or `(N, 1)`, whole numbers.
        where: For messages.

    Returns:
        `(N,)` int64.

    Raises:
        DataError: Another shape or type, or a label below 0.
    """
    flat = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if flat.ndim != 1 or flat.dtype.kind not in "iu":
        raise DataError(
            f"{where}: labels of shape {list(array.shape)} and type {array.dtype}: give one whole number per sample"
        )
    if len(flat) and int(flat.min()) < 0:
        raise DataError(f"{where}: {counted(int((flat < 0).sum()), 'label')} below 0; classes are counted from 0")
    return flat.astype(np.int64)


def labels_from(array: Array, known: Sequence[str], where: str) -> tuple[Labels, tuple[str, ...]]:
    """Read labels from an array of numbers or class names; see `check_labels` and `encode_labels`."""
    if array.dtype.kind in "US" and array.ndim == 1:
        return encode_labels([str(word) for word in array.astype(str)], known, where)
    return check_labels(array, where), tuple(known)


def read_rows(path: Path) -> list[list[str]]:
    """Read a text file of values between commas.

    Args:
        path: The file.

    Returns:
        Rows that are not empty.

    Raises:
        DataError: It cannot be read or is no text.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    except (ValueError, csv.Error) as error:
        raise DataError(f"{str(path)!r} is no text with values between commas, in UTF-8") from error


def add_labels(dataset: Dataset, path: Path, model: Model) -> Dataset:
    """Label samples from a file.

    Args:
        dataset: The samples; labels of their own are replaced.
        path: .npy or .npz (key y, labels, label or targets), .txt or .csv with one label per sample in reading order,
            or a .csv of file names and labels.
        model: Its metadata may name the classes.

    Returns:
        The labelled data set.

    Raises:
        DataError: The file cannot be read, or does not hold one label for each sample.
    """
    where, known, suffix = repr(str(path)), read_classes(model), path.suffix.lower()
    if suffix == ".npy":
        return dataset.with_labels(*labels_from(load_array(path), known, where))
    if suffix == ".npz":
        with load_archive(path) as archive:
            key = next((key for key in LABEL_KEYS if key in archive), None)
            if key is None:
                raise DataError(
                    f"{where} has no labels: found {archive.list_keys()}, looked for {', '.join(LABEL_KEYS)}"
                )
            return dataset.with_labels(*labels_from(archive[key], known, where))
    if suffix not in (".txt", ".csv"):
        raise DataError(f"{where} is no file of labels: give .npy, .npz, .txt or .csv")
    rows = [[line.strip()] for line in _read_lines(path)] if suffix == ".txt" else read_rows(path)
    if rows and LABEL_COLUMNS & {cell.strip().lower() for cell in rows[0]} and len(rows) == 1 + len(dataset):
        rows = rows[1:]  # a header; a class of that name would make one row too few
    if rows and all(len(row) == 2 for row in rows):
        return dataset.with_labels(*encode_labels(_match_names(dataset, rows, where), known, where))
    if any(len(row) != 1 for row in rows):
        raise DataError(f"{where} has rows of different lengths: give one label, or file name and label, in each")
    return dataset.with_labels(*encode_labels([row[0] for row in rows], known, where))


def _read_lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{str(path)!r} is no text in UTF-8") from error


def _match_names(dataset: Dataset, rows: Sequence[Sequence[str]], where: str) -> list[str]:
    """The label of every sample, found by its name; the name of the file alone will do."""
    label_of = {row[0].strip().removeprefix("./"): row[1] for row in rows}
    found = []
    for index in range(len(dataset)):
        name = dataset.name_of(index)
        label = label_of.get(name, label_of.get(Path(name).name))
        if label is None:
            raise DataError(f"{where} has no label for {name!r}")
        found.append(label)
    return found
