"""Turn the CSV files of the benchmarks into the tables of docs/performance.md."""

from __future__ import annotations

import csv
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from machine import ROOT

sys.path.insert(0, str(ROOT / "tools"))
from markers import replace_between

Row = dict[str, str]
MOST_OF_TORCH_PRUNING = 0.5
MOST_SECONDS_PROVEN = {"resnet50": 3.0}
MOST_SECONDS_HELP = 0.4
WAYS = {"srr": "srr-onnx", "srr_proof": "with proof", "torch_pruning": "Torch-Pruning", "onnxsim": "onnxsim"}


def read_csv(path: Path) -> list[Row]:
    """Read a CSV file; empty where there is none yet."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def make_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Put cells into Markdown; the first column is text, the others are numbers."""
    rule = "|---|" + "--:|" * (len(header) - 1)
    return "\n".join([f"| {' | '.join(header)} |", rule, *(f"| {' | '.join(line)} |" for line in lines)])


def select(rows: list[Row], field: str, **wanted: str) -> list[float]:
    """Take one field of the rows that match, in the order of the rounds."""
    return [float(row[field] or 0) for row in rows if all(row[name] == value for name, value in wanted.items())]


def describe_ratio(rows: list[Row], net: str, rival: str, without: str = "") -> tuple[str, float]:
    """Divide the seconds of srr-onnx by those of a rival, round by round.

    Args:
        rows: All runs.
        net: Name of the net.
        rival: A way.
        without: A phase of the rival that is left out.

    Returns:
        Median, lowest and highest as text; the median.
    """
    ours, theirs = select(rows, "seconds", net=net, way="srr"), select(rows, "seconds", net=net, way=rival)
    if without:
        parts = select(rows, without, net=net, way=rival)
        theirs = [total - part for total, part in zip(theirs, parts, strict=True)]
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    if not ratios:
        return "", math.nan
    middle = statistics.median(ratios)
    return f"{middle:.2f} ({min(ratios):.2f} to {max(ratios):.2f})", middle


def format_times(rows: list[Row], left: list[Row]) -> str:
    """Seconds of every way on every net."""
    lines = []
    macs = {(row["net"], row["way"]): float(row["macs_left"]) for row in left}
    for net in dict.fromkeys(row["net"] for row in rows):
        cells = [net, f"{select(rows, 'file_mb', net=net)[0]:.0f}"]
        for way in WAYS:
            seconds = select(rows, "seconds", net=net, way=way)
            cells.append(f"{min(seconds):.2f}, {statistics.median(seconds):.2f}" if seconds else "")
        cells += [f"{macs[net, way]:.2f}" if (net, way) in macs else "" for way in WAYS if way != "srr_proof"]
        lines.append(cells)
    head = ["net", "MB", *(f"{name}: min, median s" for name in WAYS.values())]
    return make_table(head + [f"MACs left: {WAYS[way]}" for way in WAYS if way != "srr_proof"], lines)


def format_ratios(rows: list[Row]) -> str:
    """Seconds of srr-onnx without the proof, as a share of the rivals'."""
    lines = []
    for net in dict.fromkeys(row["net"] for row in rows):
        whole, middle = describe_ratio(rows, net, "torch_pruning")
        verdict = "met" if middle <= MOST_OF_TORCH_PRUNING else "**missed**"
        without = describe_ratio(rows, net, "torch_pruning", without="build")[0]
        lines.append([net, whole, verdict, without, describe_ratio(rows, net, "onnxsim")[0]])
    head = ["net", "of Torch-Pruning", f"at most {MOST_OF_TORCH_PRUNING}", "without its building of the net"]
    return make_table([*head, "of onnxsim"], lines)


def format_bounds(rows: list[Row]) -> str:
    """Peak memory and the time with the proof, against their bars."""
    lines = []
    for net in dict.fromkeys(row["net"] for row in rows):
        file_mb = select(rows, "file_mb", net=net)[0]
        peaks = {way: select(rows, "peak_mb", net=net, way=way) for way in WAYS}
        most = 3 * file_mb + 300
        worst = max(peaks["srr"] + peaks["srr_proof"])
        cells = [net, f"{file_mb:.0f}", *(f"{max(found):.0f}" if found else "" for found in peaks.values())]
        lines.append([*cells, f"{most:.0f}", "met" if worst <= most else "**missed**"])
    names = [f"{name} MB" for name in WAYS.values()]
    text = make_table(["net", "file MB", *names, "at most", ""], lines)
    for net, bar in MOST_SECONDS_PROVEN.items():
        seconds = select(rows, "seconds", net=net, way="srr_proof")
        if seconds:
            middle = statistics.median(seconds)
            verdict = "met" if middle < bar else "**missed**"
            text += f"\n\n{net} with the proof: median {middle:.2f} s, bar {bar:g} s: {verdict}."
    return text


