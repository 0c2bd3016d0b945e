"""Turn the rows of accuracy.py into the tables and plots of docs/results.md."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import results_grid as grid
import results_plots
from accuracy_grid import EMOJI, LEAST_SQUARES, NONE, RECALIBRATED, REDUCTIONS
from accuracy_rows import Row, Rows, describe_net, find_chance, mean, spread
from machine import ROOT, describe_machine
from report import make_table
from results_measuring import KEY, list_keys

from srr_onnx.wording import counted

sys.path.insert(0, str(ROOT / "tools"))
from markers import replace_between

_COLUMNS = {
    (NONE, NONE): "nothing",
    (NONE, RECALIBRATED): "recalibrated",
    (NONE, grid.LABELS): "labels",
    (NONE, grid.DISTILLATION): "distillation",
    (LEAST_SQUARES, NONE): "least squares",
    (LEAST_SQUARES, RECALIBRATED): "least squares, recalibrated",
    (LEAST_SQUARES, grid.LABELS): "least squares, labels",
    (LEAST_SQUARES, grid.DISTILLATION): "least squares, distillation",
}
_Which = tuple[str, str, str]
# What is compared image by image: criterion, compensation, training of either side.
_PAIRS: tuple[tuple[_Which, _Which], ...] = (
    (("reconstruction", LEAST_SQUARES, NONE), ("l1", NONE, grid.LABELS)),
    (("reconstruction", LEAST_SQUARES, NONE), ("torch-pruning l1", NONE, grid.LABELS)),
    (("reconstruction", LEAST_SQUARES, NONE), ("torch-pruning group norm, global", NONE, grid.LABELS)),
    (("reconstruction", LEAST_SQUARES, grid.LABELS), ("reconstruction", LEAST_SQUARES, NONE)),
    (("reconstruction", LEAST_SQUARES, grid.LABELS), ("reconstruction", LEAST_SQUARES, grid.DISTILLATION)),
    (("reconstruction", LEAST_SQUARES, grid.LABELS), ("l1", NONE, grid.LABELS)),
    (("reconstruction", LEAST_SQUARES, grid.LABELS), ("torch-pruning l1", NONE, grid.LABELS)),
    (("reconstruction", LEAST_SQUARES, grid.LABELS), ("torch-pruning group norm, global", NONE, grid.LABELS)),
    (("reconstruction", LEAST_SQUARES, grid.LABELS), ("srr", LEAST_SQUARES, grid.LABELS)),
    (("reconstruction", LEAST_SQUARES, grid.DISTILLATION), ("l1", NONE, grid.DISTILLATION)),
    (("reconstruction", LEAST_SQUARES, grid.DISTILLATION), ("torch-pruning l1", NONE, grid.DISTILLATION)),
    (
        ("reconstruction", LEAST_SQUARES, grid.DISTILLATION),
        ("torch-pruning group norm, global", NONE, grid.DISTILLATION),
    ),
    (("srr", LEAST_SQUARES, grid.DISTILLATION), ("l1", LEAST_SQUARES, grid.DISTILLATION)),
    (("l1", LEAST_SQUARES, grid.LABELS), ("l1", NONE, grid.LABELS)),
    (("srr", LEAST_SQUARES, grid.LABELS), ("l1", LEAST_SQUARES, grid.LABELS)),
    (("srr", LEAST_SQUARES, grid.LABELS), ("random", LEAST_SQUARES, grid.LABELS)),
    (("srr", LEAST_SQUARES, grid.LABELS), ("srr, paper", LEAST_SQUARES, grid.LABELS)),
    (("srr", NONE, grid.LABELS), ("l1", NONE, grid.LABELS)),
    (("srr", NONE, grid.LABELS), ("random", NONE, grid.LABELS)),
    (("srr, paper", NONE, grid.LABELS), ("l1", NONE, grid.LABELS)),
    (("srr", NONE, grid.LABELS), ("torch-pruning group norm, global", NONE, grid.LABELS)),
)
_RARE = 0.05


def write_report(rows: Rows, page: Path) -> None:
    """Write page and plots; these into the folder `images` beside it.

    Args:
        rows: What was measured.
        page: The page, with markers; one without text is made where there is none.
    """
    tables = {
        "machine": _show_machine(rows),
        "setting": _show_setting(rows),
        "missing": _show_missing(rows),
        "rates": _show_rates(rows),
        "summary": _show_summary(rows),
        "tables": "\n\n".join(_show_tables(rows, page.parent / "images")),
        "pairs": "\n\n".join(_show_pairs(rows)),
        "photos": _show_photos(rows),
    }
    if not page.exists():
        page.write_text("\n".join(f"<!-- {name} -->\n<!-- /{name} -->" for name in tables), encoding="utf-8")
    for name, text in tables.items():
        replace_between(page, name, text)


def _show_machine(rows: Rows) -> str:
    facts = describe_machine()
    packages = ", ".join(f"{name} {facts[name]}" for name in ("onnxruntime", "torch", "numpy"))
    hours = sum(row["seconds"] for row in rows) / 3600
    return f"{facts['processor']}, {packages}; {facts['date']}; {len(rows)} rows of {hours:.1f} hours on one core."


def _show_setting(rows: Rows) -> str:
    """Accuracy of every network before pruning, and after it was only trained, by seed."""
    found = rows.select(criterion=grid.UNPRUNED, images=grid.TEST)
    lines = []
    for net, split in found.combinations("net", "split"):
        part = found.select(net=net, split=split)
        trained = [f"{row['accuracy']:.1%}" for row in part.select(training=grid.LABELS)]
        seconds = [f"{row['seconds']:.0f}" for row in part.select(training=grid.LABELS)]
        before = [f"{row['accuracy']:.1%}" for row in part.select(training=NONE)]
        lines.append([describe_net(net, split), ", ".join(before), ", ".join(trained), ", ".join(seconds)])
    return make_table(("net", "as it is", "fine-tuned without pruning", "seconds of that"), lines)


def _show_missing(rows: Rows) -> str:
    """What the grid has and the rows have not."""
    known = {tuple(str(row[field]) for field in KEY) for row in rows}
    wanted = dict[str, dict[tuple[str, ...], bool]]()
    for unit in (unit for part in grid.PARTS.values() for unit in part()):
        place = f"{describe_net(unit.net, unit.split)} {unit.seed}"
        wanted.setdefault(place, {}).update({key: key in known for key in list_keys(unit)})
    lacking = {place: sum(not is_there for is_there in found.values()) for place, found in wanted.items()}
    texts = [f"{place} ({count} of {len(wanted[place])} rows)" for place, count in lacking.items() if count]
    return f"Not measured: {', '.join(texts)}." if texts else "Everything that is to be measured was."


def _show_rates(rows: Rows) -> str:
    found = rows.select(images=grid.VALIDATION)
    lines = []
    for fields in found.combinations("criterion", "compensation", "training"):
        part = found.select(**dict(zip(("criterion", "compensation", "training"), fields, strict=True)))
        cells = [spread(part.select(lr=rate), "change") for rate in grid.RATES]
        lines.append([f"{fields[0]}, compensation {fields[1]}: {fields[2]}", *cells])
    return make_table(("validation images", *(f"rate {rate:g}" for rate in grid.RATES)), lines)


def _show_summary(rows: Rows) -> str:
    """Mean change over networks at the main reduction, every network with the mean of its seeds."""
    found = Rows(row for row in rows.select(images=grid.TEST, reduction=grid.REDUCTION) if row["net"] != grid.PHOTO_NET)
    header, columns = [f"{grid.REDUCTION:.0%} removed, mean of networks"], []
    for way, name in _COLUMNS.items():
        part = found.select(compensation=way[0], training=way[1])
        criteria = [criterion for criterion, ways in grid.MAIN.items() if way in ways]
        nets = [
            net
            for net in part.combinations("net", "split")
            if criteria and all(part.select(net=net[0], split=net[1], criterion=criterion) for criterion in criteria)
        ]
        if nets:
            header.append(f"{name} ({counted(len(nets), 'network')})")
            columns.append([_average(part.select(criterion=criterion), nets) for criterion in grid.MAIN])
    return make_table(header, [list(cells) for cells in zip(grid.MAIN, *columns, strict=True)])


def _average(rows: Rows, nets: Sequence[tuple[str, str]]) -> str:
    means = [mean(rows.select(net=net, split=split), "change") for net, split in nets]
    return "" if np.isnan(means).any() else f"{np.mean(means):+.1f}"


def _show_tables(rows: Rows, folder: Path) -> Iterator[str]:
    """Change of accuracy of every network at every reduction, by criterion and treatment; plots go into a folder."""
    found = Rows(row for row in rows.select(images=grid.TEST) if row["net"] != grid.PHOTO_NET)
    for net, split in found.combinations("net", "split"):
        whole = found.select(net=net, split=split)
        ways = [way for way in _COLUMNS if whole.select(compensation=way[0], training=way[1])]
        if plot := results_plots.draw_net(whole, describe_net(net, split), folder):
            yield plot
        for reduction in REDUCTIONS:
            part = whole.select(reduction=reduction)
            lines = [
                [criterion, *(spread(_pick(part, criterion, *way), "change") for way in ways)]
                for criterion in (*grid.CRITERIA, *grid.HALVES, *grid.RIVALS)
                if part.select(criterion=criterion)
            ]
            if lines:
                header = f"{describe_net(net, split)}, {reduction:.0%} removed"
                yield make_table((header, *(_COLUMNS[way] for way in ways)), lines)


def _pick(rows: Rows, criterion: str, compensation: str, training: str) -> Rows:
    return rows.select(criterion=criterion, compensation=compensation, training=training)


def _show_pairs(rows: Rows) -> Iterator[str]:
    """Differences of pairs, the images on which they differ, and how likely chance alone makes them."""
    found = Rows(row for row in rows.select(images=grid.TEST) if row["reduction"] and row["net"] != grid.PHOTO_NET)
    places = sorted(found.combinations("net", "split", "reduction"))
    first = [place for place in places if place[:2] == ("resnet20", EMOJI)]
    others = [place for place in places if place not in first]
    main = [place for place in others if place[2] == grid.REDUCTION]
    for few in (first, main, [place for place in others if place not in main]):
        parts = {
            f"{describe_net(net, split)}, {reduction:.0%}": found.select(net=net, split=split, reduction=reduction)
            for net, split, reduction in few
        }
        if few == first:
            parts[f"all networks, {grid.REDUCTION:.0%}"] = found.select(reduction=grid.REDUCTION)
        lines = []
        for pair in _PAIRS:
            cells = [_compare(*(_pick(part, *which) for which in pair)) for part in parts.values()]
            if any(cells):
                lines.append([" against ".join(_name(which) for which in pair), *cells])
        if lines:
            yield make_table(("", *parts), lines)


def _name(which: _Which) -> str:
    criterion, *way = which
    return f"{criterion} + {_COLUMNS[way[0], way[1]]}"


def _compare(ours: Rows, theirs: Rows) -> str:
    """Compare two sets of rows, each with that of the same network and seed, on the same images."""
    others = {_find_subject(row): row for row in theirs}
    pairs = [(row, others[_find_subject(row)]) for row in ours if _find_subject(row) in others]
    if not pairs:
        return ""
    gained = lost = 0
    for one, other in pairs:
        left, right = _unpack(one), _unpack(other)
        gained, lost = gained + int((left & ~right).sum()), lost + int((right & ~left).sum())
    points = sum(100 * (one["accuracy"] - other["accuracy"]) for one, other in pairs) / len(pairs)
    chance = find_chance(gained, lost)
    shown = f"{points:+.1f} ({gained}:{lost}; {chance:.2g})"
    return f"**{shown}**" if chance < _RARE else shown


def _find_subject(row: Row) -> tuple[Any, ...]:
    return row["net"], row["split"], row["seed"]


def _unpack(row: Row) -> np.ndarray[Any, np.dtype[np.bool_]]:
    packed = np.frombuffer(base64.b64decode(row["hits"]), np.uint8)
    return np.unpackbits(packed).astype(bool)


def _show_photos(rows: Rows) -> str:
    found = rows.select(net=grid.PHOTO_NET)
    lines = []
    for criterion, compensation, training in found.combinations("criterion", "compensation", "training"):
        cells = []
        for reduction in grid.PHOTO_REDUCTIONS:
            part = _pick(found.select(reduction=reduction), criterion, compensation, training)
            shown = f"{mean(part, 'agreement'):.1%} / {mean(part, 'kl'):.2f} / {mean(part, 'change'):+.1f}"
            cells.append(shown if part else "")
        lines.append([_name((criterion, compensation, training)), *cells])
    return make_table((grid.PHOTO_NET, *(f"{r:.0%} removed" for r in grid.PHOTO_REDUCTIONS)), lines)
