"""VALIDATE: accuracy and agreement of models from one pass over the samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from srr_onnx.data.dataset import Batch, Dataset, choose
from srr_onnx.errors import DataError
from srr_onnx.rewriting.verify import make_feeds
from srr_onnx.validation.accuracy import Accuracy, AccuracyCount
from srr_onnx.validation.agreement import Agreement, AgreementCount
from srr_onnx.validation.classes import find_class_axis
from srr_onnx.validation.runs import Opened, Run, choose_batch, count_cores, run_models

OnStage = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How samples are run; every entry has a usual value.

    Attributes:
        limit: So many samples, chosen at random; all by default.
        batch: Samples per run; as many as the model takes efficiently by default.
        workers: Runs beside each other; one per core by default. The results do not depend on it.
        seed: For the choice of samples, and for intervals.
        class_output: Output with one column per class; found by its shape by default.
    """

    limit: int | None = None
    batch: int | None = None
    workers: int | None = None
    seed: int = 0
    class_output: str | None = None

    def __post_init__(self) -> None:
        for key in ("limit", "batch", "workers"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise DataError(f"{key} is {value}: give at least 1")


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """What samples say of models.

    Attributes:
        samples: How many were run.
        batch: Samples per run.
        accuracies: One per model; empty without labels.
        agreement: How the last model compares with the first, per output; empty for one model.
        notes: What the user should know.
    """

    samples: int
    batch: int
    accuracies: tuple[Accuracy, ...]
    agreement: tuple[Agreement, ...]
    notes: tuple[str, ...]


def measure_on_data(
    opened: Opened, dataset: Dataset, options: RunOptions, *, output: str | None, tell: OnStage
) -> Measured:
    """Run models on samples and count.

    Args:
        opened: The models.
        dataset: The samples.
        options: How they are run.
        output: Output with one column per class, by `find_classes`; None for no accuracy.
        tell: Told how far it is.

    Returns:
        What was found.

    Raises:
        DataError: Not one sample can be read, or an output is not what is needed.
        ModelError: A model cannot run on the samples.
    """
    indices = np.arange(len(dataset)) if options.limit is None else choose(dataset, options.limit, options.seed)
    size = choose_batch(opened, dataset, indices, options.batch)
    steps = -(-len(indices) // size)
    runs = run_models(
        opened, dataset.batches(size, indices), size, options.workers or count_cores(), shared=dataset.shared
    )
    return _count(opened, runs, size, options, output, lambda done: tell("evaluate", done, steps))


def measure_on_random(opened: Opened, count: int, options: RunOptions, tell: OnStage) -> Measured:
    """Run models on made-up inputs: standard normal numbers, small whole ones.

    Args:
        opened: The models.
        count: Runs.
        options: How they are run.
        tell: Told how far it is.

    Returns:
        What was found: agreement only.

    Raises:
        DataError: There is no output to compare, or the candidate is not finite.
        ModelError: A model cannot run.
    """
    model = opened.models[0]
    size = max((shape[0] for shape in model.inputs.values() if shape), default=1)

    def make_batches() -> Iterator[Batch]:
        for number in range(count):
            yield Batch(make_feeds(model, options.seed + number), None, np.arange(size) + number * size)

    runs = run_models(opened, make_batches(), size, options.workers or count_cores())
    return _count(opened, runs, size, options, None, lambda done: tell("evaluate", done, count))


def _count(
    opened: Opened,
    runs: Iterator[Run],
    size: int,
    options: RunOptions,
    output: str | None,
    on_run: Callable[[int], None],
) -> Measured:
    counts = [AccuracyCount(output) for _ in opened.models] if output is not None else []
    reference = opened.models[0]
    agreement: AgreementCount | None = None
    samples = 0
    for done, run in enumerate(runs):
        on_run(done)
        samples += len(run.batch.indices)
        for count, outputs in zip(counts, run.outputs, strict=False):
            assert run.batch.labels is not None, "accuracy is asked for with labels only"
            count.add(outputs, run.batch.labels)
        if len(opened.models) > 1:
            if agreement is None:
                axes = {name: find_class_axis(reference, name, array.shape) for name, array in run.outputs[0].items()}
                agreement = AgreementCount(reference.outputs, axes)
            agreement.add(run.outputs[0], run.outputs[-1], len(run.batch.indices))
    notes = [
        f"{'the model' if place == len(opened.models) - 1 else 'the reference'} runs in float32: onnxruntime does not "
        "take its own element type"
        for place in opened.replaced
    ]
    found: list[Agreement] = []
    if agreement is not None:
        found = agreement.summarize(options.seed)
        notes += [f"output {name!r} is not compared: {why}" for name, why in agreement.skipped.items()]
    return Measured(samples, size, tuple(count.summarize() for count in counts), tuple(found), tuple(notes))
