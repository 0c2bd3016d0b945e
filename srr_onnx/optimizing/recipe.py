"""OPTIMIZE: a recipe: what is done to a model, from data to gates, as a YAML file or plain Python values.

Whoever holds a `Recipe` holds a sound one: keys, kinds and ranges of values, and what goes with what, are checked when
it is read, before any work is done. An error is one line with file and key.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srr_onnx.data.preprocessing import Preprocessing, load_preprocessing, make_preprocessing
from srr_onnx.data.schema import check_keys, name_fields, read_fields, read_values
from srr_onnx.data.yaml_file import read_yaml
from srr_onnx.errors import DataError, RecipeError
from srr_onnx.optimizing.sections import GateSettings, JudgingSettings, PruneSettings, named
from srr_onnx.planning.budget import NAMES

if TYPE_CHECKING:
    from srr_onnx.finetuning.options import TrainingOptions

_SECTIONS = {"prune": PruneSettings, "test": JudgingSettings, "gates": GateSettings}
# A stage of several processes would start the whole recipe in each of them.
_ALONE = ("devices", "nodes")
_PAIRS = ("head", "feature")
# More steps than any network has units that are worth a training of their own.
_MOST_STEPS = 1000


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """Sections `finetune` and `final_finetune`: see `srr-onnx finetune --help`.

    Attributes:
        options: Every setting of the training.
        heads: Values that are compared with the teacher's in place of the outputs: our name, the teacher's.
        features: Values whose numbers are compared besides.
    """

    options: TrainingOptions
    heads: Mapping[str, str]
    features: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is done to a model; docs/optimize.md describes the keys.

    Attributes:
        prune: What goes, and how.
        data: Samples, as `--data` takes them.
        labels: File with one label per sample.
        preprocess: What is done to pictures; None takes what the model's metadata say, else what is usual.
        input: Shape per input, for files with dynamic axes.
        teacher: Model that training makes the result like; None takes the one that is pruned.
        steps: In how many steps it is pruned, each followed by training.
        seed: For everything random that has no seed of its own.
        finetune: How it is trained after every step; None trains nothing.
        final_finetune: How after the last step.
        test: What every stage is judged by.
        gates: What the result has to reach.
        report: File for the report page; None puts it into the run's folder.
        path: The recipe's file.
    """

    prune: PruneSettings
    data: str | None = None
    labels: str | None = None
    preprocess: Preprocessing | None = None
    input: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)
    teacher: str | None = None
    steps: int = 1
    seed: int = 0
    finetune: TrainingSettings | None = None
    final_finetune: TrainingSettings | None = None
    test: JudgingSettings = dataclasses.field(default_factory=JudgingSettings)
    gates: GateSettings = dataclasses.field(default_factory=GateSettings)
    report: str | None = None
    path: Path | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= _MOST_STEPS:
            raise RecipeError(f"steps: give 1 to {_MOST_STEPS:,}")
        if self.seed < 0:
            raise RecipeError("seed: give at least 0")
        if self.steps > 1 and self.prune.budget.kind == "ratio":
            raise RecipeError("steps: ratio takes from every group at once; give flops or another budget, or one step")
        for key in ("labels", "preprocess"):
            if self.data is None and getattr(self, key) is not None:
                raise RecipeError(f"{key}: it says how data are read, but the key data is missing")
        if self.data is None and self.finetune is not None:
            raise RecipeError("finetune: a model is trained on samples, but the key data is missing")
        if self.data is None and self.prune.recalibrate_norms:
            raise RecipeError("prune: recalibrate_norms reads samples, but the key data is missing")
        if self.final_finetune is not None and self.finetune is None:
            raise RecipeError("final_finetune: it says what differs from finetune, which is missing")
        for key in ("max_accuracy_drop", "min_agreement"):
            if getattr(self.gates, key) is not None and self.data is None and self.test.data is None:
                raise RecipeError(f"gates: {key} is measured on samples, but neither data nor test has any")

    def settle(self) -> dict[str, Any]:
        """What decides the weights, in plain form with one level; data and models are told by their hashes."""
        plain: dict[str, Any] = {"steps": self.steps, "preprocess": repr(self.preprocess), "input": dict(self.input)}
        plain |= {f"prune.{key}": value for key, value in dataclasses.asdict(self.prune).items()}
        for name, section in (("finetune", self.finetune), ("final_finetune", self.final_finetune)):
            if section is None:
                plain[name] = None
                continue
            plain |= {f"{name}.{key}": value for key, value in section.options.settle().items()}
            plain |= {f"{name}.head": dict(section.heads), f"{name}.feature": dict(section.features)}
        return plain | {"test.share": None if self.test.data else self.test.share}


