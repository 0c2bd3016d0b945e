"""DATA: how a picture becomes the numbers that a model takes, as the user says it.

Makes a `Preprocessing` from a preset or a YAML file; `metadata.py` reads it off a model, `recipe.py` fits it to an
input. Values are checked when one is made, so whoever holds one holds a sound one.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from srr_onnx.data.yaml_file import read_yaml
from srr_onnx.errors import DataError, close_matches
from srr_onnx.registry import Registry

Size = int | tuple[int, int]
Range = Literal["0..1", "0..255", "-1..1"]
Layout = Literal["auto", "NCHW", "NHWC"]
Color = Literal["auto", "RGB", "BGR", "gray"]


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What is done to every picture, in this order: resize, crop, range, mean and std.

    Attributes:
        name: For messages.
        resize: Length of the shorter side, or (height, width), in pixels; bilinear and antialiased.
        crop: Side or (height, width) of the part that is cut out of the middle. With neither `resize` nor `crop`
            pictures are resized to the model's size; with an `int` to resize to and no crop, that size is cut out.
        range: What the pixel values 0 to 255 become: "0..1" divides by 255, "-1..1" by 127.5 and takes 1 off.
        mean: Taken off after that: one number per channel in the model's order, or one for all; empty: none.
        std: Divides after that, likewise.
        layout: "NCHW", "NHWC", or "auto": that of the model's input.
        color: "RGB", "BGR", "gray", or "auto": RGB for three channels, gray for one.
        background: What lies behind transparent pictures: a name or #rrggbb.
        is_scaled: Whether `resize` and `crop` grow and shrink with the model's input, in the same ratio.
    """

    name: str = "custom"
    resize: Size | None = None
    crop: Size | None = None
    range: Range = "0..1"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layout: Layout = "auto"
    color: Color = "auto"
    background: str = "white"
    is_scaled: bool = False

    def __post_init__(self) -> None:
        for key in ("resize", "crop"):
            value = getattr(self, key)
            sizes = () if value is None else (value,) if isinstance(value, int) else tuple(value)
            if value is not None and (len(sizes) > 2 or not sizes or min(sizes) < 1):
                raise DataError(f"{key} is {value!r}: give one number of pixels or a height and a width, of at least 1")
        for key, choices in (("range", Range), ("layout", Layout), ("color", Color)):
            _check_choice(key, getattr(self, key), get_args(choices))
        for key in ("mean", "std"):
            for number in getattr(self, key):
                if not math.isfinite(number) or (key == "std" and number <= 0):
                    needed = "finite numbers above 0" if key == "std" else "finite numbers"
                    raise DataError(f"{key} holds {number}: give {needed}, one per channel")
        if self.background != "white":  # spares the import of Pillow
            _check_color(self.background)

    def override(self, **changes: Any) -> Preprocessing:
        """Make a copy with other values; sizes given here hold as they are.

        Args:
            changes: New values by attribute; those that are None stay as they were.

        Returns:
            The copy; the same object where nothing changes.

        Raises:
            DataError: A value is not possible.
        """
        changes = {key: value for key, value in changes.items() if value is not None}
        if not changes:
            return self
        name = f"{self.name} with {', '.join(sorted(changes))}"
        is_scaled = self.is_scaled and not {"resize", "crop"} & set(changes)
        return dataclasses.replace(self, **{"name": name, "is_scaled": is_scaled, **changes})


presets: Registry[str, Preprocessing] = Registry("preset")


def load_preprocessing(path: str | os.PathLike[str]) -> Preprocessing:
    """Read a preprocessing from a small YAML file; docs/data.md lists the keys.

    Args:
        path: The file. Its key `preset` names the preset from which the other keys differ.

    Returns:
        The preprocessing, under the file's name.

    Raises:
        DataError: No such file, no YAML, an unknown key (carries close matches) or an impossible value.
    """
    from srr_onnx.data.schema import read_fields  # takes a tenth of a second that most runs need not wait

    path = Path(path)
    content = read_yaml(path, "preprocessing", "resize: 256")
    try:
        return make_preprocessing(read_fields(content), path.name)
    except DataError as error:
        raise DataError(f"{str(path)!r}: {error}") from error


def make_preprocessing(fields: Mapping[str, Any], name: str) -> Preprocessing:
    """Make a preprocessing of the values of its keys.

    Args:
        fields: Values by key, as `read_fields` gives them; `preset` names the one from which the others differ.
        name: What it is called.

    Returns:
        The preprocessing.

    Raises:
        DataError: There is no such preset (carries close matches), or a value is impossible.
    """
    changes = dict(fields)
    preset = changes.pop("preset", None)
    if preset is not None:
        _check_choice("preset", preset, tuple(presets))
    base = Preprocessing() if preset is None else presets.get(preset)
    return dataclasses.replace(base.override(**changes), name=name)


def _check_choice(key: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        close = close_matches(str(value), choices)
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "choose from " + ", ".join(choices)
        raise DataError(f"{key} is {str(value)[:40]!r}: {hint}")


def _check_color(name: str) -> None:
    from PIL import ImageColor

    try:
        ImageColor.getrgb(name)
    except ValueError:
        raise DataError(f"background is {name[:40]!r}: give a color such as white, black or #c0c0c0") from None


for _preset in (
    # Mean and standard deviation of ImageNet's training pictures, as torchvision has them.
    Preprocessing(
        "imagenet", resize=256, crop=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), is_scaled=True
    ),
    # Mean and standard deviation over all pixels of CIFAR-10's training pictures.
    Preprocessing("cifar10", resize=(32, 32), mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
    Preprocessing("unit"),
):
    presets.register(_preset.name)(_preset)
