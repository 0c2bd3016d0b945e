"""Measure the criteria on trained networks and write the figures into docs/criteria.md and docs/data/criteria.csv.

Accuracy is measured right after pruning, and after the statistics of every BatchNormalization have been set anew from
unlabelled images, which is the fairer comparison: right after pruning every choice is near chance at 44 %.
"""

from __future__ import annotations

import csv
import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from markers import replace_between
from recalibrate import recalibrate, run_logits

import srr_onnx
from srr_onnx import ScoreOptions, SrrOptions

ROOT = Path(__file__).resolve().parents[1]
PAGE, DATA = ROOT / "docs" / "criteria.md", ROOT / "docs" / "data" / "criteria.csv"
REDUCTIONS = (0.3, 0.44, 0.6)
SEEDS = (0, 1, 2)
FIELDS = ("net", "choice", "reduction", "seed", "removed", "accuracy", "recalibrated", "narrowest")


def srr(**settings: Any) -> dict[str, Any]:
    """Options of `srr_onnx.prune` for one form of SRR."""
    return {"options": ScoreOptions(srr=SrrOptions(**settings))}


RAW = {"normalize": False}
PAPER = {"options": ScoreOptions(srr=SrrOptions.paper())}
MAIN: Mapping[str, dict[str, Any]] = {
    "srr, auto (the default)": srr(),
    "srr, paper": PAPER,
    "l1, uniform": {"criterion": "l1"},
    "l2, uniform": {"criterion": "l2"},
    "fpgm, uniform": {"criterion": "fpgm"},
    "bn_scale, uniform": {"criterion": "bn_scale"},
    "random, uniform": {"criterion": "random"},
    "l1, global": {"criterion": "l1", "allocation": "global"},
}
VARIANTS: Mapping[str, dict[str, Any]] = {
    "auto": srr(),
    "quantile 1 %": srr(quantile=0.01),
    "quantile 5 %": srr(quantile=0.05),
    "quantile 10 %": srr(quantile=0.1),
    "quantile 25 %": srr(quantile=0.25),
    "quantile 25 %, pooled": srr(quantile=0.25, pooled=True),
    "quantile 50 %, pooled": srr(quantile=0.5, pooled=True),
    "layers joined": srr(coupling="joined"),
    "raw R": srr(**RAW),
    "raw R, quantile 25 %, choice by l1": srr(quantile=0.25, filter_choice="l1", **RAW),
    "removal by smallest L1": srr(node_removal="smallest_l1"),
    "random removal": srr(node_removal="random"),
    "choice by l1": srr(filter_choice="l1"),
    "choice by closest pair": srr(filter_choice="closest_pair"),
    "no cap on a group": {**srr(), "max_group_ratio": 1.0},
    "uniform allocation": {**srr(), "allocation": "uniform"},
}


