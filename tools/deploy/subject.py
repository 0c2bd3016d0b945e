"""What is deployed: a net, its pruned file, quantised copies of both, pictures, and how far they agree."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import srr_onnx
from deploy.arrays import Array
from deploy.quantize import quantize
from srr_onnx.data.dataset import choose, split_held_out
from srr_onnx.errors import first_line
from srr_onnx.pipeline import read_model
from srr_onnx.rewriting.verify import make_feeds
from srr_onnx.validation.agreement import find_main
from srr_onnx.validation.classes import find_class_axis

Feeds = Mapping[str, Array]

# Pictures that the runtimes are compared on. Noise comes on top: where a detector sees nothing in them, it gives
# zeros, which say nothing.
CHECKED = 4
# Pictures that quantisation calibrates its ranges on; more hardly move them.
RANGES = 64


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How files of one net compare with the original in onnxruntime, on pictures that nothing was fitted to.

    Attributes:
        net: Name of the net.
        file: Which of its files.
        size_bytes: Of the file.
        samples: Pictures.
        top1: Share of the positions with the same class on top; NaN where there are no classes.
        cosine: Mean cosine between the outputs.
        note: Why there are no figures; empty where there are.
    """

    net: str
    file: str
    size_bytes: int = 0
    samples: int = 0
    top1: float = math.nan
    cosine: float = math.nan
    note: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """One net.

    Attributes:
        net: Its name.
        pairs: Original and pruned file by kind, "float" and "int8"; what could not be quantised is left out.
        class_axes: Axis of the classes per output, None where it has none.
        samples: A few held-out pictures, and noise, as feeds with batch axis.
        agreements: One per file.
    """

    net: str
    pairs: Mapping[str, tuple[Path, Path]]
    class_axes: Mapping[str, int | None]
    samples: tuple[Feeds, ...]
    agreements: tuple[Agreement, ...]


def prepare(
    original: Path, folder: Path, data: str, *, flops: float, align: str = "off", samples: int, seed: int = 0
) -> Subject:
    """Prune a net, and quantise the original and the result.

    Args:
        original: Its file.
        folder: Where the files go.
        data: Whatever srr-onnx reads as data.
        flops: Share of the MACs to remove.
        align: Widths to choose from.
        samples: Pictures to calibrate with; a quarter more is held out.
        seed: For the choice of pictures.

    Returns:
        The files, a few held-out pictures, and how far the files agree with the original.

    Raises:
        SrrError: It cannot be pruned, or the data do not fit.
    """
    net = original.name.removesuffix(".onnx")
    model = read_model(original)
    dataset = srr_onnx.open_data(data, model)
    fitted, held_out = split_held_out(choose(dataset, round(samples * 1.25), seed), 0.2, seed)
    feeds, unseen = ([batch.feeds for batch in dataset.batches(1, part)] for part in (fitted, held_out))
    pruned = folder / f"{net}.pruned.onnx"
    srr_onnx.prune(model, pruned, flops=flops, align=align, data=feeds, samples=samples, force=True)
    agreements = [
        Agreement(net, "original", original.stat().st_size),
        _compare(net, "pruned", model, pruned, unseen),
    ]
    pairs = {"float": (original, pruned)}
    try:
        pairs["int8"] = folder / f"{net}.int8.onnx", folder / f"{net}.pruned.int8.onnx"
        for name, path, copy in zip(("original int8", "pruned int8"), *pairs.values(), strict=True):
            quantize(path, copy, feeds[:RANGES])
            agreements.append(_compare(net, name, model, copy, unseen))
    except Exception as error:  # onnxruntime's quantisation raises whatever it meets
        del pairs["int8"]
        agreements.append(Agreement(net, "int8", note=first_line(error)))
    axes = {name: find_class_axis(model, name) for name in model.outputs}
    return Subject(net, pairs, axes, (*unseen[:CHECKED], make_feeds(model, seed)), tuple(agreements))


def _compare(net: str, file: str, model: srr_onnx.Model, path: Path, feeds: list[Feeds]) -> Agreement:
    found = srr_onnx.validate(model, path, feeds)
    main = find_main(found.agreement) or found.agreement[0]
    top1 = math.nan if main.top1 is None else main.top1.mean
    return Agreement(net, file, path.stat().st_size, found.samples, top1, main.cosine.mean)
