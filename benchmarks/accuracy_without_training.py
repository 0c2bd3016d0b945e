"""Measure what is left of the accuracy of trained networks after pruning, for every criterion and compensation.

Nothing is trained and no label is read but to count what is right. Rows go to docs/data/accuracy.csv as they are
measured; rows that are there already are kept, so an interrupted run goes on where it stopped. `--report` writes the
tables, the bars and the plots of docs/accuracy.md from the rows.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import accuracy_grid as grid
import accuracy_report
import click
import numpy as np
from accuracy_rows import Row, parse_rows
from accuracy_subjects import Subject, load_subject
from machine import ROOT

import srr_onnx
from srr_onnx import Model, ScoreOptions, SrrOptions
from srr_onnx.calibration.layers import find_layers
from srr_onnx.calibration.observe import Observation, observe
from srr_onnx.calibration.prepare import Calibration, calibrate
from srr_onnx.data.read import open_data
from srr_onnx.errors import UnsupportedError
from srr_onnx.planning.budget import Budget
from srr_onnx.planning.make import make_plan
from srr_onnx.rewriting.compensate import Kind, compensate_pruned
from srr_onnx.rewriting.recalibration import recalibrate
from srr_onnx.rewriting.replay import rewrite
from srr_onnx.scoring.reconstruction import choose_columns, find_eliminations, find_readers
from srr_onnx.scoring.score import Scores, score_groups
from srr_onnx.targets.onnxruntime import Session
from srr_onnx.validation.tryout import keep_if_closer

Array = np.ndarray[Any, Any]

DATA = ROOT / "docs" / "data" / "accuracy.csv"
KEY = ("net", "split", "seed", "domain", "samples", "criterion", "reduction", "way")
FIELDS = (
    *KEY,
    "used",
    "removed",
    "baseline",
    "accuracy",
    "agreement",
    "kl",
    "narrowest",
    "recalibrated",
    "gained",
    "spoiled",
)
_KINDS: dict[str, Kind] = {grid.MERGE: "merge", grid.DATA_FREE: "data-free"}
_LEAST_SQUARES = (grid.LEAST_SQUARES, grid.BOTH)
_RECALIBRATED = (grid.RECALIBRATED, grid.BOTH)


class Bench:
    """A network that has been watched on images, ready to be pruned in many ways.

    Args:
        subject: The network.
        domain: What the calibration images show.
        samples: How many there are.
        ways: What will be done to the weights that stay; only for least squares what layers give has to be kept.
    """

    def __init__(self, subject: Subject, domain: str, samples: int, ways: Collection[str]) -> None:
        self._subject, model = subject, subject.model
        self._groups = srr_onnx.find_groups(model)
        (name,) = model.inputs
        if domain == grid.MADE_UP:
            dataset = open_data("synthetic", model)
        else:
            images = subject.images[domain]
            dataset = open_data([images[start : start + 16] for start in range(0, len(images), 16)], model)
        self._calibration: Calibration = calibrate(model, dataset, samples, subject.seed)
        self.used = self._calibration.samples.count
        layers = find_layers(model)
        readers = find_readers(layers, self._groups)
        columns = choose_columns(readers, self._groups, subject.seed)
        self._observation: Observation = observe(
            model,
            layers,
            self._calibration.samples,
            {layer.output: columns.get(layer.output) for layer in readers},
            {layer.output for layer in layers} if set(ways) & {*_LEAST_SQUARES} else set(),
        )
        self._eliminations = find_eliminations(model, self._groups, self._observation)
        self._scores: dict[str, Scores] = {}
        self._input = name
        self._outputs = self._run(model)
        self._hits = subject.judge(self._outputs)

    def __enter__(self) -> Bench:
        """Give itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Drop what is kept on disk."""
        self._observation.close()

    def measure(self, criterion: str, reduction: float, ways: Sequence[str]) -> Iterator[Row]:
        """Prune once and compensate in several ways.

        Args:
            criterion: Which units go.
            reduction: Share of the MACs.
            ways: What is done to the weights that stay.

        Yields:
            A row per way that the file gives something to work on, less what tells the network and the images.
        """
        model, seed = self._subject.model, self._subject.seed
        if criterion not in self._scores:
            srr = SrrOptions.paper() if criterion == "srr, paper" else SrrOptions.auto()
            self._scores[criterion] = score_groups(
                model,
                self._groups,
                criterion.removesuffix(", paper"),
                ScoreOptions(seed=seed, srr=srr),
                eliminations=self._eliminations if "reconstruction" in criterion else None,
            )
        decision = make_plan(model, self._groups, self._scores[criterion], Budget.choose(flops=reduction))
        pruned, plan = rewrite(model, self._groups, decision)
        fitted: Model | None = None
        plain = self._subject.judge(self._run(pruned))
        for way in ways:
            candidate: Model | None = pruned
            count = 0
            if way in _LEAST_SQUARES:
                fitted = fitted or self._compensate(pruned, plan.kept_positions(), "least-squares")
                candidate = fitted
            elif way in _KINDS:
                candidate = self._compensate(pruned, plan.kept_positions(), _KINDS[way])
            if candidate is None:
                continue
            if way in _RECALIBRATED:
                candidate, count = recalibrate(candidate, self._calibration.samples)
            yield {
                "criterion": criterion,
                "reduction": reduction,
                "way": way,
                "removed": round(plan.macs_removed, 4),
                "narrowest": round(min(len(group.keep) / group.units for group in plan.groups), 3),
                "recalibrated": count,
                **self._judge(candidate, plain),
            }

    def _compensate(self, pruned: Model, kept: Any, kind: Kind) -> Model | None:
        model, seed = self._subject.model, self._subject.seed
        observation = self._observation if kind == "least-squares" else None
        try:
            found = compensate_pruned(model, pruned, self._groups, kept, kind, observation=observation, seed=seed)
        except UnsupportedError:  # the file has no normalizations to draw from
            return None
        return (found if kind == "least-squares" else keep_if_closer(model, pruned, found, seed)).model

    def _run(self, model: Model) -> Array:
        """First output on the test images."""
        session, size, test = Session(model, threads=1), self._calibration.run, self._subject.test
        parts = [test[start : start + size] for start in range(0, len(test), size)]
        return np.concatenate([np.asarray(session.run({self._input: part})[model.outputs[0]]) for part in parts])

    def _judge(self, candidate: Model, plain: Array | None) -> Row:
        """Figures of a model; `plain`: which images the model is right on to whose weights nothing was done."""
        given, wanted = self._run(candidate), self._outputs
        hits = self._subject.judge(given)
        return {
            "baseline": _share(self._hits),
            "accuracy": _share(hits),
            "agreement": round(float((given.argmax(-1) == wanted.argmax(-1)).mean()), 4),
            "kl": round(_divergence(wanted, given), 5),
            "gained": "" if hits is None or plain is None else int((hits & ~plain).sum()),
            "guess": round(self._subject.guess, 4),
            "spoiled": "" if hits is None or plain is None else int((plain & ~hits).sum()),
        }


def _share(hits: Array | None) -> float | str:
    return "" if hits is None else round(float(hits.mean()), 4)


def _divergence(wanted: Array, given: Array) -> float:
    """Mean Kullback-Leibler divergence in nats; what is no probability goes through a softmax."""
    logs = []
    for rows in (wanted.astype(np.float64), given.astype(np.float64)):
        if (rows >= 0).all() and np.allclose(rows.sum(-1), 1, atol=1e-3):
            logs.append(np.log(np.maximum(rows, 1e-12)))
        else:
            shifted = rows - rows.max(-1, keepdims=True)
            logs.append(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))
    return float((np.exp(logs[0]) * (logs[0] - logs[1])).sum(-1).mean())


def make_key(row: Row) -> tuple[str, ...]:
    """What tells a row from all others."""
    return tuple(str(row[field]) for field in KEY)


def measure_all(zoo: Path, trained: Path, data: Path, rows_path: Path, only: str) -> None:
    """Measure what is not measured yet, and add it to the rows."""
    known = set[tuple[str, ...]]()
    if rows_path.exists():
        with rows_path.open(newline="", encoding="utf-8") as file:
            known = {make_key(row) for row in csv.DictReader(file)}
    rows_path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not rows_path.exists()
    told = set[str]()
    with rows_path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        for (net, split, seed, domain, samples), group in itertools.groupby(grid.list_jobs(), lambda job: job.images):
            if only and net != only:
                continue
            found = load_subject(net, split, seed, zoo, trained, data)
            if isinstance(found, str) or domain not in {*found.images, grid.MADE_UP}:
                text = found if isinstance(found, str) else f"{net} on {domain} is left out: there are none in {data}"
                if text not in told:
                    told.add(text)
                    click.echo(text, err=True)
                continue
            head = {"net": net, "split": split, "seed": seed, "domain": domain, "samples": samples or found.samples}
            todo = []
            for job in group:
                rest = {"criterion": job.criterion, "reduction": job.reduction}
                ways = [way for way in job.ways if make_key({**head, **rest, "way": way}) not in known]
                todo += [(job, ways)] if ways else []
            if not todo:
                continue
            asked = {way for _, ways in todo for way in ways}
            with Bench(found, domain, int(head["samples"]), asked) as bench:
                for job, ways in todo:
                    for row in bench.measure(job.criterion, job.reduction, ways):
                        writer.writerow({**head, "used": bench.used, **row})
                        file.flush()
                    click.echo(
                        f"{net} {split} {seed} {domain} {head['samples']} {job.criterion} {job.reduction}", err=True
                    )


@click.command()
@click.option("--zoo", type=click.Path(path_type=Path), default="zoo", show_default=True, help="Networks of others.")
@click.option(
    "--trained", type=click.Path(path_type=Path), default="trained", show_default=True, help="Emoji networks."
)
@click.option("--data", type=click.Path(path_type=Path), default="data", show_default=True, help="Image files.")
@click.option("--rows", type=click.Path(path_type=Path), default=DATA, help="CSV of the rows.")
@click.option("--only", default="", help="Name of the only network to measure.")
@click.option("--report", is_flag=True, help="Measure nothing; write docs/accuracy.md and its plots from the rows.")
def main(zoo: Path, trained: Path, data: Path, rows: Path, only: str, report: bool) -> None:
    """Measure accuracy after pruning without training, or report it."""
    if not report:
        measure_all(zoo, trained, data, rows, only)
    for line in accuracy_report.write_report(parse_rows(rows), write=report):
        click.echo(line)


if __name__ == "__main__":
    main()