def load_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read a recipe.

    Args:
        path: YAML file.

    Returns:
        The recipe.

    Raises:
        RecipeError: It cannot be read, or something is wrong with it; names file and key, with close matches.
        MissingDependencyError: It trains, and PyTorch is not installed.
    """
    path = Path(path)
    try:
        return make_recipe(read_yaml(path, "recipe", "steps: 3"), path)
    except RecipeError as error:
        raise RecipeError(f"{str(path)!r}: {error}") from error
    except DataError as error:  # which names the file already
        raise RecipeError(str(error)) from error


def make_recipe(content: Mapping[str, Any], path: Path | None = None) -> Recipe:
    """Make a recipe of the values of its keys.

    Args:
        content: As in the file.
        path: The file, where there is one.

    Returns:
        The recipe.

    Raises:
        RecipeError: Something is wrong with it; names the key.
        MissingDependencyError: It trains, and PyTorch is not installed.
    """
    nested = {*_SECTIONS, "finetune", "final_finetune", "preprocess", "input"}
    content = named("", name_fields, content)
    named("", check_keys, content, [f.name for f in dataclasses.fields(Recipe) if f.name != "path"])
    if "prune" not in content:
        raise RecipeError(f"the section prune is missing: say what is to go, with one of {', '.join(NAMES)}")
    plain = {key: value for key, value in content.items() if key not in nested}
    found = named("", read_values, Recipe, plain)
    seed = found.get("seed", 0)
    for key, kind in _SECTIONS.items():
        if key in content:
            values = named(key, read_values, kind, _keys(key, content[key]))
            usual = {"seed": seed} if kind is PruneSettings else {}
            found[key] = named(key, kind, **{**usual, **values})
    if "preprocess" in content:
        found["preprocess"] = named("preprocess", _read_preprocess, content["preprocess"])
    if "input" in content:
        found["input"] = dict(_read_shapes(content["input"]))
    if "finetune" in content or "final_finetune" in content:
        found |= _read_training(content, seed)
    return Recipe(**found, path=path)


def _keys(section: str, value: Any) -> Mapping[str, Any]:
    """The keys of a section; none at all where its name stands alone."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise RecipeError(f"{section}: it is {str(value)[:40]!r}: give keys of its own, indented below it")
    return value


def _read_training(content: Mapping[str, Any], seed: int) -> dict[str, TrainingSettings]:
    from srr_onnx.finetuning.options import TrainingOptions  # torch comes with it

    found: dict[str, TrainingSettings] = {}
    usual: dict[str, Any] = {"seed": seed}
    for key in ("finetune", "final_finetune"):
        if key not in content:
            continue
        given = dict(_keys(key, content[key]))
        for name in _ALONE:
            if name in given:
                raise RecipeError(f"{key}: {name}: a recipe trains in one process; srr-onnx finetune in several")
        pairs = {name: dict(_read_pairs(f"{key}: {name}", given.pop(name))) for name in _PAIRS if name in given}
        # what the last training is not told it takes from the others
        usual |= named(key, read_values, TrainingOptions, given, _ALONE) | pairs
        settings = {name: value for name, value in usual.items() if name not in _PAIRS}
        found[key] = TrainingSettings(
            named(key, TrainingOptions, **settings), usual.get("head", {}), usual.get("feature", {})
        )
    return found


def _read_pairs(where: str, value: Any) -> Iterator[tuple[str, str]]:
    """NAME or NAME=TEACHERS, one or a list of them, as the options have it."""
    for entry in [value] if isinstance(value, str) else value if isinstance(value, list) else [None]:
        if not isinstance(entry, str):
            raise RecipeError(f"{where} is {str(value)[:40]!r}: give a list of NAME or NAME=TEACHERS")
        ours, _, theirs = entry.partition("=")
        yield ours, theirs or ours


def _read_preprocess(value: Any) -> Preprocessing:
    """A file, or its keys."""
    if isinstance(value, str):
        return load_preprocessing(value)
    return make_preprocessing(read_fields(_keys("preprocess", value)), "the recipe's")


def _read_shapes(value: Any) -> Iterator[tuple[str, list[int]]]:
    """Sizes by name of the input, or those of the only one, which goes by the name ""."""
    for name, sizes in (value if isinstance(value, Mapping) else {"": value}).items():
        sizes = sizes.split(",") if isinstance(sizes, str) else sizes
        texts = [str(size).strip() for size in sizes] if isinstance(sizes, list) else []
        if not texts or not all(text.isascii() and text.isdigit() and int(text) for text in texts):
            raise RecipeError(f"input: {str(sizes)[:40]!r} is no shape: give sizes such as [1, 3, 224, 224]")
        yield str(name), [int(text) for text in texts]
