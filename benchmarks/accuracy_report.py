"""Turn the rows of accuracy_without_training.py into the tables and bars of docs/accuracy.md, and check the bars."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence

import accuracy_grid as grid
import accuracy_plots
from accuracy_rows import Row, Rows, describe_net, find_chance, mean, spread
from machine import ROOT
from report import make_table

sys.path.insert(0, str(ROOT / "tools"))
from markers import replace_between

PAGE = ROOT / "docs" / "accuracy.md"
TEST_IMAGES = {"emoji": 1062, "image": 1081}
# Most points of accuracy that may be lost, by net and share of the MACs removed.
_MOST_LOST = {("resnet20", 0.44): 2.0, ("vgg7_bn", 0.44): 1.5, ("resnet20", 0.6): 4.5, ("vgg7_bn", 0.6): 3.0}
_WAYS = {
    grid.NONE: "none",
    grid.MERGE: "merge (no images)",
    grid.DATA_FREE: "data-free (no images)",
    grid.RECALIBRATED: "normalizations recalibrated",
    grid.LEAST_SQUARES: "**least squares**",
    grid.BOTH: "least squares, then recalibrated",
}


def write_report(rows: Rows, *, write: bool) -> Iterator[str]:
    """Check the bars, and write page and plots.

    Args:
        rows: What was measured.
        write: Whether page and plots are written; the bars are told in any case.

    Yields:
        A line per bar.
    """
    bars = list(check_bars(rows))
    yield from (f"{state}  {text}" for state, text in bars)
    if write:
        replace_between(PAGE, "setting", _show_setting(rows))
        replace_between(PAGE, "bars", "\n".join(f"- **{state}**: {text}" for state, text in bars))
        replace_between(PAGE, "main", "\n\n".join(_show_main(rows, net, grid.EMOJI) for net in grid.CLASSIC))
        others = [_show_main(rows, net, split) for net, split in grid.OTHER_EMOJI if rows.select(net=net, split=split)]
        replace_between(PAGE, "others", "\n\n".join(others))
        replace_between(PAGE, "criteria", _show_criteria(rows))
        replace_between(PAGE, "domain", _show_domain(rows))
        replace_between(PAGE, "images", _show_images(rows))
        replace_between(PAGE, "made-up", _show_made_up(rows))
        replace_between(PAGE, "real", _show_real(rows))
        accuracy_plots.draw_all(rows, ROOT / "docs" / "images")


def check_bars(rows: Rows) -> Iterator[tuple[str, str]]:
    """Compare what was measured with what was promised: pass, fail, or open where trainings are missing."""
    own = rows.select(domain="own", samples=512)
    for (net, reduction), most in _MOST_LOST.items():
        found = own.select(
            net=net, split=grid.EMOJI, reduction=reduction, criterion="reconstruction", way=grid.LEAST_SQUARES
        )
        lost = -mean(found, "change")
        text = (
            f"{net} at {reduction:.0%}: {lost:.2f} points lost (mean of {len(found)} trainings), at most {most} allowed"
        )
        yield "open" if len(found) < len(grid.SEEDS) else _say(lost <= most), text
    usual = [row for row in rows.select(domain="own") if row["samples"] == 512 or row["net"] in grid.REAL]
    yield _compare_with_recalibration(Rows(usual))
    for way in (grid.MERGE, grid.DATA_FREE):
        yield _compare_with_none(rows.select(domain="own"), way)


def _compare_with_recalibration(rows: Rows) -> tuple[str, str]:
    """Least squares must beat the usual way, uniform L1 and recalibration, on every net at every reduction."""
    behind, cases, least = [], 0, float("inf")
    for net, split, reduction in rows.combinations("net", "split", "reduction"):
        part = rows.select(net=net, split=split, reduction=reduction)
        ours = part.select(criterion="reconstruction", way=grid.LEAST_SQUARES)
        theirs = [row for row in part.select(criterion="l1", way=grid.RECALIBRATED) if row["recalibrated"]]
        seeds = {row["seed"] for row in ours} & {row["seed"] for row in theirs}
        pairs = [[row for row in found if row["seed"] in seeds] for found in (ours, theirs)]
        if not seeds:
            continue
        gain = _judge(pairs[0]) - _judge(pairs[1])
        cases, least = cases + 1, min(least, gain) if pairs[0][0]["accuracy"] is not None else least
        if gain <= 0:
            behind.append(f"{describe_net(net, split)} at {reduction:.0%}")
    text = "reconstruction with least squares beats uniform L1 with recalibration "
    text += f"in {cases - len(behind)} of {cases} cases"
    text += f", by {least:.1f} points or more" if not behind else f"; not: {', '.join(behind)}"
    return _say(not behind), text


def _compare_with_none(rows: Rows, way: str) -> tuple[str, str]:
    """Compensation without images must not make anything worse by more than chance; every loss is listed."""
    plain = {_identify(row): row for row in rows.select(way=grid.NONE)}
    worse, guessed, lower, cases = [], [], [], 0
    for row in rows.select(way=way):
        before = plain.get(_identify(row))
        if before is None:
            continue
        cases += 1
        loss = _judge([before]) - _judge([row])
        if loss > 0:
            unit = "points" if row["accuracy"] is not None else "nats"
            where = (
                f"{describe_net(row['net'], row['split'])} {row['seed']}, {row['criterion']} at {row['reduction']:.0%}"
            )
            divergence = f"divergence {before['kl']:.2f} to {row['kl']:.2f} nats"
            text = f"{where} by {loss:.1f} {unit}, from {_level(before)} ({divergence})"
            found = lower if _is_chance(row) else guessed if _is_guess(before) else worse
            found.append((loss, text))
    text = f"{way} is worse than none by more than chance in {len(worse) + len(guessed)} of {cases} cases"
    kinds = (
        ("worse", worse),
        ("worse, where none was no better than always giving the most frequent answer", guessed),
        ("lower, but within chance", lower),
    )
    for what, found in kinds:
        if found:
            text += f"; {what}: {'; '.join(name for _, name in sorted(found, reverse=True))}"
    return _say(not worse and not guessed), text


def _is_chance(row: Row) -> bool:
    """Whether more images are spoiled than gained, against none, by no more than chance (at 5 %).

    Where there are no counts (no labels, or older rows), no loss is taken for chance.
    """
    return row["spoiled"] is not None and find_chance(row["gained"], row["spoiled"]) > 0.05


def _is_guess(row: Row) -> bool:
    """Whether a network is right no more often than the most frequent answer always is."""
    return row["guess"] is not None and row["accuracy"] is not None and row["accuracy"] <= row["guess"]


def _say(has_passed: bool) -> str:
    return "pass" if has_passed else "fail"


def _judge(found: Sequence[Row]) -> float:
    """Points of accuracy; where there is no label, less the divergence from the original."""
    has_labels = all(row["accuracy"] is not None for row in found)
    return 100 * mean(found, "accuracy") if has_labels else -mean(found, "kl")


def _level(row: Row) -> str:
    return f"{row['accuracy']:.1%}" if row["accuracy"] is not None else f"{row['kl']:.3f} nats"


def _identify(row: Row) -> tuple[object, ...]:
    return tuple(row[field] for field in ("net", "split", "seed", "domain", "samples", "criterion", "reduction"))


def _show_setting(rows: Rows) -> str:
    lines = []
    for net, split in rows.combinations("net", "split"):
        found = rows.select(net=net, split=split, domain="own")
        bases = {row["seed"]: row["baseline"] for row in found}
        shown = ", ".join("" if base is None else f"{base:.1%}" for _, base in sorted(bases.items()))
        what = {"emoji": "unseen emoji", "image": "images drawn at random"}.get(split, grid.REAL.get(net, ""))
        lines.append([describe_net(net, split), what, str(len(bases)), shown or "no labels"])
    return make_table(("net", "measured on", "trainings", "accuracy before pruning"), lines)


def _show_main(rows: Rows, net: str, split: str) -> str:
    """Change of accuracy of one net by criterion and compensation, at every reduction."""
    found = rows.select(net=net, split=split, domain="own", samples=512)
    lines = []
    for criterion in grid.MAIN:
        for way, label in _WAYS.items():
            parts = [found.select(criterion=criterion, way=way, reduction=r) for r in grid.REDUCTIONS]
            if any(parts):
                lines.append([f"{criterion}: {label}", *(spread(part, "change") for part in parts)])
    return make_table((describe_net(net, split), *(f"{r:.0%} removed" for r in grid.REDUCTIONS)), lines)


def _show_criteria(rows: Rows) -> str:
    ways = (grid.NONE, grid.DATA_FREE, grid.RECALIBRATED, grid.LEAST_SQUARES)
    lines = []
    for net in grid.CLASSIC:
        found = rows.select(net=net, split=grid.EMOJI, domain="own", samples=512)
        for criterion in (*grid.MAIN, *grid.OTHERS):
            at = [spread(found.select(criterion=criterion, way=way, reduction=0.44), "change") for way in ways]
            at.append(spread(found.select(criterion=criterion, way=grid.LEAST_SQUARES, reduction=0.6), "change"))
            lines.append([f"{net}: {criterion}", *at])
    return make_table(("", *(f"44%: {way}" for way in ways), "60%: least squares"), lines)


def _show_domain(rows: Rows) -> str:
    cases = (
        ("reconstruction", grid.LEAST_SQUARES),
        ("reconstruction", grid.BOTH),
        ("l1", grid.LEAST_SQUARES),
        ("l1", grid.RECALIBRATED),
    )
    lines = []
    for net in grid.CLASSIC:
        for reduction in (0.44, 0.6):
            for criterion, way in cases:
                part = rows.select(net=net, split=grid.EMOJI, reduction=reduction, criterion=criterion, way=way)
                foreign = part.select(domain="photographs")
                seeds = {row["seed"] for row in foreign}
                own = [row for row in part.select(domain="own", samples=512) if row["seed"] in seeds]
                if foreign:
                    shown = [f"{net}, {reduction:.0%}: {criterion}, {way}", spread(own, "change")]
                    lines.append([*shown, spread(foreign, "change")])
    return make_table(("", "512 emoji", "286 photographs"), lines)


def _show_images(rows: Rows) -> str:
    cases = (("reconstruction", grid.LEAST_SQUARES), ("reconstruction", grid.BOTH), ("l1", grid.RECALIBRATED))
    numbers = sorted((*grid.NUM_IMAGES, 512))
    lines = []
    for net in grid.CLASSIC:
        found = rows.select(net=net, split=grid.EMOJI, domain="own", reduction=0.44)
        for criterion, way in cases:
            part = found.select(criterion=criterion, way=way)
            parts = [part.select(samples=number, **({"seed": 0} if number != 512 else {})) for number in numbers]
            lines.append([f"{net}: {criterion}, {way}", *(spread(part, "change") for part in parts)])
    return make_table(("44% removed", *map(str, numbers)), lines)


def _show_made_up(rows: Rows) -> str:
    """Least squares on made-up pictures; beside it what else there is without any image."""
    reductions = sorted({row["reduction"] for row in rows.select(domain=grid.MADE_UP)})
    lines = []
    for net, split, criterion in rows.select(domain=grid.MADE_UP).combinations("net", "split", "criterion"):
        found = rows.select(net=net, split=split, criterion=criterion)
        parts = {way: found.select(domain=grid.MADE_UP, way=way) for way in (grid.NONE, grid.LEAST_SQUARES)}
        if criterion != "reconstruction":  # which has chosen other channels with the network's own images
            parts |= {way: found.select(domain="own", way=way) for way in (grid.MERGE, grid.DATA_FREE)}
        for way, part in parts.items():
            at = [part.select(reduction=reduction) for reduction in reductions]
            shown = [f"{spread(few, 'change')} ({mean(few, 'kl'):.2f})" if few else "" for few in at]
            name = "least squares on made-up pictures" if way == grid.LEAST_SQUARES else way
            if any(shown):
                lines.append([f"{describe_net(net, split)}: {criterion}, {name}", *shown])
    return make_table(("change of accuracy (divergence, nats)", *(f"{r:.0%} removed" for r in reductions)), lines)


def _show_real(rows: Rows) -> str:
    lines = []
    shown: tuple[Callable[[Row], str], ...] = (
        lambda row: "" if row["accuracy"] is None else f"{row['change']:+.1f}",
        lambda row: f"{row['agreement']:.1%}",
        lambda row: f"{row['kl']:.3f}",
    )
    for net in grid.REAL:
        for criterion, way in rows.select(net=net, domain="own").combinations("criterion", "way"):
            cells = []
            for reduction in grid.REAL_REDUCTIONS:
                found = rows.select(net=net, domain="own", criterion=criterion, way=way, reduction=reduction)
                cells.append(" / ".join(text for show in shown if (text := show(found[0]))) if found else "")
            lines.append([f"{net}: {criterion}, {way}", *cells])
    return make_table(("", *(f"{r:.0%} removed" for r in grid.REAL_REDUCTIONS)), lines)
