"""Prune every ONNX file of some folders, and say for each what came of it, for docs/coverage.md.

Two runs per file: `--flops 0.3` (or nine tenths of what can go, where that is less), which must end proven or in one
line that says why not; and `--ratio 0.5 --allow-inexact`, whose MACs are counted from outside and stand beside those
that Torch-Pruning leaves of the same net. Every file is a process of its own, so that a crash is a row like any other.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import click
from markers import replace_between
from outside import count_macs

import srr_onnx
from srr_onnx.errors import SrrError
from srr_onnx.planning.allocation import reach
from srr_onnx.planning.costs import CostModel
from srr_onnx.planning.make import find_free
from srr_onnx.rewriting.verify import make_feeds

ROOT = Path(__file__).resolve().parent.parent
FLOPS, SHARE_OF_REACH, MOST_SECONDS, RIVAL_SECONDS = 0.3, 0.9, 900, 300
# Sizes for files that leave them open.
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "ppocr_det": {"": (1, 3, 160, 160)},
    "ppocr_rec": {"": (1, 3, 48, 160)},
    "ppocr_cls": {"": (1, 3, 48, 192)},
    "unet.dynhw": {"": (1, 3, 96, 96)},
    "yolo.dynhw": {"": (1, 3, 96, 96)},
    **{
        key: {"input": (1, 512), "state": (2, 1, 128)}
        for key in ("silero_vad.", "silero_vad_half", "silero_vad_16k_op15")
    },
    "silero_vad_op18": {"input": (1, 512), "state": (2, 1, 128)},
}
FIELDS = ("file", "nodes", "groups", "units", "inexact", "frozen", "asked", "removed", "outcome", "error", "left")
FIELDS += ("torch_pruning", "analyze", "seconds")


def find_shapes(path: Path) -> dict[str, tuple[int, ...]] | None:
    """Input shapes for a file, by the longest name that its own begins with; None where the file says them."""
    known = [name for name in SHAPES if path.name.startswith(name)]
    return SHAPES[max(known, key=len)] if known else None


def sweep_one(path: Path) -> dict[str, Any]:
    """Load, analyze and prune one file in both ways.

    Args:
        path: The file.

    Returns:
        One row; "outcome" is "proven", "refused: ..." or "inexact".

    Raises:
        Exception: Whatever is no `SrrError`: a fault of the product.
    """
    row: dict[str, Any] = {"file": path.stem}
    try:
        model = srr_onnx.load_model(path, find_shapes(path))
    except SrrError as error:
        return {**row, "outcome": f"refused: {error}"}
    start = time.perf_counter()
    groups = srr_onnx.find_groups(model)
    row["analyze"] = time.perf_counter() - start
    frozen: Counter[str] = Counter()
    for entry in groups.frozen:
        frozen[f"{entry.cause.reason.value}"] += entry.units
    row |= {
        "nodes": len(model.nodes),
        "groups": len(groups),
        "units": groups.num_units,
        "inexact": sum(not group.is_exact for group in groups),
        "frozen": ", ".join(f"{count} {reason}" for reason, count in frozen.most_common()),
    }
    start = time.perf_counter()
    row |= prune_by_flops(model, groups)
    row["seconds"] = time.perf_counter() - start
    if not row["outcome"].startswith("refused"):
        row["left"] = measure_left(path, model)
    return row


def prune_by_flops(model: srr_onnx.Model, groups: Any) -> dict[str, Any]:
    """Remove a share of the MACs that can go; inexact groups are only taken where no others are there."""
    for allow_inexact in (False, True):
        costs = CostModel(model, groups, "macs")
        is_free = [cause is None for cause in find_free(groups, allow_inexact=allow_inexact)]
        reachable = reach(groups, is_free, costs, 1.0) / costs.total if costs.total else 0.0
        asked = min(FLOPS, SHARE_OF_REACH * reachable)
        if asked > 0.005 or allow_inexact:
            break
    try:
        result = srr_onnx.prune(model, flops=max(asked, 1e-6), allow_inexact=allow_inexact, compensate="none")
    except SrrError as error:
        return {"asked": asked, "outcome": f"refused: {error}"}
    proof = result.plan.proof
    return {
        "asked": asked,
        "removed": result.plan.macs_removed,
        "outcome": "proven" if proof["is_exact"] else "inexact",
        "error": proof["relative_error"],
    }


def measure_left(path: Path, model: srr_onnx.Model) -> float:
    """Share of the MACs that is left at a ratio of 0.5, counted by runs of both files."""
    with tempfile.TemporaryDirectory(prefix="sweep-") as folder:
        target = Path(folder) / "pruned.onnx"
        srr_onnx.prune(model, target, ratio=0.5, criterion="l1", allow_inexact=True, compensate="none")
        feeds = make_feeds(model, 0)
        return count_macs(target, feeds) / count_macs(path, feeds)


def sweep_apart(path: Path) -> dict[str, Any]:
    """Run `sweep_one` in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "--one", str(path)]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=MOST_SECONDS)
    except subprocess.TimeoutExpired:
        return {"file": path.stem, "outcome": f"HANGS: more than {MOST_SECONDS} s"}
    if run.returncode:
        return {"file": path.stem, "outcome": f"CRASHES: {(run.stderr.strip().splitlines() or ['?'])[-1]}"}
    found: dict[str, Any] = json.loads(run.stdout.strip().splitlines()[-1])
    return found


