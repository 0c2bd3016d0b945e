"""FINE-TUNE: every setting of a training, with its usual value and where that comes from.

Values are checked when the settings are made, so whoever holds them holds sound ones.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal, get_args

from srr_onnx.errors import TrainingError

Loss = Literal["auto", "labels", "distillation", "both"]
Optimizer = Literal["sgd", "adamw"]
Precision = Literal["32", "bf16", "16"]
Norms = Literal["auto", "insert", "keep"]
Augmentation = Literal["flip", "crop", "randaugment"]

# Usual rates. SGD's: of 0.003, 0.01, 0.03 and 0.1 the highest that did the bundled network no harm after compensation.
# AdamW's: a third of its own default, as weights that are trained already want less.
RATES: dict[Optimizer, float] = {"sgd": 0.01, "adamw": 3e-4}
# Settings that leave the result as it is, so that a run may go on with others.
FREE = frozenset({"workers", "checkpoint_every", "devices", "nodes", "accelerator"})


@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """How a model is trained.

    Attributes:
        epochs: Passes over the training samples.
        batch: Samples per forward pass, over all devices.
        accumulate: Batches whose gradients are added up before the weights move.
        loss: What is trained on. "auto": the teacher and labels where there are both, else the one there is.
        distillation: Share of the teacher in the loss where there are labels too.
        temperature: Softens the teacher's classes, as in Hinton et al., arXiv:1503.02531.
        feature_weight: Weight of every feature that is compared.
        label_smoothing: Share of a label that is spread over all classes.
        mixup: Parameter of the beta distribution that pairs of samples are mixed by; 0 mixes none (arXiv:1710.09412).
        augment: What happens to pictures on the way: "flip" mirrors, "crop" shifts by up to an eighth, "randaugment"
            changes two things at random.
        optimizer: "sgd" with momentum 0.9, or "adamw".
        lr: Highest learning rate; None takes what is usual for the optimizer.
        weight_decay: Decay of weights; vectors (biases, scales) do not decay.
        warmup: Share of the steps in which the rate rises; after that it falls along a cosine to zero.
        clip: Largest norm of the gradients; 0 does not clip.
        ema: Decay of a moving average of the weights, which is then what is judged and written; 0: none.
        precision: "32", or what forward and backward pass are computed in besides: "bf16", "16".
        norms: "insert" puts normalizations, which training needs, back behind convolutions into which they have been
            folded, and folds them again in the end; "keep" trains the graph as it is; "auto" inserts where the file has
            no normalization.
        frozen: Share of the steps, at the end, in which the statistics of normalizations stand still.
        recalibrate: Batches over which the statistics are taken anew in the end, from samples as they are; what comes
            of it is kept if it is better. 0: none.
        held_out: Share of the samples that is not trained on, by which the result is judged.
        patience: Epochs without a better figure after which training stops; 0 never does.
        checkpoint_every: Steps between checkpoints; one is made after every epoch too.
        seed: For everything random.
        workers: Processes that read samples; 0 reads in this one.
        devices: Devices, or processes on the CPU, on each machine.
        nodes: Machines.
        accelerator: What computes: "auto", "cpu", "gpu" or another that Lightning knows.
    """

    epochs: int = 10
    batch: int = 64
    accumulate: int = 1
    loss: Loss = "auto"
    distillation: float = 0.5
    temperature: float = 2.0
    feature_weight: float = 1.0
    label_smoothing: float = 0.0
    mixup: float = 0.0
    augment: tuple[Augmentation, ...] = ("flip", "crop")
    optimizer: Optimizer = "sgd"
    lr: float | None = None
    weight_decay: float = 1e-4
    warmup: float = 0.05
    clip: float = 0.0
    ema: float = 0.0
    precision: Precision = "32"
    norms: Norms = "auto"
    frozen: float = 0.1
    recalibrate: int = 0
    held_out: float = 0.1
    patience: int = 0
    checkpoint_every: int = 200
    seed: int = 0
    workers: int = 0
    devices: int = 1
    nodes: int = 1
    accelerator: str = "auto"

    def __post_init__(self) -> None:
        for key, choices in (("loss", Loss), ("optimizer", Optimizer), ("precision", Precision), ("norms", Norms)):
            known = get_args(choices)
            _check(key, getattr(self, key), getattr(self, key) in known, f"one of {', '.join(known)}")
        for key in ("epochs", "batch", "accumulate", "checkpoint_every", "devices", "nodes"):
            _check(key, getattr(self, key), getattr(self, key) >= 1, "at least 1")
        for key in ("recalibrate", "patience", "seed", "workers", "mixup", "weight_decay", "clip", "feature_weight"):
            _check(key, getattr(self, key), 0 <= getattr(self, key) < math.inf, "at least 0")
        _check("seed", self.seed, self.seed < 2**64, "a number below 2**64")  # torch takes no larger one
        for key in ("label_smoothing", "warmup", "frozen", "ema"):
            _check(key, getattr(self, key), 0 <= getattr(self, key) < 1, "at least 0 and below 1")
        for key in ("held_out", "distillation"):
            _check(key, getattr(self, key), 0 < getattr(self, key) < 1, "between 0 and 1")
        for key, value in (("temperature", self.temperature), ("lr", self.rate)):
            _check(key, value, 0 < value < math.inf, "above 0")
        for name in self.augment:
            _check("augment", name, name in get_args(Augmentation), f"some of {', '.join(get_args(Augmentation))}")
        if self.batch % self.processes:
            raise TrainingError(
                f"a batch of {self.batch} cannot be shared among {self.processes} processes: give a multiple of that"
            )

    @property
    def rate(self) -> float:
        """Highest learning rate."""
        return RATES[self.optimizer] if self.lr is None else self.lr

    @property
    def processes(self) -> int:
        """Processes that train together."""
        return self.devices * self.nodes

    def settle(self) -> dict[str, Any]:
        """What decides the result, in plain form."""
        found = {key: value for key, value in dataclasses.asdict(self).items() if key not in FREE}
        return {**found, "lr": self.rate, "augment": list(self.augment)}


def _check(key: str, value: object, is_sound: bool, wanted: str) -> None:
    if not is_sound:
        raise TrainingError(f"{key} is {value!r}: give {wanted}")
