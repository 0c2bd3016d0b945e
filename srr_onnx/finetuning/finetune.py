"""FINE-TUNE: the whole of it: a pruned file and samples to a better file of the same graph.

    load > judge > to torch > train > judge after every epoch > back into the file > judge what was written

What is judged, always in onnxruntime, are samples that training never sees. Where several processes train together, all
of them call this; the first one judges and writes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from srr_onnx.data.dataset import Dataset
from srr_onnx.data.preprocessing import Preprocessing
from srr_onnx.data.run_settings import hash_json, identify
from srr_onnx.errors import OutputError, TrainingError
from srr_onnx.finetuning.augmentation import make_augmenter
from srr_onnx.finetuning.bridge import to_torch
from srr_onnx.finetuning.datasets import Course, Order, TrainingSamples, make_loader
from srr_onnx.finetuning.judging import Judge
from srr_onnx.finetuning.keeper import Keeper
from srr_onnx.finetuning.objective import make_objective
from srr_onnx.finetuning.options import TrainingOptions
from srr_onnx.finetuning.preparing import (
    check_labels,
    count_classes,
    fit_batch,
    put_norms_back,
    read_plain,
    recalibrate,
    split_samples,
)
from srr_onnx.finetuning.result import FineTuned, collect_notes
from srr_onnx.finetuning.run_folder import RunFolder
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
    run_dir: str | os.PathLike[str] | None = None,
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
        run_dir: Folder for checkpoints, logs and settings; by default the output's name with .run in place of .onnx.
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
    folder = _find_folder(run_dir, output)
    _check_places(output, folder, (source, teacher, labels, data), force=force)
    tell("read", 0, 1)
    dataset = read(data, model, preprocessing, labels)
    training_set, held_out = split_samples(dataset, options)
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
    check_labels(dataset, objective)
    trainer = make_trainer(options, folder)
    settings = {
        "model": model.sha256,
        "teacher": None if wanted is None else wanted.sha256,
        "plan": None if plan is None else hash_json(plan.values),
        "data": identify(dataset),
        "heads": dict(heads or {}),
        "features": dict(features or {}),
        **options.settle(),
    }
    if trainer.is_global_zero:
        _claim = folder.begin(settings, resume=resume, force=force)  # held until this returns
    tell("compare", 0, 1)
    before = judge.measure(model, is_final=True) if trainer.is_global_zero else None

    tell("prepare", 0, 1)
    student = to_torch(model, cut=objective.student_values if heads else ())
    elder = None
    if wanted is not None and objective.terms:
        elder = to_torch(wanted, cut=objective.teacher_values if heads else ())
    order = Order(
        len(training_set), fit_batch(options, training_set), options.seed, options.processes, trainer.global_rank
    )
    plain = TrainingSamples(training_set, options.seed)
    has_norms = any(node.op_type == "BatchNormalization" for node in model.nodes)
    if options.norms == "insert" or (options.norms == "auto" and not has_norms):
        put_norms_back(student, elder, plain, order, plan)
    training = Training(
        student,
        elder,
        objective,
        options,
        shared=dataset.shared,
        classes=count_classes(model, objective),
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
    best = keeper.best
    assert best is not None, "a training has an epoch at least"
    if options.recalibrate:
        other = recalibrate(keeper, student, read_plain(plain, order, student, options.recalibrate))
        if judge.measure(other).figure > best.figure:
            folder.save_best(other)
    trained = load_model(folder.best, input_shapes).lay_out_like(model)
    after = judge.measure(trained, is_final=True)
    mark = None if wanted is None or before.accuracy is None else judge.measure(wanted)
    if output is not None:  # at the very last: before that the run can go on as if nothing had been
        tell("save", 0, 1)
        save_model(trained, output, force=force)
    tell("done", 1, 1)
    return FineTuned(
        model=trained,
        path=None if output is None else Path(output),
        before=before,
        after=after,
        teacher=mark,
        rows=tuple(keeper.rows),
        best=best,
        trained_on=len(training_set),
        judged_on=len(held_out),
        folder=folder.path,
        notes=collect_notes(dataset, held_out, objective, student, unreached, keeper, before, after),
    )


def _find_folder(run_dir: str | os.PathLike[str] | None, output: str | os.PathLike[str] | None) -> RunFolder:
    if run_dir is not None:
        return RunFolder(Path(run_dir))
    if output is None:
        raise TrainingError("there is no place for checkpoints: give run_dir, or an output to keep them beside")
    return RunFolder(Path(output).with_suffix(".run"))


def _check_places(
    output: str | os.PathLike[str] | None, folder: RunFolder, read_from: Iterable[Any], *, force: bool
) -> None:
    """Check that nothing is written over that is read, and that result and run are not in each other's way."""
    paths = (source.source if isinstance(source, Model) else source for source in read_from)
    read_places = {os.path.realpath(path) for path in paths if isinstance(path, (str, os.PathLike))}
    for place in folder.files:
        if os.path.realpath(place) in read_places:
            raise OutputError(f"{str(place)!r} is a file that is read: choose another folder with --run-dir")
    if output is None:
        return
    if os.path.realpath(output) in read_places:
        raise OutputError(f"{str(output)!r} is a file that is read: choose another name with -o")
    if os.path.realpath(output) in {os.path.realpath(place) for place in (folder.path, folder.logs, *folder.files)}:
        raise OutputError(f"{str(output)!r} is a place of the run's own: choose another with -o or --run-dir")
    check_target(Path(output), force)
