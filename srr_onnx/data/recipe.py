"""DATA: a preprocessing, fitted to one input of a model.

Reads the input's shape and element type; makes a `Recipe` with nothing left open. A recipe gives arrays of exactly the
shape and element type that the model takes, or refuses.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from srr_onnx.data.metadata import read_metadata
from srr_onnx.data.preprocessing import Color, Layout, Preprocessing, Size, presets
from srr_onnx.errors import DataError
from srr_onnx.graph.model import Model, Shape

Array = np.ndarray[Any, Any]

# Nets for ImageNet take 224 or thereabouts, those for CIFAR, MNIST and their kin 28 or 32.
_SMALLEST_IMAGENET = 64


@dataclasses.dataclass(frozen=True)
class ModelInput:
    """What one input of a model takes.

    Attributes:
        name: Its name.
        shape: Shape of one sample, without the batch axis.
        dtype: Element type.
    """

    name: str
    shape: Shape
    dtype: np.dtype[Any]

    def find_layout(self, wanted: Layout = "auto") -> Layout | None:
        """Find which axis holds the channels of a picture.

        Args:
            wanted: What the user says; "auto" looks for an axis of 1 or 3 in front, then at the end.

        Returns:
            "NCHW", "NHWC", or None where the input takes no pictures.
        """
        if len(self.shape) != 3:
            return None
        if wanted != "auto":
            return wanted
        return "NCHW" if self.shape[0] in (1, 3) else "NHWC" if self.shape[2] in (1, 3) else None


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A preprocessing, and who chose it.

    Attributes:
        preprocessing: What is done.
        origin: Why, for `describe()`: "given", "stated in its metadata", "default for ...".
        is_given: Whether the user asked for it.
    """

    preprocessing: Preprocessing
    origin: str
    is_given: bool


def find_inputs(model: Model) -> dict[str, ModelInput]:
    """List what has to be fed to a model.

    Args:
        model: The model.

    Returns:
        Its inputs by name.
    """
    return {
        name: ModelInput(name, shape[1:], model.dtypes.get(name, np.dtype(np.float32)))
        for name, shape in model.inputs.items()
    }


