"""What it costs that time counts for more: accuracy and time of the bundled network at every haste.

    python benchmarks/haste_cost.py

Prunes the bundled ResNet-20 with widths by the machine and the haste given, whether that would be taken or not, with
samples and without, and writes the table of docs/latency.md.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click
from machine import ROOT
from report import make_table

import srr_onnx
from srr_onnx.targets.target import Target
from srr_onnx.validation import haste

sys.path.insert(0, str(ROOT / "tools"))
from markers import replace_between

ASSETS = Path(srr_onnx.__file__).parent / "assets"
REDUCTIONS = (0.3, 0.44, 0.6)


@click.command()
@click.option("--threads", default=1, show_default=True)
def main(threads: int) -> None:
    """Measure every haste at every reduction, and write the table."""
    every, lines = haste.HASTES, []
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "pruned.onnx"
        for samples in (ASSETS / "emoji_train.npz", None):
            for reduction in REDUCTIONS:
                for tried in every:
                    haste.HASTES = (tried,)
                    lines.append(
                        [*_describe(reduction, samples, tried), *_measure(output, reduction, samples, threads)]
                    )
                    click.echo(lines[-1], err=True)
    header = ["removed", "samples", "weight", "shrink further by", "accuracy %", "time left", "realised"]
    replace_between(ROOT / "docs/latency.md", "haste", make_table(header, lines))


def _describe(reduction: float, samples: Path | None, tried: haste.Haste) -> list[str]:
    return [f"{reduction:.0%}", "no" if samples is None else "yes", f"{tried.weight:g}", f"{tried.slack:.0%}"]


def _measure(output: Path, reduction: float, samples: Path | None, threads: int) -> list[str]:
    target = Target(threads=threads)
    source = ASSETS / "resnet20_emoji.onnx"
    plan = srr_onnx.prune(source, output, flops=reduction, align="auto", target=target, data=samples, force=True).plan
    accuracy = srr_onnx.evaluate(output, ASSETS / "emoji_test.npz").accuracy
    assert accuracy is not None, "the test images have labels"
    left = plan.latency["after_ms"] / plan.latency["before_ms"]
    return [f"{100 * accuracy.top1:.1f}", f"{left:.1%}", f"{plan.after.macs / plan.before.macs / left:.2f}"]


if __name__ == "__main__":
    main()
