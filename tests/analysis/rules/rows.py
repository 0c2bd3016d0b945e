"""One row per operator version: a small model, what the analysis must find in it, and the proof by running it.

The frame of a row is a convolution with eight filters, the operator, and a convolution that closes the model; so the
eight channels are a group unless the operator says otherwise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import oracle
from builders import Graph, feeds_for, run_ort
from onnx.reference import ReferenceEvaluator

from srr_onnx.analysis.find import find_groups
from srr_onnx.analysis.groups import Groups
from srr_onnx.analysis.labels import FreezeReason
from srr_onnx.graph.load import load_model
from srr_onnx.graph.model import Model
from srr_onnx.graph.save import save_model
from srr_onnx.rewriting.apply import kept_positions, prune_units

# Operators whose newest definition nobody has read yet begin after this one; the frame should not meet them.
NEWEST = 25
# ... and onnxruntime takes no file newer than this one.
LAST = 26
# Runtimes promise nothing about older models; versions that only those select are not tested.
OLDEST = 7
# No runtime at hand has a kernel for these: they are analyzed and rewritten, not run.
UNRUN = {("GlobalLpPool", 22), ("MaxRoiPool", 22)}
Body = Callable[[Graph, str], str]


@dataclasses.dataclass(frozen=True)
class Row:
    """One operator at one version.

    Attributes:
        op_type: The operator.
        version: Its since-version.
        body: Builds the operator behind the map it is given (8 channels, 4 by 4), gives a map.
        sizes: Sizes of the groups that must be found.
        axes: Axes `(slot, axis)` of the operator's constants along which units must lie, no others.
        reason: For operators that keep channels: why.
        inexact: Whether the groups are inexact.
        others: Sizes of inexact groups that must be found beside exact ones; they are left as they are.
    """

    op_type: str
    version: int
    body: Body
    sizes: tuple[int, ...] = (8,)
    axes: frozenset[tuple[int, int]] = frozenset()
    reason: FreezeReason | None = None
    inexact: bool = False
    others: tuple[int, ...] = ()

    @property
    def opset(self) -> int:
        """The newest opset up to `NEWEST` that selects this version, else the first; 0 where only very old ones do."""
        found = [opset for opset in range(OLDEST, LAST + 1) if since(self.op_type, opset) == self.version]
        return max((opset for opset in found if opset <= NEWEST), default=min(found, default=0))

    def __str__(self) -> str:
        return f"{self.op_type}-{self.version}"


def since(op_type: str, opset: int) -> int:
    """The version of an operator that an opset selects; 0 for none."""
    try:
        return int(onnx.defs.get_schema(op_type, opset, "").since_version)
    except onnx.defs.SchemaError:
        return 0


def versions(op_type: str, known: Sequence[int] | None = None) -> Iterator[int]:
    """Since-versions of an operator in ONNX, those in `known` only."""
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "" and schema.name == op_type and (known is None or schema.since_version in known):
            yield int(schema.since_version)


def build(row: Row) -> onnx.ModelProto:
    """The model of a row."""
    g = Graph(row.opset, seed=row.version)
    y = row.body(g, g.conv(g.input("x", (1, 3, 4, 4)), 8))
    g.output(g.conv(y, 2, name="last"))
    return g.model()


def run(model: onnx.ModelProto) -> dict[str, Any]:
    """Run in onnxruntime; versions that it has no kernel for run in ONNX's reference implementation."""
    feeds = feeds_for(model)
    try:
        return run_ort(model, feeds)
    except Exception as error:
        kind = type(error).__name__
        assert kind in ("NotImplemented", "InvalidGraph", "Fail", "RuntimeException"), error
        found = ReferenceEvaluator(model).run(None, feeds)
        return {output.name: value for output, value in zip(model.graph.output, found, strict=True)}


def halve(groups: Groups, is_exact: bool | None = None) -> np.ndarray[Any, Any]:
    """Keep every unit but the first and the fourth of each group; only of those that are exact, or inexact, if told."""
    is_kept = np.ones(groups.num_units, bool)
    for group in groups:
        if group.size > 1 and is_exact in (None, group.is_exact):
            is_kept[group.units.start : group.units.stop : 3] = False
    return is_kept


def check(row: Row) -> None:
    """All that a row promises."""
    original = build(row)
    model = load_model(original)
    node = next(node for node in model.nodes if node.op_type == row.op_type)
    assert node.since_version == row.version
    groups = find_groups(model)
    check_groups(row, model, groups)
    is_kept = halve(groups, not row.inexact)
    kept = kept_positions(groups, is_kept)
    pruned = onnx.load(str(save_model(prune_units(model, groups, is_kept), "pruned.onnx", force=True)))
    if (row.op_type, row.version) in UNRUN:
        onnx.checker.check_model(pruned, full_check=True)
        return
    got = run(pruned)
    want = run(original if row.inexact else oracle.mask_model(original, kept, model.shapes))
    assert {name: value.shape for name, value in got.items()} == {name: value.shape for name, value in want.items()}
    assert not row.sizes or not is_kept.all()
    if not row.inexact:
        assert oracle.relative_error(got, want) <= oracle.TOLERANCE


def check_groups(row: Row, model: Model, groups: Groups) -> None:
    """Sizes and exactness of the groups, the axes of the operator's constants, the reason for what stays."""
    causes = {(frozen.cause.reason, frozen.cause.node) for frozen in groups.frozen}
    assert FreezeReason.RULE_FAILED not in {reason for reason, _ in causes}, groups.frozen
    assert tuple(group.size for group in groups if group.is_exact != row.inexact) == row.sizes, causes
    assert tuple(group.size for group in groups if group.is_exact == row.inexact) == row.others
    nodes = {node.index for node in model.nodes if node.op_type == row.op_type}
    found = {(member.use.slot, member.axis) for group in groups for member in group.members if member.use.node in nodes}
    if row.op_type not in ("Conv",):  # the frame has two of them
        assert found == row.axes
    if row.reason is not None:
        labels = {node.label for node in model.nodes if node.op_type == row.op_type}
        assert any(reason is row.reason and node in labels for reason, node in causes), causes


def rows(op_types: str, known: Sequence[int], body: Callable[..., str], **fields: Any) -> list[Row]:
    """Rows of several operators with the same body; it gets the operator's name as a third argument."""
    made = [
        Row(op_type, version, lambda g, y, op_type=op_type: body(g, y, op_type), **fields)
        for op_type in op_types.split()
        for version in versions(op_type, known)
    ]
    return [row for row in made if row.opset]