def choose_preprocessing(model: Model, given: Preprocessing | None = None, name: str | None = None) -> Chosen:
    """Choose what is done to pictures: what the user says, else what the model's metadata say, else a usual one.

    Args:
        model: The model.
        given: The user's choice.
        name: Input that it is for; the first by default.

    Returns:
        The choice with its reason.

    Raises:
        DataError: The model's metadata cannot be followed.
    """
    if given is not None:
        return Chosen(given, "given", True)
    stated = read_metadata(model)
    if stated is not None:
        return Chosen(stated, "stated in its metadata", False)
    target = find_inputs(model)[name if name is not None else next(iter(model.inputs))]
    if np.dtype(target.dtype).kind in "iu":
        raw = Preprocessing("raw pixels", range="0..255")
        return Chosen(raw, f"default for inputs of type {target.dtype}", False)
    layout = target.find_layout()
    if layout is not None:
        channels, height, width = target.shape if layout == "NCHW" else (target.shape[i] for i in (2, 0, 1))
        if channels == 3 and min(height, width) >= _SMALLEST_IMAGENET:
            return Chosen(
                presets.get("imagenet"), f"default for 3 channels of {_SMALLEST_IMAGENET} pixels or more", False
            )
    return Chosen(presets.get("unit"), "default for this input", False)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A preprocessing with every size known.

    Attributes:
        target: The input that it is for.
        preprocessing: Where it comes from.
        layout: Of the input; None where it takes no pictures.
        channels: Of a picture; 0 where there is no picture.
        size: Height and width of a picture.
        resize: Shorter side, or (height, width); None leaves the size.
        crop: Height and width of the part in the middle; None takes all.
    """

    target: ModelInput
    preprocessing: Preprocessing
    layout: Layout | None
    channels: int
    size: tuple[int, int]
    resize: Size | None
    crop: tuple[int, int] | None

    def to_numbers(self, pixels: Array) -> Array:
        """Turn pixels into what the model takes.

        Args:
            pixels: Values 0 to 255; a picture has shape `(H, W, C)` and RGB order, others have the input's shape.

        Returns:
            The input's shape and element type.
        """
        wanted, dtype = self.preprocessing, np.dtype(self.target.dtype)
        kind = np.float64 if dtype == np.float64 else np.float32
        if wanted.color == "BGR" and self.layout:
            pixels = pixels[..., ::-1]
        numbers = np.asarray(pixels, kind)
        if wanted.range == "0..1":
            numbers = numbers / kind(255)
        elif wanted.range == "-1..1":
            numbers = numbers / kind(127.5) - kind(1)
        if wanted.mean:
            numbers = numbers - np.asarray(wanted.mean, kind)
        if wanted.std:
            numbers = numbers / np.asarray(wanted.std, kind)
        if self.layout == "NCHW":
            numbers = numbers.transpose(2, 0, 1)
        return np.ascontiguousarray(numbers.astype(dtype))

    def describe(self) -> str:
        """Say in a few words what is done."""
        wanted, words = self.preprocessing, []
        words += [f"resize {_write_size(self.resize)}"] if self.resize else []
        words += [f"crop {_write_size(self.crop)}"] if self.crop else []
        words.append(f"range {wanted.range}")
        for key in ("mean", "std"):
            numbers = getattr(wanted, key)
            words += [f"{key} {','.join(f'{number:.4g}' for number in numbers)}"] if numbers else []
        words += [self.layout, self._color] if self.layout else []
        return ", ".join(words)

    @property
    def stated(self) -> Preprocessing:
        """The preprocessing as it is stored with a model: layout and color are named, sizes can be fitted anew."""
        if self.layout is None:
            return self.preprocessing
        return dataclasses.replace(self.preprocessing, layout=self.layout, color=self._color)

    @property
    def _color(self) -> Color:
        return (
            ("gray" if self.channels == 1 else "RGB")
            if self.preprocessing.color == "auto"
            else self.preprocessing.color
        )


def fit_preprocessing(preprocessing: Preprocessing, target: ModelInput) -> Recipe:
    """Fit a preprocessing to an input.

    Args:
        preprocessing: What is wanted.
        target: The input; one that takes no pictures gets a recipe for its numbers alone.

    Returns:
        The recipe.

    Raises:
        DataError: They do not fit; says what is expected and what was found.
    """
    dtype = np.dtype(target.dtype)
    is_plain = preprocessing.range == "0..255" and not any(preprocessing.mean) and set(preprocessing.std) <= {1.0}
    if dtype.kind in "iu" and not is_plain:
        raise DataError(
            f"input {target.name!r} takes whole numbers ({dtype}), which range {preprocessing.range}, mean and std "
            "would break: choose range 0..255 without mean and std"
        )
    layout = target.find_layout(preprocessing.layout)
    where = f"input {target.name!r} takes {list(target.shape)}"
    if layout is None:
        if max(len(preprocessing.mean), len(preprocessing.std)) > 1:
            raise DataError(f"{where}, which is no picture: mean and std need to be one number")
        return Recipe(target, preprocessing, None, 0, (0, 0), None, None)
    channels, height, width = target.shape if layout == "NCHW" else (target.shape[i] for i in (2, 0, 1))
    needed = {"RGB": 3, "BGR": 3, "gray": 1}.get(preprocessing.color, channels)
    if needed != channels:
        raise DataError(f"{where}, {channels} channels as {layout}, but {preprocessing.color} pictures have {needed}")
    for key in ("mean", "std"):
        if len(getattr(preprocessing, key)) not in (0, 1, channels):
            raise DataError(
                f"{where}, {channels} channels as {layout}, but {key} has {len(getattr(preprocessing, key))} numbers"
            )
    size = (height, width)
    resize, crop = _fit_sizes(preprocessing, size)
    made = crop or resize
    if made != size:
        raise DataError(f"{where}, {height}x{width} pixels, but resize and crop make {_write_size(made)}")
    if crop and isinstance(resize, int) and max(crop) > resize:
        raise DataError(
            f"resize to {resize} leaves no room for the crop of {_write_size(crop)}: resize to {max(crop)} or more"
        )
    return Recipe(target, preprocessing, layout, channels, size, resize, crop)


def _fit_sizes(wanted: Preprocessing, size: tuple[int, int]) -> tuple[Size | None, tuple[int, int] | None]:
    """What to resize to and what to cut out, for an input of this height and width."""
    crop = (wanted.crop, wanted.crop) if isinstance(wanted.crop, int) else wanted.crop
    resize = wanted.resize
    if wanted.is_scaled and crop and isinstance(resize, int) and crop != size:
        # The same ratio, and the crop fits in at any aspect ratio of the input.
        resize, crop = math.ceil(max(size) * resize / max(crop)), size
    if crop is None and isinstance(resize, int):
        crop = size
    if crop is None and resize is None:
        resize = size
    if isinstance(resize, tuple) and crop == resize:
        crop = None
    return resize, crop


def _write_size(size: Size | None) -> str:
    return "x".join(map(str, size)) if isinstance(size, tuple) else str(size)
