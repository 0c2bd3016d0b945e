"""DATA: a path, a function or an object to a `Dataset`: picks the reader."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from srr_onnx.data.dataset import Dataset
from srr_onnx.data.labels import add_labels
from srr_onnx.data.preprocessing import Preprocessing
from srr_onnx.data.reader import Request
from srr_onnx.data.readers import readers
from srr_onnx.data.readers.synthetic import SOURCE
from srr_onnx.errors import DataError
from srr_onnx.graph.model import Model

_FORMS = f"a folder of pictures, .npz, .npy, .csv, CIFAR-10's .bin, MODULE:FUNCTION, or {SOURCE}"


def open_data(
    source: str | os.PathLike[str] | Iterable[Any],
    model: Model,
    *,
    preprocessing: Preprocessing | None = None,
    labels: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Open data for a model; docs/data.md describes the forms.

    Args:
        source: Folder, file, "module:function", "synthetic" for made-up pictures, or an iterable of batches (arrays,
            dicts of arrays by input name, or pairs of inputs and labels).
        model: The model that will be fed.
        preprocessing: What is done to pictures; by default what the model's metadata say, else a usual one.
        labels: File with one label per sample; replaces labels of the data's own.

    Returns:
        The data set; pictures are decoded when their batch is asked for.

    Raises:
        DataError: Nothing is there, it cannot be read, or does not fit the model.
    """
    found = _locate(source)
    for name in reversed(list(readers)):
        if readers.get(name).accepts(found):
            dataset = readers.get(name).read(found, Request(model, preprocessing))
            return dataset if labels is None else add_labels(dataset, Path(labels), model)
    raise DataError(f"{str(source)!r} is no data that can be read: give {_FORMS}")


def _locate(source: str | os.PathLike[str] | Iterable[Any]) -> Any:
    """A path where there is a file or folder; else the source as it is."""
    if not isinstance(source, (str, os.PathLike)):
        return source
    if not str(source).strip():
        raise DataError(f"the name of the data is empty: give {_FORMS}")
    path = Path(source)
    try:
        is_there = path.exists()
    except (OSError, ValueError):
        is_there = False
    if is_there:
        return path
    if isinstance(source, str) and (":" in source or source == SOURCE):
        return source
    raise DataError(f"there is no {str(source)!r}: give {_FORMS}")
