"""FINE-TUNE: what training has made, and what the user should know of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from srr_onnx.data.dataset import Dataset
from srr_onnx.finetuning.judging import Verdict
from srr_onnx.finetuning.keeper import Keeper
from srr_onnx.finetuning.objective import Objective
from srr_onnx.finetuning.run_folder import EpochRow
from srr_onnx.finetuning.torch_graph import TorchGraph
from srr_onnx.graph.model import Model
from srr_onnx.wording import counted


@dataclasses.dataclass(frozen=True, eq=False)
class FineTuned:
    """What training has made.

    Attributes:
        model: The trained model.
        path: Where it was written; None where it was not.
        before: What held-out samples said of the model before training.
        after: What they say of the trained one, read from the run's file.
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


def collect_notes(
    dataset: Dataset,
    held_out: Dataset,
    objective: Objective,
    student: TorchGraph,
    unreached: int,
    keeper: Keeper,
    before: Verdict,
    after: Verdict,
) -> tuple[str, ...]:
    """Say in a line each what was read, what was not trained, and whether it helped."""
    notes = [dataset.describe(), *objective.notes, *student.notes]
    if unreached:
        notes.append(f"{counted(unreached, 'tensor')} not trained: what is compared does not depend on more")
    if keeper.bad:
        first = next(iter(keeper.bad.values()))
        notes.append(
            f"{counted(len(keeper.bad), 'sample')} could not be read, replaced by others; the first is {first.name!r}: "
            f"{first.reason}"
        )
    if held_out.bad:
        notes.append(f"of those that were held out, {held_out.describe_bad()}")
    if after.figure <= before.figure:
        notes.append("the result is no better than what it began with: train longer, or with another --lr")
    return tuple(notes)
