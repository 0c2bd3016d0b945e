"""DATA: small YAML files that people write, decoded; what their keys mean is for others to say.

A file that is too large, no YAML, or holds a key twice is refused with its name and the line.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from srr_onnx.errors import DataError, first_line

# Far more than anybody writes down; a larger file is something else.
_MOST_BYTES = 64_000


def read_yaml(path: str | os.PathLike[str], kind: str, example: str) -> dict[Any, Any]:
    """Read a YAML file that holds keys.

    Args:
        path: The file.
        kind: What it is, for messages.
        example: A line that it could hold.

    Returns:
        The decoded keys.

    Raises:
        DataError: No such file, no YAML, no keys, or one that is there twice.
    """
    import yaml  # a tenth of a second that most runs need not wait

    path = Path(path)
    try:
        data = path.read_bytes()
        if len(data) > _MOST_BYTES:
            raise DataError(f"{str(path)!r} has {len(data)} bytes, so it is no {kind}: that is a dozen lines")
        content = yaml.safe_load(data)
        _check_keys(yaml.compose(data, yaml.SafeLoader))
    except OSError as error:
        raise DataError(f"the {kind} {str(path)!r} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        place = getattr(error, "problem_mark", None)
        where = f", line {place.line + 1}" if place else ""
        raise DataError(f"{str(path)!r} is no YAML{where}: {getattr(error, 'problem', first_line(error))}") from error
    if not isinstance(content, dict):
        raise DataError(f"{str(path)!r} holds no keys: write lines such as {example!r}")
    return content


def _check_keys(root: Any) -> None:
    """YAML's reader takes the last of two equal keys without a word."""
    if getattr(root, "id", "") != "mapping":
        return
    keys = [key.value for key, _ in root.value]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise ValueError(f"the key {twice!r} is there twice")
    for _, value in root.value:
        _check_keys(value)
