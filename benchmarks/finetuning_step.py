"""One training step of a graph in torch, timed beside that of the native torch module that it was exported from.

    python benchmarks/finetuning_step.py

The graph runs as it is made, and with its weights channels last, as fine-tuning lays them out. All have the same
weights and see the same batch; they take turns, in one run, on one thread. Run it in a Python that has torch,
torchvision and what srr-onnx needs; writes a CSV file and the table of docs/bridge.md.
"""

from __future__ import annotations

import io
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import click
import torch
import torch.fx.experimental.optimization
from machine import ROOT, describe_machine
from prune_time import write_csv

from srr_onnx.finetuning.bridge import to_torch
from srr_onnx.graph.load import load_model

sys.path.insert(0, str(ROOT / "models"))
sys.path.insert(0, str(ROOT / "tools"))
from export_torchvision import define_missing_operators
from markers import replace_between

define_missing_operators()
import torchvision  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"


@click.command()
@click.option("--nets", default="resnet18,mobilenet_v2", show_default=True, help="torchvision nets.")
@click.option("--batch", default=8, show_default=True)
@click.option("--size", default=96, show_default=True, help="Height and width of the pictures.")
@click.option("--rounds", default=20, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, help="Folder for the CSV file.")
@click.option("--page", type=click.Path(path_type=Path), default=ROOT / "docs" / "bridge.md", help="Page to update.")
def main(nets: str, batch: int, size: int, rounds: int, out: Path, page: Path) -> None:
    """Measure the median step times of all, with normalizations kept and folded, and the median ratios."""
    torch.set_num_threads(1)
    machine, rows = describe_machine(), list[dict[str, object]]()
    for name in nets.split(","):
        for norms in ("kept", "folded"):
            native, graph, last = _measure(name, norms, batch, size, rounds)
            rows.append(
                {
                    "net": name,
                    "norms": norms,
                    "batch": batch,
                    "size": size,
                    "rounds": rounds,
                    "native_ms": f"{statistics.median(native) * 1e3:.1f}",
                    "graph_ms": f"{statistics.median(graph) * 1e3:.1f}",
                    "ratio": f"{_compare(graph, native):.3f}",
                    "last_ms": f"{statistics.median(last) * 1e3:.1f}",
                    "last_ratio": f"{_compare(last, native):.3f}",
                    **{fact: machine[fact] for fact in ("date", "processor", "torch")},
                }
            )
            click.echo("  ".join(f"{name}={value}" for name, value in rows[-1].items()))
    write_csv(out / "finetuning_step.csv", tuple(rows[0]), rows)
    replace_between(page, "step", format_rows(rows))


def format_rows(rows: list[dict[str, object]]) -> str:
    """Make the table."""
    lines = ["| net | normalizations | native module | graph | ratio | channels last | ratio |"]
    lines += ["|---|---|--:|--:|--:|--:|--:|"]
    lines += [
        f"| {r['net']} | {r['norms']} | {r['native_ms']} ms | {r['graph_ms']} ms | {r['ratio']} | {r['last_ms']} ms | "
        f"{r['last_ratio']} |"
        for r in rows
    ]
    last = rows[-1]
    return "\n".join(lines) + (
        f"\n\nMeasured on {last['date']}, {last['processor']}, one thread, torch {last['torch']}: batches of "
        f"{last['batch']} pictures of {last['size']}x{last['size']}, medians of {last['rounds']} steps "
        "that take turns. Each ratio to the native module is the median over pairs of steps of one turn."
    )


def _compare(ours: list[float], native: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(ours, native, strict=True))


def _measure(name: str, norms: str, batch: int, size: int, rounds: int) -> list[list[float]]:
    torch.manual_seed(0)
    net = getattr(torchvision.models, name)(weights=None).eval()
    if norms == "folded":
        net = torch.fx.experimental.optimization.fuse(net)
    x = torch.randn(batch, 3, size, size)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (x[:1],),
            buffer,
            dynamo=False,
            opset_version=17,
            do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,
            dynamic_axes={"x": {0: "n"}},
            input_names=["x"],
            output_names=["y"],
        )
    model = load_model(buffer.getvalue(), {"x": (1, 3, size, size)})
    graph, last = to_torch(model), to_torch(model)
    last.put_channels_last()
    steps = [_step(module.train(), x) for module in (net, graph, last)]
    times: list[list[float]] = [[] for _ in steps]
    for number in range(rounds + 2):
        for place, step in enumerate(steps):
            started = time.perf_counter()
            step()
            if number >= 2:  # the first ones fetch memory
                times[place].append(time.perf_counter() - started)
    return times


def _step(module: torch.nn.Module, x: torch.Tensor) -> Callable[[], None]:
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        found = module(x)
        (found[0] if isinstance(found, tuple) else found).square().mean().backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
