"""DATA: made-up pictures, for those who have none: the word "synthetic" in place of a path."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from srr_onnx.data.dataset import Array, Dataset
from srr_onnx.data.drawing import draw_picture
from srr_onnx.data.reader import Request, reader
from srr_onnx.data.recipe import Recipe, choose_preprocessing, find_inputs, fit_preprocessing
from srr_onnx.errors import DataError
from srr_onnx.graph.model import Model

SOURCE = "synthetic"
# 256 to calibrate with and a fifth more that is held out; more of them change less than the choice of pictures does.
_COUNT = 320


class _Drawn:
    """Pictures that are drawn when they are asked for, the same ones every time."""

    def __init__(self, recipes: Mapping[str, Recipe]) -> None:
        self._recipes = recipes

    def __len__(self) -> int:
        return _COUNT

    def name_of(self, index: int) -> str:
        return f"made-up picture {index}"

    def fetch(self, index: int) -> Mapping[str, Array]:
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
    recipes, texts = {}, {}
    for name, target in find_inputs(request.model).items():
        chosen = choose_preprocessing(request.model, request.preprocessing, name)
        whole = dataclasses.replace(chosen.preprocessing, resize=None, crop=None)
        recipes[name] = fit_preprocessing(whole, target)
        if recipes[name].layout is None:
            raise DataError(
                f"input {name!r} takes {list(target.shape)}, which is no picture, and nothing else is made up: "
                "give samples with --data"
            )
        texts[name] = f"{chosen.preprocessing.name} ({chosen.origin}): {recipes[name].describe()}"
    text = f"{_COUNT} made-up pictures of shapes and noise, which say nothing of real ones; "
    return Dataset(_Drawn(recipes), source, text + "; ".join(dict.fromkeys(texts.values())), is_made_up=True)


def takes_pictures(model: Model) -> bool:
    """Whether every input of a model takes pictures, so that they can be made up.

    Args:
        model: Loaded model.

    Returns:
        False for a model without inputs too.
    """
    try:
        inputs = find_inputs(model)
    except DataError:  # an input is a single number
        return False
    return bool(inputs) and all(target.find_layout() for target in inputs.values())
