"""DATA: made-up pictures, for those who have none: the word "synthetic" in place of a path."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

from srr_onnx.data.dataset import Array, Dataset
from srr_onnx.data.drawing import draw_picture
from srr_onnx.data.preprocessing import Preprocessing
from srr_onnx.data.reader import Request, reader
from srr_onnx.data.recipe import Recipe, choose_preprocessing, find_inputs, fit_preprocessing
from srr_onnx.errors import DataError
from srr_onnx.graph.model import Model

SOURCE = "synthetic"
# 256 to calibrate with and a fifth more that is held out; more of them change less than the choice of pictures does.
_COUNT = 320


class DrawnPictures:
    """Pictures that are drawn when they are asked for, the same ones every time.

    Args:
        model: Loaded model; those of its inputs that take pictures get some.
        preprocessing: What is done to them; None leaves the choice to the model's metadata and the defaults.

    Raises:
        DataError: The preprocessing does not fit an input.
    """

    def __init__(self, model: Model, preprocessing: Preprocessing | None = None) -> None:
        self._recipes: dict[str, Recipe] = {}
        texts = []
        for name, target in find_inputs(model).items():
            chosen = choose_preprocessing(model, preprocessing, name)
            if target.find_layout(chosen.preprocessing.layout):
                whole = dataclasses.replace(chosen.preprocessing, resize=None, crop=None)
                self._recipes[name] = fit_preprocessing(whole, target)
                texts.append(f"{chosen.preprocessing.name} ({chosen.origin}): {self._recipes[name].describe()}")
        self.text = "; ".join(dict.fromkeys(texts))

    @property
    def inputs(self) -> Collection[str]:
        """The inputs that take pictures."""
        return self._recipes.keys()

    def __len__(self) -> int:
        return _COUNT

    def name_of(self, index: int) -> str:
        """What a picture is called in messages."""
        return f"made-up picture {index}"

    def fetch(self, index: int) -> Mapping[str, Array]:
        """Draw the pictures of one sample.

        Args:
            index: Which.

        Returns:
            One per input that takes pictures, by name, without batch axis.
        """
        return {
            name: recipe.to_numbers(draw_picture(index, recipe.size, recipe.channels, seed))
            for seed, (name, recipe) in enumerate(self._recipes.items())
        }


@reader(SOURCE, lambda source: isinstance(source, str) and source == SOURCE)
def read_synthetic(source: str, request: Request) -> Dataset:
    """Make pictures up, as large as the model takes them.

    Args:
        source: The word "synthetic".
        request: What for.

    Returns:
        The data set, without labels; it says of itself that it is made up.

    Raises:
        DataError: An input of the model takes no pictures, or the preprocessing does not fit it.
    """
    pictures = DrawnPictures(request.model, request.preprocessing)
    for name, target in find_inputs(request.model).items():
        if name not in pictures.inputs:
            raise DataError(
                f"input {name!r} takes {list(target.shape)}, which is no picture, and nothing else is made up: "
                "give samples with --data"
            )
    text = f"{_COUNT} made-up pictures of shapes and noise, which say nothing of real ones; {pictures.text}"
    return Dataset(pictures, source, text, is_made_up=True)
