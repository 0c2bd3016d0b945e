"""DATA: batches that Python code makes: any iterable, or "module:function"."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from srr_onnx.data.dataset import Array, Dataset
from srr_onnx.data.labels import labels_from, read_classes
from srr_onnx.data.reader import Request, reader
from srr_onnx.errors import DataError, first_line
from srr_onnx.wording import counted

# Batches are kept in memory, since samples are asked for in any order and more than once. What is larger than this is
# either endless or better given as a file.
MOST_BYTES = 4 << 30
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@reader("function", lambda source: isinstance(source, str))
def read_function(source: str, request: Request) -> Dataset:
    """Call a function without arguments and read the batches that it gives.

    Args:
        source: "module:function"; modules in the current folder are found too.
        request: What for.

    Returns:
        The data set.

    Raises:
        DataError: The module or the function is not there, or it fails.
    """
    if not _FUNCTION.fullmatch(source):
        raise DataError(f"there is no {source!r}, and it is no MODULE:FUNCTION either")
    module_name, _, name = source.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        function = getattr(importlib.import_module(module_name), name, None)
        if not callable(function):
            raise DataError(f"the module {module_name!r} has no function {name!r}")  # noqa: TRY301
        batches = function()
    except DataError:
        raise
    except Exception as error:  # whatever the user's module does wrong
        raise DataError(f"{source!r} failed: {type(error).__name__}: {first_line(error)}") from error
    if not isinstance(batches, Iterable) or isinstance(batches, (str, Path)):
        raise DataError(f"{source!r} gave {type(batches).__name__}, not batches: return or yield arrays")
    return _read(batches, source, request)


@reader("batches", lambda source: isinstance(source, Iterable) and not isinstance(source, (str, Path)))
def read_batches(source: Iterable[Any], request: Request) -> Dataset:
    """Read an iterable of batches once, into memory.

    Args:
        source: Gives arrays `(N, ...)`, dicts of arrays by input name, or pairs of either and labels `(N,)`. A single
            array or dict is one batch.
        request: What for.

    Returns:
        The data set.

    Raises:
        DataError: A batch is of another form or another shape than the first, or there are too many.
    """
    return _read(source, f"{type(source).__name__} of batches", request)


def _read(source: Iterable[Any], name: str, request: Request) -> Dataset:
    inputs: list[dict[str, Array]] = []
    labels: list[Array | None] = []
    size = 0
    for batch in _iterate([source] if isinstance(source, (np.ndarray, Mapping)) else source, name):
        place = f"{name!r}, batch {len(inputs)}"
        feeds, found = _part(batch, list(request.model.inputs), place)
        if inputs:
            _check_like(feeds, inputs[0], place)
        inputs.append(feeds)
        labels.append(found)
        size += sum(array.nbytes for array in feeds.values())
        if size > MOST_BYTES:
            raise DataError(f"{name!r} gave more than {MOST_BYTES / (1 << 30):.0f} GB: limit it, or give an .npy file")
    if not inputs:
        raise DataError(f"{name!r} gave no batches; an iterator that was used before is empty")
    given = [array for array in labels if array is not None]
    if len(given) not in (0, len(labels)):
        raise DataError(f"{name!r}: {len(given)} of {len(labels)} batches have labels; all or none may")
    arrays = {key: np.concatenate([feeds[key] for feeds in inputs]) for key in inputs[0]}
    known = read_classes(request.model)
    values, classes = labels_from(np.concatenate(given), known, repr(name)) if given else (None, known)
    count = len(next(iter(arrays.values())))
    return request.make_from_arrays(
        arrays, name, f"{counted(count, 'sample')} in {counted(len(inputs), 'batch', 'batches')}", values, classes
    )


def _iterate(source: Iterable[Any], name: str) -> Iterable[Any]:
    try:
        yield from source
    except DataError:
        raise
    except Exception as error:  # whatever the user's code does wrong
        raise DataError(f"{name!r} failed: {type(error).__name__}: {first_line(error)}") from error


def _part(batch: Any, names: list[str], place: str) -> tuple[dict[str, Array], Array | None]:
    """Inputs by name and labels of one batch; a list of two is a pair too, since torch's loader makes lists."""
    labels = None
    if isinstance(batch, (tuple, list)):
        if len(batch) not in (1, 2):
            raise DataError(f"{place} has {counted(len(batch), 'part')}: give inputs, or a pair of inputs and labels")
        labels = _to_array(batch[1], place) if len(batch) == 2 else None
        batch = batch[0]
    if not isinstance(batch, Mapping):
        if len(names) != 1:
            raise DataError(
                f"{place} is one array, the model has {len(names)} inputs: give a dict ({', '.join(names)})"
            )
        batch = {names[0]: batch}
    missing = [name for name in names if name not in batch]
    if missing:
        raise DataError(f"{place} has no array {missing[0]!r}: found {', '.join(map(str, batch)) or 'none'}")
    feeds = {name: _to_array(batch[name], place) for name in names}
    for name, array in [*feeds.items(), *([("labels", labels)] if labels is not None else [])]:
        if not array.ndim:
            raise DataError(f"{place}: {name!r} is a single number; samples lie along the first axis")
        if len(array) != len(feeds[names[0]]):
            raise DataError(
                f"{place}: {name!r} has {counted(len(array), 'sample')}, {names[0]!r} has {len(feeds[names[0]])}"
            )
    return feeds, labels


def _to_array(value: Any, place: str) -> Array:
    try:
        return np.asarray(value)
    except Exception as error:  # tensors of other libraries refuse in their own ways
        raise DataError(f"{place} holds {type(value).__name__}, which is no array: {first_line(error)}") from error


def _check_like(feeds: Mapping[str, Array], first: Mapping[str, Array], place: str) -> None:
    for name, array in feeds.items():
        if array.shape[1:] != first[name].shape[1:] or array.dtype != first[name].dtype:
            raise DataError(
                f"{place}: {name!r} has samples of shape {list(array.shape[1:])} and type {array.dtype}, in the first "
                f"batch {list(first[name].shape[1:])} and {first[name].dtype}"
            )
