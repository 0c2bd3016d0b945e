"""PLAN: why nothing, or not enough, can go; and what stays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from srr_onnx.analysis.groups import Groups
from srr_onnx.analysis.labels import Freeze, FreezeReason
from srr_onnx.errors import UnsupportedError
from srr_onnx.graph.cost import mac_factors
from srr_onnx.graph.model import Model
from srr_onnx.graph.nodes import check_outside
from srr_onnx.graph.quantization import INTEGER_OPERATORS
from srr_onnx.planning.budget import NAMES
from srr_onnx.planning.latency import LatencyPrice
from srr_onnx.planning.widths import Price, cost_without
from srr_onnx.wording import counted, duration

# Layers that a message names.
_MOST_NAMED = 3


def check_prunable(model: Model, groups: Groups, causes: Sequence[Freeze | None]) -> None:
    """Check that at least one group may lose a unit.

    Args:
        model: Loaded model.
        groups: Its groups.
        causes: Result of `find_free`.

    Raises:
        UnsupportedError: Nothing can go; says why and what would help.
    """
    if any(cause is None and group.size > 1 for group, cause in zip(groups, causes, strict=True)):
        return
    integers = sorted({node.op_type for node in model.nodes} & INTEGER_OPERATORS)
    if integers and all(cause is None for cause in causes):
        raise UnsupportedError(
            f"this model computes with quantized integers ({', '.join(integers)}), whose channels cannot be pruned: "
            "prune the floating-point model before you quantize it, or quantize it in the QDQ format"
        )
    if not any(mac_factors(node, model.sizes) for node in model.nodes):
        check_outside(model.proto.graph)
        operators = ", ".join(sorted({node.op_type for node in model.nodes})[:6])
        raise UnsupportedError(
            f"there is no Conv, ConvTranspose, Gemm or MatMul to prune in this model (it has {operators})"
        )
    if any(cause is not None and cause.reason is FreezeReason.UNPROVEN for cause in causes):
        raise UnsupportedError("no group is left whose pruning passes the proof: please report this model")
    if any(cause is not None and cause.reason is FreezeReason.INEXACT for cause in causes):
        raise UnsupportedError(
            "every group that could be pruned is normalized over its channels, so the result cannot equal the masked "
            "original: give --allow-inexact to prune it all the same"
        )
    if any(cause is not None for cause in causes):
        raise UnsupportedError("--freeze and --only leave nothing to prune: `srr-onnx inspect` lists the groups")
    causes_text = "; ".join(f"{cause} ({count})" for cause, count in _count_causes(groups)[:3])
    raise UnsupportedError(f"every channel of this model is frozen: {causes_text}; `srr-onnx inspect` lists them all")


def _count_causes(groups: Groups) -> list[tuple[str, int]]:
    """Causes of frozen filters in words, with the number of units, most units first."""
    counts: dict[str, int] = {}
    for entry in groups.frozen:
        counts[entry.cause.text] = counts.get(entry.cause.text, 0) + entry.units
    return sorted(counts.items(), key=lambda item: -item[1])


def explain_reach(
    groups: Groups,
    causes: Sequence[Freeze | None],
    kind: str,
    share: float,
    most: float,
    *,
    in_steps: bool,
    price: Price,
) -> str:
    """Say why a budget cannot be met: how much can go, and what stands in the way.

    Args:
        groups: All groups.
        causes: Result of `find_free`.
        kind: Kind of the budget.
        share: What was to go.
        most: What can go at most.
        in_steps: Whether it is only for the widths that the alignment allows.
        price: What tells the quantity at any widths; for a latency it names the layers that take the time.

    Returns:
        The message.
    """
    if in_steps:
        text = "the widths that the alignment allows: --align off takes any"
    elif isinstance(price, LatencyPrice):
        text = _list_slowest(groups, causes, price)
    else:
        blocked: dict[str, int] = {}
        for group, cause in zip(groups, causes, strict=True):
            if cause is not None:
                blocked[cause.text] = blocked.get(cause.text, 0) + group.size
        obstacles = sorted([*blocked.items(), *_count_causes(groups)], key=lambda item: -item[1])[:3]
        text = "; ".join(f"{cause}: {counted(count, 'unit')}" for cause, count in obstacles)
        text = text or "every group keeps one unit"
    left = "the narrowest width that is allowed" if in_steps else "one unit left"
    return (
        f"{share:.1%} of the {NAMES[kind]} cannot be removed: at most {int(most * 1000) / 10:.1f}% can "
        f"({left} in every free group). In the way: {text}"
    )


def _list_slowest(groups: Groups, causes: Sequence[Freeze | None], price: LatencyPrice) -> str:
    """Say where the time goes once every free group has one unit left: layers take some however narrow they are."""
    removed = [group.size - 1 if cause is None else 0 for group, cause in zip(groups, causes, strict=True)]
    slowest = price.list_slowest(removed, _MOST_NAMED)
    listed = ", ".join(f"{name} {duration(time / 1e9)}" for name, time in slowest)
    left = duration(cost_without(price, removed) / 1e9)
    return f"the time that layers take however narrow they are, {left} of {duration(price.total / 1e9)}: {listed}, ..."


def describe_frozen(groups: Groups, causes: Sequence[Freeze | None]) -> Iterator[dict[str, object]]:
    """Put what stays, and why, into the plan's form; `causes` is the result of `find_free`."""
    for entry in groups.frozen:
        yield {
            "reason": entry.cause.reason.value,
            "node": entry.cause.node,
            "detail": entry.cause.detail,
            "filters": entry.filters,
            "units": entry.units,
        }
    for group, cause in zip(groups, causes, strict=True):
        if cause is not None:
            yield {
                "reason": cause.reason.value,
                "node": cause.node,
                "detail": cause.detail,
                "filters": group.name,
                "units": group.size,
            }
