"""DATA: arrays in .npz and .npy files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from srr_onnx.data.archives import LABEL_KEYS, Archive, load_archive, load_array
from srr_onnx.data.dataset import Array, Dataset
from srr_onnx.data.labels import labels_from, read_classes
from srr_onnx.data.reader import Request, reader
from srr_onnx.errors import DataError
from srr_onnx.wording import counted

_INPUT_KEYS = ("x", "images", "data")


def _has_suffix(suffix: str) -> Any:
    return lambda source: isinstance(source, Path) and source.is_file() and source.suffix.lower() == suffix


@reader("npz", _has_suffix(".npz"))
def read_npz(source: Path, request: Request) -> Dataset:
    """Read an .npz file: an array per input and, under y, labels, label or targets, the labels.

    Args:
        source: The file. For a model with one input the array may be called x, images or data too, or be the only one
            with two axes or more. With several inputs, all samples share an array of exactly the input's shape. Class
            names may lie under classes.
        request: What for.

    Returns:
        The data set.

    Raises:
        DataError: It cannot be read, has no usable array, or does not fit the model.
    """
    names = list(request.model.inputs)
    with load_archive(source) as archive:
        if len(names) == 1:
            arrays = {names[0]: _find_only_array(archive, names[0], source)}
        else:
            missing = [name for name in names if name not in archive]
            if missing:
                raise DataError(
                    f"{str(source)!r} has no array {missing[0]!r}: found {archive.list_keys()}; the model has "
                    f"{len(names)} inputs ({', '.join(names)}), each needs an array of its name"
                )
            arrays = {name: archive[name] for name in names}
        labels, classes = None, read_classes(request.model)
        if "classes" in archive:
            written = archive["classes"]
            if written.dtype.kind == "U" and written.ndim == 1:
                classes = tuple(map(str, written))
        key = next((key for key in LABEL_KEYS if key in archive and key not in names), None)
        if key is not None:
            labels, classes = labels_from(archive[key], classes, f"{str(source)!r}, array {key!r}")
    shared = request.find_shared(arrays)
    count = next((len(array) for name, array in arrays.items() if name not in shared and array.ndim), 0)
    return request.make_from_arrays(arrays, source.name, f"{counted(count, 'sample')} from arrays", labels, classes)


@reader("npy", _has_suffix(".npy"))
def read_npy(source: Path, request: Request) -> Dataset:
    """Read an .npy file: the samples of a model with one input.

    Args:
        source: The file; it is mapped, so it may be larger than memory.
        request: What for.

    Returns:
        The data set, without labels.

    Raises:
        DataError: It cannot be read or does not fit the model.
    """
    names = list(request.model.inputs)
    if len(names) != 1:
        raise DataError(f"the model has {len(names)} inputs ({', '.join(names)}): give an .npz with an array for each")
    array = load_array(source)
    text = f"{counted(len(array) if array.ndim else 0, 'sample')} from an array"
    return request.make_from_arrays({names[0]: array}, source.name, text)


def _find_only_array(archive: Archive, name: str, source: Path) -> Array:
    key = next((key for key in (name, *_INPUT_KEYS) if key in archive), None)
    if key is not None:
        return archive[key]
    found = {key: array for key in archive.keys if key not in LABEL_KEYS and (array := archive[key]).ndim >= 2}
    if len(found) != 1:
        raise DataError(
            f"{str(source)!r} has no usable array for input {name!r}: found {archive.list_keys()}; name it {name}, "
            f"{', '.join(_INPUT_KEYS[:-1])} or {_INPUT_KEYS[-1]}"
        )
    return next(iter(found.values()))
