"""VALIDATE: what the report page shows, as plain data; everything but the summary may be left out.

Names are those of the model, as they are: the page escapes them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

from srr_onnx.planning.curve import Curve

Form = Literal["count", "bytes", "share", "ms"]


@dataclasses.dataclass(frozen=True)
class Figure:
    """One quantity of the original and of the result.

    Attributes:
        label: What it is.
        before: Of the original; None for what only compares the two.
        after: Of the result.
        form: How it is written: a count, bytes, a share of one, or milliseconds.
        detail: What it rests on, for example the number of samples.
    """

    label: str
    before: float | None
    after: float
    form: Form
    detail: str = ""


@dataclasses.dataclass(frozen=True)
class LayerRow:
    """One Conv, ConvTranspose, Gemm or MatMul.

    Attributes:
        name: The node.
        op_type: Operator.
        groups: Ids of the pruning groups that its output channels belong to.
        channels: Output channels before and after; None where a shape is not known.
        measure: What `Measure` says of its groups; None where it says nothing.
        macs: MACs before and after; None where they cannot be counted.
        params: Stored parameters before and after.
        latency_ms: Milliseconds of one run before and after; None where it was not measured.
    """

    name: str
    op_type: str
    groups: tuple[str, ...]
    channels: tuple[int, int] | None
    measure: float | None
    macs: tuple[int, int] | None
    params: tuple[int, int]
    latency_ms: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True)
class GroupRow:
    """One pruning group.

    Attributes:
        id: Its id.
        nodes: The nodes whose filters its units are.
        units: Units before and after.
        is_exact: Whether pruned equals masked.
        measure: What `Measure` says of it.
        macs_per_unit: MACs that its first unit saves.
        outcome: What became of it, and why.
    """

    id: str
    nodes: tuple[str, ...]
    units: tuple[int, int]
    is_exact: bool
    measure: float | None
    macs_per_unit: int
    outcome: str


@dataclasses.dataclass(frozen=True)
class FrozenRow:
    """Filters that cannot go.

    Attributes:
        filters: The node whose filters they are.
        units: How many.
        reason: Why, in words.
        node: Where the reason arises.
    """

    filters: str
    units: int
    reason: str
    node: str


@dataclasses.dataclass(frozen=True)
class Measure:
    """What the criterion says of a whole group.

    Attributes:
        label: Heading, a word or two.
        text: What it means, in one sentence.
        form: How its numbers are written: shares, or numbers of the criterion's own scale.
    """

    label: str
    text: str
    form: Literal["share", "number"]


@dataclasses.dataclass(frozen=True)
class Structure:
    """What the model is made of, and what became of it.

    Attributes:
        layers: Layers in execution order.
        groups: Pruning groups.
        frozen: Filters that cannot go.
        measure: What the numbers under `measure` of layers and groups are; None where there are none.
    """

    layers: tuple[LayerRow, ...]
    groups: tuple[GroupRow, ...] = ()
    frozen: tuple[FrozenRow, ...] = ()
    measure: Measure | None = None


@dataclasses.dataclass(frozen=True)
class Damage:
    """Reduction against predicted damage.

    Attributes:
        curve: Points and the reachable floor.
        chosen: The reduction of this result, as a share.
    """

    curve: Curve
    chosen: float


@dataclasses.dataclass(frozen=True)
class StageRow:
    """One stage of a recipe.

    Attributes:
        name: What it is called.
        macs: Multiply-accumulates of the model that it has made.
        params: Parameters.
        size_bytes: Size of the file.
        accuracy: Share of the samples that are right; None without labels.
        agreement: Share of them on which the original finds the same class; None where that is not known.
        seconds: How long it took.
    """

    name: str
    macs: int
    params: int
    size_bytes: int
    accuracy: float | None
    agreement: float | None
    seconds: float


@dataclasses.dataclass(frozen=True)
class Reproduction:
    """What is needed to make the result again.

    Attributes:
        command: The command line.
        facts: Label and text: seed, versions, hash of the model ...
    """

    command: str
    facts: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class ReportData:
    """The whole page.

    Attributes:
        title: Heading, usually the model's file.
        figures: Quantities before and after, the most important ones first.
        facts: Label and text of what else there is to say: proof, compensation, agreement.
        proof: What was proven, in a few words; empty where nothing was.
        warnings: What the reader should know before relying on the result.
        structure: Layers, groups and what is frozen.
        latency: Milliseconds of single runs by name of the model, the original first.
        damage: Reduction against predicted damage.
        missing: What is not shown, and how to get it.
        reproduction: How to make the result again.
        kind: What the page is.
        stages: What the stages of a recipe have made, the original first.
    """

    title: str
    figures: tuple[Figure, ...]
    facts: tuple[tuple[str, str], ...] = ()
    proof: str = ""
    warnings: tuple[str, ...] = ()
    structure: Structure | None = None
    latency: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)
    damage: Damage | None = None
    missing: tuple[str, ...] = ()
    reproduction: Reproduction | None = None
    kind: str = "pruning report"
    stages: tuple[StageRow, ...] = ()
