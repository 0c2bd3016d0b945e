"""FINE-TUNE: pictures, changed a little at random.

Samples come preprocessed, as the model takes them; they are brought back to colors in [0, 1], changed, and preprocessed
again. What happens to a picture follows from its own random generator alone, so a run that is resumed sees the same.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from srr_onnx.data.dataset import Array, Dataset
from srr_onnx.data.preprocessing import Layout
from srr_onnx.data.recipe import find_inputs
from srr_onnx.errors import TrainingError
from srr_onnx.finetuning.options import Augmentation
from srr_onnx.graph.model import Model

Rng = np.random.Generator

# CIFAR's pictures of 32 pixels are usually shifted by up to 4.
_SHIFT = 1 / 8
# So many changes are made to a picture, each at up to this strength of [0, 1] (RandAugment's 9 of 30 for ImageNet).
_CHANGES, _STRENGTH = 2, 0.3
# Parts of red, green and blue in what is seen as brightness (ITU-R BT.601).
_LUMA = (0.299, 0.587, 0.114)


@dataclasses.dataclass(frozen=True, eq=False)
class Augmenter:
    """Changes one input of a sample.

    Attributes:
        input: Name of the input.
        layout: Where its channels are.
        names: What is done.
        scale: What a color in [0, 1] is multiplied by, per channel; None where the numbers may be anything.
        offset: What is added then.
    """

    input: str
    layout: Layout
    names: tuple[Augmentation, ...]
    scale: Tensor | None
    offset: Tensor | None

    def change(self, picture: Array, rng: Rng) -> Array:
        """Change a picture.

        Args:
            picture: The input without its batch axis, preprocessed.
            rng: Decides how; nothing else does.

        Returns:
            The same shape and element type.
        """
        value = torch.from_numpy(np.ascontiguousarray(picture)).float()
        value = value if self.layout == "NCHW" else value.permute(2, 0, 1)
        if "flip" in self.names and rng.random() < 0.5:
            value = value.flip(-1)
        if "crop" in self.names:
            value = _shift(value, rng)
        if "randaugment" in self.names:
            assert self.scale is not None and self.offset is not None, "colors are checked when this is made"
            colors = ((value - self.offset) / self.scale).clamp(0, 1)
            for number in rng.choice(len(CHANGES), _CHANGES):
                strength = _STRENGTH * rng.uniform(-1, 1)
                colors = CHANGES[number](colors, float(strength)).clamp(0, 1)
            value = colors * self.scale + self.offset
        value = value if self.layout == "NCHW" else value.permute(1, 2, 0)
        found = value.contiguous().numpy()
        return np.asarray((found.round() if picture.dtype.kind in "iu" else found).astype(picture.dtype))


def make_augmenter(model: Model, dataset: Dataset, names: Sequence[Augmentation]) -> Augmenter | None:
    """Fit augmentations to the first input of a model.

    Args:
        model: The model.
        dataset: Its samples.
        names: What is wanted.

    Returns:
        The augmenter; None where nothing is wanted, or the model takes no pictures.

    Raises:
        TrainingError: Colors are to be changed, and it is not known what the numbers mean.
    """
    first = next(iter(find_inputs(model).values()))
    stated = dataset.preprocessing
    layout = first.find_layout("auto" if stated is None else stated.layout)
    if not names or layout is None or first.name in dataset.shared:
        return None
    if stated is None:
        if "randaugment" in names:
            raise TrainingError(
                f"randaugment changes colors, and {dataset.name!r} holds numbers that are passed on as they are: give "
                "pictures, or say with --preset or --range how their pixels were made into numbers"
            )
        return Augmenter(first.name, layout, tuple(names), None, None)
    gain, zero = {"0..1": (1.0, 0.0), "0..255": (255.0, 0.0), "-1..1": (2.0, -1.0)}[stated.range]
    mean, std = (torch.tensor(numbers or [rest]) for numbers, rest in ((stated.mean, 0.0), (stated.std, 1.0)))
    scale, offset = (gain / std)[:, None, None], ((zero - mean) / std)[:, None, None]
    return Augmenter(first.name, layout, tuple(names), scale, offset)


def _shift(value: Tensor, rng: Rng) -> Tensor:
    """Shift by whole pixels; what comes in at a border mirrors what is there."""
    rows, columns = (int(size * _SHIFT) for size in value.shape[1:])
    down, right = int(rng.integers(-rows, rows + 1)), int(rng.integers(-columns, columns + 1))
    padded = functional.pad(value[None], (columns, columns, rows, rows), mode="reflect")[0]
    return padded[:, rows - down : padded.shape[1] - rows - down, columns - right : padded.shape[2] - columns - right]


def _warp(colors: Tensor, matrix: Sequence[Sequence[float]]) -> Tensor:
    """Look every pixel up where a matrix says, `(2, 3)`, in coordinates of [-1, 1]."""
    grid = functional.affine_grid(torch.tensor(matrix)[None], [1, *colors.shape], align_corners=False)
    return functional.grid_sample(colors[None], grid, padding_mode="reflection", align_corners=False)[0]


def _gray(colors: Tensor) -> Tensor:
    if len(colors) != 3:
        return colors
    return torch.einsum("c,chw->hw", torch.tensor(_LUMA), colors).expand_as(colors)


def _rotate(colors: Tensor, strength: float) -> Tensor:
    angle = strength * math.pi / 2
    sine, cosine = math.sin(angle), math.cos(angle)
    return _warp(colors, ((cosine, -sine, 0.0), (sine, cosine, 0.0)))


def _blend(colors: Tensor, other: Tensor, strength: float) -> Tensor:
    """Away from another picture where the strength is above zero, towards it below."""
    return other + (1 + strength) * (colors - other)


def _sharpen(colors: Tensor, strength: float) -> Tensor:
    blurred = functional.avg_pool2d(functional.pad(colors[None], (1, 1, 1, 1), mode="replicate"), 3, 1)[0]
    return _blend(colors, blurred, 3 * strength)


def _equalize(colors: Tensor, strength: float) -> Tensor:
    """Towards colors of which every value is equally frequent."""
    flat = colors.flatten(1)
    ranks = flat.argsort(dim=1, stable=True).argsort(dim=1, stable=True) / max(1, flat.shape[1] - 1)
    return torch.lerp(colors, ranks.reshape(colors.shape), abs(strength))


def _stretch(colors: Tensor, strength: float) -> Tensor:
    """Towards colors that reach from black to white, as automatic contrast does."""
    low, high = colors.amin((1, 2), keepdim=True), colors.amax((1, 2), keepdim=True)
    return torch.lerp(colors, (colors - low) / (high - low).clamp_min(1 / 255), abs(strength))


def _posterize(colors: Tensor, strength: float) -> Tensor:
    levels = 2 ** (8 - round(12 * abs(strength)))
    return torch.div(torch.round(colors * (levels - 1)), max(1, levels - 1))


# What RandAugment does to pictures (Cubuk et al., NeurIPS 2020, arXiv:1909.13719, section 3.2), by a strength in
# [-1, 1]; 0 leaves all as it is. Deviates: borders are mirrored, and both signs are drawn.
CHANGES: tuple[Callable[[Tensor, float], Tensor], ...] = (
    _rotate,
    lambda colors, strength: _warp(colors, ((1.0, strength, 0.0), (0.0, 1.0, 0.0))),
    lambda colors, strength: _warp(colors, ((1.0, 0.0, 0.0), (strength, 1.0, 0.0))),
    lambda colors, strength: _warp(colors, ((1.0, 0.0, strength), (0.0, 1.0, 0.0))),
    lambda colors, strength: _warp(colors, ((1.0, 0.0, 0.0), (0.0, 1.0, strength))),
    lambda colors, strength: colors * (1 + strength),
    lambda colors, strength: _blend(colors, _gray(colors).mean().expand_as(colors), strength),
    lambda colors, strength: _blend(colors, _gray(colors), strength),
    lambda colors, strength: torch.where(colors > 1 - abs(strength), 1 - colors, colors),
    _sharpen,
    _equalize,
    _stretch,
    _posterize,
)
