"""DATA: what a reader is, and the table of all readers.

A reader recognizes a source and makes a `Dataset` of it. It is registered under a name by a decorator; whoever imports
its module can use it, and readers that were registered later are asked first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from srr_onnx.data.arrays import find_shared, make_array_samples, make_shared
from srr_onnx.data.dataset import Array, Dataset, Labels
from srr_onnx.data.pictures import PictureFiles
from srr_onnx.data.preprocessing import Preprocessing
from srr_onnx.data.recipe import choose_preprocessing, find_inputs, fit_preprocessing
from srr_onnx.errors import DataError
from srr_onnx.graph.model import Model
from srr_onnx.registry import Registry


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
    """What data are wanted for.

    Attributes:
        model: The model that will be fed.
        preprocessing: What the user said; None leaves the choice to the model's metadata and the defaults.
    """

    model: Model
    preprocessing: Preprocessing | None = None

    def make_from_pictures(
        self,
        folder: Path,
        names: Sequence[str],
        name: str,
        text: str,
        labels: Labels | None = None,
        classes: Sequence[str] = (),
    ) -> Dataset:
        """Make a data set of picture files.

        Args:
            folder: Where they are.
            names: Their paths from there; they are called so in messages and label files.
            name: What the data are called.
            text: What was read.
            labels: Class per file.
            classes: Names of the classes.

        Returns:
            The data set; nothing is decoded yet.

        Raises:
            DataError: The model takes no pictures, or several inputs, or the preprocessing does not fit.
        """
        inputs = find_inputs(self.model)
        if len(inputs) != 1:
            raise DataError(
                f"the model has {len(inputs)} inputs ({', '.join(inputs)}), pictures fill only one: give an .npz "
                "with an array per input, named like it"
            )
        (target,) = inputs.values()
        chosen = choose_preprocessing(self.model, self.preprocessing)
        recipe = fit_preprocessing(chosen.preprocessing, target)
        if recipe.channels not in (1, 3):
            raise DataError(
                f"input {target.name!r} takes {list(target.shape)} per sample, which is no picture of 1 or 3 channels: "
                "give an .npz or .npy with arrays of that shape"
            )
        text = f"{text}; {chosen.preprocessing.name} ({chosen.origin}): {recipe.describe()}"
        return Dataset(PictureFiles(folder, names, recipe), name, text, labels, classes, preprocessing=recipe.stated)

    def make_from_arrays(
        self,
        arrays: Mapping[str, Array],
        name: str,
        text: str,
        labels: Labels | None = None,
        classes: Sequence[str] = (),
    ) -> Dataset:
        """Make a data set of arrays.

        Args:
            arrays: One per input of the model, by its name: `(N, ...)`, or of exactly the input's shape where all
                samples share it.
            name: What the data are called, in messages too.
            text: What was read.
            labels: Class per sample.
            classes: Names of the classes.

        Returns:
            The data set.

        Raises:
            DataError: An array is missing, is no number, or does not fit the model.
        """
        inputs = find_inputs(self.model)
        missing = [key for key in inputs if key not in arrays]
        if missing:
            raise DataError(
                f"{name!r} has no array for the model's input {missing[0]!r}: found {', '.join(arrays) or 'none'}"
            )
        common = self.find_shared(arrays)
        shared = {key: make_shared(arrays[key], inputs[key], repr(name)) for key in inputs if key in common}
        rows = {key: arrays[key] for key in inputs if key not in common}
        if not rows:
            raise DataError(f"{name!r} holds no samples: no input of the model has an axis along which they could lie")
        for key in rows:
            if not self.model.inputs[key]:
                raise DataError(f"input {key!r} is a single number: give one, which all samples share")
        samples, done, preprocessing = make_array_samples(
            rows,
            inputs,
            lambda key: choose_preprocessing(self.model, self.preprocessing, key),
            repr(name),
        )
        if shared:
            done += f"; {', '.join(shared)} shared by all"
        return Dataset(samples, name, f"{text}; {done}", labels, classes, shared, preprocessing=preprocessing)

    def find_shared(self, arrays: Mapping[str, Array]) -> frozenset[str]:
        """Find the arrays, by name of the model's input, that have exactly its shape and no row per sample."""
        known = {key: array for key, array in arrays.items() if key in self.model.inputs}
        return find_shared(known, self.model.inputs)


@dataclasses.dataclass(frozen=True)
class Reader:
    """A way to read samples.

    Attributes:
        name: Under which it is registered.
        accepts: Tells by a look at a source (a path that exists, a text, or an object) whether it is for this reader.
        read: Makes the data set.
    """

    name: str
    accepts: Callable[[Any], bool]
    read: Callable[[Any, Request], Dataset]


readers: Registry[str, Reader] = Registry("reader")

ReadFunction = Callable[[Any, Request], Dataset]


def reader(name: str, accepts: Callable[[Any], bool]) -> Callable[[ReadFunction], ReadFunction]:
    """Register a function that reads data.

    Args:
        name: For messages.
        accepts: Tells whether a source is for this reader; it must not raise.

    Returns:
        A decorator that gives the function back unchanged.

    Raises:
        ValueError: The name is taken.

    Example::

        @reader("text", lambda source: isinstance(source, Path) and source.suffix == ".tsv")
        def read_text(source, request):
            (name,) = request.model.inputs
            rows = np.loadtxt(source, dtype=np.float32, ndmin=2)
            return request.make_from_arrays({name: rows}, source.name, f"{len(rows)} rows of text")
    """

    def enter(function: ReadFunction) -> ReadFunction:
        readers.register(name)(Reader(name, accepts, function))
        return function

    return enter