class Bench:
    """One trained classifier with its images.

    Args:
        path: ONNX file with a BatchNormalization behind every Conv, input in [0, 1].
        images: Preprocessed test images.
        labels: Their classes.
        unlabelled: Images for the statistics.
    """

    def __init__(self, path: Path, images: np.ndarray, labels: np.ndarray, unlabelled: np.ndarray) -> None:
        self.name, self.path = path.stem, path
        self.model = srr_onnx.load_model(path)
        self._images, self._labels, self._unlabelled = images, labels, unlabelled

    def accuracy(self, proto: onnx.ModelProto) -> float:
        """Top-1 accuracy in [0, 1]."""
        return float((run_logits(proto, self._images, 128).argmax(1) == self._labels).mean())

    def measure(self, choice: str, reduction: float, seed: int, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Prune and measure once; one row of the data."""
        options = settings.get("options", ScoreOptions())
        options = ScoreOptions(seed=seed, srr=options.srr)
        result = srr_onnx.prune(
            self.model, flops=reduction, verify=False, compensate="none", **{**settings, "options": options}
        )
        with tempfile.TemporaryDirectory() as folder:
            path = srr_onnx.save_model(result.model, Path(folder) / "pruned.onnx")
            proto = onnx.load(path)
        return {
            "net": self.name,
            "choice": choice,
            "reduction": reduction,
            "seed": seed,
            "removed": round(result.plan.macs_removed, 4),
            "accuracy": round(self.accuracy(proto), 4),
            "recalibrated": round(self.accuracy(recalibrate(proto, self._unlabelled)[0]), 4),
            "narrowest": round(min(len(group.keep) / group.units for group in result.plan.groups), 3),
        }


def percent(rows: Sequence[Mapping[str, Any]], key: str) -> str:
    """Mean over seeds, with the spread where there are several."""
    values = [100 * float(row[key]) for row in rows]
    spread = f" ({min(values):.1f} to {max(values):.1f})" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{spread}"


def table(rows: Sequence[Mapping[str, Any]], choices: Sequence[str], reductions: Sequence[float], net: str) -> str:
    """One table of a net: a row per choice, recalibrated accuracy (raw in brackets) per reduction."""
    head = " | ".join(f"{r:.0%} removed" for r in reductions)
    lines = [f"| {net} | {head} | narrowest group at {reductions[-1]:.0%} |", "|---" * (len(reductions) + 2) + "|"]
    for choice in choices:
        cells = []
        for reduction in reductions:
            found = [r for r in rows if (r["net"], r["choice"], r["reduction"]) == (net, choice, reduction)]
            cells.append(f"**{percent(found, 'recalibrated')}**, raw {percent(found, 'accuracy')}")
        cells.append(f"{min(float(r['narrowest']) for r in found):.2f}")
        lines.append(f"| {choice} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


@click.command()
@click.option("--model", "paths", type=click.Path(exists=True, path_type=Path), multiple=True, required=True)
@click.option("--test", "test_path", type=click.Path(exists=True, path_type=Path), required=True, help="x, y.")
@click.option("--unlabelled", type=click.Path(exists=True, path_type=Path), required=True, help=".npz with x.")
@click.option("--samples", default=512, show_default=True, help="Unlabelled images used.")
def main(paths: tuple[Path, ...], test_path: Path, unlabelled: Path, samples: int) -> None:
    """Measure, write the CSV, and fill the tables of docs/criteria.md."""
    test, free = np.load(test_path), np.load(unlabelled)
    images, labels = (test["x"] / 255).astype(np.float32), test["y"]
    benches = [Bench(path, images, labels, (free["x"][:samples] / 255).astype(np.float32)) for path in paths]
    rows: list[dict[str, Any]] = []
    for bench in benches:
        jobs = [(choice, r, s) for choice, s in MAIN.items() for r in REDUCTIONS]
        jobs += [(f"variant: {choice}", 0.44, s) for choice, s in VARIANTS.items()]
        for choice, reduction, settings in jobs:
            for seed in SEEDS if "random" in choice else SEEDS[:1]:
                rows.append(bench.measure(choice, reduction, seed, settings))
                click.echo(rows[-1], err=True)
    DATA.parent.mkdir(exist_ok=True)
    with DATA.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)
    facts = []
    for bench in benches:
        base = bench.accuracy(onnx.load(bench.path))
        error = (base * (1 - base) / len(labels)) ** 0.5
        sha = hashlib.sha256(bench.path.read_bytes()).hexdigest()[:12]
        facts.append(f"- {bench.name} (sha256 {sha}): {base:.1%} unpruned, standard error {error:.1%}")
    facts.append(f"- {len(labels)} test images of unseen emoji, {samples} unlabelled training images")
    facts.append(
        f"- seed {SEEDS[0]}, rows with random in their name seeds {SEEDS[0]} to {SEEDS[-1]}: mean (lowest to highest)"
    )
    replace_between(PAGE, "setting", "\n".join(facts))
    nets = [bench.name for bench in benches]
    replace_between(PAGE, "main", "\n\n".join(table(rows, list(MAIN), REDUCTIONS, net) for net in nets))
    variants = [f"variant: {choice}" for choice in VARIANTS]
    tables = [table(rows, variants, (0.44,), net).replace("variant: ", "") for net in nets]
    replace_between(PAGE, "variants", "\n\n".join(tables))


if __name__ == "__main__":
    main()
