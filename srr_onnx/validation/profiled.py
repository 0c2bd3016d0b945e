"""VALIDATE: what a profile says: times of models at every batch, of their nodes, and of one beside another."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from srr_onnx.graph.model import Shape
from srr_onnx.targets.footprint import Footprint
from srr_onnx.targets.onnxruntime import version
from srr_onnx.targets.target import Target
from srr_onnx.validation.latency import Latency
from srr_onnx.validation.layers import LayerTimes, Regression
from srr_onnx.validation.noise import Noise
from srr_onnx.validation.timing import Figure, judge_speedup


@dataclasses.dataclass(frozen=True, eq=False)
class BatchTimes:
    """Times of a model at one batch.

    Attributes:
        inputs: Shape of every input.
        latency: The times.
        quantiles: "median", "p90" and "p99" in seconds; None where there are too few rounds.
        footprint: Time to load and peak memory; None where they could not be measured.
    """

    inputs: Mapping[str, Shape]
    latency: Latency
    quantiles: Mapping[str, Figure | None]
    footprint: Footprint | None

    @property
    def batch(self) -> int | None:
        """Rows per run: the size that the first axes of all inputs share; None where they share none."""
        sizes = {shape[0] if shape else None for shape in self.inputs.values()}
        return next(iter(sizes)) if len(sizes) == 1 else None

    @property
    def rows_per_second(self) -> float:
        """Throughput at the median, one run after the other."""
        return (self.batch or 1) / self.latency.median

    def to_json(self) -> dict[str, Any]:
        """Plain form."""
        return {
            "inputs": {name: list(shape) for name, shape in self.inputs.items()},
            "batch": self.batch,
            "rounds": len(self.latency.seconds),
            "runs_each": self.latency.runs_each,
            "fastest": self.latency.fastest,
            **{name: None if found is None else found.to_json() for name, found in self.quantiles.items()},
            "rows_per_second": self.rows_per_second,
            "load_seconds": None if self.footprint is None else self.footprint.load_seconds,
            "peak_bytes": None if self.footprint is None else self.footprint.peak_bytes,
        }


@dataclasses.dataclass(frozen=True, eq=False)
class Profiled:
    """One model.

    Attributes:
        name: Its file, with a number behind it where it was given before.
        batches: Its times, in the order of the batches.
        layers: Time of every node at the first batch; None where it was not asked for.
    """

    name: str
    batches: tuple[BatchTimes, ...]
    layers: LayerTimes | None

    def to_json(self) -> dict[str, Any]:
        """Plain form."""
        return {
            "name": self.name,
            "batches": [times.to_json() for times in self.batches],
            "layers": None if self.layers is None else self.layers.to_json(),
        }


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """A model beside the first one.

    Attributes:
        name: The model.
        speedups: How many times faster it is, in the order of the batches.
        regressions: Nodes that are slower in it.
    """

    name: str
    speedups: tuple[Figure, ...]
    regressions: tuple[Regression, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain form."""
        return {
            "name": self.name,
            "speedups": [{**found.to_json(), "verdict": judge_speedup(found)} for found in self.speedups],
            "regressions": [dataclasses.asdict(found) for found in self.regressions],
        }


@dataclasses.dataclass(frozen=True, eq=False)
class Profile:
    """How fast models are.

    Attributes:
        target: Where they ran.
        models: The models.
        comparisons: All but the first, each beside the first.
        noise: How quiet the machine was.
        notes: What the user should know.
    """

    target: Target
    models: tuple[Profiled, ...]
    comparisons: tuple[Comparison, ...]
    noise: Noise
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain form; docs/profiling.md describes it."""
        return {
            "schema": "srr-onnx/profile/1",
            "target": self.target.to_json(),
            "onnxruntime": version(),
            "models": [model.to_json() for model in self.models],
            "comparisons": [found.to_json() for found in self.comparisons],
            "noise": {**dataclasses.asdict(self.noise), "is_noisy": self.noise.is_noisy},
            "notes": list(self.notes),
        }
