"""DATA: picture files to what a model takes, one at a time.

Reads any format that Pillow knows; makes arrays by a `Recipe`. What is wrong with one file is an `UnreadableError`,
which costs that sample only.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from srr_onnx.data.dataset import UnreadableError
from srr_onnx.data.recipe import Array, Recipe
from srr_onnx.errors import first_line

if TYPE_CHECKING:
    from PIL.Image import Image

_FORMATS = (
    "jpg",
    "jpeg",
    "jpe",
    "png",
    "bmp",
    "gif",
    "tif",
    "tiff",
    "webp",
    "ppm",
    "pgm",
    "pbm",
    "pnm",
    "jp2",
    "tga",
    "avif",
)
SUFFIXES = frozenset(f".{name}" for name in _FORMATS)


class PictureFiles:
    """Picture files as samples, decoded when they are asked for.

    Args:
        folder: Where they are.
        names: Their paths from there.
        recipe: What is done to each.
    """

    def __init__(self, folder: Path, names: Sequence[str], recipe: Recipe) -> None:
        self._folder, self._names, self._recipe = folder, names, recipe

    def __len__(self) -> int:
        return len(self._names)

    def name_of(self, index: int) -> str:
        """The file's path in the folder."""
        return self._names[index]

    def fetch(self, index: int) -> Mapping[str, Array]:
        """Decode one picture.

        Args:
            index: Which.

        Returns:
            The input's array, without batch axis.

        Raises:
            UnreadableError: The file is damaged, too large to be decoded safely, or smaller than what is cut out.
        """
        from PIL import Image

        try:
            with warnings.catch_warnings():
                # What Pillow only warns of: odd metadata do no harm, a picture of gigabytes does.
                warnings.simplefilter("ignore")
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(self._folder / self._names[index]) as image:
                    image.load()
                    pixels = to_pixels(image, self._recipe)
        except UnreadableError:
            raise
        except OSError as error:
            raise UnreadableError(error.strerror or _shorten(error)) from error
        except Exception as error:  # decoders meet damaged files with errors of any kind
            raise UnreadableError(_shorten(error)) from error
        return {self._recipe.target.name: self._recipe.to_numbers(pixels)}


def to_pixels(image: Image, recipe: Recipe) -> Array:
    """Bring a picture to the recipe's colors and size.

    Args:
        image: The decoded picture.
        recipe: What is wanted.

    Returns:
        uint8, `(H, W, C)`.

    Raises:
        UnreadableError: It is smaller than the part to cut out, or holds no colors.
    """
    from PIL import Image

    mode = "L" if recipe.channels == 1 else "RGB"
    if image.mode.startswith("I"):  # 16 bits per pixel; Pillow would cut off what is above 255
        image = Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) // 257).astype(np.uint8))
    elif image.mode == "F":
        raise UnreadableError("holds floating-point numbers, not colors: give them as .npz")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        behind = Image.new("RGBA", image.size, recipe.preprocessing.background)
        image = Image.alpha_composite(behind, image)
    return resize_pixels(image.convert(mode), recipe)


def resize_pixels(image: Image, recipe: Recipe) -> Array:
    """Resize a picture and cut its middle out.

    Args:
        image: In mode "L" or "RGB".
        recipe: What is wanted.

    Returns:
        uint8, `(H, W, C)`.

    Raises:
        UnreadableError: It is smaller than the part to cut out.
    """
    from PIL import Image

    width, height = image.size
    resize = recipe.resize
    if isinstance(resize, int):
        shorter = min(width, height)
        # Rounded down as torchvision does, on which most published accuracies rest.
        resize = (int(resize * height / shorter), int(resize * width / shorter))
        # A hair of a picture would become a giant one.
        if resize[0] * resize[1] > (Image.MAX_IMAGE_PIXELS or 2**27):
            raise UnreadableError(f"{width}x{height} pixels would become {resize[1]}x{resize[0]}, which is too large")
    if resize is not None and resize != (height, width):
        height, width = resize
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    if recipe.crop is not None and recipe.crop != (height, width):
        rows, columns = recipe.crop
        if rows > height or columns > width:
            raise UnreadableError(f"{width}x{height} pixels, smaller than the crop of {columns}x{rows}")
        top, left = round((height - rows) / 2), round((width - columns) / 2)
        image = image.crop((left, top, left + columns, top + rows))
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _shorten(error: Exception) -> str:
    # Pillow's messages hold the path, or an object's address; the name stands beside the reason anyway.
    text = first_line(error)
    return "no picture that can be read" if "cannot identify image file" in text else text[:200]
