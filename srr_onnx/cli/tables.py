"""What commands print: tables, lines and JSON on stdout, notes on stderr.

Results go to stdout whole: a table that is piped is as wide as it needs to be. Names come from files, so nothing in
them is taken as markup.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from srr_onnx.wording import printable

_PIPED_WIDTH = 10_000


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "", left: int = 1) -> None:
    """Print a table to stdout.

    Args:
        columns: Headings.
        rows: Cells.
        title: Line above.
        left: So many columns are aligned to the left, the rest to the right.
    """
    is_terminal = sys.stdout.isatty()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, heading in enumerate(columns):
        table.add_column(
            Text(heading, style="bold"),
            justify="left" if number < left or not heading else "right",  # a bar has no heading
            overflow="fold",
            no_wrap=not is_terminal or number >= left,
        )
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console = Console(file=sys.stdout, width=None if is_terminal else _PIPED_WIDTH, highlight=False, emoji=False)
    if title:
        show_line(title)
    with console.capture() as capture:
        console.print(table)
    lines = capture.get().splitlines()
    click.echo("\n".join(line.rstrip() for line in lines))


def show_line(text: str = "") -> None:
    """Print a line to stdout."""
    click.echo(printable(text))


def show_json(facts: Mapping[str, Any]) -> None:
    """Print facts to stdout for machines."""
    click.echo(json.dumps(facts, indent=1))


def note(text: str) -> None:
    """Print a line to stderr."""
    click.echo(printable(text), err=True)
