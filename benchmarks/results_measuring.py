"""Prune, compensate, train and judge one network after another, in a process of its own."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import results_grid as grid
from accuracy_bench import Bench
from accuracy_grid import LEAST_SQUARES, NONE, RECALIBRATED
from accuracy_rows import Row
from accuracy_subjects import load_subject
from machine import ROOT

import srr_onnx
from srr_onnx import Model, Plan, SrrError, count_cost, load_model, save_model

KEY = ("net", "split", "seed", "images", "criterion", "reduction", "compensation", "training", "epochs", "lr")
FIELDS = (*KEY, "removed", "baseline", "accuracy", "agreement", "kl", "seconds", "hits")
_FIGURES = ("baseline", "accuracy", "agreement", "kl")
_RIVAL = ROOT / "benchmarks" / "torch_pruning_emoji.py"


@dataclasses.dataclass(frozen=True)
class Places:
    """Where things are.

    Attributes:
        zoo: Networks trained elsewhere.
        trained: Emoji networks.
        data: Image files.
        rivals: Python that has Torch-Pruning; None where there is none.
        scratch: Folder for what is not kept.
    """

    zoo: Path
    trained: Path
    data: Path
    rivals: Path | None
    scratch: Path


def list_keys(unit: grid.Unit) -> dict[tuple[str, ...], grid.Way]:
    """What tells the rows of a unit from all others, as text, and how each is made."""
    found = {}
    for compensation, training in unit.ways:
        is_trained = training in grid.TRAININGS
        recipe = (unit.recipe.epochs, unit.recipe.rate) if is_trained else (0, 0.0)
        head = (*unit.subject, unit.criterion, unit.reduction, compensation, training, *recipe)
        found[tuple(map(str, head))] = (compensation, training)
    return found


def work(places: Places, jobs: Any, answers: Any) -> None:
    """Measure units until there are no more.

    Args:
        places: Where things are.
        jobs: Queue of units with the keys of the rows that are wanted; None ends it.
        answers: Queue for rows, and for lines that the user should read; None says that this process has ended.
    """
    tempfile.tempdir = str(places.scratch)
    bench, current = None, None
    with contextlib.ExitStack() as stack:
        for unit, keys in iter(jobs.get, None):
            if unit.subject != current:
                stack.close()
                bench, current = None, unit.subject
                found = load_subject(
                    unit.net, unit.split, unit.seed, places.zoo, places.trained, places.data, unit.images
                )
                if isinstance(found, str):
                    answers.put(found)
                else:
                    bench = stack.enter_context(Bench(found, "own", found.samples, (LEAST_SQUARES,)))
            if bench is None:
                continue
            try:
                for row in measure(bench, unit, keys, places):
                    answers.put(row)
            except SrrError as error:
                answers.put(f"{unit.net} {unit.criterion} {unit.reduction}: {error}")
    answers.put(None)


def measure(bench: Bench, unit: grid.Unit, keys: Sequence[tuple[str, ...]], places: Places) -> Iterator[Row]:
    """Prune one network once, and compensate and train it in several ways.

    Args:
        bench: The network.
        unit: What is done.
        keys: Of the rows that are wanted.
        places: Where things are.

    Yields:
        A row per way; its seconds are those of a core since the one before.

    Raises:
        SrrError: The network cannot be pruned or trained so, be it by a rival.
    """
    ways, original = list_keys(unit), bench.subject.model
    started = _read_clock()
    pruned, plan = _prune(bench, unit, places)
    made = {NONE: pruned}
    for key in keys:
        compensation, training = ways[key]
        if compensation not in made:
            assert plan is not None, "only what was pruned by a plan is compensated"
            fitted = bench.compensate(pruned, plan, compensation)
            assert fitted is not None, "least squares need no normalization"
            made[compensation] = fitted
        model = made[compensation]
        if training == RECALIBRATED:
            model, _ = bench.recalibrate(model)
        elif training in grid.TRAININGS:
            model = _train(bench, model, plan, unit, training, places)
        outputs = bench.run(model)
        figures = bench.judge(outputs, None)
        hits = bench.subject.judge(outputs)
        yield {
            **dict(zip(KEY, key, strict=True)),
            "removed": round(1 - count_cost(pruned).macs / count_cost(original).macs, 4),
            **{field: figures[field] for field in _FIGURES},
            "seconds": round(_read_clock() - started, 1),
            "hits": "" if hits is None else base64.b64encode(np.packbits(hits).tobytes()).decode(),
        }
        started = _read_clock()


def _read_clock() -> float:
    """Seconds of a core that this process and those that it has waited for have taken."""
    return sum(os.times()[:4])


def _prune(bench: Bench, unit: grid.Unit, places: Places) -> tuple[Model, Plan | None]:
    if unit.criterion == grid.UNPRUNED:
        return bench.subject.model, None
    if unit.criterion not in grid.RIVALS:
        return bench.prune(unit.criterion, unit.reduction)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "original.onnx", Path(folder) / "pruned.onnx"
        save_model(bench.subject.model, source)
        name, _, allocation = unit.criterion.removeprefix("torch-pruning ").partition(", ")
        command = [str(places.rivals), str(_RIVAL), unit.net, str(source), str(target)]
        command += ["--flops", str(unit.reduction), "--importance", name, f"--{allocation or 'uniform'}"]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            raise SrrError(f"{unit.criterion} cannot prune it: {(run.stderr.strip().splitlines() or ['?'])[-1]}")
        return load_model(target), None


def _train(bench: Bench, model: Model, plan: Plan | None, unit: grid.Unit, training: str, places: Places) -> Model:
    """Train with the product's own fine-tuning: on labels alone, or without any on what the original says."""
    subject, has_labels = bench.subject, training == grid.LABELS
    images = subject.images["own"]
    parts = [slice(start, start + 64) for start in range(0, len(images), 64)]
    data: list[Any] = [images[part] for part in parts]
    if has_labels:
        assert subject.labels is not None, "networks without labels are not trained on any"
        data = [(images[part], subject.labels[part]) for part in parts]
    with tempfile.TemporaryDirectory() as folder:
        # by its full name, as that loads torch only here
        found = srr_onnx.fine_tune(
            model,
            data=data,
            teacher=None if has_labels else subject.model,
            options=dataclasses.replace(
                unit.recipe, loss="labels" if has_labels else "distillation", seed=unit.seed, checkpoint_every=10**6
            ),
            plan=plan,
            run_dir=Path(folder) / "run",
        )
    assert found is not None, "one process trains"
    return found.model
