"""Rules of Gemm and MatMul: products that sum over one axis of each operand.

Source: ONNX operators Gemm (1 to 13) and MatMul (1, 9, 13).
"""

from __future__ import annotations

from srr_onnx.analysis.groups import Role
from srr_onnx.analysis.labels import FreezeReason, Labels
from srr_onnx.analysis.rule import Axes, CannotFollow, Op, channel_rule


@channel_rule("Gemm", since=(1, 6, 7, 9, 11, 13))
def gemm(op: Op) -> None:
    """Y = alpha A B + beta C, with A and B perhaps transposed: the columns of B are filters."""
    rows, inner_a = op.axes(0)[:: -1 if op.attribute("transA", 0) else 1]
    is_transposed = bool(op.attribute("transB", 0))
    inner_b, columns = op.axes(1)[:: -1 if is_transposed else 1]
    op.unify(inner_a, inner_b)
    op.role(1, 0 if is_transposed else 1, Role.FILTER)
    op.role(1, 1 if is_transposed else 0, Role.INPUT)
    if op.has(2):
        added, shape = op.axes(2), op.shape(2)
        for offset, own in ((1, columns), (2, rows)):
            if len(added) >= offset and (shape[-offset] == op.out_shape()[-offset]):
                op.unify(added[-offset], own)
            elif len(added) >= offset:
                op.freeze(added[-offset], FreezeReason.FIXED_AXIS, "broadcast")
        if added:
            op.role(2, len(added) - 1, Role.SHIFT)
    op.out([rows, columns])


@channel_rule("MatMul", since=(1, 9, 13))
def matmul(op: Op) -> None:
    """Batched matrix product as numpy's: sums over the last axis of A and the last but one of B."""
    a, b = op.axes(0), op.axes(1)
    if not a or not b:
        raise CannotFollow(FreezeReason.UNKNOWN_SHAPE, "scalar operand")
    inner_b = b[-2] if len(b) > 1 else b[-1]
    op.unify(a[-1], inner_b)
    if len(b) > 1:
        op.role(1, len(b) - 2, Role.INPUT)
        op.role(1, len(b) - 1, Role.FILTER)
    if len(a) > 1:
        op.role(0, len(a) - 1, Role.INPUT)
        op.role(0, len(a) - 2, Role.FILTER)
    tail: Axes = ([a[-2]] if len(a) > 1 else []) + ([b[-1]] if len(b) > 1 else [])
    op.out(_batch(op, a[:-2], b[:-2]) + tail)


def _batch(op: Op, a: Axes, b: Axes) -> Axes:
    """Labels of the batch axes, aligned from the right as in broadcasting."""
    found: Axes = []
    for offset in range(1, max(len(a), len(b)) + 1):
        sides: list[tuple[int, Labels | None]] = []
        for slot, axes in ((0, a), (1, b)):
            if offset <= len(axes):
                sides.append((op.shape(slot)[-offset - 2], axes[-offset]))
        size = max(side[0] for side in sides)
        full = [labels for extent, labels in sides if extent == size]
        for extent, labels in sides:
            if extent != size:
                op.freeze(labels, FreezeReason.FIXED_AXIS, "broadcast")
        found.insert(0, op.unify(full[0], full[1]) if len(full) == 2 and _any(full) else full[0])
    return found


def _any(labels: list[Labels | None]) -> bool:
    return any(part is not None for part in labels)
