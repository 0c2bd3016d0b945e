"""Arrays between processes: raw bytes in a folder, and a description of them that goes into JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Description = dict[str, dict[str, Any]]


def write_arrays(folder: Path, stem: str, arrays: Mapping[str, Array]) -> Description:
    """Write arrays as little-endian bytes.

    Args:
        folder: Where to.
        stem: Begin of the file names.
        arrays: The arrays by name.

    Returns:
        File, element type and shape by name.
    """
    found: Description = {}
    for number, (name, array) in enumerate(arrays.items()):
        file = f"{stem}.{number}.bin"
        (folder / file).write_bytes(np.ascontiguousarray(array).tobytes())
        found[name] = {"file": file, "dtype": str(array.dtype), "shape": list(array.shape)}
    return found


def read_arrays(folder: Path, described: Description) -> dict[str, Array]:
    """Read what `write_arrays`, or a script in another language, has written."""
    return {
        name: np.fromfile(folder / entry["file"], entry["dtype"], math.prod(entry["shape"])).reshape(entry["shape"])
        for name, entry in described.items()
    }
