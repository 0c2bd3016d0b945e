"""FINE-TUNE: the folder of a run: checkpoints, logs, and what it was started with.

Everything is written beside its place and moved there when it is whole, so the end of the process at any moment leaves
the old file or the new one.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from srr_onnx.data.run_settings import SETTINGS, Claim, begin_run
from srr_onnx.errors import TrainingError
from srr_onnx.finetuning.engine import lightning
from srr_onnx.graph.model import Model
from srr_onnx.graph.save import save_model, write_atomically

LOGS = "tensorboard"
SCHEMA = "srr-onnx/finetune-run/1"


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
        return self.path / SETTINGS

    @property
    def table(self) -> Path:
        """What is noted of every epoch."""
        return self.path / "epochs.csv"

    @property
    def logs(self) -> Path:
        """Folder of what TensorBoard shows."""
        return self.path / LOGS

    @property
    def files(self) -> tuple[Path, ...]:
        """Whatever a run writes and reads again, or replaces."""
        return self.last, self.best, self.settings, self.table

    def save_best(self, model: Model) -> None:
        """Write the best model, in one file: two are not replaced at once, and each would leave its data behind."""
        save_model(dataclasses.replace(model, external=frozenset()), self.best, force=True)

    def begin(self, settings: Mapping[str, Any], *, resume: bool, force: bool) -> Claim:
        """Make the folder, or check that it holds the run that is to go on.

        Args:
            settings: What decides the result, in plain form.
            resume: Whether the run that is there goes on.
            force: Whether it may be thrown away.

        Returns:
            What keeps other processes out, to be held until the run has ended.

        Raises:
            TrainingError: There is a run already, or none to go on with, or it was started with other settings, or
                another process is at work on it.
            OutputError: The folder cannot be made.
        """
        claim = begin_run(
            self.path,
            SCHEMA,
            settings,
            resume=resume,
            force=force,
            left=(self.last, self.best, self.table),
            clear=self._clear,
            kind=TrainingError,
        )
        if resume:
            for part in self.path.glob(".*.part"):  # of a run that was killed while it wrote
                part.unlink()
        return claim

    def _clear(self) -> None:
        for path in self.files:
            path.unlink(missing_ok=True)
        shutil.rmtree(self.logs, ignore_errors=True)

    def write_rows(self, rows: Sequence[EpochRow]) -> None:
        """Write what is noted of all epochs so far as epochs.csv."""
        text = io.StringIO()
        names = [field.name for field in dataclasses.fields(EpochRow)]
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([names, *(dataclasses.astuple(row) for row in rows)])
        with write_atomically(self.table) as file:
            file.write(text.getvalue().encode())
