"""`srr-onnx finetune`: training, from a pruned file to a better one of the same graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import click

from srr_onnx.cli import options
from srr_onnx.cli.data_options import SOURCE_KEYS, make_dataset, source_options
from srr_onnx.cli.progress import show_progress
from srr_onnx.cli.report import note_guess
from srr_onnx.cli.run_options import check_written
from srr_onnx.cli.tables import note, show_json, show_line, show_table
from srr_onnx.finetuning.finetune import fine_tune
from srr_onnx.finetuning.judging import Verdict
from srr_onnx.finetuning.options import Augmentation, Loss, Norms, Optimizer, Precision, TrainingOptions
from srr_onnx.finetuning.result import FineTuned
from srr_onnx.graph.load import load_model
from srr_onnx.planning.plan import load_plan
from srr_onnx.validation.estimates import Estimate, estimate_share
from srr_onnx.wording import counted, interval, percent

_USUAL = TrainingOptions()
_AUGMENTATIONS = get_args(Augmentation)


def _setting(name: str, kind: Any, help_text: str, metavar: str | None = None) -> Any:
    """An option for one of the `TrainingOptions`, with its usual value."""
    usual = getattr(_USUAL, name)
    return click.option(
        f"--{name.replace('_', '-')}",
        type=click.Choice(get_args(kind)) if get_args(kind) else kind,
        default=usual,
        show_default=usual is not None,
        metavar=metavar,
        help=help_text,
    )


def _read_augment(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    names = () if value == "none" else tuple(name.strip() for name in value.split(","))
    for name in names:
        if name not in _AUGMENTATIONS:
            known = ", ".join(_AUGMENTATIONS)
            raise click.BadParameter(f"{name!r} is not known: give none, or some of {known}", ctx, param)
    return names


def _read_pairs(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    """Read NAME or NAME=TEACHERS_NAME; a name may hold = itself only where both are given."""
    pairs = (value.partition("=")[::2] for value in values)
    return {ours: theirs or ours for ours, theirs in pairs}


training_options = options.combine(
    _setting("epochs", click.IntRange(min=1), "Passes over the training samples.", "N"),
    _setting("batch", click.IntRange(min=1), "Samples per forward pass, over all devices.", "N"),
    _setting("accumulate", click.IntRange(min=1), "Batches whose gradients are added up for a step.", "N"),
    _setting("loss", Loss, "What is trained on. auto: teacher and labels where there are both, else the one there is."),
    _setting("distillation", float, "Share of the teacher in the loss where there are labels too.", "SHARE"),
    _setting("temperature", float, "Softens the classes of teacher and student.", "NUMBER"),
    _setting("feature_weight", float, "Weight of every --feature.", "NUMBER"),
    _setting("label_smoothing", float, "Share of a label that is spread over all classes.", "SHARE"),
    _setting("mixup", float, "Parameter of the beta distribution that samples are mixed by; 0 mixes none.", "NUMBER"),
    click.option(
        "--augment",
        callback=_read_augment,
        default=",".join(_USUAL.augment),
        show_default=True,
        metavar="NAMES",
        help="What happens to pictures: none, or some of flip, crop, randaugment.",
    ),
    _setting("optimizer", Optimizer, "How the weights move."),
    _setting("lr", float, "Highest learning rate.  [default: 0.01 for sgd, 0.0003 for adamw]", "NUMBER"),
    _setting("weight_decay", float, "Decay of weights; biases and scales do not decay.", "NUMBER"),
    _setting("warmup", float, "Share of the steps in which the rate rises; then it falls along a cosine.", "SHARE"),
    _setting("clip", float, "Largest norm of the gradients; 0 does not clip.", "NUMBER"),
    _setting("ema", float, "Decay of a moving average of the weights, which is written then; 0: none.", "DECAY"),
    _setting("precision", Precision, "Bits of the numbers that training computes in."),
    _setting("norms", Norms, "Whether folded normalizations are put back for training; auto: if the file has none."),
    _setting("frozen", float, "Last share of the steps, in which statistics of normalizations stand still.", "SHARE"),
    _setting("recalibrate", click.IntRange(min=0), "Batches to take these statistics anew over in the end.", "N"),
    _setting("held_out", float, "Share of the samples that is kept to judge by.", "SHARE"),
    _setting("patience", click.IntRange(min=0), "Stop after so many epochs without a better figure; 0: never.", "N"),
    _setting("checkpoint_every", click.IntRange(min=1), "Steps between checkpoints, besides one per epoch.", "N"),
    _setting("seed", click.IntRange(min=0), "For everything random.", "N"),
    _setting("workers", click.IntRange(0, 1024), "Processes that read samples; 0 reads in the process itself.", "N"),
    _setting("devices", click.IntRange(min=1), "Devices, or processes on the CPU, on each machine.", "N"),
    _setting("nodes", click.IntRange(min=1), "Machines.", "N"),
    _setting("accelerator", str, "What computes: auto, cpu, gpu or another that Lightning knows.", "NAME"),
)


@click.command()
@options.model_argument
@options.make_output_option("finetuned")
@click.option(
    "--teacher",
    type=click.Path(path_type=Path, readable=False),
    metavar="OTHER.onnx",
    help="Model to be like, as a rule the one before pruning; needs no labels.",
)
@click.option(
    "--plan",
    "plan_path",
    type=click.Path(path_type=Path, readable=False),
    metavar="FILE",
    help="Plan of the pruning: which channels of the teacher the model has.",
)
@click.option(
    "--head",
    "heads",
    multiple=True,
    callback=_read_pairs,
    metavar="NAME[=TEACHERS]",
    help="Compare this value in place of the outputs. May be repeated.",
)
@click.option(
    "--feature",
    "features",
    multiple=True,
    callback=_read_pairs,
    metavar="NAME[=TEACHERS]",
    help="Compare the numbers of this value besides. May be repeated.",
)
@source_options
@training_options
@options.make_run_options("checkpoints, logs and settings", "like the output, .run in place of .onnx")
@options.input_option
@options.import_option
@options.format_option
def finetune(
    model: Path,
    output: Path | None,
    teacher: Path | None,
    plan_path: Path | None,
    heads: dict[str, str],
    features: dict[str, str],
    run_dir: Path | None,
    resume: bool,
    inputs: Mapping[str, Sequence[int]],
    force: bool,
    output_format: str,
    **values: Any,
) -> None:
    """Train a pruned model on labels, to be like a teacher, or both.

    A part of the samples is held out; by it the model is judged in onnxruntime after every epoch, and the best is
    written. A run that was stopped, whatever by, goes on with --resume and comes to the same result.
    """
    if values["data"] is None:
        raise click.UsageError("a model is trained on samples: give --data")
    target = output or options.default_output(model, "finetuned")
    source = {key: values.pop(key) for key in SOURCE_KEYS}
    read = (model, teacher, plan_path, *(source[key] for key in ("data", "labels", "preprocess")))
    check_written(target, "-o", read, force=force)
    with show_progress() as tell:
        loaded = load_model(model, inputs)
        result = fine_tune(
            loaded,
            target,
            data=make_dataset(loaded, **source) or (),
            teacher=teacher,
            options=TrainingOptions(**values),
            heads=heads,
            features=features,
            plan=None if plan_path is None else load_plan(plan_path),
            run_dir=run_dir,
            resume=resume,
            force=force,
            input_shapes=inputs,
            on_stage=tell,
        )
    if result is None:  # the first process speaks for all
        return
    if output_format == "json":
        show_json(_describe(result, model, teacher))
    else:
        _show(result)
    for text in result.notes:
        note(f"note: {text}")
    note_guess(loaded)


def _describe(result: FineTuned, model: Path, teacher: Path | None) -> dict[str, Any]:
    return {
        "schema": "srr-onnx/finetune/1",
        "model": str(model),
        "teacher": None if teacher is None else str(teacher),
        "output": str(result.path),
        "run": str(result.folder),
        "samples": {"trained": result.trained_on, "held_out": result.judged_on},
        "best_epoch": result.best.epoch,
        "epochs": [{"epoch": r.epoch, "loss": r.loss, "lr": r.lr, "figure": r.figure} for r in result.rows],
        "before": _describe_verdict(result.before),
        "after": _describe_verdict(result.after),
        "teacher_accuracy": None if result.teacher is None else _describe_verdict(result.teacher)["accuracy"],
    }


def _describe_verdict(verdict: Verdict) -> dict[str, Any]:
    accuracy = verdict.accuracy
    return {
        "figure": verdict.figure,
        "accuracy": None if accuracy is None else estimate_share(accuracy.correct, accuracy.samples).to_json(),
        "agreement": None if verdict.agreement is None else verdict.agreement.to_json(),
    }


def _show(result: FineTuned) -> None:
    rows: list[tuple[str, ...]] = []
    columns = ["", "before", "after"]
    pair = result.before, result.after
    if result.before.accuracy is not None:
        rows.append(("accuracy", *(_write_accuracy(verdict) for verdict in pair)))
        if result.teacher is not None:
            columns.append("teacher")
            rows[-1] = (*rows[-1], _write_accuracy(result.teacher))
    for label, key, write in (
        ("same top-1 as the teacher", "top1", percent),
        ("cosine to the teacher's output", "cosine", "{:.4f}".format),
        ("KL from the teacher, nats", "kl", "{:.3g}".format),
    ):
        found = [getattr(verdict.agreement, key, None) for verdict in pair]
        cells = [_write(estimate, write) for estimate in found if estimate is not None]
        if len(cells) == len(pair):
            rows.append((label, *cells, *[""] * (len(columns) - 3)))
    show_table(columns, rows)
    show_line()
    best = result.best
    epochs, samples = counted(len(result.rows), "epoch"), counted(result.trained_on, "sample")
    show_line(f"trained   {epochs} on {samples}; the best is epoch {best.epoch}")
    judged_on = counted(result.judged_on, "sample")
    show_line(f"measured  in onnxruntime on {judged_on} that were held out; intervals of 95 %")
    show_line(f"written   {result.path}; checkpoints and logs in {result.folder}")


def _write_accuracy(verdict: Verdict) -> str:
    assert verdict.accuracy is not None, "all models are judged alike"
    return _write(estimate_share(verdict.accuracy.correct, verdict.accuracy.samples), percent)


def _write(found: Estimate, write: Any) -> str:
    return f"{write(found.mean)} ({interval(found.low, found.high, write)})"
