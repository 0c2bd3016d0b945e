"""DATA: the keys of YAML files, and what kind of value each takes.

Reads decoded YAML; gives checked values, which the class they are for then judges. The only module that loads pydantic.
"""

from __future__ import annotations

import dataclasses
import reprlib
import types
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, StrictInt, TypeAdapter, ValidationError

from srr_onnx.errors import DataError, close_matches


def _listed(value: object) -> object:
    """One number stands for a list of one."""
    return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else value


_Numbers = Annotated[tuple[float, ...], BeforeValidator(_listed)]


class _Fields(BaseModel):
    """The keys of a preprocessing; a kind that does not fit is an error, not converted."""

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
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", dict: "keys of its own"}
_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True)


def read_fields(content: Mapping[Any, Any]) -> dict[str, Any]:
    """Check the keys of a preprocessing and the kinds of their values.

    Args:
        content: The decoded file.

    Returns:
        The values that were given, by key.

    Raises:
        DataError: A key is unknown (carries close matches), or a value is of another kind.
    """
    check_keys(content, _Fields.model_fields)
    try:
        return _Fields.model_validate(dict(content)).model_dump(exclude_none=True)
    except ValidationError as error:
        key = str(error.errors(include_url=False)[0]["loc"][0])
        raise _wrong_kind(key, content[key], _EXPECTED.get(key, "a text")) from error


def read_values(kind: type, content: Mapping[Any, Any], left_out: Collection[str] = ()) -> dict[str, Any]:
    """Check keys and kinds of values against the fields of a data class; their names may be written with `-` too.

    What the command line writes as text is taken as text too: a list with commas, a number as `1e-3`, `off`, which is
    no text to YAML.

    Args:
        kind: The class.
        content: Decoded keys.
        left_out: Fields that are no keys.

    Returns:
        The values that were given, by field.

    Raises:
        DataError: A key is unknown (carries close matches), or a value is of another kind.
    """
    hints = get_type_hints(kind)
    named = name_fields(content)
    check_keys(named, [field.name for field in dataclasses.fields(kind) if field.name not in left_out])
    found = {}
    for key, value in named.items():
        adapter: TypeAdapter[Any] = TypeAdapter(hints[key], config=_STRICT)
        try:
            found[key] = adapter.validate_python(_fit(value, hints[key]))
        except ValidationError as error:
            raise _wrong_kind(key, value, " or ".join(dict.fromkeys(_describe(hints[key])))) from error
    return found


def name_fields(content: Mapping[Any, Any]) -> dict[str, Any]:
    """Name keys as fields are, where they are written with `-` as on the command line.

    Raises:
        DataError: A key is there in both forms.
    """
    found: dict[str, Any] = {}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name in found:
            raise DataError(f"the key {name!r} is there twice, with - and with _: leave one")
        found[name] = value
    return found


def check_keys(content: Iterable[Any], known: Collection[str]) -> None:
    """Check that all keys are known.

    Raises:
        DataError: One is not; carries close matches.
    """
    for key in content:
        if key not in known:
            close = close_matches(str(key), known)
            hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "known are " + ", ".join(known)
            raise DataError(f"unknown key {str(key)[:40]!r}: {hint}")


def _wrong_kind(key: str, value: object, expected: str) -> DataError:
    # reprlib: a few lines of YAML aliases can stand for gigabytes of text
    what = "has no value" if value is None else f"is {reprlib.repr(value)}"
    return DataError(f"{key} {what}: give {expected}")


def _choices(hint: Any) -> tuple[Any, ...]:
    """The kinds that a hint allows, without None."""
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return tuple(part for part in parts if part is not type(None))


def _fit(value: Any, hint: Any) -> Any:
    """A value as a strict check takes it, where YAML or a command line write it differently."""
    choices = _choices(hint)
    words = any(part is str or get_origin(part) is Literal for part in choices)
    if value is False and words and bool not in choices:
        return "off"
    if any(get_origin(part) is Literal for part in choices) and type(value) in (int, float) and float not in choices:
        return str(value)
    if isinstance(value, str) and float in choices and not words:
        try:
            return float(value)
        except ValueError:
            return value
    listed = next((part for part in choices if get_origin(part) is tuple), None)
    if listed is None or not isinstance(value, (str, list)):
        return value
    if isinstance(value, str) and get_origin(get_args(listed)[0]) is Literal:
        value = [] if value == "none" else [part.strip() for part in value.split(",")]
    return (value,) if isinstance(value, str) else tuple(value)


def _describe(hint: Any) -> Iterable[str]:
    """What may be given, in words."""
    for part in _choices(hint):
        origin, arguments = get_origin(part), get_args(part)
        if origin is Literal:
            yield "one of " + ", ".join(map(str, arguments))
        elif origin is tuple:
            yield "a list of " + " or ".join(_describe(arguments[0])).replace("one of ", "some of ")
        else:
            yield _WORDS.get(part, _WORDS[dict])
