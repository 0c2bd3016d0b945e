"""OPTIMIZE: the sections of a recipe: their keys are the options of the commands, with the same usual values.

Values are checked when a section is made, and every error names the key.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from srr_onnx.errors import RecipeError, SrrError
from srr_onnx.planning.alignment import parse_align
from srr_onnx.planning.budget import NAMES, Budget, parse_limit, parse_share
from srr_onnx.planning.make import MAX_GROUP_RATIO
from srr_onnx.planning.priority import allocations
from srr_onnx.rewriting.compensate import Kind
from srr_onnx.scoring.criteria import criteria
from srr_onnx.scoring.criterion import ScoreOptions
from srr_onnx.scoring.options import FilterChoice, NodeRemoval, SrrOptions
from srr_onnx.targets.target import Target
from srr_onnx.validation.gates import parse_factor, parse_gate, parse_size
from srr_onnx.validation.measure import RunOptions

Amount = float | str
T = TypeVar("T")


def named(key: str, read: Callable[..., T], *values: Any, **options: Any) -> T:
    """Call a function; what is wrong with its values becomes an error of a recipe that names the key."""
    try:
        return read(*values, **options)
    except SrrError as error:
        raise RecipeError(f"{key}: {error}" if key else str(error)) from error


@dataclasses.dataclass(frozen=True)
class PruneSettings:
    """Section `prune`: see `srr-onnx prune --help` and `srr_onnx.prune`.

    Attributes:
        flops: Share of the FLOPs to remove; `params` to `size` likewise.
        criterion: Which units go; `gamma`, `node_removal` and `filter_choice` are settings of srr.
        align: Widths to choose from.
        provider: Where a latency is measured, with `threads` and `provider_option` as KEY=VALUE.
        samples: How many to calibrate with.
        seed: For everything random.
        no_verify: Whether the proof is left out.
    """

    flops: Amount | None = None
    params: Amount | None = None
    ratio: Amount | None = None
    latency: Amount | None = None
    memory: Amount | None = None
    size: Amount | None = None
    criterion: str = "auto"
    gamma: float | str = "auto"
    node_removal: NodeRemoval | None = None
    filter_choice: FilterChoice | None = None
    seed: int = 0
    allocation: str = "auto"
    align: int | str | None = None
    provider: str | None = None
    provider_option: tuple[str, ...] = ()
    threads: int | None = None
    max_group_ratio: Amount = MAX_GROUP_RATIO
    freeze: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    allow_inexact: bool = False
    samples: int = 512
    compensate: Kind = "auto"
    keep_structure: bool = False
    recalibrate_norms: bool = False
    no_verify: bool = False

    def __post_init__(self) -> None:
        for kind in NAMES:
            if getattr(self, kind) is not None:
                named(kind, parse_limit, kind, getattr(self, kind))
        budget = self.budget
        if budget.kind == "ratio" and self.allocation != "auto":
            raise RecipeError("allocation: ratio takes the same share of every group, so they do not go together")
        named("max_group_ratio", parse_share, self.max_group_ratio, is_closed=True)
        named("gamma", lambda: self.options)
        for key, registry in (("criterion", criteria), ("allocation", allocations)):
            if getattr(self, key) != "auto":
                named(key, registry.get, getattr(self, key))
        if self.align is not None:
            named("align", parse_align, self.align)
        if self.samples < 1 or self.seed < 0:
            raise RecipeError("samples: give at least 1" if self.samples < 1 else "seed: give at least 0")
        named("provider", lambda: self.target)

    @property
    def budget(self) -> Budget:
        """How much has to go."""
        return named("flops", Budget.choose, **{kind: getattr(self, kind) for kind in NAMES})

    @property
    def options(self) -> ScoreOptions:
        """Settings of the criterion."""
        return ScoreOptions(self.seed, SrrOptions.choose(self.gamma, self.node_removal, self.filter_choice))  # type: ignore[arg-type]

    @property
    def target(self) -> Target | None:
        """Where times are measured; None where that is not said."""
        if self.provider is None and self.threads is None and not self.provider_option:
            return None
        pairs = [entry.partition("=") for entry in self.provider_option]
        if not all(key and sign for key, sign, _ in pairs):
            raise RecipeError(f"provider_option: {list(self.provider_option)} are no options: give a list of KEY=VALUE")
        threads = 1 if self.threads is None else self.threads
        return Target(self.provider or "cpu", threads, options={key: value for key, _, value in pairs})

    def arguments(self) -> dict[str, Any]:
        """What `srr_onnx.prune` takes, but for the budget and `max_group_ratio`, which differ from step to step."""
        same = ("criterion", "allocation", "align", "freeze", "only", "allow_inexact", "samples", "compensate")
        return {
            **{key: getattr(self, key) for key in (*same, "keep_structure")},
            "options": self.options,
            "target": self.target,
            "recalibrate": self.recalibrate_norms,
            "verify": not self.no_verify,
        }


@dataclasses.dataclass(frozen=True)
class JudgingSettings:
    """Section `test`: samples that nothing learns from, by which every stage is judged.

    Attributes:
        data: What they are read from, as `srr-onnx compare --data` takes it; None takes a share of the recipe's data.
        labels: File with one label per sample.
        share: How much of the recipe's data is kept for that, where `data` names none.
        limit: So many samples, chosen at random; all by default.
        batch: Samples per run.
        workers: Runs beside each other.
        class_output: Output with one column per class.
    """

    data: str | None = None
    labels: str | None = None
    share: Amount = 0.1
    limit: int | None = None
    batch: int | None = None
    workers: int | None = None
    class_output: str | None = None

    def __post_init__(self) -> None:
        named("share", parse_share, self.share, is_large=False)
        named("limit", lambda: self.options)
        if self.labels is not None and self.data is None:
            raise RecipeError("labels: they belong to data, which is not given")

    @property
    def options(self) -> RunOptions:
        """How the samples are run."""
        return RunOptions(self.limit, self.batch, self.workers, class_output=self.class_output)


@dataclasses.dataclass(frozen=True)
class GateSettings:
    """Section `gates`: what the result has to reach, as in `srr-onnx compare`.

    Attributes:
        max_accuracy_drop: Share of the samples by which accuracy may be lower.
        min_agreement: Share of the samples on which both find the same class.
        max_size: Size of the file.
        min_speedup: How many times as fast a run has to be.
    """

    max_accuracy_drop: Amount | None = None
    min_agreement: Amount | None = None
    max_size: int | str | None = None
    min_speedup: float | None = None

    def __post_init__(self) -> None:
        self.limits()

    def limits(self) -> dict[str, float | int | None]:
        """What `srr_onnx.validate` takes."""
        shares: Mapping[str, Amount | None] = {
            key: getattr(self, key) for key in ("max_accuracy_drop", "min_agreement")
        }
        return {
            **{key: None if value is None else named(key, parse_gate, key, value) for key, value in shares.items()},
            "max_size": None if self.max_size is None else named("max_size", parse_size, self.max_size),
            "min_speedup": None if self.min_speedup is None else named("min_speedup", parse_factor, self.min_speedup),
        }
