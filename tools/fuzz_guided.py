"""Fuzz the reader, the analysis and the pruning guided by coverage, with atheris; counts go into docs/reliability.md.

    pip install atheris && python tools/fuzz_guided.py --inputs 10000 --write

Inputs that reach new lines of the product are kept and changed further: by libFuzzer, which knows bytes, or by one of
the damages of fuzz_mutations.py, which know the format. libFuzzer ends at the first exception that is no SrrError,
crash of a native library, input over ten seconds, or process over 2 GB, and writes the input down.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import click
from fuzz import BYTES, PAGE, SECONDS
from fuzz_mutations import DAMAGES, make_seeds
from markers import replace_between

LARGEST = 40_000


def fuzz(words: list[str]) -> None:
    """Run libFuzzer in this process, which it ends."""
    import atheris
    import numpy as np

    with atheris.instrument_imports(include=["srr_onnx"]):
        import srr_onnx.analysis.find
        import srr_onnx.graph.load
        import srr_onnx.pipeline  # noqa: F401
    from fuzz import try_source

    def change(data: bytes, most: int, seed: int) -> bytes:
        rng = np.random.default_rng(seed)
        if rng.random() < 0.5:
            return bytes(atheris.Mutate(data, most))
        changed = DAMAGES[str(rng.choice(sorted(DAMAGES)))](data, rng)
        return changed if len(changed) <= most else data

    atheris.Setup([sys.argv[0], *words], lambda data: try_source(data) and None, custom_mutator=change)
    atheris.Fuzz()


@click.command()
@click.option("--inputs", default=10_000, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--write", is_flag=True, help="Write the counts into docs/reliability.md.")
@click.argument("inner", nargs=-1)
def main(inputs: int, seed: int, write: bool, inner: tuple[str, ...]) -> None:
    """Fuzz with atheris, in a child process."""
    if inner:
        fuzz(list(inner))
        return
    folder = Path(tempfile.mkdtemp(prefix="fuzz-guided-"))
    (folder / "corpus").mkdir()
    for name, data in make_seeds():
        if len(data) < LARGEST:
            (folder / "corpus" / name).write_bytes(data)
    words = [f"-runs={inputs}", f"-seed={seed}", f"-timeout={SECONDS:.0f}", f"-rss_limit_mb={BYTES >> 20}"]
    words += [f"-max_len={LARGEST}", f"-artifact_prefix={folder}/", "-print_final_stats=1", str(folder / "corpus")]
    log = folder / "log"
    with log.open("wb") as file:
        code = subprocess.run(
            [sys.executable, __file__, "--", *words], stderr=file, stdout=file, check=False
        ).returncode
    text = log.read_text(errors="replace")
    runs = re.search(r"stat::number_of_executed_units:\s*(\d+)", text)
    peak = re.search(r"stat::peak_rss_mb:\s*(\d+)", text)
    lines = re.findall(r"cov: (\d+)", text) or ["0"]
    if code or runs is None or peak is None:
        click.echo(text[-3000:])
        raise click.ClickException(f"a finding, or no run at all: {log}")
    result = (
        f"{int(runs[1]):,} inputs; {int(lines[0]):,} points of the code reached at first, {int(lines[-1]):,} in "
        f"the end; largest memory {peak[1]} MB; no findings."
    )
    click.echo(result)
    if write:
        replace_between(PAGE, "guided", f"`python tools/fuzz_guided.py --inputs {inputs} --seed {seed}`: {result}")


if __name__ == "__main__":
    main()
