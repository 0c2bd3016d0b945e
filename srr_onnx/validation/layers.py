"""VALIDATE: how long each node of the user's file takes.

The runtime fuses nodes, reorders tensors between them and names the results in its own way. Every kernel goes to the
node whose name it carries or whose output it computes; what belongs to no node is told apart.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from srr_onnx.graph.model import Model, Node, Shape
from srr_onnx.graph.runtime import find_numbers
from srr_onnx.targets.profiling import Kernel, Recording

Array = np.ndarray[Any, Any]

# What onnxruntime puts around the name of the value that a kernel of its own computes.
_AROUND = re.compile(r"^(?:InsertedPrecisionFreeCast_)?(.*?)(?:_nchwc)?(?:_token_\d+)?$")
_COUNTED = re.compile(r"_\d+$")
# Kernels that only move or convert what the node before has computed.
_MOVING = frozenset({"Cast", "DequantizeLinear", "QuantizeLinear", "ReorderInput", "ReorderOutput", "Transpose"})
# So many nodes behind a convolution become part of its kernel: a normalization, an addition, an activation of two.
_FUSED = 4
# Slower by less than this is what the clock of the recording, which counts whole microseconds, and chance make.
_SLOWER = 1.05


@dataclasses.dataclass(frozen=True)
class LayerTime:
    """Time that went into one node.

    Attributes:
        node: Its label; "runtime (...)" for kernels that belong to no node of the file.
        op_type: Its operator; "" for kernels of the runtime.
        kernels: What the runtime made of it: one operator or several, sorted.
        providers: Execution providers that ran them, sorted.
        shape: Of the first output, as far as known, at the batch of the file.
        seconds: Mean over the middle half of the runs.
        low: What a quarter of the runs stay below.
        high: What a quarter of the runs are above.
    """

    node: str
    op_type: str
    kernels: tuple[str, ...]
    providers: tuple[str, ...]
    shape: Shape | None
    seconds: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class LayerTimes:
    """Time that went into every node.

    Attributes:
        rows: The slowest first.
        run_seconds: Time of a whole run with the recording on, which makes it slower.
        runs: Recorded runs.
    """

    rows: tuple[LayerTime, ...]
    run_seconds: float
    runs: int

    @property
    def sum_seconds(self) -> float:
        """Time inside kernels; the rest of a run goes into calling them."""
        return sum(row.seconds for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """Plain form."""
        return {
            "runs": self.runs,
            "run_seconds": self.run_seconds,
            "sum_seconds": self.sum_seconds,
            "rows": [dataclasses.asdict(row) for row in self.rows],
        }


@dataclasses.dataclass(frozen=True)
class Regression:
    """A node that takes longer in a candidate than in its reference.

    Attributes:
        node: Label, the same in both.
        op_type: Operator.
        reference_kernels: What the runtime made of it in the reference.
        candidate_kernels: The same in the candidate; others where a width no longer suits them, say.
        reference_shape: Of its first output in the reference.
        candidate_shape: The same in the candidate.
        reference_seconds: Time in the reference.
        candidate_seconds: Time in the candidate.
    """

    node: str
    op_type: str
    reference_kernels: tuple[str, ...]
    candidate_kernels: tuple[str, ...]
    reference_shape: Shape | None
    candidate_shape: Shape | None
    reference_seconds: float
    candidate_seconds: float


def find_owners(model: Model, recording: Recording) -> dict[Kernel, Node | None]:
    """Find the nodes whose work kernels do.

    Args:
        model: The model that was recorded.
        recording: Result of `record_kernels`.

    Returns:
        Per kernel a node of the file; None for what belongs to none.
    """
    by_index = {node.index: node for node in model.nodes}
    owners: dict[Kernel, Node | None] = {}
    for kernel in recording.kernels:
        numbers = [number for number in find_numbers(kernel.name) if number in by_index]
        value = _AROUND.sub(r"\1", kernel.name)
        maker = None if kernel.op_type in _MOVING else model.producers.get(value)
        owners[kernel] = by_index[numbers[0]] if numbers else maker
    taken = {node.index for node in owners.values() if node is not None}
    for kernel, node in owners.items():
        if node is not None and not find_numbers(kernel.name) and node.op_type != kernel.op_type:
            owners[kernel] = _find_fused(model, node, kernel.op_type, taken) or node
    return owners


def time_layers(model: Model, recording: Recording) -> LayerTimes:
    """Give the times of kernels to the nodes of a file.

    Args:
        model: The model that was recorded.
        recording: Result of `record_kernels`.

    Returns:
        One row per node that has a kernel of its own, and one per kind of kernel that belongs to none.
    """
    by_index = {node.index: node for node in model.nodes}
    found: dict[int | str, list[Kernel]] = {}
    for kernel, node in find_owners(model, recording).items():
        kind = _COUNTED.sub("", kernel.op_type)  # subgraphs of one provider are one row, whatever their numbers
        found.setdefault(kind if node is None else node.index, []).append(kernel)
    labels = Counter(node.label for node in model.nodes)
    rows = []
    for owner, kernels in found.items():
        row = (f"runtime ({owner})", "", None) if isinstance(owner, str) else _describe(model, by_index[owner], labels)
        label, op_type, shape = row
        types, providers = ({getattr(kernel, name) for kernel in kernels} for name in ("op_type", "provider"))
        seconds = np.sum([kernel.seconds for kernel in kernels], axis=0)  # (R,)
        low, high = map(float, np.quantile(seconds, [0.25, 0.75]))
        rows.append(
            LayerTime(
                label, op_type, tuple(sorted(types)), tuple(sorted(providers)), shape, _middle(seconds), low, high
            )
        )
    rows.sort(key=lambda row: (-row.seconds, row.node))
    return LayerTimes(tuple(rows), _middle(recording.run_seconds), len(recording.run_seconds))


def find_regressions(reference: LayerTimes, candidate: LayerTimes) -> tuple[Regression, ...]:
    """Find the nodes that are slower in a candidate, the largest loss first.

    A node counts where its time grew by more than 5 % and three quarters of its runs took longer than three quarters
    of those in the reference.

    Args:
        reference: The one.
        candidate: The other, which took turns with it; nodes of the same label are compared, and what the runtime adds.
    """
    before = {row.node: row for row in reference.rows}
    found = []
    for row in candidate.rows:
        old = before.get(row.node)
        if old is not None and row.low > old.high and row.seconds > old.seconds * _SLOWER:
            pairs = (old.kernels, row.kernels, old.shape, row.shape, old.seconds, row.seconds)
            found.append(Regression(row.node, row.op_type, *pairs))
    return tuple(sorted(found, key=lambda item: item.reference_seconds - item.candidate_seconds))


def _find_fused(model: Model, node: Node, op_type: str, taken: Collection[int]) -> Node | None:
    """The nearest node of an operator before another one, which has no kernel of its own yet."""
    nodes: Sequence[Node] = [node]
    for _ in range(_FUSED):
        nodes = [model.producers[name] for node in nodes for name in node.inputs if name in model.producers]
        for before in nodes:
            if before.op_type == op_type and before.index not in taken:
                return before
    return None


def _describe(model: Model, node: Node, labels: Mapping[str, int]) -> tuple[str, str, Shape | None]:
    label = node.label if labels[node.label] == 1 else f"{node.label} (node {node.index})"
    return label, node.op_type, model.sizes.get(next((name for name in node.outputs if name), ""))


def _middle(seconds: Array) -> float:
    """Mean of the middle half: no disturbed run counts, and whole microseconds average out."""
    ordered = np.sort(seconds)
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())
