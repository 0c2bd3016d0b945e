"""The documentation as data: code blocks of a page, and shapes of JSON that are written down there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
_TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None)}


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of every fenced block of a page, in order."""
    found = re.findall(r"^```(\w*)[^\n]*\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [(language, text) for language, text in found]


def documented_shape(page: str, schema: str) -> Any:
    """The JSON block of a page under `docs/` that describes a schema."""
    for language, text in blocks(ROOT / "docs" / page):
        if language == "json" and json.loads(text)["schema"] == schema:
            return json.loads(text)
    raise AssertionError(f"{page} describes no {schema}")


def mismatches(shape: Any, value: Any, where: str = "$") -> list[str]:
    """Compare a value with a documented shape.

    Args:
        shape: A text names a type ("integer", "string or null", "any") or, with a slash, is the value itself; a list
            has the shape of every entry; a key in capitals stands for any name.
        value: Decoded JSON.
        where: Place, for the messages.

    Returns:
        What is wrong; empty where all is as documented.
    """
    if isinstance(shape, list):
        if not isinstance(value, list):
            return [f"{where} is no list"]
        return [text for n, entry in enumerate(value) for text in mismatches(shape[0], entry, f"{where}[{n}]")]
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return [f"{where} is no object"]
        wildcard = next((shape[key] for key in shape if key.isupper()), None)
        found = [f"{where}.{key} is missing" for key in shape if not key.isupper() and key not in value]
        for key, entry in value.items():
            if key in shape or wildcard is not None:
                found += mismatches(shape.get(key, wildcard), entry, f"{where}.{key}")
            else:
                found.append(f"{where}.{key} is not documented")
        return found
    if "/" in shape:
        return [] if value == shape else [f"{where} is {value!r} instead of {shape!r}"]
    if shape == "any":
        return []
    allowed = [_TYPES[name] for name in shape.split(" or ")]
    is_right = any(isinstance(value, kind) and (kind is bool or not isinstance(value, bool)) for kind in allowed)
    return [] if is_right else [f"{where} is {value!r}, not {shape}"]