def measure_rival(python: Path, path: Path) -> str:
    """Share of the MACs that Torch-Pruning leaves of a file's net at the same ratio, or what goes wrong there."""
    net = path.name.split(".")[0]
    script = ROOT / "benchmarks" / "torch_pruning_way.py"
    with tempfile.TemporaryDirectory(prefix="sweep-") as folder:
        output = Path(folder) / "pruned.onnx"
        command = [str(python), "-W", "ignore", str(script), net, str(output), "--norm", "2", "--uniform"]
        try:
            run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=RIVAL_SECONDS)
        except subprocess.TimeoutExpired:
            return "hangs"
        if run.returncode or not output.exists():
            return (run.stderr.strip().splitlines() or ["crashes"])[-1].split(":")[0]
        feeds = make_feeds(srr_onnx.load_model(path), 0)
        return f"{count_macs(output, feeds) / count_macs(path, feeds):.3f}"


def format_rows(rows: list[dict[str, Any]]) -> str:
    """Make the table."""
    lines = [
        "| file | nodes | groups | inexact | frozen units | MACs asked, removed | outcome | error | MACs left at 0.5 "
        "| Torch-Pruning | analysis s |",
        "|---|--:|--:|--:|---|--:|---|--:|--:|--:|--:|",
    ]
    for row in rows:
        shares = [f"{float(row[name]):.3f}" if row.get(name) not in (None, "") else "" for name in ("asked", "removed")]
        error = f"{float(row['error']):.0e}" if row.get("error") not in (None, "") else ""
        left = f"{float(row['left']):.3f}" if row.get("left") not in (None, "") else ""
        analyze = f"{float(row['analyze']):.2f}" if row.get("analyze") not in (None, "") else ""
        outcome = str(row["outcome"]).replace("|", "/")
        cells = [
            row["file"],
            row.get("nodes", ""),
            row.get("groups", ""),
            row.get("inexact", ""),
            row.get("frozen", ""),
        ]
        cells += [", ".join(filter(None, shares)), outcome, error, left, row.get("torch_pruning", ""), analyze]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


def read_rows(path: Path) -> dict[str, dict[str, Any]]:
    """Read the rows of an earlier sweep, by file."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {row["file"]: dict(row) for row in csv.DictReader(file)}


@click.command()
@click.argument("folders", nargs=-1, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--only", default="*.onnx", show_default=True, help="Glob of file names.")
@click.option(
    "--rivals-python", type=click.Path(exists=True, path_type=Path), help="Python with torch-pruning and timm."
)
@click.option(
    "--rival-form", default="ts_folded", show_default=True, help="Form of the files that the rival is beside."
)
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "docs" / "coverage.md", help="Page to update.")
@click.option("--csv", "csv_path", type=click.Path(path_type=Path), default=ROOT / "docs" / "data" / "zoo.csv")
@click.option("--one", type=click.Path(exists=True, path_type=Path), help="Sweep one file and print its row.")
def main(
    folders: tuple[Path, ...],
    only: str,
    rivals_python: Path | None,
    rival_form: str,
    out: Path,
    csv_path: Path,
    one: Path | None,
) -> None:
    """Sweep all files of FOLDERS; rows of other files already in the CSV stay."""
    if one:
        try:
            click.echo(json.dumps(sweep_one(one)))
        except Exception as error:
            traceback.print_exc()
            raise click.ClickException(f"{type(error).__name__}: {error}") from error
        return
    rows = read_rows(csv_path)
    for path in sorted(path for folder in folders for path in folder.glob(only)):
        row = {"torch_pruning": rows.get(path.stem, {}).get("torch_pruning", ""), **sweep_apart(path)}
        if rivals_python and path.stem.endswith(f".{rival_form}"):
            row["torch_pruning"] = measure_rival(rivals_python, path)
        rows[path.stem] = {
            name: f"{value:.4g}" if isinstance(value, float) else value for name, value in row.items() if name in FIELDS
        }
        click.echo("  ".join(f"{name}={value}" for name, value in rows[path.stem].items()))
        csv_path.parent.mkdir(parents=True, exist_ok=True)
        with csv_path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, FIELDS, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows[name] for name in sorted(rows))
    replace_between(out, "zoo", format_rows([rows[name] for name in sorted(rows)]))
    bad = [name for name, row in rows.items() if str(row["outcome"]).split(":")[0] in ("CRASHES", "HANGS")]
    click.echo(json.dumps({"files": len(rows), "crash_or_hang": bad}))


if __name__ == "__main__":
    main()
