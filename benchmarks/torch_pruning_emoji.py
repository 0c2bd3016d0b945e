"""Prune an emoji network with Torch-Pruning to a share of its MACs, from ONNX to ONNX.

Run in a Python that has torch, torch-pruning, onnx and onnxruntime. The module is built anew and given the weights of
the file, so the rival begins with the same network; its pruned file is then trained and judged like any other.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import click
import onnx
import torch
import torch_pruning as tp
from onnx import numpy_helper
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "models"))
import nets
from train_emoji import export_net

# Shares of the channels are looked for to this many halvings: no layer has more than 1024 channels.
_HALVINGS = 12
IMPORTANCES = {
    "l1": lambda: tp.importance.MagnitudeImportance(p=1, group_reduction="first", normalizer=None),
    "group norm": lambda: tp.importance.GroupMagnitudeImportance(p=2),
}


def load_net(name: str, model: onnx.ModelProto) -> nn.Module:
    """Build a network with the weights of its file.

    Args:
        name: Name in models/nets.py.
        model: What train_emoji.py wrote.

    Returns:
        The module, in evaluation mode.

    Raises:
        ClickException: The file is of another network.
    """
    weights = {
        tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in model.graph.initializer
    }
    net = nets.NETS[name](len(read_classes(model)))
    wanted = {key for key in net.state_dict() if not key.endswith("num_batches_tracked")}
    if missing := wanted - weights.keys():
        raise click.ClickException(f"there is no {sorted(missing)[0]!r}: the file is no {name} of train_emoji.py")
    net.load_state_dict({key: weights[key] for key in wanted}, strict=False)
    return net.eval()


def read_classes(model: onnx.ModelProto) -> list[str]:
    """Names of the classes, which train_emoji.py writes into the metadata."""
    (text,) = (entry.value for entry in model.metadata_props if entry.key == "classes")
    return list(json.loads(text))


def count_macs(net: nn.Module, image: torch.Tensor) -> int:
    """Count the multiply-accumulates of convolutions and dense layers, as srr-onnx does."""
    counts: list[int] = []

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        counts.append(output.numel() * module.weight[0].numel())  # type: ignore[index, operator]

    layers = [module for module in net.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    handles = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        net(image)
    for handle in handles:
        handle.remove()
    return sum(counts)


def prune(net: nn.Module, image: torch.Tensor, importance: str, ratio: float, is_global: bool) -> nn.Module:
    """Prune a copy of a network.

    Args:
        net: The network.
        image: An input.
        importance: One of the names above.
        ratio: Share of the channels that goes.
        is_global: Whether channels of all layers compete; else every layer loses the same share.

    Returns:
        The pruned copy.
    """
    pruned = copy.deepcopy(net)
    last = [module for module in pruned.modules() if isinstance(module, nn.Linear)][-1]
    pruner = tp.pruner.BasePruner(
        pruned,
        image,
        importance=IMPORTANCES[importance](),
        pruning_ratio=ratio,
        global_pruning=is_global,
        ignored_layers=[last],
    )
    pruner.step()
    return pruned


@click.command()
@click.argument("name", type=click.Choice(sorted(nets.NETS)))
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--flops", default=0.44, show_default=True, help="Share of the MACs to remove, as nearly as it can be.")
@click.option("--importance", type=click.Choice(sorted(IMPORTANCES)), default="l1", show_default=True)
@click.option("--global/--uniform", "is_global", default=False, show_default=True, help="Do all layers compete?")
def main(name: str, source: Path, output: Path, flops: float, importance: str, is_global: bool) -> None:
    """Prune NAME, whose weights are in SOURCE, and write it to OUTPUT."""
    torch.set_num_threads(1)
    model, image = onnx.load(source), torch.zeros(1, 3, 32, 32)
    net = load_net(name, model)
    wanted = (1 - flops) * count_macs(net, image)
    low, high = 0.0, 1.0
    nearest, distance = net, float("inf")
    for _ in range(_HALVINGS):
        ratio = (low + high) / 2
        pruned = prune(net, image, importance, ratio, is_global)
        macs = count_macs(pruned, image)
        if abs(macs - wanted) < distance:
            nearest, distance = pruned, abs(macs - wanted)
        low, high = (ratio, high) if macs > wanted else (low, ratio)
    onnx.save(export_net(nearest, read_classes(model), f"{name}, pruned by Torch-Pruning"), output)
    click.echo(
        f"{ratio:.4f} of the channels, {1 - count_macs(nearest, image) / count_macs(net, image):.4f} of the MACs"
    )


if __name__ == "__main__":
    main()
