"""DATA: the preprocessing that a model's metadata state, as JSON under the key "preprocessing".

Reads and writes the text only; docs/data.md has the fields.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from srr_onnx.data.preprocessing import Preprocessing, Size
from srr_onnx.errors import DataError, first_line
from srr_onnx.graph.model import Model

METADATA_KEY = "preprocessing"
_FIELDS = {"layout", "color", "size", "scale", "mean", "std", "background", "resize", "crop", "range", "is_scaled"}
# Two ways to say one thing.
_RIVALS = (("scale", "range"), ("size", "resize"), ("size", "crop"))


def read_metadata(model: Model) -> Preprocessing | None:
    """Read the preprocessing that a model's metadata states under the key "preprocessing", as JSON.

    Args:
        model: The model; srr_onnx/assets/resnet20_emoji.onnx has such an entry.

    Returns:
        The preprocessing, None where the model states none.

    Raises:
        DataError: There is an entry, but not one that can be followed.
    """
    text = next((entry.value for entry in model.proto.metadata_props if entry.key == METADATA_KEY), None)
    if text is None:
        return None
    try:
        stated = json.loads(text)
        if not isinstance(stated, dict) or not set(stated) <= _FIELDS:
            raise DataError(f"only {', '.join(sorted(_FIELDS))} are understood")  # noqa: TRY301
        for pair in _RIVALS:
            if set(pair) <= set(stated):
                raise DataError(f"{pair[0]} and {pair[1]} exclude each other")  # noqa: TRY301
        return _from_metadata(stated)
    except (ValueError, TypeError, ZeroDivisionError, RecursionError, DataError) as error:
        raise DataError(
            f"the model's metadata {METADATA_KEY!r} cannot be followed ({first_line(error)}): say with --preset or "
            "--preprocess what the pictures need"
        ) from error


def _from_metadata(stated: Mapping[str, Any]) -> Preprocessing:
    """Metadata may say x * scale, then mean and std; another scale than 1 / 255 is moved into mean and std."""
    scale = float(stated.get("scale", 1.0))
    if not (math.isfinite(scale) and scale > 0):
        raise DataError(f"scale is {scale}")
    mean = tuple(float(number) for number in stated.get("mean", ()))
    std = tuple(float(number) for number in stated.get("std", ()))
    is_unit = math.isclose(scale, 1 / 255, rel_tol=1e-6)
    if not is_unit and scale != 1:
        mean = tuple(number / scale for number in mean)
        std = tuple(number / scale for number in std or (1.0,))
    return Preprocessing(
        "preprocessing of the model",
        resize=_read_size(stated.get("resize")) if "size" not in stated else _read_pair(stated["size"]),
        crop=_read_size(stated.get("crop")),
        range=stated.get("range", "0..1" if is_unit else "0..255"),
        mean=mean if any(mean) else (),
        std=std if any(number != 1 for number in std) else (),
        layout=stated.get("layout", "auto"),
        color=stated.get("color", "auto"),
        background=str(stated.get("background", "white")),
        is_scaled=bool(stated.get("is_scaled", False)),
    )


def _read_size(stated: Any) -> Size | None:
    if stated is None or (isinstance(stated, int) and not isinstance(stated, bool)):
        return stated
    return _read_pair(stated)


def _read_pair(stated: Any) -> tuple[int, int]:
    height, width = stated
    return int(height), int(width)


def write_metadata(preprocessing: Preprocessing) -> str:
    """Write a preprocessing as a model's metadata state it.

    Args:
        preprocessing: What is done; `read_metadata` gives the same, but for the name.

    Returns:
        The text for the key "preprocessing".
    """
    stated: dict[str, Any] = {"layout": preprocessing.layout, "color": preprocessing.color}
    for key in ("resize", "crop"):
        size = getattr(preprocessing, key)
        stated |= {} if size is None else {key: size if isinstance(size, int) else list(size)}
    stated |= {"is_scaled": True} if preprocessing.is_scaled else {}
    stated["range"] = preprocessing.range
    stated |= {key: list(numbers) for key in ("mean", "std") if (numbers := getattr(preprocessing, key))}
    return json.dumps({**stated, "background": preprocessing.background})
