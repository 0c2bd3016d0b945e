"""A network that is pruned and compensated in many ways, and judged on images that nothing was made with."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import accuracy_grid as grid
import numpy as np
from accuracy_rows import Row
from accuracy_subjects import Subject

import srr_onnx
from srr_onnx import Model, Plan, ScoreOptions, SrrOptions
from srr_onnx.calibration.layers import find_layers
from srr_onnx.calibration.observe import Observation, observe
from srr_onnx.calibration.prepare import Calibration, calibrate
from srr_onnx.data.read import open_data
from srr_onnx.errors import UnsupportedError
from srr_onnx.planning.budget import Budget
from srr_onnx.planning.make import make_plan
from srr_onnx.rewriting.compensate import Kind, compensate_pruned
from srr_onnx.rewriting.recalibration import recalibrate
from srr_onnx.rewriting.replay import rewrite
from srr_onnx.scoring.reconstruction import choose_columns, find_eliminations, find_readers
from srr_onnx.scoring.score import Scores, score_groups
from srr_onnx.targets.onnxruntime import Session
from srr_onnx.validation.tryout import keep_if_closer

Array = np.ndarray[Any, Any]

_KINDS: dict[str, Kind] = {grid.MERGE: "merge", grid.DATA_FREE: "data-free", grid.LEAST_SQUARES: "least-squares"}
_LEAST_SQUARES = (grid.LEAST_SQUARES, grid.BOTH)
_RECALIBRATED = (grid.RECALIBRATED, grid.BOTH)


class Bench:
    """A network that has been watched on images, ready to be pruned in many ways.

    Args:
        subject: The network.
        domain: What the calibration images show.
        samples: How many there are.
        ways: What will be done to the weights that stay; only for least squares what layers give has to be kept.

    Attributes:
        subject: As given.
        used: Calibration images that are used.
    """

    def __init__(self, subject: Subject, domain: str, samples: int, ways: Collection[str]) -> None:
        self.subject, model = subject, subject.model
        self._groups = srr_onnx.find_groups(model)
        (name,) = model.inputs
        if domain == grid.MADE_UP:
            dataset = open_data("synthetic", model)
        else:
            images = subject.images[domain]
            dataset = open_data([images[start : start + 16] for start in range(0, len(images), 16)], model)
        self._calibration: Calibration = calibrate(model, dataset, samples, subject.seed)
        self.used = self._calibration.samples.count
        layers = find_layers(model)
        readers = find_readers(layers, self._groups)
        columns = choose_columns(readers, self._groups, subject.seed)
        self._observation: Observation = observe(
            model,
            layers,
            self._calibration.samples,
            {layer.output: columns.get(layer.output) for layer in readers},
            {layer.output for layer in layers} if set(ways) & {*_LEAST_SQUARES} else set(),
        )
        self._eliminations = find_eliminations(model, self._groups, self._observation)
        self._scores: dict[str, Scores] = {}
        self._input = name
        self._outputs = self.run(model)
        self._hits = subject.judge(self._outputs)

    def __enter__(self) -> Bench:
        """Give itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Drop what is kept on disk."""
        self._observation.close()

    def measure(self, criterion: str, reduction: float, ways: Sequence[str]) -> Iterator[Row]:
        """Prune once and compensate in several ways.

        Args:
            criterion: Which units go.
            reduction: Share of the MACs.
            ways: What is done to the weights that stay.

        Yields:
            A row per way that the file gives something to work on, less what tells the network and the images.
        """
        pruned, plan = self.prune(criterion, reduction)
        fitted: Model | None = None
        plain = self.subject.judge(self.run(pruned))
        for way in ways:
            candidate: Model | None = pruned
            count = 0
            if way in _LEAST_SQUARES:
                fitted = fitted or self.compensate(pruned, plan, grid.LEAST_SQUARES)
                candidate = fitted
            elif way in _KINDS:
                candidate = self.compensate(pruned, plan, way)
            if candidate is None:
                continue
            if way in _RECALIBRATED:
                candidate, count = self.recalibrate(candidate)
            yield {
                "criterion": criterion,
                "reduction": reduction,
                "way": way,
                "removed": round(plan.macs_removed, 4),
                "narrowest": round(min(len(group.keep) / group.units for group in plan.groups), 3),
                "recalibrated": count,
                **self.judge(self.run(candidate), plain),
            }

    def prune(self, criterion: str, reduction: float) -> tuple[Model, Plan]:
        """Prune the network.

        Args:
            criterion: Which units go: a registered name, and behind a comma "paper" (settings of srr) or how the budget
                is spread, where that is not as usual: "global", "uniform", or "redundancy" (that of srr).
            reduction: Share of the MACs.

        Returns:
            The model whose weights are as they were, and the plan.
        """
        model = self.subject.model
        name, _, variant = criterion.partition(", ")
        if criterion not in self._scores:
            self._scores[criterion] = self._score(name, variant)
        allocation = variant if variant in ("global", "uniform", "redundancy") else "auto"
        budget = Budget.choose(flops=reduction)
        return rewrite(
            model,
            self._groups,
            make_plan(model, self._groups, self._scores[criterion], budget, allocation=allocation),
        )

    def _score(self, name: str, variant: str) -> Scores:
        options = SrrOptions.paper() if variant == "paper" else SrrOptions.auto()
        scores = score_groups(
            self.subject.model,
            self._groups,
            name,
            ScoreOptions(seed=self.subject.seed, srr=options),
            eliminations=self._eliminations if "reconstruction" in name else None,
        )
        if variant == "redundancy":
            scores = dataclasses.replace(scores, redundancy=self._score("srr", "").redundancy)
        return scores

    def compensate(self, pruned: Model, plan: Plan, way: str) -> Model | None:
        """Change the weights that stay.

        Args:
            pruned: What `prune` gave.
            plan: The same.
            way: Of those that compensate.

        Returns:
            The model; None where the file has nothing to work on.
        """
        model, seed, kind = self.subject.model, self.subject.seed, _KINDS[way]
        observation = self._observation if kind == "least-squares" else None
        kept = plan.kept_positions()
        try:
            found = compensate_pruned(model, pruned, self._groups, kept, kind, observation=observation, seed=seed)
        except UnsupportedError:  # the file has no normalizations to draw from
            return None
        return (found if kind == "least-squares" else keep_if_closer(model, pruned, found, seed)).model

    def recalibrate(self, model: Model) -> tuple[Model, int]:
        """Set the statistics of all normalizations anew from the calibration images; tells how many there are."""
        return recalibrate(model, self._calibration.samples)

    def run(self, model: Model) -> Array:
        """First output on the test images."""
        session, size, test = Session(model, threads=1), self._calibration.run, self.subject.test
        parts = [test[start : start + size] for start in range(0, len(test), size)]
        return np.concatenate([np.asarray(session.run({self._input: part})[model.outputs[0]]) for part in parts])

    def judge(self, given: Array, plain: Array | None) -> Row:
        """Figures of a model.

        Args:
            given: Its outputs on the test images.
            plain: Which of them the pruned network is right on to whose weights nothing was done.

        Returns:
            Part of a row.
        """
        wanted, hits = self._outputs, self.subject.judge(given)
        return {
            "baseline": _share(self._hits),
            "accuracy": _share(hits),
            "agreement": round(float((given.argmax(-1) == wanted.argmax(-1)).mean()), 4),
            "kl": round(_divergence(wanted, given), 5),
            "gained": "" if hits is None or plain is None else int((hits & ~plain).sum()),
            "guess": round(self.subject.guess, 4),
            "spoiled": "" if hits is None or plain is None else int((plain & ~hits).sum()),
        }


def _share(hits: Array | None) -> float | str:
    return "" if hits is None else round(float(hits.mean()), 4)


def _divergence(wanted: Array, given: Array) -> float:
    """Mean Kullback-Leibler divergence in nats; what is no probability goes through a softmax."""
    logs = []
    for rows in (wanted.astype(np.float64), given.astype(np.float64)):
        if (rows >= 0).all() and np.allclose(rows.sum(-1), 1, atol=1e-3):
            logs.append(np.log(np.maximum(rows, 1e-12)))
        else:
            shifted = rows - rows.max(-1, keepdims=True)
            logs.append(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))
    return float((np.exp(logs[0]) * (logs[0] - logs[1])).sum(-1).mean())
