"""Measure what can be pruned on exported nets, and prove it from outside, for docs/coverage.md.

For every file: prune at a ratio of 0.5, count the MACs of the written file, compare it with the masked original, and
do the same for random keep-sets that leave as little as one unit of a group. Counting and proof are those of
`outside.py`, which shares no code with the product.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import subprocess
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import click
import numpy as np
import onnx
from coverage_table import (
    FORMS,
    NETS,
    Row,
    format_details,
    format_findings,
    format_summary,
    read_rows,
    write_rows,
)
from markers import replace_between
from outside import MaskedOriginal, count_macs, count_params, make_feeds

import srr_onnx
from srr_onnx.analysis.groups import Groups
from srr_onnx.graph.model import Model
from srr_onnx.rewriting.apply import kept_positions, prune_units

ROOT = Path(__file__).resolve().parent.parent
INEXACT_NETS = ("convnext_tiny",)  # pruned with --allow-inexact, as their bar says


def draw_keep_set(groups: Groups, number: int) -> np.ndarray:
    """Draw which units stay.

    The first keep-set leaves one unit of every group, the second takes one unit from each; the others take a random
    share of every group, where one group in five keeps a single unit and one in ten keeps all.

    Args:
        groups: Result of `find_groups`.
        number: Number of the keep-set, also the seed.

    Returns:
        Shape `(groups.num_units,)`; units of inexact groups all stay.
    """
    rng = np.random.default_rng(number)
    is_kept = np.ones(groups.num_units, bool)
    for group in groups:
        if not group.is_exact:
            continue
        kind = rng.random()
        count = round(group.size * rng.random())
        if number == 0 or (number > 1 and kind < 0.2):
            count = 1
        elif number == 1:
            count = group.size - 1
        elif kind > 0.9:
            count = group.size
        keep = rng.choice(group.size, max(count, 1), replace=False)
        is_kept[group.units] = False
        is_kept[group.first_unit + keep] = True
    return is_kept


def find_fault(path: Path) -> str:
    """Say what the checker, shapes included, has against a file; empty where it accepts it."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        return str(error).splitlines()[0]
    return ""


def describe_frozen(groups: Groups) -> str:
    """Count frozen units by reason."""
    counts: Counter[str] = Counter()
    for entry in groups.frozen:
        counts[entry.cause.reason.value] += entry.units
    return ", ".join(f"{count} {reason}" for reason, count in counts.most_common())


def measure(path: Path, net: str, form: str, num_keep_sets: int) -> Row:
    """Measure one file.

    Args:
        path: The file.
        net: Name of the net.
        form: How it was exported.
        num_keep_sets: Random keep-sets to try.

    Returns:
        The row.
    """
    model = srr_onnx.load_model(path)
    groups = srr_onnx.find_groups(model)
    inexact = [group for group in groups if not group.is_exact]
    facts = {
        "groups": len(groups),
        "units": groups.num_units,
        "inexact_groups": len(inexact),
        "inexact_units": sum(group.size for group in inexact),
        "frozen": describe_frozen(groups),
    }
    with tempfile.TemporaryDirectory(prefix="coverage-") as folder:
        target = Path(folder) / "pruned.onnx"
        allow_inexact = net in INEXACT_NETS
        start = time.perf_counter()
        result = srr_onnx.prune(path, target, ratio=0.5, criterion="l1", allow_inexact=allow_inexact, compensate="none")
        facts["seconds"] = time.perf_counter() - start
        feeds = make_feeds(model.inputs)
        before, after = count_macs(path, feeds), count_macs(target, feeds)
        facts |= {"macs": before, "macs_left": after / before}
        facts["params_left"] = count_params(target) / count_params(path)
        problem = ""
        if (result.plan.before.macs, result.plan.after.macs) != (before, after):
            problem = (
                f"the plan says {result.plan.before.macs} and {result.plan.after.macs} MACs, a run {before} {after}"
            )
        half = {
            (name, int(axis["axis"])): np.array(axis["keep"])
            for name, axes in result.plan.values.items()
            for axis in axes
        }
        is_exact = all(group.exact for group in result.plan.groups)
        facts |= prove_all(path, target, model, groups, half if is_exact else None, num_keep_sets)
    facts["problem"] = "; ".join(filter(None, [problem, str(facts["problem"])]))
    return Row(net, form, **facts)


def prove_all(
    path: Path, target: Path, model: Model, groups: Groups, half: dict | None, num_keep_sets: int
) -> dict[str, object]:
    """Compare the file pruned at 0.5, and files pruned at random keep-sets, with the masked original.

    Args:
        path: The original.
        target: The file pruned at 0.5; replaced by the others one after another.
        model: The original, loaded.
        groups: Its groups.
        half: Positions that remain in `target`; None where inexact groups went, which can only be run.
        num_keep_sets: Random keep-sets to try.

    Returns:
        Fields of the row.
    """
    is_batch_free = any(d.dim_param for i in onnx.load(path).graph.input for d in i.type.tensor_type.shape.dim[:1])
    feeds = make_feeds(model.inputs, batch=2 if is_batch_free else 1, seed=1)
    original = MaskedOriginal(path, {name for name, _ in groups.values}, feeds)
    error, moved = math.nan, []
    faults, problem = {find_fault(target)}, ""
    if half is not None:
        found = original.compare(target, half, model.shapes)
        error = found.error if not math.isnan(found.error) else math.inf
        moved.append(found.moved)
    elif not original.run_shapes(target):
        problem = "the inexact result has other output shapes, or is not finite"
    worst = 0.0 if num_keep_sets else math.nan
    for number in range(num_keep_sets):
        is_kept = draw_keep_set(groups, number)
        pruned = prune_units(model, groups, is_kept)
        srr_onnx.save_model(pruned, target, force=True)
        faults.add(find_fault(target))
        found = original.compare(target, kept_positions(groups, is_kept), model.shapes)
        worst = max(worst, found.error if not math.isnan(found.error) else math.inf)
        moved.append(found.moved)
    return {
        "error": error,
        "keep_sets": num_keep_sets,
        "worst_error": worst,
        "least_moved": min(moved),
        "fault": max(faults),
        "problem": problem,
    }


