"""Times one training step of a graph in torch beside that of the native torch module that it was exported from.

Both have the same weights and see the same batch; they take turns, in one run, on one thread. Written as CSV to stdout.
"""

from __future__ import annotations

import csv
import io
import statistics
import sys
import time
import warnings
from collections.abc import Callable

import click
import torch
import torch.fx.experimental.optimization
import torchvision

from srr_onnx.finetuning.bridge import to_torch
from srr_onnx.graph.load import load_model


@click.command()
@click.option("--nets", default="resnet18,mobilenet_v2", show_default=True, help="torchvision nets.")
@click.option("--batch", default=8, show_default=True)
@click.option("--size", default=96, show_default=True, help="Height and width of the pictures.")
@click.option("--rounds", default=20, show_default=True)
def main(nets: str, batch: int, size: int, rounds: int) -> None:
    """Print the median step times of both, with normalizations folded and kept, and their ratio."""
    torch.set_num_threads(1)
    rows = csv.writer(sys.stdout)
    rows.writerow(["net", "norms", "batch", "size", "native_ms", "graph_ms", "ratio"])
    for name in nets.split(","):
        for norms in ("kept", "folded"):
            native, ours = (statistics.median(times) * 1e3 for times in _measure(name, norms, batch, size, rounds))
            rows.writerow([name, norms, batch, size, f"{native:.1f}", f"{ours:.1f}", f"{ours / native:.3f}"])


def _measure(name: str, norms: str, batch: int, size: int, rounds: int) -> tuple[list[float], list[float]]:
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
        )
    ours = to_torch(load_model(buffer.getvalue(), {"x": (1, 3, size, size)}))
    steps = [_step(net.train(), x), _step(ours.train(), x)]
    times: tuple[list[float], list[float]] = ([], [])
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
