"""FINE-TUNE: the folder of a run: checkpoints, logs, and what it was started with.

Everything is written beside its place and moved there when it is whole, so the end of the process at any moment leaves
the old file or the new one.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from srr_onnx.data.dataset import Dataset
from srr_onnx.errors import OutputError, TrainingError
from srr_onnx.finetuning.engine import lightning
from srr_onnx.graph.save import write_atomically

LOGS = "tensorboard"
SCHEMA = "srr-onnx/finetune-run/1"
# Samples whose content is looked at to tell data apart, besides the names and labels of all.
_LOOKED_AT = 16


@dataclasses.dataclass(frozen=True)
class EpochRow:
    """What is noted of an epoch.

    Attributes:
        epoch: Its number, from 1.
        loss: Mean over its batches.
        lr: Learning rate at its end.
        figure: What held-out samples say of the model, measured in onnxruntime; higher is better.
    """

    epoch: int
    loss: float
    lr: float
    figure: float


class AtomicFiles(lightning.pytorch.plugins.TorchCheckpointIO):
    """Lightning's checkpoint files, whole or not there at all on any file system."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint."""
        with write_atomically(Path(path)) as file:
            torch.save(checkpoint, file)


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """Where a run keeps its files.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def last(self) -> Path:
        """Checkpoint from which the run goes on."""
        return self.path / "last.ckpt"

    @property
    def best(self) -> Path:
        """The best model so far, as a file that runs anywhere."""
        return self.path / "best.onnx"

    @property
    def settings(self) -> Path:
        """What the run was started with."""
        return self.path / "settings.json"

    def begin(self, settings: Mapping[str, Any], *, resume: bool, force: bool) -> None:
        """Make the folder, or check that it holds the run that is to go on.

        Args:
            settings: What decides the result, in plain form.
            resume: Whether the run that is there goes on.
            force: Whether it may be thrown away.

        Raises:
            TrainingError: There is a run already, or none to go on with, or it was started with other settings.
            OutputError: The folder cannot be made.
        """
        text = json.dumps({"schema": SCHEMA, **settings}, indent=1)
        if resume:
            self._check(json.loads(text))
            for part in self.path.glob(".*.part"):  # of a run that was killed while it wrote
                part.unlink()
            return
        if self.settings.exists():
            if not force:
                raise TrainingError(
                    f"{str(self.path)!r} holds a run already: give --resume to go on with it, --force to start anew, "
                    "or another --run-dir"
                )
            for path in (self.last, self.best, self.settings, self.path / "epochs.csv"):
                path.unlink(missing_ok=True)
            shutil.rmtree(self.path / LOGS, ignore_errors=True)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"the folder {str(self.path)!r} cannot be made: {error.strerror}") from error
        with write_atomically(self.settings) as file:
            file.write(text.encode())

    def _check(self, wanted: Mapping[str, Any]) -> None:
        try:
            found = json.loads(self.settings.read_text())
        except (OSError, ValueError) as error:
            raise TrainingError(
                f"{str(self.path)!r} holds no run to go on with: leave --resume out, or give its --run-dir"
            ) from error
        for key, value in wanted.items():
            if found.get(key) != value:
                raise TrainingError(
                    f"the run in {str(self.path)!r} cannot go on: {_describe(key, found.get(key), value)}; give what "
                    "it was started with, or leave --resume out"
                )

    def write_rows(self, rows: Sequence[EpochRow]) -> None:
        """Write what is noted of all epochs so far as epochs.csv."""
        text = io.StringIO()
        names = [field.name for field in dataclasses.fields(EpochRow)]
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([names, *(dataclasses.astuple(row) for row in rows)])
        with write_atomically(self.path / "epochs.csv") as file:
            file.write(text.getvalue().encode())


def hash_json(value: Any) -> str:
    """Tell plain data apart."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def identify(dataset: Dataset) -> str:
    """Tell data apart: a hash of the names and labels of all samples, and of the content of some."""
    found = hashlib.sha256(dataset.describe().encode())
    for index in range(len(dataset)):
        found.update(dataset.name_of(index).encode() + b"\n")
    if dataset.labels is not None:
        found.update(dataset.labels.tobytes())
    for index in range(0, len(dataset), max(1, len(dataset) // _LOOKED_AT)):
        for name, array in (dataset.fetch(index) or {}).items():
            found.update(name.encode() + array.tobytes())
    return found.hexdigest()


def _describe(key: str, before: Any, after: Any) -> str:
    if isinstance(before, str) and isinstance(after, str) and max(len(before), len(after)) == 64:
        return f"the {key} is another file" if key != "data" else "the data are others"
    return f"{key} was {before!r} and is {after!r} now"
