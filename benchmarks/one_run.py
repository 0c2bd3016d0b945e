"""Prune one file once, in a process of its own, and print what it took as one JSON line."""

from __future__ import annotations

import json
import time

started = time.perf_counter()
from pathlib import Path  # noqa: E402

import click  # noqa: E402
from machine import read_peak_mb  # noqa: E402

WAYS = ("srr", "srr_proof", "onnxsim")


@click.command()
@click.argument("way", type=click.Choice(WAYS))
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--flops", default=0.44, show_default=True, help="Share of the MACs that srr removes.")
@click.option("--sparsity", default=0.5, show_default=True, help="Share of the channels that onnxsim removes.")
def main(way: str, source: Path, output: Path, flops: float, sparsity: float) -> None:
    """Prune SOURCE to OUTPUT in one WAY, from file to file."""
    if way == "onnxsim":
        import onnx
        from onnxsim.pruning import apply_structured_pruning

        imported, cpu = time.perf_counter(), time.process_time()
        model = onnx.load(source)
        model = apply_structured_pruning(model, sparsity)
        onnx.save(model, output)
    else:
        from srr_onnx.pipeline import prune

        imported, cpu = time.perf_counter(), time.process_time()
        prune(source, output, flops=flops, verify=way == "srr_proof", force=True, compensate="none")
    ended, cpu = time.perf_counter(), time.process_time() - cpu
    seconds = {"import": imported - started, "prune": ended - imported}
    click.echo(json.dumps({"seconds": seconds, "cpu": cpu, "peak_mb": read_peak_mb()}))


if __name__ == "__main__":
    main()
