"""FINE-TUNE: the whole of it: a pruned file and samples to a better file of the same graph.

    load > judge > to torch > train > judge after every epoch > back into the file > judge what was written

What is judged, always in onnxruntime, are samples that training never sees. Where several processes train together, all
of them call this; the first one judges and writes.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from srr_onnx.data.dataset import Dataset, split_held_out
from srr_onnx.data.preprocessing import Preprocessing
from srr_onnx.errors import DataError, OutputError, TrainingError
from srr_onnx.finetuning.augmentation import make_augmenter
from srr_onnx.finetuning.batch_norm import insert_norms
from srr_onnx.finetuning.bridge import from_torch, to_torch
from srr_onnx.finetuning.datasets import Course, Order, TrainingSamples, make_loader
from srr_onnx.finetuning.judging import Judge, Verdict
from srr_onnx.finetuning.keeper import Keeper
from srr_onnx.finetuning.objective import Objective, make_objective
from srr_onnx.finetuning.options import TrainingOptions
from srr_onnx.finetuning.run_folder import EpochRow, RunFolder, identify
from srr_onnx.finetuning.torch_graph import TorchGraph
from srr_onnx.finetuning.trainer import fit, freeze_unreached, make_trainer
from srr_onnx.finetuning.training import Training
from srr_onnx.graph.load import load_model
from srr_onnx.graph.model import Model
from srr_onnx.graph.save import check_target, save_model
from srr_onnx.planning.plan import Plan
from srr_onnx.validation.evaluate import load, load_beside, read

Source = str | os.PathLike[str] | Model
OnStage = Callable[[str, int, int], None]

# Samples that are tried before training begins.
_TRIED = 2
# Samples that the statistics of normalizations are taken from, where these are put back.
_NORMED = 512


@dataclasses.dataclass(frozen=True, eq=False)
class FineTuned:
    """What training has made.

    Attributes:
        model: The trained model.
        path: Where it was written; None where it was not.
        before: What held-out samples said of the model before training.
        after: What they say of the trained one, read from the file that was written.
        teacher: What they say of the teacher; None without one, or without labels.
        rows: What was noted of every epoch.
        best: The epoch whose weights were taken.
        trained_on: Samples that were trained on.
        judged_on: Samples that were held out.
        folder: Checkpoints, logs and settings of the run.
        notes: What the user should know.
    """

    model: Model
    path: Path | None
    before: Verdict
    after: Verdict
    teacher: Verdict | None
    rows: tuple[EpochRow, ...]
    best: EpochRow
    trained_on: int
    judged_on: int
    folder: Path
    notes: tuple[str, ...]


def fine_tune(
    source: Source,
    output: str | os.PathLike[str] | None = None,
    *,
    data: Dataset | str | os.PathLike[str] | Iterable[Any],
    teacher: Source | None = None,
    labels: str | os.PathLike[str] | None = None,
    preprocessing: Preprocessing | None = None,
    options: TrainingOptions | None = None,
    heads: Mapping[str, str] | None = None,
    features: Mapping[str, str] | None = None,
    plan: Plan | None = None,
    run_dir: str | os.PathLike[str],
    resume: bool = False,
    force: bool = False,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    on_stage: OnStage | None = None,
) -> FineTuned | None:
    """Train a model on labels, to be like a teacher, or both.

    Args:
        source: ONNX file or loaded model, as a rule a pruned one.
        output: File to write; None writes none besides the run's own.
        data: Samples: a data set, or what `srr_onnx.open_data` takes.
        teacher: Model to be like, as a rule the one before pruning; with the same inputs and outputs.
        labels: File with one label per sample; not for a data set that is open already.
        preprocessing: What is done to pictures; by default what the model's metadata say, else a usual one.
        options: Every setting of the training.
        heads: Values that are compared with the teacher's in place of the outputs: our name, the teacher's.
        features: Values whose numbers are compared besides: our name, the teacher's.
        plan: How the model was pruned: tells which channels of the teacher's features it has.
        run_dir: Folder for checkpoints, logs and settings.
        resume: Whether the run that is in this folder goes on.
        force: Whether an existing file, or a run in the folder, may be replaced.
        input_shapes: Shape per input, for files with dynamic axes.
        on_stage: Told the name of every stage, steps done and steps in all, for a progress display.

    Returns:
        What was made; None in all processes but the first, where several train together.

    Raises:
        TrainingError: The settings do not go together, or training has gone astray.
        DataError: The data cannot be read, or do not fit.
        UnsupportedError: An operator of the model cannot be trained.
        OutputError: The file cannot be written.
        ModelError: A model cannot be loaded or run.
    """
    tell, options = on_stage or (lambda stage, done, steps: None), options or TrainingOptions()
    tell("load", 0, 1)
    model = load(source, input_shapes)
    wanted = None if teacher is None else load_beside(model, teacher, input_shapes)
    if output is not None:
        _check_output(Path(output), (source, teacher, labels, data), force=force)
    tell("read", 0, 1)
    dataset = read(data, model, preprocessing, labels)
    training_set, held_out = _split(dataset, options)
    judge = Judge(model, wanted, held_out)
    objective = make_objective(
        model,
        wanted,
        dataset,
        options,
        heads=heads,
        features=features,
        kept=None if plan is None else plan.kept_positions(),
    )
    _check_labels(dataset, objective)
    folder = RunFolder(Path(run_dir))
    trainer = make_trainer(options, folder)
    settings = {
        "model": model.sha256,
        "teacher": None if wanted is None else wanted.sha256,
        "data": identify(dataset),
        "heads": dict(heads or {}),
        "features": dict(features or {}),
        **options.settle(),
    }
    if trainer.is_global_zero:
        folder.begin(settings, resume=resume, force=force)
    tell("compare", 0, 1)
    before = judge.measure(model, is_final=True) if trainer.is_global_zero else None

    tell("prepare", 0, 1)
    student = to_torch(model, cut=tuple(heads or ()))
    elder = None if wanted is None or not objective.terms else to_torch(wanted, cut=tuple((heads or {}).values()))
    order = Order(
        len(training_set), _fit_batch(options, training_set), options.seed, options.processes, trainer.global_rank
    )
    plain = TrainingSamples(training_set, options.seed)
    has_norms = any(node.op_type == "BatchNormalization" for node in model.nodes)
    if options.norms == "insert" or (options.norms == "auto" and not has_norms):
        _insert_norms(student, elder, plain, order, plan)
    training = Training(
        student,
        elder,
        objective,
        options,
        inputs=tuple(model.inputs),
        shared=dataset.shared,
        classes=_count_classes(model, objective),
        steps=-(-order.per_epoch * options.epochs // options.accumulate),
    )
    tried = plain.collate([plain[0, index] for index in range(min(_TRIED, len(plain)))])
    unreached = freeze_unreached(training, tried)
    samples = TrainingSamples(training_set, options.seed, make_augmenter(model, dataset, options.augment))
    keeper = Keeper(options, order.per_epoch, judge, folder, student, tell)
    loader = make_loader(samples, Course(order, keeper.total, lambda: keeper.done), options.workers)
    fit(trainer, training, keeper, loader, folder.last if resume and folder.last.exists() else None)
    if before is None:
        return None

    tell("compare", 0, 1)
    trained, best = load_model(folder.best, input_shapes), keeper.best
    assert best is not None, "a training has an epoch at least"
    if options.recalibrate:
        other = _recalibrate(keeper, student, _read_plain(plain, order, student, options.recalibrate))
        trained = other if judge.measure(other).figure > best.figure else trained
    if output is not None:
        tell("save", 0, 1)
        save_model(trained, output, force=force)
        trained = load_model(output, input_shapes)
    after = judge.measure(trained, is_final=True)
    tell("done", 1, 1)
    return FineTuned(
        model=trained,
        path=None if output is None else Path(output),
        before=before,
        after=after,
        teacher=None if wanted is None or before.accuracy is None else judge.measure(wanted),
        rows=tuple(keeper.rows),
        best=best,
        trained_on=len(training_set),
        judged_on=len(held_out),
        folder=folder.path,
        notes=_collect_notes(dataset, objective, student, unreached, keeper, before, after),
    )


def _insert_norms(
    student: TorchGraph, elder: TorchGraph | None, samples: TrainingSamples, order: Order, plan: Plan | None
) -> None:
    """Put normalizations back, with statistics of the unpruned model where it is known which channels are the same."""
    feeds = _read_plain(samples, order, student, max(1, _NORMED // order.batch))
    kept = None
    if plan is not None:
        kept = {name: keep.tolist() for (name, axis), keep in plan.kept_positions().items() if axis == 1}
    insert_norms(student, feeds, reference=elder if kept is not None else None, kept=kept)


def _read_plain(samples: TrainingSamples, order: Order, student: TorchGraph, batches: int) -> Iterator[list[Tensor]]:
    """Inputs of a few batches of the first epoch."""
    for keys in dataclasses.replace(order, processes=1, rank=0).keys(0, min(batches, order.per_epoch)):
        yield samples.feed(samples.collate([samples[key] for key in keys]), student.inputs)


@torch.no_grad()
def _recalibrate(keeper: Keeper, student: TorchGraph, feeds: Iterable[Sequence[Tensor]]) -> Model:
    """The student with statistics of its normalizations from samples that nothing was done to."""
    with keeper.applied(student):
        student.train()
        for feed in feeds:
            student(*feed)
        return from_torch(student)


def _check_output(output: Path, read_from: Iterable[Any], *, force: bool) -> None:
    for path in read_from:
        path = path.source if isinstance(path, Model) else path
        if isinstance(path, (str, os.PathLike)) and os.path.realpath(path) == os.path.realpath(output):
            raise OutputError(f"{str(output)!r} is a file that is read: choose another name with -o")
    check_target(output, force)


def _split(dataset: Dataset, options: TrainingOptions) -> tuple[Dataset, Dataset]:
    """Samples to train on, and samples to judge by."""
    if dataset.is_made_up:
        raise TrainingError("made-up pictures teach nothing about real ones: give pictures with --data")
    if len(dataset) < 2:
        raise DataError(f"{dataset.name!r} holds a single sample: give at least 2, one to train on and one to judge by")
    training, held_out = split_held_out(np.arange(len(dataset)), options.held_out, options.seed)
    return dataset.select(training), dataset.select(held_out)


def _check_labels(dataset: Dataset, objective: Objective) -> None:
    if objective.logits is None or dataset.labels is None or len(np.unique(dataset.labels)) > 1:
        return
    raise DataError(
        f"all {len(dataset):,} samples of {dataset.name!r} have the label {dataset.labels[0]}, which teaches nothing: "
        "give samples of several classes, or train with --teacher and --loss distillation"
    )


def _fit_batch(options: TrainingOptions, samples: Dataset) -> int:
    """A batch that the samples can fill, of as many for every process."""
    most = len(samples) // options.processes * options.processes
    if not most:
        raise DataError(f"{len(samples)} samples to train on are too few for {options.processes} processes")
    return min(options.batch, most)


def _count_classes(model: Model, objective: Objective) -> int:
    if objective.logits is None or not objective.options.mixup:
        return 0
    shape = model.shapes.get(objective.logits)
    if shape is None:
        raise TrainingError("mixup mixes labels, and the file does not tell how many classes there are: give --mixup 0")
    return max(shape[1:])


def _collect_notes(
    dataset: Dataset,
    objective: Objective,
    student: TorchGraph,
    unreached: int,
    keeper: Keeper,
    before: Verdict,
    after: Verdict,
) -> tuple[str, ...]:
    notes = [dataset.describe(), *objective.notes, *student.notes]
    if unreached:
        notes.append(f"{unreached} tensors stay as they are: what is compared does not depend on them")
    if keeper.bad:
        first = next(iter(keeper.bad.values()))
        notes.append(
            f"{len(keeper.bad):,} samples could not be read, others took their places; the first is {first.name!r}: "
            f"{first.reason}"
        )
    if after.figure <= before.figure:
        notes.append("the result is no better than what it began with: train longer, or with another --lr")
    return tuple(notes)