def format_imports(rows: list[Row]) -> str:
    """What a process takes before and after the pruning itself."""
    lines = []
    for way, name in WAYS.items():
        imports, process = select(rows, "import", way=way), select(rows, "process", way=way)
        rest = [a - b for a, b in zip(process, select(rows, "seconds", way=way), strict=True)]
        if imports:
            lines.append(
                [name, f"{min(imports):.2f}, {statistics.median(imports):.2f}", f"{statistics.median(rest):.2f}"]
            )
    return make_table(["way", "imports: min, median s", "process less pruning: median s"], lines)


def format_scaling(rows: list[Row]) -> str:
    """Seconds by size, and how they grow from the smallest to the largest file."""
    lines, growths = [], []
    for family in dict.fromkeys(row["family"] for row in rows):
        for way in ("srr", "srr_proof"):
            found = [row for row in rows if row["family"] == family and row["way"] == way]
            best: dict[int, float] = {}
            for row in found:
                params = int(row["params"])
                best[params] = min(best.get(params, math.inf), float(row["seconds"]))
            if len(best) < 2:
                continue
            sizes = sorted(best)
            slope = statistics.linear_regression([math.log(n) for n in sizes], [math.log(best[n]) for n in sizes]).slope
            growth = best[sizes[-1]] / best[sizes[0]] / (sizes[-1] / sizes[0])
            growths.append(growth)
            spare = max(float(row["peak_mb"]) - 3 * float(row["file_mb"]) for row in found)
            points = ", ".join(f"{best[n]:.2f}" for n in sizes)
            lines.append([f"{family}, {WAYS[way]}", points, f"{growth:.2f}", f"{slope:.2f}", f"{spare:.0f}"])
    sizes_mb = sorted({round(float(row["file_mb"]), -1) for row in rows})
    head = ["network", f"seconds at about {', '.join(f'{size:.0f}' for size in sizes_mb)} MB (min)"]
    text = make_table([*head, "growth of time / of parameters", "exponent", "peak less 3 x file, MB"], lines)
    verdict = "met" if growths and max(growths) <= 1 else "**missed**"
    return f"{text}\n\nTime grows no faster than the parameters do (a growth of at most 1): {verdict}."


def format_startup(rows: list[Row]) -> str:
    """Time of `--help`."""
    lines = [[f"`{r['command']}`", r["min"], r["median"], r["max"], r["loads"]] for r in rows]
    text = make_table(["command", "min s", "median s", "max s", "loads"], lines)
    answer = next((row for row in rows if row["command"] == "srr-onnx --help"), None)
    if answer:
        is_met = float(answer["median"]) < MOST_SECONDS_HELP and not {"onnxruntime", "torch"} & set(
            answer["loads"].split()
        )
        text += f"\n\n`--help` in under {MOST_SECONDS_HELP} s, without onnxruntime and torch: "
        text += "met." if is_met else "**missed**."
    return text


def format_machine(rows: list[Row]) -> str:
    """Facts of the machine and versions, in one line."""
    return "; ".join(f"{name.replace('_', ' ')} {value}" for row in rows[:1] for name, value in row.items() if value)


@click.command()
@click.option("--results", type=click.Path(path_type=Path), default=ROOT / "benchmarks" / "results")
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "docs" / "performance.md")
def main(results: Path, out: Path) -> None:
    """Write the tables between the markers of the page."""
    times, left = read_csv(results / "prune_time.csv"), read_csv(results / "macs_left.csv")
    tables = {
        "times": format_times(times, left),
        "ratios": format_ratios(times),
        "bounds": format_bounds(times),
        "imports": format_imports(times),
        "scaling": format_scaling(read_csv(results / "scaling.csv")),
        "startup": format_startup(read_csv(results / "startup.csv")),
        "machine": format_machine(read_csv(results / "machine.csv")),
    }
    for marker, text in tables.items():
        replace_between(out, marker, text)


if __name__ == "__main__":
    main()
