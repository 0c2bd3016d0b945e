"""VALIDATE: what pruning gives back: the model, its plan, and everything that was found out on the way."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from srr_onnx.analysis.groups import Groups
from srr_onnx.graph.model import Model
from srr_onnx.planning.plan import Plan
from srr_onnx.rewriting.exact.gains import ExactGains
from srr_onnx.scoring.score import Scores
from srr_onnx.validation.judge import Judgement


@dataclasses.dataclass(frozen=True, eq=False)
class Pruned:
    """The result of pruning.

    Attributes:
        model: The pruned model, with what was done to the weights that stay.
        plan: What was decided, what it costs, the proof, and what was done to the weights that stay.
        original: The model that was pruned.
        path: File written, None where nothing was.
        groups: Pruning groups of the original.
        gains: What went without changing any output, of `prune_lossless` only.
        judgement: How the result compares with the original on samples that were held out; None without samples.
        notes: What the user should know about the samples.
        proven: The pruned model as it was proven, before anything was done to its weights; None after `prune_lossless`.
        scores: What the criterion said of them; None after `prune_lossless`.
    """

    model: Model
    plan: Plan
    original: Model
    path: Path | None
    groups: Groups
    gains: ExactGains | None = None
    judgement: Judgement | None = None
    notes: tuple[str, ...] = ()
    proven: Model | None = None
    scores: Scores | None = None
