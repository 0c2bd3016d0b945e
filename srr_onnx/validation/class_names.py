"""VALIDATE: which output speaks of classes, and what these are called."""

from __future__ import annotations

import dataclasses

from srr_onnx.data.dataset import Dataset
from srr_onnx.data.labels import read_classes
from srr_onnx.errors import DataError, UnknownNameError
from srr_onnx.graph.model import Model
from srr_onnx.validation.accuracy import check_labels_fit
from srr_onnx.wording import counted


@dataclasses.dataclass(frozen=True)
class Classes:
    """What accuracy can be measured on.

    Attributes:
        output: Output with one column per class; None where accuracy cannot be measured.
        names: Names of the classes, by class, as far as known.
        note: What the user should know of the labels.
    """

    output: str | None
    names: tuple[str, ...] = ()
    note: str = ""

    def name_of(self, label: int) -> str:
        """Name of a class; its number where it has none."""
        return self.names[label] if label < len(self.names) else str(label)

    def write(self, label: int) -> str:
        """Number and name of a class."""
        return f"{label} {self.names[label]}" if label < len(self.names) else str(label)


def find_classes(model: Model, dataset: Dataset, wanted: str | None, *, is_needed: bool) -> Classes:
    """Find out what accuracy can be measured on, before anything is run.

    Args:
        model: The model.
        dataset: The samples.
        wanted: Name of the output, if the user says.
        is_needed: Whether to go without accuracy is an error.

    Returns:
        The output, None where there is no accuracy.

    Raises:
        DataError: Accuracy is needed and cannot be measured, or a label is no class of the model.
        UnknownNameError: There is no output of the name that the user says.
    """
    if dataset.labels is None:
        if is_needed:
            raise DataError(f"{dataset.name!r} has no labels, so no accuracy can be measured: give --labels FILE")
        return Classes(None)
    known, names = read_classes(model), dataset.classes
    able = _find_outputs(model, wanted)
    if not able:
        listed = ", ".join(f"{name!r} {list(model.shapes.get(name, ()))}" for name in model.outputs)
        text = f"accuracy needs an output with one row per sample and one column per class, the model has {listed}"
        if is_needed:
            raise DataError(f"{text}: compare it with another model, without labels")
        return Classes(None, note=f"no accuracy: {text}")
    output = next((name for name, columns in able.items() if columns == len(known)), next(iter(able)))
    columns = able[output]
    if columns is None:
        return Classes(output, known or names)
    check_labels_fit(dataset.labels, columns, output)
    if len(known) == columns:
        is_same = not names or names == known
        note = "the classes of the data are not those of the model's metadata: the labels may mean other classes"
        return Classes(output, known, "" if is_same else note)
    is_short = 0 < len(names) < columns
    classes = counted(len(names), "class", "classes")
    note = f"the data have {classes}, the model {columns:,}: if it counts them otherwise, give --labels"
    return Classes(output, names, note if is_short else "")


def _find_outputs(model: Model, wanted: str | None) -> dict[str, int | None]:
    """Outputs with one row per sample, and their columns; None where the file does not state them."""
    if wanted is not None and wanted not in model.outputs:
        raise UnknownNameError("output", wanted, model.outputs)
    found: dict[str, int | None] = {}
    for name in model.outputs if wanted is None else (wanted,):
        shape, dtype = model.shapes.get(name), model.dtypes.get(name)
        if dtype is not None and dtype.kind != "f" and dtype.name != "bfloat16":
            continue
        if shape is None:
            found[name] = None
        elif len(shape) > 1 and sum(size > 1 for size in shape[1:]) == 1:
            found[name] = max(shape[1:])
    return found
