"""FINE-TUNE: what training makes small.

Each function takes what the student gives and what it should give, and returns one number: a mean over samples and
positions, zero where both are the same (but for the entropy of labels).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

# Below this a variance counts as none: a feature that is the same everywhere.
_LEAST_VARIANCE = 1e-12


def label_loss(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross entropy of classes.

    Args:
        logits: `(N, C)`, axes of size 1 beside these left out of account.
        labels: Class per sample, `(N,)` int64, or shares of the classes, `(N, C)`.
        smoothing: Share of a label that is spread over all classes.

    Returns:
        The mean, in nats.

    Source:
        Szegedy et al., "Rethinking the Inception Architecture", CVPR 2016, arXiv:1512.00567, section 7 (smoothing).
    """
    return functional.cross_entropy(logits.reshape(len(logits), -1).float(), labels, label_smoothing=smoothing)


def distillation_loss(student: Tensor, teacher: Tensor, axis: int, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of the student's classes from the teacher's, times the squared temperature.

    Args:
        student: Logits with classes along an axis.
        teacher: The same of the teacher.
        axis: Axis of the classes; all others are samples and positions.
        temperature: Divides the logits.

    Returns:
        The mean over samples and positions, in nats.

    Source:
        Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, arXiv:1503.02531, section 2: the factor
        keeps the gradient as large as that of labels.
    """
    logs = functional.log_softmax(student.float() / temperature, axis)
    wanted = functional.log_softmax(teacher.float() / temperature, axis)
    divergence = (wanted.exp() * (wanted - logs)).sum(axis)
    return divergence.mean() * temperature**2


def number_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference, in units of the teacher's variance, so that outputs of any size weigh alike.

    Args:
        student: Any numbers.
        teacher: The same of the teacher.

    Returns:
        The mean; 1 is what a student has that always gives the teacher's mean.
    """
    wanted = teacher.float()
    return functional.mse_loss(student.float(), wanted) / wanted.var(correction=0).clamp_min(_LEAST_VARIANCE)


def take_kept(value: Tensor, kept: Mapping[int, Tensor]) -> Tensor:
    """Leave those channels of a teacher's value over that the student has.

    Args:
        value: The teacher's.
        kept: Positions that remain, by axis.

    Returns:
        The part.
    """
    for axis, positions in kept.items():
        value = torch.index_select(value, axis, positions.to(value.device))
    return value
