"""DATA: CIFAR-10 in its binary form: records of 1 byte for the class and 3072 for the picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from srr_onnx.data.dataset import Array, Dataset
from srr_onnx.data.reader import Request, reader
from srr_onnx.errors import DataError

# Source: https://www.cs.toronto.edu/~kriz/cifar.html, "Binary version"; the names are those of batches.meta.txt.
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_SHAPE = (3, 32, 32)
_RECORD = 1 + 3 * 32 * 32


def _find_files(source: Path) -> list[Path]:
    return [*sorted(source.glob("data_batch_*.bin")), *sorted(source.glob("test_batch.bin"))]


def is_cifar(source: Any) -> bool:
    """Whether a source is a .bin file or a folder of CIFAR-10's files."""
    if not isinstance(source, Path):
        return False
    return bool(_find_files(source)) if source.is_dir() else source.suffix.lower() == ".bin"


@reader("cifar10", is_cifar)
def read_cifar(source: Path, request: Request) -> Dataset:
    """Read CIFAR-10's binary files.

    Args:
        source: One file, or a folder: all of its data_batch_*.bin in order, then test_batch.bin.
        request: What for.

    Returns:
        The labelled data set.

    Raises:
        DataError: A file is of another form, or the model has several inputs.
    """
    names = list(request.model.inputs)
    if len(names) != 1:
        raise DataError(f"the model has {len(names)} inputs ({', '.join(names)}): CIFAR-10 fills only one")
    files = _find_files(source) if source.is_dir() else [source]
    parts = [_map_records(path) for path in files]
    records = parts[0] if len(parts) == 1 else np.concatenate(parts)
    pixels = records[:, 1:].reshape(-1, *_SHAPE)
    text = f"{len(records):,} CIFAR-10 pictures ({', '.join(path.name for path in files)})"
    return request.make_from_arrays({names[0]: pixels}, source.name, text, records[:, 0].astype(np.int64), CLASSES)


def _map_records(path: Path) -> Array:
    try:
        size = path.stat().st_size
        if not size or size % _RECORD:
            raise DataError(f"{str(path)!r} is no CIFAR-10 file: {size} bytes are not a multiple of {_RECORD}")
        records = np.memmap(path, np.uint8, "r").reshape(-1, _RECORD)
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    if records[:, 0].max() >= len(CLASSES):
        raise DataError(f"{str(path)!r} is no CIFAR-10 file: it has class {records[:, 0].max()}, but there are 0 to 9")
    return records
