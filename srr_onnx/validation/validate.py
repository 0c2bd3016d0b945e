"""VALIDATE: a candidate beside its reference: size, cost, accuracy, agreement, and what is asked of them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from srr_onnx.data.dataset import BadSample
from srr_onnx.data.preprocessing import Preprocessing
from srr_onnx.errors import DataError
from srr_onnx.graph.cost import Cost, count_cost
from srr_onnx.graph.model import Model
from srr_onnx.rewriting.verify import make_feeds
from srr_onnx.targets.measuring import measure_shapes
from srr_onnx.targets.target import Target
from srr_onnx.validation.accuracy import Accuracy
from srr_onnx.validation.agreement import Agreement, find_main
from srr_onnx.validation.class_names import Classes, find_classes
from srr_onnx.validation.classes import has_classes
from srr_onnx.validation.estimates import Estimate, estimate_difference
from srr_onnx.validation.evaluate import Data, Source, describe_accuracy, load, load_beside, read
from srr_onnx.validation.gates import Gate, at_least, at_most
from srr_onnx.validation.measure import OnStage, RunOptions, measure_on_data, measure_on_random
from srr_onnx.validation.profile import profile
from srr_onnx.validation.profiled import Profile
from srr_onnx.validation.runs import open_models
from srr_onnx.wording import counted, shape

# Runs on made-up inputs: they show that two models compute alike, not how well they do.
RANDOM_RUNS = 16


@dataclasses.dataclass(frozen=True)
class _Limits:
    """What is asked of a candidate, see `validate`; None asks for nothing."""

    max_accuracy_drop: float | None
    min_agreement: float | None
    max_size: int | None
    min_speedup: float | None


@dataclasses.dataclass(frozen=True, eq=False)
class Side:
    """One of two models.

    Attributes:
        model: The model.
        size_bytes: Of its file, with what lies beside it.
        cost: MACs, parameters, bytes of weights.
        accuracy: What it said of labelled samples; None without labels.
    """

    model: Model
    size_bytes: int
    cost: Cost
    accuracy: Accuracy | None

    def to_json(self) -> dict[str, Any]:
        """Plain form."""
        accuracy = None if self.accuracy is None else describe_accuracy(self.accuracy)
        return {"file_bytes": self.size_bytes, "cost": self.cost.to_json(), "accuracy": accuracy}


@dataclasses.dataclass(frozen=True, eq=False)
class Validation:
    """How a candidate compares with its reference.

    Attributes:
        reference: The one.
        candidate: The other.
        samples: How many were run.
        is_made_up: Whether these were random inputs, since no data were given.
        classes: The output that accuracy is read off, and names of its classes.
        accuracy_drop: How much lower the candidate's accuracy is, with an interval from the samples on which the two
            differ; None without labels.
        agreement: How the outputs compare.
        bad: Samples that could not be read.
        gates: What was asked for.
        notes: What the user should know.
        speed: How fast both are; None where it was not asked for.
    """

    reference: Side
    candidate: Side
    samples: int
    is_made_up: bool
    classes: Classes
    accuracy_drop: Estimate | None
    agreement: tuple[Agreement, ...]
    bad: tuple[BadSample, ...]
    gates: tuple[Gate, ...]
    notes: tuple[str, ...]
    speed: Profile | None = None

    @property
    def is_passed(self) -> bool:
        """Whether every gate was passed."""
        return all(gate.is_passed for gate in self.gates)

    def to_json(self) -> dict[str, Any]:
        """Plain form; docs/evaluating.md describes it."""
        return {
            "reference": self.reference.to_json(),
            "candidate": self.candidate.to_json(),
            "samples": self.samples,
            "is_made_up": self.is_made_up,
            "unreadable": [dataclasses.asdict(sample) for sample in self.bad],
            "accuracy_drop": None if self.accuracy_drop is None else self.accuracy_drop.to_json(),
            "agreement": [found.to_json() for found in self.agreement],
            "speed": None if self.speed is None else self.speed.to_json(),
        }


def validate(
    reference: Source,
    candidate: Source,
    data: Data | None = None,
    *,
    labels: str | os.PathLike[str] | None = None,
    preprocessing: Preprocessing | None = None,
    max_accuracy_drop: float | None = None,
    min_agreement: float | None = None,
    max_size: int | None = None,
    min_speedup: float | None = None,
    target: Target | None = None,
    options: RunOptions | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    on_stage: OnStage | None = None,
) -> Validation:
    """Compare a model with its reference.

    Args:
        reference: ONNX file or loaded model.
        candidate: The other one, with the same inputs and outputs.
        data: Samples: a data set, or what `srr_onnx.open_data` takes. Without, 16 made-up random inputs are run.
        labels: File with one label per sample; not for a data set that is open already.
        preprocessing: What is done to pictures; by default what the reference's metadata say, else a usual one.
        max_accuracy_drop: Share of the samples by which the candidate's accuracy may be lower, a gate.
        min_agreement: Share of the samples on which both have to find the same class, a gate.
        max_size: Bytes that the candidate's file may have, with what lies beside it, a gate.
        min_speedup: How many times faster the candidate has to be, a gate; nothing is timed without it.
        target: Where both run, and are timed, on made-up inputs; the CPU by default, with one thread.
        options: Number of samples, batch, workers, seed.
        input_shapes: Shape per input, for files with dynamic axes.
        on_stage: Told the name of every stage, steps done and steps in all, for a progress display.

    Returns:
        What was found; a gate that fails is no error.

    Raises:
        TargetError: The target is not there, or takes no node of a model.
        DataError: The models take or give different things; what a gate asks for cannot be measured.
        ModelError: A model cannot be loaded or run.
    """
    tell, options = on_stage or (lambda stage, done, steps: None), options or RunOptions()
    limits = _Limits(max_accuracy_drop, min_agreement, max_size, min_speedup)
    tell("load", 0, 1)
    loaded = load(reference, input_shapes)
    models = [measure_shapes(model, make_feeds) for model in (loaded, load_beside(loaded, candidate, input_shapes))]
    _check_limits(limits, models[0], has_data=data is not None)
    opened = open_models(*models, target=target)
    dataset, classes = None, Classes(None)
    if data is None:
        measured = measure_on_random(opened, options.limit or RANDOM_RUNS, options, tell)
    else:
        tell("read", 0, 1)
        dataset = read(data, models[0], preprocessing, labels)
        is_needed = limits.max_accuracy_drop is not None
        classes = find_classes(models[0], dataset, options.class_output, is_needed=is_needed)
        measured = measure_on_data(opened, dataset, options, output=classes.output, tell=tell)
    accuracies: Sequence[Accuracy | None] = measured.accuracies or (None, None)
    drop = estimate_difference(*(found.is_right for found in measured.accuracies)) if measured.accuracies else None
    sides = [
        Side(model, model.size_bytes, count_cost(model), accuracy)
        for model, accuracy in zip(models, accuracies, strict=True)
    ]
    inputs = counted(measured.samples, "made-up random input")
    notes = [f"no data: compared on {inputs}, which says nothing of accuracy"]
    if dataset is not None:
        notes = [dataset.describe(), dataset.describe_bad(), classes.note]
    notes.append(_compare_sizes(*models))
    speed = None
    if min_speedup is not None:
        target = dataclasses.replace(target or Target(threads=1), batch=options.batch)
        speed = profile(*models, target=target, with_footprint=False, seed=options.seed, on_stage=tell)
        notes += [*speed.notes, speed.noise.describe()]
    return Validation(
        reference=sides[0],
        candidate=sides[1],
        samples=measured.samples,
        is_made_up=dataset is None,
        classes=classes,
        accuracy_drop=drop,
        agreement=measured.agreement,
        bad=() if dataset is None else tuple(dataset.bad),
        gates=_check(limits, sides[1], drop, measured.agreement, speed),
        notes=tuple(text for text in dict.fromkeys((*notes, *opened.notes, *measured.notes)) if text),
        speed=speed,
    )


def _compare_sizes(reference: Model, candidate: Model) -> str:
    """Say that the MACs are not of equal inputs, where the files state other batches."""
    first, second = (
        ", ".join(f"{name} {shape(sizes)}" for name, sizes in model.inputs.items()) for model in (reference, candidate)
    )
    text = f"MACs are those of one run: of {first} in the reference, {second} in the candidate"
    return "" if first == second else text


def _check_limits(limits: _Limits, model: Model, *, has_data: bool) -> None:
    """Refuse, before anything is run, what cannot be measured."""
    for value, option in ((limits.max_accuracy_drop, "--max-accuracy-drop"), (limits.min_agreement, "--min-agreement")):
        if value is not None and not has_data:
            raise DataError(f"{option} is measured on samples: give --data too")
    if limits.min_agreement is not None and not has_classes(model):
        raise DataError("--min-agreement compares classes, and no output of this model has any")


def _check(
    limits: _Limits, candidate: Side, drop: Estimate | None, agreement: Sequence[Agreement], speed: Profile | None
) -> tuple[Gate, ...]:
    found = []
    if limits.max_accuracy_drop is not None:
        found.append(at_most("accuracy_drop", None if drop is None else drop.mean, limits.max_accuracy_drop))
    if limits.min_agreement is not None:
        main = find_main(agreement)
        share = None if main is None or main.top1 is None else main.top1.mean
        found.append(at_least("agreement", share, limits.min_agreement))
    if limits.max_size is not None:
        found.append(at_most("size", candidate.size_bytes, limits.max_size))
    if limits.min_speedup is not None and speed is not None:
        found.append(at_least("speedup", speed.comparisons[0].speedups[0].value, limits.min_speedup))
    return tuple(found)
