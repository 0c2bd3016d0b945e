"""FINE-TUNE: what happens between training steps: counting, judging, checkpoints, the end.

To Lightning a whole training is one epoch: it then goes on in the middle of ours exactly where it was, with its own
progress counters, and there is one kind of place to go on from. Our epochs are counted here.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch

from srr_onnx.data.dataset import BadSample
from srr_onnx.errors import TrainingError
from srr_onnx.finetuning.bridge import from_torch
from srr_onnx.finetuning.datasets import TrainingBatch
from srr_onnx.finetuning.engine import lightning
from srr_onnx.finetuning.judging import Judge
from srr_onnx.finetuning.options import TrainingOptions
from srr_onnx.finetuning.run_folder import EpochRow, RunFolder
from srr_onnx.finetuning.schedule import Average
from srr_onnx.finetuning.torch_graph import TorchGraph
from srr_onnx.finetuning.training import Training

OnStage = Callable[[str, int, int], None]

# Batches after which the loss is looked at: to look makes an accelerator wait.
_LOOK_EVERY = 10


class Keeper(lightning.Callback):
    """Counts batches, judges after every epoch, and keeps checkpoints.

    Args:
        options: How often, and when to stop.
        per_epoch: Batches in an epoch.
        judge: Measures in onnxruntime; only the first process asks it.
        folder: Where files are kept.
        student: What is trained.
        tell: Told how far it is.

    Attributes:
        done: Batches that are done, over all epochs.
        rows: What is noted of every epoch.
        bad: Samples that could not be read, by name.
        stopped_by: What has ended training before its time.
    """

    def __init__(
        self,
        options: TrainingOptions,
        per_epoch: int,
        judge: Judge,
        folder: RunFolder,
        student: TorchGraph,
        tell: OnStage,
    ) -> None:
        self._options, self._per_epoch, self._judge, self._folder, self._tell = options, per_epoch, judge, folder, tell
        self._average = Average(student, options.ema) if options.ema else None
        self._sum = torch.zeros((), dtype=torch.float64)
        self._is_due = False
        self.done, self.rows, self.bad = 0, list[EpochRow](), dict[str, BadSample]()
        self.stopped_by: BaseException | None = None

    @property
    def total(self) -> int:
        """Batches in all."""
        return self._per_epoch * self._options.epochs

    @property
    def best(self) -> EpochRow | None:
        """The best epoch so far, the first of several."""
        return max(self.rows, key=lambda row: row.figure, default=None)

    @property
    def is_over(self) -> bool:
        """Whether all batches are done, or nothing has become better for long enough."""
        best, patience = self.best, self._options.patience
        is_stale = best is not None and patience > 0 and self.rows[-1].epoch - best.epoch >= patience
        return self.done >= self.total or is_stale

    def applied(self, student: TorchGraph) -> contextlib.AbstractContextManager[None]:
        """Give the student the averaged weights, while a block runs, if there is an average."""
        return contextlib.nullcontext() if self._average is None else self._average.applied(student)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps; Lightning asks."""
        return {
            "done": self.done,
            "rows": [dataclasses.astuple(row) for row in self.rows],
            "sum": float(self._sum),
            "average": None if self._average is None else self._average.state_dict(),
            "random": torch.get_rng_state(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.done = state_dict["done"]
        self.rows = [EpochRow(*row) for row in state_dict["rows"]]
        self._sum = torch.tensor(state_dict["sum"], dtype=torch.float64)
        if self._average is not None:
            self._average.load_state_dict(state_dict["average"])
        torch.set_rng_state(state_dict["random"])

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Remember what happened: Lightning makes something else of Ctrl-C."""
        self.stopped_by = exception

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Do nothing more where a run that is resumed has come to its end already."""
        trainer.should_stop = self.is_over

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Let the statistics of normalizations stand still in the last part."""
        assert isinstance(pl_module, Training)
        is_moving = self.done < self.total * (1 - self._options.frozen)
        if pl_module.student.training != is_moving:
            pl_module.student.train(is_moving)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: TrainingBatch,
        batch_idx: int,
    ) -> None:
        """Count, judge after an epoch, and make a checkpoint where one is due."""
        assert isinstance(pl_module, Training)
        self.done += 1
        self._sum = self._sum.to(pl_module.loss.device) + pl_module.loss.double()
        self.bad |= {sample.name: sample for sample in batch.bad}
        has_stepped = self.done % self._options.accumulate == 0 or self.done == self.total
        if has_stepped and self._average is not None:
            self._average.update(pl_module.student)
        is_epoch = self.done % self._per_epoch == 0
        if self.done % _LOOK_EVERY == 0 or is_epoch:
            self._check_loss(trainer, pl_module)
        self._tell("train", self.done, self.total)
        if is_epoch:
            self._end_epoch(trainer, pl_module)
        self._is_due |= is_epoch or (has_stepped and trainer.global_step % self._options.checkpoint_every == 0)
        # between batches whose gradients are added up a checkpoint would lose them
        if self._is_due and has_stepped:
            self._check_weights(pl_module.student)
            trainer.save_checkpoint(self._folder.last)
            self._is_due = False

    def _end_epoch(self, trainer: lightning.Trainer, pl_module: Training) -> None:
        self._check_weights(pl_module.student)
        figure, best = 0.0, self.best
        if trainer.is_global_zero:
            with self.applied(pl_module.student):
                model = from_torch(pl_module.student)
            figure = self._judge.measure(model).figure
            if best is None or figure > best.figure:
                self._folder.save_best(model)
        figure = float(trainer.strategy.broadcast(figure))
        rate = float(trainer.optimizers[0].param_groups[0]["lr"])
        row = EpochRow(self.done // self._per_epoch, float(self._sum) / self._per_epoch, rate, figure)
        self.rows.append(row)
        self._sum = torch.zeros((), dtype=torch.float64)
        if trainer.is_global_zero:
            self._folder.write_rows(self.rows)
        for logger in trainer.loggers:
            logger.log_metrics({"loss": row.loss, "figure": figure, "lr": rate}, step=self.done)
            logger.save()
        trainer.should_stop = self.is_over

    def _check_loss(self, trainer: lightning.Trainer, pl_module: Training) -> None:
        if not torch.isfinite(self._sum):
            raise TrainingError(self._explain("the loss is no number any more", trainer))
        for logger in trainer.loggers:
            logger.log_metrics({"batch loss": float(pl_module.loss)}, step=self.done)

    def _check_weights(self, student: TorchGraph) -> None:
        state: Mapping[str, torch.Tensor] = student.state_dict()
        if not all(bool(torch.isfinite(value).all()) for value in state.values() if value.is_floating_point()):
            raise TrainingError(self._explain("a weight is no number any more", None))

    def _explain(self, what: str, trainer: lightning.Trainer | None) -> str:
        kept = f"the last good checkpoint is kept in {str(self._folder.path)!r}; " if self._folder.last.exists() else ""
        ways = [f"a smaller --lr (it was {self._options.rate:g})"]
        ways += ["--norms insert"] if self._options.norms == "keep" else []
        ways += ["--precision 32"] if self._options.precision != "32" else []
        ways += [] if self._options.clip else ["--clip 1"]
        return f"{what} after {self.done:,} of {self.total:,} batches: {kept}try one of: {', '.join(ways)}"