def measure_torch_pruning(python: Path, nets: list[str], path: Path, zoo: Path) -> None:
    """Measure what Torch-Pruning leaves of every net at the same ratio, and note it in a CSV file.

    Args:
        python: A Python that has torch, torchvision and torch-pruning.
        nets: Nets to measure; those that are no torchvision nets are left out.
        path: CSV file; other nets in it are kept.
        zoo: Folder with the originals.
    """
    known = read_torch_pruning(path)
    for net in nets:
        original = zoo / f"{net}.ts_folded.onnx"
        if not original.exists():
            continue
        with tempfile.TemporaryDirectory(prefix="coverage-") as folder:
            output = Path(folder) / "pruned.onnx"
            script = ROOT / "benchmarks" / "torch_pruning_way.py"
            command = [str(python), "-W", "ignore", str(script), net, str(output), "--norm", "2", "--uniform"]
            run = subprocess.run(command, capture_output=True, text=True, check=False)
            if run.returncode:
                known[net] = run.stderr.strip().splitlines()[-1].split(":")[0]
            else:
                size = 299 if net == "inception_v3" else 224
                left = count_macs(output, {"input": np.zeros((1, 3, size, size), np.float32)})
                before = count_macs(original, make_feeds(srr_onnx.load_model(original).inputs))
                known[net] = f"{left / before:.3f}"
        click.echo(f"Torch-Pruning {net}: {known[net]}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([("net", "macs_left"), *sorted(known.items())])


def read_torch_pruning(path: Path) -> dict[str, str]:
    """Read Torch-Pruning's figures: share of MACs left, or the kind of error."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {entry["net"]: entry["macs_left"] for entry in csv.DictReader(file)}


def find_commit() -> str:
    """Name the version of the code."""
    run = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return run.stdout.strip()


@click.command()
@click.option("--zoo", type=click.Path(exists=True, file_okay=False, path_type=Path), default="zoo", show_default=True)
@click.option("--nets", default=",".join(NETS), help="Comma-separated nets.  [default: all]")
@click.option("--forms", default=",".join(FORMS), help="Comma-separated forms.  [default: all]")
@click.option("--keep-sets", default=10, show_default=True, help="Random keep-sets per file.")
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "docs" / "coverage.md", help="Page to update.")
@click.option("--csv", "csv_path", type=click.Path(path_type=Path), default=ROOT / "docs" / "data" / "coverage.csv")
@click.option("--rivals-python", type=click.Path(exists=True, path_type=Path), help="Python with torch-pruning.")
@click.option("--keep-rows/--redo", default=False, help="Keep rows of files measured before without a finding.")
def main(
    zoo: Path,
    nets: str,
    forms: str,
    keep_sets: int,
    out: Path,
    csv_path: Path,
    rivals_python: Path | None,
    keep_rows: bool,
) -> None:
    """Measure the nets in a folder; rows of other files already in the CSV stay."""
    rivals_path = csv_path.with_name("torch_pruning.csv")
    chosen = nets.split(",")
    if rivals_python:
        measure_torch_pruning(rivals_python, chosen, rivals_path, zoo)
    rows, commit = read_rows(csv_path), find_commit()
    for net in chosen:
        for form in ["", *forms.split(",")]:
            path = zoo / (f"{net}.{form}.onnx" if form else f"{net}.onnx")
            name = path.name.removesuffix(".onnx")
            if not path.exists() or (keep_rows and name in rows and not rows[name].findings):
                continue
            start = time.perf_counter()
            try:
                row = measure(path, net, form, keep_sets)
            except Exception as error:  # one file that fails must not stop the others
                click.echo(traceback.format_exc(), err=True)
                row = Row(net, form, problem=f"{type(error).__name__}: {error}"[:300])
            rows[name] = dataclasses.replace(row, commit=commit)
            write_rows(csv_path, rows.values())
            verdict = "; ".join(row.findings) or "ok"
            click.echo(
                f"{name:<36} {row.groups:>4} {row.units:>6} left {row.macs_left:.3f} error {row.error:.0e} "
                f"{row.worst_error:.0e} moved {row.least_moved:.1e} {time.perf_counter() - start:5.1f} s {verdict}"
            )
    rivals = read_torch_pruning(rivals_path)
    replace_between(out, "summary", format_summary(rows.values(), rivals))
    replace_between(out, "findings", format_findings(rows.values()))
    replace_between(out, "details", format_details(rows.values()))
    click.echo(json.dumps({"files": len(rows), "with_findings": sum(bool(row.findings) for row in rows.values())}))


if __name__ == "__main__":
    main()
