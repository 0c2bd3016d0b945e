"""`srr-onnx demo`: the whole job on the bundled model: original, pruned, compensated and fine-tuned side by side."""

from __future__ import annotations

import importlib.resources
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import numpy as np

from srr_onnx.cli.progress import OnStage, show_progress
from srr_onnx.cli.report import collect_facts, describe_compensation, proof_text
from srr_onnx.cli.tables import show_line, show_table
from srr_onnx.errors import MissingDependencyError, OutputError, SrrError
from srr_onnx.graph.cost import count_cost
from srr_onnx.graph.load import load_model
from srr_onnx.graph.model import Model
from srr_onnx.graph.save import make_folder
from srr_onnx.pipeline import prune
from srr_onnx.planning.plan import Plan, load_plan
from srr_onnx.targets.onnxruntime import Session
from srr_onnx.validation.accuracy import Accuracy, measure_accuracy, split_batches
from srr_onnx.validation.latency import Latency, measure_latency
from srr_onnx.wording import milliseconds, percent, quantity, removed

FLOPS, ALIGN = 0.44, 8
ROUNDS = 200
EPOCHS, RATE = 4, 0.01
_NAMES = ("before", "pruned", "compensated", "fine-tuned")
ASSETS = importlib.resources.files("srr_onnx") / "assets"


@click.command()
@click.option(
    "--out",
    "folder",
    type=click.Path(path_type=Path, readable=False),
    default=".",
    show_default=True,
    metavar="DIR",
    help="Folder for pruned.onnx, plan.json and finetuned.onnx.",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=0),
    default=EPOCHS,
    show_default=True,
    metavar="N",
    help="Passes over the bundled training images; 0 leaves fine-tuning out.",
)
def demo(folder: Path, epochs: int) -> None:
    """Prune and fine-tune the bundled model; measure accuracy and latency of every stage.

    The model is a ResNet-20 that tells nine kinds of emoji apart at 32x32 pixels. 44 % of its FLOPs go, so that
    multiples of 8 channels stay, chosen and compensated with bundled images of which the labels are not read. Then it
    is trained on them, with their labels and the original as a teacher, if PyTorch is installed. Accuracy is measured
    on other images.
    """
    output, plan_path, tuned_path = folder / "pruned.onnx", folder / "plan.json", folder / "finetuned.onnx"
    make_folder(folder)
    missing = ""
    with importlib.resources.as_file(ASSETS / "resnet20_emoji.onnx") as path, show_progress() as tell:
        model = load_model(path)
        _check_folder(model, output, plan_path, tuned_path)
        with importlib.resources.as_file(ASSETS / "emoji_train.npz") as images:
            result = prune(
                model, output, flops=FLOPS, align=ALIGN, data=images, plan_path=plan_path, force=True, on_stage=tell
            )
            assert result.proven is not None, "the result of a budget"
            models = [model, result.proven, load_model(output)]
            try:
                if epochs:
                    models.append(_fine_tune(models[-1], tuned_path, model, result.plan, images, epochs, tell))
            except MissingDependencyError as error:
                missing = str(error)
        tell("measure", 0, 1)
        measured = _measure(*models)
    facts = collect_facts("demo", model, result.plan, output, plan_path)
    costs = [count_cost(one) for one in models]
    sizes = [model.size_bytes, *[models[2].size_bytes] * 2, *(one.size_bytes for one in models[3:])]
    rows = [
        _row("MACs", [cost.macs for cost in costs], quantity),
        _row("parameters", [cost.params for cost in costs], quantity),
        _row("file size", sizes, lambda count: quantity(count, "B")),
        _row(f"accuracy on {measured[0][0].samples:,} images", [a.top1 for a, _ in measured], percent, is_share=True),
        _row("latency, median", [latency.median for _, latency in measured], milliseconds),
        _row("latency, fastest run", [latency.fastest for _, latency in measured], milliseconds),
    ]
    show_table(("ResNet-20, nine kinds of emoji", *_NAMES[: len(models)], "change"), rows)
    show_line()
    written = [output, plan_path, *[tuned_path] * (len(models) - 3)]
    lines = [("proof", proof_text(facts)), *describe_compensation(facts), ("written", ", ".join(map(str, written)))]
    lines.append(("counted", f"{facts['convention']}; latency of {ROUNDS} runs on one thread, one image each"))
    for label, text in lines:
        show_line(f"{label:<10}{text}")
    show_line()
    if missing:
        show_line(f"Not fine-tuned: {missing}")
    show_line("Pruning and compensation trained nothing, and read no label but to measure the accuracy.")


def _fine_tune(
    pruned: Model, output: Path, teacher: Model, plan: Plan, images: Path, epochs: int, tell: OnStage
) -> Model:
    """Train for a minute or so; checkpoints and logs are not kept."""
    from srr_onnx.finetuning.finetune import fine_tune  # torch comes with it, where it is installed
    from srr_onnx.finetuning.options import TrainingOptions

    with tempfile.TemporaryDirectory() as run_dir:
        result = fine_tune(
            pruned,
            output,
            data=images,
            teacher=teacher,
            plan=plan,
            options=TrainingOptions(epochs=epochs, lr=RATE),
            run_dir=Path(run_dir) / "run",
            force=True,
            on_stage=tell,
        )
    assert result is not None, "this is the only process"
    return result.model


def _measure(*models: Model) -> list[tuple[Accuracy, Latency]]:
    """Accuracy on the bundled sample and latency of models with the same input."""
    with importlib.resources.as_file(ASSETS / "emoji_test.npz") as path, np.load(path) as sample:
        images, labels = sample["x"].astype(np.float32) / 255, sample["y"]
    sessions = [Session(model, threads=1) for model in models]
    (name,) = models[0].inputs
    accuracies = [measure_accuracy(session, split_batches(name, images, labels)) for session in sessions]
    runners = [session.make_runner({name: images[:1]}) for session in sessions]
    timings = measure_latency(runners, rounds=ROUNDS, warm_up=20)
    return list(zip(accuracies, timings, strict=True))


def _row(label: str, values: Sequence[float], write: Callable[[float], str], is_share: bool = False) -> tuple[str, ...]:
    before, after = values[0], values[-1]
    change = f"{(after - before) * 100:+.1f} points" if is_share else removed(before, after)
    return label, *(write(value) for value in values), change


def _check_folder(model: Model, output: Path, plan_path: Path, tuned_path: Path) -> None:
    """Only files of an earlier demo are replaced without asking."""
    there = [path for path in (output, tuned_path, plan_path) if path.exists()]
    if not there:
        return
    try:
        is_ours = load_plan(plan_path).sha256 == model.sha256
    except SrrError:
        is_ours = False
    if not is_ours:
        raise OutputError(f"{str(there[0])!r} exists and is not of an earlier demo: choose another folder with --out")
