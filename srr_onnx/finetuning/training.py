"""FINE-TUNE: one training step, as Lightning calls it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from srr_onnx.data.dataset import Array
from srr_onnx.finetuning.datasets import TrainingBatch, make_mixing_rng, mix
from srr_onnx.finetuning.engine import lightning
from srr_onnx.finetuning.objective import Objective
from srr_onnx.finetuning.options import TrainingOptions
from srr_onnx.finetuning.schedule import rate_at
from srr_onnx.finetuning.torch_graph import TorchGraph

_MOMENTUM = 0.9


class Training(lightning.LightningModule):
    """A student, its teacher, and what the student learns from.

    Args:
        student: What is trained.
        teacher: What it is to be like; None without.
        objective: What is made small.
        options: How.
        shared: Inputs that all samples share, by name.
        classes: Columns that labels have when samples are mixed.
        steps: Steps in all.

    Attributes:
        student: What is trained.
        options: How.
        loss: That of the last batch.
    """

    def __init__(
        self,
        student: TorchGraph,
        teacher: TorchGraph | None,
        objective: Objective,
        options: TrainingOptions,
        *,
        shared: Mapping[str, Array],
        classes: int,
        steps: int,
    ) -> None:
        super().__init__()
        for graph in (student, teacher):
            if graph is not None:
                graph.put_channels_last()
        self.student = student
        # In a tuple, so that torch takes it for no part of this module: it is neither trained nor kept in checkpoints.
        self._teacher = () if teacher is None else (teacher.eval().requires_grad_(False),)
        self._objective, self.options = objective, options
        self._classes, self._steps = classes, steps
        self._shared = {name: torch.from_numpy(array) for name, array in shared.items()}
        self.loss: Tensor = torch.zeros(())

    def on_fit_start(self) -> None:
        """Bring what torch does not know of to the device."""
        for teacher in self._teacher:
            teacher.to(self.device)
        self._shared = {name: value.to(self.device) for name, value in self._shared.items()}

    def forward(self, batch: TrainingBatch) -> Tensor:
        """The loss of a batch."""
        feeds = {**batch.inputs, **self._shared}
        wanted: Mapping[str, Tensor] = {}
        for teacher in self._teacher:
            with torch.no_grad():
                wanted = teacher.run([feeds[name] for name in teacher.inputs], self._objective.teacher_values)
        found = self.student.run([feeds[name] for name in self.student.inputs], self._objective.student_values)
        return self._objective.measure(found, wanted, batch.labels)

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> Tensor:
        """The loss of a batch, whose samples are mixed if that is wanted."""
        if self.options.mixup:
            rng = make_mixing_rng(self.options.seed, batch.key)
            batch = mix(batch, self.options.mixup, rng, self._classes)
        loss: Tensor = self(batch)
        self.loss = loss.detach()
        return loss

    def transfer_batch_to_device(
        self, batch: TrainingBatch, device: torch.device, dataloader_idx: int
    ) -> TrainingBatch:
        """Bring a batch to the device."""
        return batch.to(device)

    def configure_optimizers(self) -> Any:
        """Make the optimizer, and the schedule of its rate, step by step."""
        options = self.options
        weights = [value for value in self.student.parameters() if value.requires_grad]
        groups = [
            {"params": [value for value in weights if value.ndim > 1], "weight_decay": options.weight_decay},
            {"params": [value for value in weights if value.ndim <= 1], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        optimizer: torch.optim.Optimizer
        if options.optimizer == "sgd":
            optimizer = torch.optim.SGD(groups, lr=options.rate, momentum=_MOMENTUM)
        else:
            optimizer = torch.optim.AdamW(groups, lr=options.rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, self._steps, options.warmup))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
