"""Run the generated networks of tests/properties once; how many a second goes into docs/reliability.md.

    python tools/measure_laws.py --write

Counted is the time of the processor, so that a machine with other work gives the same figure.
"""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import click
from markers import replace_between

ROOT = Path(__file__).resolve().parent.parent
WORDS = ["-m", "pytest", "-q", "--color=no", "tests/properties/test_laws.py", "-k", "obeys_the_laws"]


@click.command()
@click.option("--write", is_flag=True, help="Write the result into docs/reliability.md.")
def main(write: bool) -> None:
    """Run the laws on two thousand networks."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        words = [sys.executable, *WORDS, f"--junit-xml={report}"]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        total = sum(int(count) for count in re.findall(r'name="networks" value="(\d+)"', report.read_text()))
    if done.returncode or not total:
        click.echo(done.stdout[-3000:])
        raise click.ClickException("a network breaks a law")
    seconds = used.ru_utime + used.ru_stime
    text = (
        f"{total:,} networks obey the laws, in {seconds:.0f} s of one processor core: {total / seconds:.0f} a "
        "second for building, pruning, saving, the product's own proof, the independent one, shapes, costs, repetition."
    )
    click.echo(text)
    if write:
        replace_between(ROOT / "docs/reliability.md", "laws", f"`python tools/measure_laws.py`: {text}")


if __name__ == "__main__":
    main()
