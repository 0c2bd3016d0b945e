"""Torch-Pruning's way: build a torchvision or timm net, prune it by its dependency graph, export it to ONNX.

Run in a Python that has torch, torchvision, timm and torch-pruning; prints one JSON line with the seconds of every
phase.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

started = time.perf_counter()
import click  # noqa: E402
import torch  # noqa: E402
from machine import read_peak_mb  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "models"))
import export_timm  # noqa: E402
from export_torchvision import INPUT_SIZES, NETS, build_net, define_missing_operators  # noqa: E402


def find_heads(net: torch.nn.Module, images: torch.Tensor) -> list[torch.nn.Module]:
    """Find the layers that make the outputs, which must keep their width.

    Args:
        net: The net.
        images: An input.

    Returns:
        Linear layers and convolutions with as many outputs as the net has classes.
    """
    with torch.no_grad():
        outputs = net(images)
    classes = {output.shape[1] for output in (outputs if isinstance(outputs, tuple) else (outputs,))}
    layers = [module for module in net.modules() if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d))]
    return [layer for layer in layers if layer.weight.shape[0] in classes][-len(classes) :]


def prune(net: torch.nn.Module, images: torch.Tensor, ratio: float, norm: int, is_global: bool) -> None:
    """Prune a net in place by the magnitude of its filters.

    Args:
        net: The net.
        images: An input, for the dependency graph.
        ratio: Share of the channels to remove.
        norm: 1 or 2.
        is_global: Whether channels of all layers compete; else every layer loses the same share.
    """
    import torch_pruning as tp

    pruner = tp.pruner.MagnitudePruner(
        net,
        images,
        importance=tp.importance.GroupMagnitudeImportance(p=norm),
        pruning_ratio=ratio,
        global_pruning=is_global,
        ignored_layers=find_heads(net, images),
    )
    pruner.step()


def export(net: torch.nn.Module, images: torch.Tensor, output: Path) -> None:
    """Export a net to ONNX by the TorchScript exporter."""
    torch.onnx.export(net, (images,), str(output), opset_version=17, dynamo=False, input_names=["input"])


@click.command()
@click.argument("name")
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--ratio", default=0.5, show_default=True, help="Share of the channels to remove.")
@click.option("--norm", default=1, show_default=True, help="Norm of the filters: 1 or 2.")
@click.option("--global/--uniform", "is_global", default=True, show_default=True, help="Do all layers compete?")
def main(name: str, output: Path, ratio: float, norm: int, is_global: bool) -> None:
    """Prune torchvision's or timm's NAME and export it to OUTPUT."""
    define_missing_operators()
    import torch_pruning  # noqa: F401 - these two are counted as import time
    import torchvision.models  # noqa: F401

    export(torch.nn.Linear(1, 1), torch.zeros(1, 1), output)  # the first export imports the exporter

    seconds = {"import": time.perf_counter() - started}
    mark, cpu = time.perf_counter(), time.process_time()

    def lap(phase: str) -> None:
        nonlocal mark
        seconds[phase] = time.perf_counter() - mark
        mark = time.perf_counter()

    torch.manual_seed(0)
    net, size = (build_net(name), INPUT_SIZES.get(name, 224)) if name in NETS else export_timm.build_net(name)
    images = torch.randn(1, 3, size, size)
    lap("build")
    prune(net, images, ratio, norm, is_global)
    lap("prune")
    export(net, images, output)
    lap("export")
    click.echo(json.dumps({"seconds": seconds, "cpu": time.process_time() - cpu, "peak_mb": read_peak_mb()}))


if __name__ == "__main__":
    main()
