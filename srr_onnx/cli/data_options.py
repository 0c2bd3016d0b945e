"""Options of all commands that read data, and the data set that they stand for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, get_args

import click

from srr_onnx.cli.options import combine
from srr_onnx.data.dataset import Dataset
from srr_onnx.data.preprocessing import Color, Layout, Preprocessing, Range, Size, load_preprocessing, presets
from srr_onnx.data.read import open_data
from srr_onnx.data.recipe import choose_preprocessing
from srr_onnx.graph.model import Model

DEFAULT_SAMPLES = 512
_SINGLE = ("resize", "crop", "range", "mean", "std", "layout", "color")


def _read_size(ctx: click.Context, param: click.Parameter, value: str | None) -> Size | None:
    """Read 256, or height and width: 240x320 or 240,320."""
    if value is None:
        return None
    parts = value.replace("x", ",").split(",")
    # isdecimal knows digits of other scripts, int reads them too
    if len(parts) > 2 or not all(part.strip().isdecimal() and len(part) < 7 and int(part) > 0 for part in parts):
        raise click.BadParameter(f"{value!r} is no size: give one number of pixels, or HEIGHTxWIDTH", ctx, param)
    sizes = [int(part) for part in parts]
    return sizes[0] if len(sizes) == 1 else (sizes[0], sizes[1])


def _read_numbers(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    """Read 0.5, or one number per channel: 0.485,0.456,0.406."""
    if value is None:
        return None
    try:
        numbers = tuple(float(part) for part in value.split(","))
    except ValueError:
        numbers = ()
    is_std = param.name == "std"
    if not numbers or not all(math.isfinite(number) and (number > 0 or not is_std) for number in numbers):
        kind = "numbers above 0" if is_std else "numbers"
        raise click.BadParameter(f"{value!r} are no {kind}: give one per channel, such as 0.48,0.46,0.41", ctx, param)
    return numbers


source_options = combine(
    click.option(
        "--data",
        metavar="SOURCE",
        help="Folder of pictures, .npz, .npy, .csv, CIFAR-10 .bin, MODULE:FUNCTION that gives batches, or synthetic: "
        "made-up pictures, where there are none.",
    ),
    click.option(
        "--labels",
        type=click.Path(path_type=Path, readable=False),
        metavar="FILE",
        help="One label per sample: .npy, .npz, .txt or .csv.",
    ),
    click.option(
        "--preset",
        type=click.Choice(list(presets)),
        help="Preprocessing.  [default: the model's own, else a usual one]",
    ),
    click.option(
        "--preprocess",
        type=click.Path(path_type=Path, readable=False),
        metavar="FILE",
        help="Preprocessing from a YAML file.",
    ),
    click.option("--resize", callback=_read_size, metavar="SIZE", help="Shorter side in pixels, or HEIGHTxWIDTH."),
    click.option(
        "--crop", callback=_read_size, metavar="SIZE", help="Cut this out of the middle: side or HEIGHTxWIDTH."
    ),
    click.option("--range", type=click.Choice(get_args(Range)), help="What the pixel values 0 to 255 become."),
    click.option("--mean", callback=_read_numbers, metavar="NUMBERS", help="Taken off then, one per channel."),
    click.option("--std", callback=_read_numbers, metavar="NUMBERS", help="Divides then, one per channel."),
    click.option("--layout", type=click.Choice(get_args(Layout)), help="Axes of the model's input."),
    click.option("--color", type=click.Choice(get_args(Color)), help="Channels of the model's input."),
)
data_options = combine(
    source_options,
    click.option(
        "--samples",
        type=click.IntRange(min=1),
        default=DEFAULT_SAMPLES,
        show_default=True,
        metavar="N",
        help="Samples that are used, chosen at random; all where there are fewer.",
    ),
)

# What the options of `source_options` and of `data_options` are called in a command.
SOURCE_KEYS = ("data", "labels", "preset", "preprocess", *_SINGLE)
DATA_KEYS = (*SOURCE_KEYS, "samples")


def make_dataset(model: Model, **values: Any) -> Dataset | None:
    """Open the data that the options of `source_options` name.

    Args:
        model: The model that will be fed.
        values: Values by option name, as click gives them; those that are not about data (`samples` among them, which
            `srr_onnx.data.dataset.choose` takes) are not looked at.

    Returns:
        The data set, None without --data.

    Raises:
        UsageError: Options contradict each other.
        DataError: The data cannot be read or do not fit the model.
    """
    changes = {key: values.get(key) for key in _SINGLE if values.get(key) is not None}
    preset, path = values.get("preset"), values.get("preprocess")
    if preset is not None and path is not None:
        raise click.UsageError("--preset and --preprocess exclude each other: a YAML file may name its preset itself")
    if values.get("data") is None:
        asked = [key for key in ("labels", "preset", "preprocess", *_SINGLE) if values.get(key) is not None]
        if asked:
            raise click.UsageError(f"--{asked[0]} says how data are read: give --data too")
        return None
    resize, crop = changes.get("resize"), changes.get("crop")
    if isinstance(resize, int) and crop is not None and max(crop if isinstance(crop, tuple) else (crop,)) > resize:
        raise click.UsageError(
            f"--crop {crop} does not fit into pictures that --resize makes {resize} pixels wide or high"
        )
    preprocessing: Preprocessing | None = None
    if preset is not None:
        preprocessing = presets.get(preset)
    elif path is not None:
        preprocessing = load_preprocessing(path)
    if changes:
        preprocessing = (preprocessing or choose_preprocessing(model).preprocessing).override(**changes)
    return open_data(values["data"], model, preprocessing=preprocessing, labels=values.get("labels"))
