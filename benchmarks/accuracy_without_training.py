"""Measure what is left of the accuracy of trained networks after pruning, for every criterion and compensation.

Nothing is trained and no label is read but to count what is right. Rows go to docs/data/accuracy.csv as they are
measured; rows that are there already are kept, so an interrupted run goes on where it stopped. `--report` writes the
tables, the bars and the plots of docs/accuracy.md from the rows.
"""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import accuracy_grid as grid
import accuracy_report
import click
from accuracy_bench import Bench
from accuracy_rows import Row, parse_rows
from accuracy_subjects import load_subject
from machine import ROOT

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
    "guess",
)


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
