"""DATA: arrays to what a model takes.

Reads arrays with one sample per row; makes samples. Whole numbers are taken as pixels and preprocessed, floating-point
numbers are passed on as they are; what does not fit the model is refused before the first sample is read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from srr_onnx.data.dataset import UnreadableError
from srr_onnx.data.pictures import resize_pixels
from srr_onnx.data.preprocessing import Preprocessing
from srr_onnx.data.recipe import Array, Chosen, ModelInput, Recipe, fit_preprocessing
from srr_onnx.errors import DataError
from srr_onnx.graph.model import Shape
from srr_onnx.wording import counted

# Rows that are looked through at once, in bytes: an array that is mapped from a file need not fit into memory.
_CHUNK_BYTES = 1 << 24


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayInput:
    """An array for one input.

    Attributes:
        rows: One sample per row, `(N, ...)`.
        convert: Makes of a row what the model takes.
        text: What is done, for `describe()`.
        preprocessing: What is done to pixels; None where the rows are passed on as they are.
    """

    rows: Array
    convert: Callable[[Array], Array]
    text: str
    preprocessing: Preprocessing | None = None


class ArraySamples:
    """Rows of arrays as samples.

    Args:
        inputs: By name of the model's input, all of the same length.
    """

    def __init__(self, inputs: Mapping[str, ArrayInput]) -> None:
        self._inputs = inputs

    def __len__(self) -> int:
        return min(len(entry.rows) for entry in self._inputs.values())

    def name_of(self, index: int) -> str:
        """The number of the sample, from 0."""
        return f"sample {index}"

    def fetch(self, index: int) -> Mapping[str, Array]:
        """Convert one row of every array.

        Args:
            index: Which.

        Returns:
            Inputs by name, without batch axis.

        Raises:
            UnreadableError: It cannot be resized as wanted, or its numbers are too large for the model's element type.
        """
        with np.errstate(over="ignore"):
            found = {name: entry.convert(np.asarray(entry.rows[index])) for name, entry in self._inputs.items()}
        for name, numbers in found.items():
            if numbers.dtype.kind == "f" and not np.isfinite(numbers).all():
                raise UnreadableError(f"numbers for {name!r} are too large for {numbers.dtype}")
        return found


def find_shared(arrays: Mapping[str, Array], shapes: Mapping[str, Shape]) -> frozenset[str]:
    """Find the arrays that all samples share: of exactly the input's shape, without a row per sample.

    Args:
        arrays: By name of the model's input.
        shapes: Shape of every input, with its batch axis.

    Returns:
        Their names. Where everything has the input's shape, only single numbers are shared.
    """
    fits = {name for name, array in arrays.items() if array.shape == tuple(shapes[name])}
    lengths = {len(array) for name, array in arrays.items() if name not in fits and array.ndim}
    return frozenset(
        name for name in fits if not arrays[name].ndim or (len(lengths) == 1 and len(arrays[name]) not in lengths)
    )


def make_shared(array: Array, target: ModelInput, where: str) -> Array:
    """Bring an array that all samples share into the model's element type.

    Args:
        array: The array, of the input's shape.
        target: The input.
        where: Where it comes from, for messages.

    Returns:
        The array.

    Raises:
        DataError: It holds no numbers, NaN or infinite ones, or such as the model's type cannot hold.
    """
    place = f"{where}: the array for {target.name!r}"
    dtype = np.dtype(target.dtype)
    is_whole = dtype.kind in "iub"
    if array.dtype.kind not in ("iub" if is_whole else "fiub"):
        raise DataError(f"{place} has type {array.dtype}, but the model takes {dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        made = np.asarray(array.astype(dtype))
    if is_whole and not np.array_equal(made, array):
        raise DataError(f"{place} holds numbers that do not fit into the model's {dtype}")
    if not is_whole and not np.isfinite(made.astype(np.float64)).all():
        raise DataError(f"{place} holds numbers that are NaN or infinite, or too large for {dtype}")
    return made


def make_array_samples(
    arrays: Mapping[str, Array], inputs: Mapping[str, ModelInput], choose: Callable[[str], Chosen], where: str
) -> tuple[ArraySamples, str, Preprocessing | None]:
    """Make samples of arrays.

    Args:
        arrays: One per input of the model, by name, `(N, ...)`.
        inputs: What the model takes.
        choose: Gives the preprocessing for an input.
        where: Where the arrays come from, for messages.

    Returns:
        The samples, what is done to them in words, and the preprocessing of the first input, if it has one.

    Raises:
        DataError: An array holds no numbers, NaN or infinite ones, or does not fit its input; arrays differ in length.
    """
    lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name!r} {length}" for name, length in lengths.items())
        raise DataError(
            f"{where}: arrays of different lengths ({listed}); every sample needs a row in each, or all share an array "
            "of exactly the input's shape"
        )
    if not all(lengths.values()):
        raise DataError(f"{where} holds no samples")
    made = {name: _make_input(array, inputs[name], choose(name), where) for name, array in arrays.items()}
    texts = dict.fromkeys(entry.text for entry in made.values())
    return ArraySamples(made), "; ".join(texts), next(iter(made.values())).preprocessing


def _make_input(array: Array, target: ModelInput, chosen: Chosen, where: str) -> ArrayInput:
    place = f"{where}: the array for {target.name!r}"
    dtype = np.dtype(target.dtype)
    kind = array.dtype.kind
    if kind not in "fiu" and not (kind == "b" and dtype.kind == "b"):
        raise DataError(f"{place} has type {array.dtype}, which holds no numbers that a model could take")
    least, most = (0.0, 255.0) if array.dtype in (np.uint8, np.bool_) else _find_range(array, place)
    layout = target.find_layout(chosen.preprocessing.layout)
    is_pixels = array.dtype == np.uint8 or (layout is not None and (chosen.is_given or kind in "iu"))
    if kind == "b" or not is_pixels:
        if kind == "f" and dtype.kind in "iub":
            raise DataError(f"{place} has type {array.dtype}, but the model takes {dtype}: give whole numbers")
        if array.shape[1:] != target.shape:
            raise DataError(
                f"{place} has samples of shape {list(array.shape[1:])}, but the model takes {list(target.shape)}: "
                "floating-point arrays are passed on as they are, so their shape has to be the model's"
                if kind == "f"
                else f"{place} has samples of shape {list(array.shape[1:])}, but the model takes {list(target.shape)}"
            )
        if kind in "iu" and dtype.kind in "iu" and not np.iinfo(dtype).min <= least <= most <= np.iinfo(dtype).max:
            raise DataError(f"{place} holds {least:g} to {most:g}, more than the model's {dtype} can")
        return ArrayInput(
            array, lambda row: np.ascontiguousarray(row.astype(dtype)), f"arrays as they are ({array.dtype})"
        )
    if least < 0 or most > 255 or (kind == "f" and 0 < most <= 1):
        raise DataError(
            f"{place} holds {least:g} to {most:g}, but a preprocessing takes pixels of 0 to 255: "
            + ("leave the preprocessing out if it is done already" if kind == "f" else "give floating-point numbers")
        )
    recipe = fit_preprocessing(chosen.preprocessing, target)
    stated = recipe.stated
    convert, is_resized = _make_convert(array, recipe, chosen, place)
    if not is_resized:
        recipe = dataclasses.replace(recipe, resize=None, crop=None)
    text = f"{chosen.preprocessing.name} ({chosen.origin}): {recipe.describe()}"
    return ArrayInput(array, convert, text, stated)


def _find_range(array: Array, place: str) -> tuple[float, float]:
    """Least and largest number of an array; NaN and infinite ones are an error."""
    rows = max(1, _CHUNK_BYTES // max(1, array[:1].nbytes))
    least, most, strange = np.inf, -np.inf, 0
    for start in range(0, len(array), rows):
        part = np.asarray(array[start : start + rows])
        if part.dtype.kind == "f":
            strange += int(np.count_nonzero(~np.isfinite(part)))
        if part.size and not strange:
            least, most = min(least, float(part.min())), max(most, float(part.max()))
    if strange:
        raise DataError(f"{place} holds {counted(strange, 'number')} NaN or infinite, of {array.size:,}")
    return least, most


def _make_convert(array: Array, recipe: Recipe, chosen: Chosen, place: str) -> tuple[Callable[[Array], Array], bool]:
    """How a row of pixels becomes what the model takes, and whether it is resized for that."""
    shape = array.shape[1:]
    if recipe.layout is None:
        if shape != recipe.target.shape:
            raise DataError(
                f"{place} has samples of shape {list(shape)}, but the model takes {list(recipe.target.shape)}"
            )
        return recipe.to_numbers, False
    to_gray = recipe.preprocessing.color == "gray"
    counts = (1, 3) if to_gray else (recipe.channels,)
    order = _find_order(shape, counts, recipe)
    if order is None:
        raise DataError(
            f"{place} has samples of shape {list(shape)}, but the model takes pictures of "
            f"{counted(recipe.channels, 'channel')}, {recipe.size[0]}x{recipe.size[1]} ({recipe.layout})"
        )
    height, width, channels = (
        (*shape, 1) if order == "HW" else (shape[i] for i in ((1, 2, 0) if order == "CHW" else (0, 1, 2)))
    )
    is_resized = (height, width) != recipe.size
    is_asked = chosen.is_given and bool(chosen.preprocessing.resize or chosen.preprocessing.crop)
    if is_resized and (not is_asked or channels not in (1, 3)):
        raise DataError(
            f"{place} has pictures of {height}x{width} pixels, but the model takes {recipe.size[0]}x{recipe.size[1]}: "
            "say how they are resized (--resize), or load the model with the size of the pictures (--input)"
        )

    def convert(row: Array) -> Array:
        pixels = row.transpose(1, 2, 0) if order == "CHW" else row[..., None] if order == "HW" else row
        if not is_resized and channels == recipe.channels:
            return recipe.to_numbers(pixels)
        from PIL import Image

        rounded = np.rint(pixels).astype(np.uint8)  # a picture has whole numbers
        image = Image.fromarray(np.ascontiguousarray(rounded[..., 0] if channels == 1 else rounded))
        fitted = recipe if is_resized else dataclasses.replace(recipe, resize=None, crop=None)
        return recipe.to_numbers(resize_pixels(image.convert("L") if to_gray else image, fitted))

    return convert, is_resized


def _find_order(shape: Sequence[int], counts: Sequence[int], recipe: Recipe) -> str | None:
    """Which axes of a sample are height, width and channels: the model's size decides, then its layout."""
    if len(shape) == 2:
        return "HW" if 1 in counts else None
    if len(shape) != 3:
        return None
    found = [order for order, axis in (("CHW", 0), ("HWC", 2)) if shape[axis] in counts]
    if recipe.layout == "NHWC":
        found.reverse()
    sizes = {"CHW": tuple(shape[1:]), "HWC": tuple(shape[:2])}
    return next((order for order in found if sizes[order] == recipe.size), found[0] if found else None)
