"""Prune, compensate and fine-tune trained networks in every way, and write docs/results.md.

Rows go to docs/data/results.csv as they are measured, in the order of importance, by several processes of one thread
each; rows that are there already are kept, so an interrupted run goes on where it stopped. What the rows say is then
written into the page, however far the run came within its hours.
"""

from __future__ import annotations

import csv
import multiprocessing
import os
import queue
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
import results_grid as grid
import results_report
from accuracy_rows import Row, parse_rows
from machine import ROOT
from results_measuring import FIELDS, KEY, Places, list_keys, work

ROWS = ROOT / "docs" / "data" / "results.csv"
PAGE = ROOT / "docs" / "results.md"
# Seconds that are left for the page, and between looks at whether the processes still live.
_FOR_PAGE, _LOOK = 30, 10


def measure_all(
    units: Iterable[grid.Unit], places: Places, known: set[tuple[str, ...]], processes: int, seconds: float
) -> Iterator[Row | str]:
    """Measure what is not known yet, within a time.

    Args:
        units: What is wanted, the most important first.
        places: Where things are.
        known: Keys of the rows that are there.
        processes: How many measure beside each other.
        seconds: When this ends; what is being measured then is lost.

    Yields:
        Rows, and lines that the user should read.
    """
    deadline = time.monotonic() + seconds
    # Spawned processes read this when they begin: before numpy and torch do.
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    jobs, answers = context.Queue(), context.Queue()
    count = 0
    for unit in units:
        if unit.criterion in grid.RIVALS and places.rivals is None:
            continue
        keys = [key for key in list_keys(unit) if key not in known]
        known.update(keys)  # the control of a network stands in several parts of the grid
        if keys:
            jobs.put((unit, keys))
            count += 1
    busy = range(min(processes, count))
    workers = [context.Process(target=work, args=(places, jobs, answers), daemon=True) for _ in busy]
    for worker in workers:
        jobs.put(None)
        worker.start()
    try:
        yield from _collect(workers, answers, deadline)
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()
        jobs.cancel_join_thread()


def _collect(workers: list[Any], answers: Any, deadline: float) -> Iterator[Row | str]:
    """What the workers answer, until all have ended, one has died, or time is over."""
    at_work = len(workers)
    while at_work and (left := deadline - time.monotonic()) > 0:
        try:
            answer = answers.get(timeout=min(left, _LOOK))
        except queue.Empty:
            if any(worker.exitcode for worker in workers):
                yield "a process that measures has died; run this again to go on"
                return
            continue
        if answer is None:
            at_work -= 1
        else:
            yield answer


def _read_known(path: Path) -> set[tuple[str, ...]]:
    """Keys of the rows that are there; begins the file where there is none."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(",".join(FIELDS) + "\n", encoding="utf-8")
    with path.open(newline="", encoding="utf-8") as file:
        return {tuple(row[field] for field in KEY) for row in csv.DictReader(file)}


@click.command(context_settings={"show_default": True})
@click.option("--zoo", type=click.Path(path_type=Path), default="zoo", help="Networks of others.")
@click.option("--trained", type=click.Path(path_type=Path), default="trained", help="Emoji networks.")
@click.option("--data", type=click.Path(path_type=Path), default="data", help="Image files.")
@click.option("--rivals", type=click.Path(path_type=Path), help="Python that has torch-pruning; without, no rivals.")
@click.option("--rows", type=click.Path(path_type=Path), default=ROWS, help="CSV of the rows.")
@click.option("--page", type=click.Path(path_type=Path), default=PAGE, help="Page whose tables are written.")
@click.option("--hours", default=3.0, help="Time for the whole run.")
@click.option("--processes", default=2, help="Measuring beside each other, each with one thread.")
@click.option("--part", "parts", type=click.Choice(sorted(grid.PARTS)), multiple=True, help="Only these parts.")
@click.option("--small", is_flag=True, help="The bundled network and its bundled images only, in seconds.")
@click.option("--report", is_flag=True, help="Measure nothing; write the page from the rows.")
def main(
    zoo: Path,
    trained: Path,
    data: Path,
    rivals: Path | None,
    rows: Path,
    page: Path,
    hours: float,
    processes: int,
    parts: tuple[str, ...],
    small: bool,
    report: bool,
) -> None:
    """Measure accuracy after pruning, compensation and fine-tuning, and write the page."""
    if not report:
        lists = [grid.list_small] if small else [grid.PARTS[name] for name in grid.PARTS if not parts or name in parts]
        units = (unit for part in lists for unit in part())
        known = _read_known(rows)
        with (
            tempfile.TemporaryDirectory(prefix="accuracy") as scratch,
            rows.open("a", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
            places = Places(zoo, trained, data, rivals, Path(scratch))
            told = set[str]()
            for answer in measure_all(units, places, known, processes, 3600 * hours - _FOR_PAGE):
                if isinstance(answer, str):
                    if answer not in told:
                        click.echo(answer, err=True)
                    told.add(answer)
                    continue
                writer.writerow(answer)
                file.flush()
                key = " ".join(str(answer[field]) for field in KEY[:-2])
                click.echo(f"{key}: {answer['accuracy']} in {answer['seconds']} s", err=True)
    results_report.write_report(parse_rows(rows), page)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the workers end too
    main()
