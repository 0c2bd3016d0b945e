"""Rules of Gemm, MatMul and Einsum: products that sum over axes of their operands.

Source: ONNX operators Gemm (1 to 13), MatMul (1, 9, 13) and Einsum (12).
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


@channel_rule("Einsum", since=(12,))
def einsum(op: Op) -> None:
    """One letter, one set of channels: a letter that the result lacks is summed over.

    The diagonal of an operand, a letter that stands twice in one term, stays whole. A letter that is summed over and
    that the first two operands lack goes inexactly: who checks a result from outside masks those two.
    """
    terms, result = _parse_einsum(op)
    found: dict[str, Labels | None] = {}
    for letter in dict.fromkeys(letter for term in terms for letter in term):
        places = [(slot, axis) for slot, term in enumerate(terms) for axis, own in enumerate(term) if own == letter]
        size = max(op.shape(slot)[axis] for slot, axis in places)
        full = [(slot, axis) for slot, axis in places if op.shape(slot)[axis] == size]
        op.freeze([op.axes(s)[a] for s, a in places if (s, a) not in full], FreezeReason.FIXED_AXIS, "broadcast")
        tied = [op.axes(slot)[axis] for slot, axis in full]
        if any(term.count(letter) > 1 for term in terms):
            op.freeze(tied, FreezeReason.MIXES_CHANNELS, "diagonal")
        if _any(tied):
            for other in tied[1:]:
                op.unify(tied[0], other)
            if letter not in result and min(slot for slot, _ in places) > 1:
                op.inexact(tied[0])
        found[letter] = next((labels for labels in tied if labels is not None), None)
        for slot, axis in full:
            if letter not in result:
                op.role(slot, axis, Role.INPUT)
            elif len(places) == 1:
                op.role(slot, axis, Role.FILTER)
    op.out([found[letter] for letter in result])


def _parse_einsum(op: Op) -> tuple[list[list[str]], list[str]]:
    """Letters of every term and of the result; the axes of an ellipsis are named by their place from the right."""
    left, arrow, right = op.attribute("equation").replace(" ", "").partition("->")
    terms = [
        _name_axes(term, len(op.shape(slot)) - len(term.replace("...", "")))
        for slot, term in enumerate(left.split(","))
    ]
    rest = max(sum(name.startswith(".") for name in term) for term in terms)
    if arrow:
        return terms, _name_axes(right, rest)
    letters = left.replace(",", "").replace(".", "")
    once = sorted(letter for letter in set(letters) if letters.count(letter) == 1)
    return terms, _name_axes("..." + "".join(once), rest)


def _name_axes(term: str, rest: int) -> list[str]:
    before, dots, after = term.partition("...")
    return [*before, *(f".{place}" for place in range(rest if dots else 0, 0, -1)), *after]
