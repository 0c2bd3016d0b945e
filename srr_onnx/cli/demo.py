"""`srr-onnx demo`: the whole job on the bundled model, with accuracy and latency before and after."""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import numpy as np

from srr_onnx.cli.progress import show_progress
from srr_onnx.cli.report import collect_facts, describe_compensation, proof_text
from srr_onnx.cli.tables import show_line, show_table
from srr_onnx.errors import OutputError, SrrError
from srr_onnx.graph.load import load_model
from srr_onnx.graph.model import Model
from srr_onnx.pipeline import prune
from srr_onnx.planning.plan import load_plan
from srr_onnx.targets.onnxruntime import Session
from srr_onnx.validation.accuracy import Accuracy, measure_accuracy, split_batches
from srr_onnx.validation.latency import Latency, measure_latency
from srr_onnx.wording import milliseconds, percent, quantity, removed

FLOPS = 0.44
ROUNDS = 200
_WHEN = ("before", "after", "after")
ASSETS = importlib.resources.files("srr_onnx") / "assets"


@click.command()
@click.option(
    "--out",
    "folder",
    type=click.Path(path_type=Path, readable=False),
    default=".",
    show_default=True,
    metavar="DIR",
    help="Folder for pruned.onnx and plan.json.",
)
def demo(folder: Path) -> None:
    """Prune the bundled model; measure accuracy and latency before and after.

    The model is a ResNet-20 that tells nine kinds of emoji apart at 32x32 pixels. 44 % of its FLOPs go, chosen and
    compensated with bundled images of which the labels are not read. Accuracy is measured on other images.
    """
    output, plan_path = folder / "pruned.onnx", folder / "plan.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {str(folder)!r} cannot be made: {error.strerror}") from error
    with importlib.resources.as_file(ASSETS / "resnet20_emoji.onnx") as path, show_progress() as tell:
        model = load_model(path)
        _check_folder(model, output, plan_path)
        with importlib.resources.as_file(ASSETS / "emoji_train.npz") as images:
            result = prune(model, output, flops=FLOPS, data=images, plan_path=plan_path, force=True, on_stage=tell)
        tell("measure", 0, 1)
        assert result.proven is not None, "the result of a budget"
        measured = _measure(model, result.proven, load_model(output))
    facts = collect_facts("demo", model, result.plan, output, plan_path)
    cost, size = facts["cost"], facts["file_bytes"]
    sizes = [size["before"], size["after"], size["after"]]
    rows = [
        _row("MACs", [cost[when]["macs"] for when in _WHEN], quantity),
        _row("parameters", [cost[when]["params"] for when in _WHEN], quantity),
        _row("file size", sizes, lambda count: quantity(count, "B")),
        _row(f"accuracy on {measured[0][0].samples:,} images", [a.top1 for a, _ in measured], percent, is_share=True),
        _row("latency, median", [latency.median for _, latency in measured], milliseconds),
        _row("latency, fastest run", [latency.fastest for _, latency in measured], milliseconds),
    ]
    show_table(("ResNet-20, nine kinds of emoji", "before", "pruned", "compensated", "change"), rows)
    show_line()
    lines = [("proof", proof_text(facts)), *describe_compensation(facts), ("written", f"{output}, {plan_path}")]
    lines.append(("counted", f"{facts['convention']}; latency of {ROUNDS} runs on one thread, one image each"))
    for label, text in lines:
        show_line(f"{label:<10}{text}")
    show_line()
    show_line("Nothing was trained, and no label was read but to measure the accuracy.")


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


def _check_folder(model: Model, output: Path, plan_path: Path) -> None:
    """Only files of an earlier demo are replaced without asking."""
    if not (output.exists() or plan_path.exists()):
        return
    try:
        is_ours = load_plan(plan_path).sha256 == model.sha256
    except SrrError:
        is_ours = False
    if not is_ours:
        taken = output if output.exists() else plan_path
        raise OutputError(f"{str(taken)!r} exists and is not of an earlier demo: choose another folder with --out")
