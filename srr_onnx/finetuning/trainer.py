"""FINE-TUNE: Lightning's trainer, set up for a run, and called so that nothing of it reaches the user."""

from __future__ import annotations

import os
import signal
import zipfile
from pathlib import Path
from typing import Any

import torch

from srr_onnx.errors import TrainingError, first_line
from srr_onnx.finetuning.datasets import TrainingBatch
from srr_onnx.finetuning.engine import lightning, quietly
from srr_onnx.finetuning.keeper import Keeper
from srr_onnx.finetuning.options import Precision, TrainingOptions
from srr_onnx.finetuning.run_folder import LOGS, AtomicFiles, RunFolder
from srr_onnx.finetuning.training import Training

_PRECISIONS: dict[Precision, Any] = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


def make_trainer(options: TrainingOptions, folder: RunFolder) -> lightning.Trainer:
    """Set a trainer up; from then on it is known which of several processes this is.

    Args:
        options: How is trained.
        folder: Where logs are kept.

    Returns:
        The trainer.

    Raises:
        TrainingError: The devices are not there.
    """
    try:
        with quietly():
            trainer = lightning.Trainer(
                accelerator=options.accelerator,
                devices=options.devices,
                num_nodes=options.nodes,
                strategy=lightning.pytorch.strategies.DDPStrategy() if options.processes > 1 else "auto",
                precision=_PRECISIONS[options.precision],
                accumulate_grad_batches=options.accumulate,
                gradient_clip_val=options.clip or None,
                max_epochs=1,  # see `keeper`
                logger=lightning.pytorch.loggers.TensorBoardLogger(folder.path, name=None, version=LOGS),
                plugins=[AtomicFiles()],
                default_root_dir=folder.path,
                use_distributed_sampler=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
    except (ValueError, RuntimeError, ImportError) as error:  # Lightning's own error is a ValueError or an Exception
        raise TrainingError(f"training cannot be set up: {first_line(error)}") from error
    except Exception as error:
        if type(error).__name__ != "MisconfigurationException":
            raise
        raise TrainingError(f"training cannot be set up: {first_line(error)}") from error
    environment = getattr(trainer.strategy, "cluster_environment", None)
    is_alone = type(environment).__name__ == "LightningEnvironment"
    if options.nodes > 1 and is_alone and "MASTER_ADDR" not in os.environ:  # it would wait for the others for ever
        raise TrainingError(
            f"nodes is {options.nodes}, but nothing tells where the other machines are: start the command on each with "
            "torchrun or SLURM"
        )
    return trainer


def fit(trainer: lightning.Trainer, training: Training, keeper: Keeper, loader: Any, checkpoint: Path | None) -> None:
    """Train to the end.

    Args:
        trainer: The trainer.
        training: What is trained.
        keeper: Counts, judges, keeps.
        loader: All batches that are to come.
        checkpoint: Where to go on from; None begins.

    Raises:
        TrainingError: It has gone astray, or the checkpoint cannot be read.
        KeyboardInterrupt: The user has had enough.
    """
    if checkpoint is not None and not _is_whole(checkpoint):
        raise TrainingError(f"the checkpoint {str(checkpoint)!r} is damaged: start anew with --force")
    trainer.callbacks.append(keeper)  # type: ignore[attr-defined]
    handler = signal.getsignal(signal.SIGINT)
    torch.manual_seed(training.options.seed)
    try:
        with quietly():
            trainer.fit(training, loader, ckpt_path=checkpoint, weights_only=True)
    except SystemExit:  # what Lightning makes of Ctrl-C
        if not isinstance(keeper.stopped_by, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None
    except RuntimeError as error:
        if training.options.processes == 1 or not _is_of_network(error):
            raise
        raise TrainingError(
            "the connection to another process of this training is lost, as a rule because that one has ended: its own "
            "message, if it had one, says why; what is done so far is kept, go on with --resume"
        ) from error
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _is_of_network(error: RuntimeError) -> bool:
    """Whether it is the processes' talk with each other that has failed; what moves tensors on the CPU has no class."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error).lower()


def _is_whole(checkpoint: Path) -> bool:
    """Whether the content of a checkpoint is what was written: torch does not look."""
    try:
        with zipfile.ZipFile(checkpoint) as file:
            return file.testzip() is None
    except Exception:  # damage comes in many kinds
        return False


def freeze_unreached(training: Training, batch: TrainingBatch) -> int:
    """Try a few samples, and leave out of training what no gradient reaches: several processes could not agree on it.

    Args:
        training: What is trained.
        batch: A few samples.

    Returns:
        How many tensors stay as they are.

    Raises:
        TrainingError: No gradient reaches anything, or the loss is no number from the start.
    """
    training.eval()
    training.on_fit_start()
    loss = training(batch)
    if not torch.isfinite(loss):
        raise TrainingError(
            "the loss is no number on the very first samples: check --preset, --range and the model's outputs"
        )
    weights = list(training.student.parameters())
    if not loss.requires_grad or not weights:
        raise TrainingError(
            "no gradient reaches a weight: what is compared does not depend on any that could learn; name other values "
            "with --head"
        )
    loss.backward()
    unreached = [value for value in weights if value.grad is None]
    for value in unreached:
        value.requires_grad_(False)
    training.student.zero_grad(set_to_none=True)
    training.train()
    return len(unreached)
