"""DATA: the keys of a preprocessing's YAML file, and what kind of value each takes.

Reads decoded YAML; makes values for `Preprocessing`, which checks what they mean. The only module that loads pydantic.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, StrictInt, ValidationError

from srr_onnx.errors import DataError, close_matches


def _listed(value: object) -> object:
    """One number stands for a list of one."""
    return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else value


_Numbers = Annotated[tuple[float, ...], BeforeValidator(_listed)]


class _Fields(BaseModel):
    """The keys; a kind that does not fit is an error, not converted."""

    model_config = ConfigDict(extra="forbid")

    preset: str | None = None
    resize: StrictInt | tuple[StrictInt, StrictInt] | None = None
    crop: StrictInt | tuple[StrictInt, StrictInt] | None = None
    range: str | None = None
    mean: _Numbers | None = None
    std: _Numbers | None = None
    layout: str | None = None
    color: str | None = None
    background: str | None = None


_EXPECTED = {
    "resize": "a number of pixels or [height, width]",
    "crop": "a number of pixels or [height, width]",
    "mean": "a number, or a list of one per channel",
    "std": "a number, or a list of one per channel",
}


def read_fields(content: Mapping[Any, Any]) -> dict[str, Any]:
    """Check keys and kinds of values.

    Args:
        content: The decoded file.

    Returns:
        The values that were given, by key.

    Raises:
        DataError: A key is unknown (carries close matches), or a value is of another kind.
    """
    for key in content:
        if key not in _Fields.model_fields:
            close = close_matches(str(key), _Fields.model_fields)
            hint = (
                f"did you mean {' or '.join(map(repr, close))}?"
                if close
                else "known are " + ", ".join(_Fields.model_fields)
            )
            raise DataError(f"unknown key {str(key)[:40]!r}: {hint}")
    try:
        return _Fields.model_validate(dict(content)).model_dump(exclude_none=True)
    except ValidationError as error:
        key = str(error.errors(include_url=False)[0]["loc"][0])
        # reprlib: a few lines of YAML aliases can stand for gigabytes of text
        raise DataError(f"{key} is {reprlib.repr(content[key])}: give {_EXPECTED.get(key, 'a text')}") from error
