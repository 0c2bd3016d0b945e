"""`srr-onnx inspect`: what a model costs, what can be pruned, what not and why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from srr_onnx.analysis.find import find_groups
from srr_onnx.analysis.groups import Groups
from srr_onnx.analysis.labels import FreezeReason
from srr_onnx.cli import options
from srr_onnx.cli.progress import show_progress
from srr_onnx.cli.report import note_guess, note_uncounted
from srr_onnx.cli.tables import show_json, show_line, show_table
from srr_onnx.graph.cost import CONVENTION, count_cost, count_layers
from srr_onnx.graph.load import load_model
from srr_onnx.graph.model import Model
from srr_onnx.planning.allocation import reach
from srr_onnx.planning.costs import CostModel
from srr_onnx.planning.make import MAX_GROUP_RATIO, find_free
from srr_onnx.rewriting.verify import make_feeds
from srr_onnx.targets.measuring import measure_shapes
from srr_onnx.wording import counted, percent, quantity, shape

Facts = dict[str, Any]

_TOP = 10


@click.command()
@options.model_argument
@options.input_option
@click.option("--all", "show_all", is_flag=True, help=f"Every layer and frozen node, not the first {_TOP}.")
@options.format_option
def inspect(model: Path, inputs: Mapping[str, Sequence[int]], show_all: bool, output_format: str) -> None:
    """Show what a model costs, what can be pruned, and what not and why."""
    with show_progress() as tell:
        loaded = measure_shapes(load_model(model, inputs), make_feeds)
        tell("analyze", 0, 1)
        facts = collect_facts(loaded, find_groups(loaded))
    if output_format == "json":
        show_json(facts)
    else:
        _show(str(model), facts, _TOP if not show_all else None)
    note_guess(loaded)
    note_uncounted([layer["node"] for layer in facts["layers"] if layer["macs"] is None])


def collect_facts(model: Model, groups: Groups) -> Facts:
    """Everything that the command tells, in its JSON form."""
    cost = count_cost(model)
    costs = CostModel(model, groups, "macs")
    return {
        "schema": "srr-onnx/inspect/1",
        "model": {
            "sha256": model.sha256,
            "bytes": model.size_bytes,
            "opset": model.opset,
            "ir_version": model.proto.ir_version,
            "producer": f"{model.proto.producer_name} {model.proto.producer_version}".strip(),
            "inputs": {name: list(sizes) for name, sizes in model.inputs.items()},
            "outputs": {name: list(model.shapes[name]) if name in model.shapes else None for name in model.outputs},
            "is_dynamic": model.is_dynamic,
        },
        "convention": CONVENTION,
        "cost": cost.to_json(),
        "layers": [
            {"node": layer.node.label, "op_type": layer.node.op_type, "macs": layer.macs, "params": layer.params}
            for layer in count_layers(model)
        ],
        "groups": [
            {
                "id": group.id,
                "name": group.name,
                "nodes": list(group.nodes),
                "units": group.size,
                "exact": group.is_exact,
                "inexact_at": group.inexact_at,
                "macs_per_unit": costs.saving(number),
            }
            for number, group in enumerate(groups)
        ],
        "frozen": [
            {
                "filters": entry.filters,
                "units": entry.units,
                "reason": entry.cause.reason.value,
                "node": entry.cause.node,
                "detail": entry.cause.detail,
            }
            for entry in groups.frozen
        ],
        "reachable": _reachable(model, groups, {"macs": costs, "params": CostModel(model, groups, "params")}),
    }


def _reachable(model: Model, groups: Groups, costs: Mapping[str, CostModel]) -> list[Facts]:
    """Largest share that can go, without and with inexact groups, under the usual cap and without one."""
    found = []
    for allow_inexact in (False, True) if any(not group.is_exact for group in groups) else (False,):
        is_free = [cause is None for cause in find_free(groups, allow_inexact=allow_inexact)]
        for cap in (MAX_GROUP_RATIO, 1.0):
            shares = {q: reach(groups, is_free, c, cap) / c.total if c.total else 0.0 for q, c in costs.items()}
            found.append({"allow_inexact": allow_inexact, "max_group_ratio": cap, **shares})
    return found


def _show(path: str, facts: Facts, top: int | None) -> None:
    model, cost = facts["model"], facts["cost"]
    show_line(f"{path}: {quantity(model['bytes'], 'B')}, opset {model['opset']}, IR {model['ir_version']}")
    for kind in ("inputs", "outputs"):
        texts = [f"{name} {shape(sizes) if sizes is not None else '?'}" for name, sizes in model[kind].items()]
        show_line(f"{kind}: {', '.join(texts)}" + (" (dynamic in the file)" if model["is_dynamic"] else ""))
    show_line(f"{cost['macs']:,} MACs ({quantity(cost['macs'])}), {cost['params']:,} parameters")
    show_line(f"({facts['convention']})")
    show_line()
    _show_layers(facts, top)
    _show_groups(facts)
    _show_frozen(facts["frozen"], top)
    _show_reachable(facts["reachable"])


def _show_layers(facts: Facts, top: int | None) -> None:
    layers, cost = facts["layers"], facts["cost"]
    # Those that cannot be counted come first: they may be the largest.
    largest = sorted(layers, key=lambda layer: -math.inf if layer["macs"] is None else -layer["macs"])[:top]
    rows = [
        (
            layer["node"],
            layer["op_type"],
            "?" if layer["macs"] is None else quantity(layer["macs"]),
            "?" if layer["macs"] is None else percent(layer["macs"] / cost["macs"]) if cost["macs"] else "-",
            quantity(layer["params"]),
        )
        for layer in layers
        if layer in largest
    ]
    rest = len(layers) - len(rows)
    show_table(("layer", "operator", "MACs", "share", "parameters"), rows, left=2)
    if rest > 0:
        show_line(f"... and {rest} more (--all shows them)")
    show_line()


def _show_groups(facts: Facts) -> None:
    groups, macs = facts["groups"], facts["cost"]["macs"]
    if not groups:
        show_line("No channel of this model can be pruned.")
    else:
        units = sum(group["units"] for group in groups)
        show_line(f"{counted(len(groups), 'pruning group')}, {counted(units, 'unit')}:")
        rows = [
            (
                group["id"],
                group["name"],
                "yes" if group["exact"] else f"no: {group['inexact_at']}",
                str(group["units"]),
                f"{group['macs_per_unit'] / macs:.3%}".replace("%", " %") if macs else "-",
            )
            for group in groups
        ]
        show_table(("group", "filters of", "exact", "units", "MACs per unit"), rows, left=3)
    show_line()


def _show_frozen(frozen: Sequence[Facts], top: int | None) -> None:
    if not frozen:
        return
    show_line("Frozen:")
    rows = []
    for entry in frozen[:top]:
        why = FreezeReason(entry["reason"]).text
        where = entry["node"] + (f" ({entry['detail']})" if entry["detail"] else "")
        rows.append((entry["filters"], why, where, str(entry["units"])))
    show_table(("filters of", "why", "at", "units"), rows, left=3)
    if len(frozen) > len(rows):
        show_line(f"... and {len(frozen) - len(rows)} more (--all shows them)")
    show_line()


def _show_reachable(reachable: Sequence[Facts]) -> None:
    rows = []
    for entry in reachable:
        cap = entry["max_group_ratio"]
        text = "one unit left per group" if cap == 1 else f"at most {percent(cap)} of any group (default)"
        if entry["allow_inexact"]:
            text += ", --allow-inexact"
        rows.append((text, percent(entry["macs"]), percent(entry["params"])))
    show_table(("Highest reduction", "FLOPs", "parameters"), rows)
