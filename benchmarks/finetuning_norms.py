"""Fine-tuning of a folded network, with normalizations put back and without: accuracy on other pictures.

    python benchmarks/finetuning_norms.py --epochs 8

Folds the normalizations of the bundled network into its convolutions, as exporters do, removes 60 % of its MACs and
trains what is left on labels and teacher; prints one row per way. What it found is in docs/finetuning.md.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import numpy as np
import onnx
from onnx import numpy_helper

import srr_onnx

ASSETS = Path(srr_onnx.__file__).parent / "assets"
TRAIN, TEST = ASSETS / "emoji_train.npz", ASSETS / "emoji_test.npz"
WAYS = {
    "trained as it is": ("keep", False),
    "put back, own statistics": ("insert", False),
    "put back, statistics by the plan": ("insert", True),
}


def fold(path: Path, target: Path) -> None:
    """Put every BatchNormalization of a network into the convolution before it."""
    proto = onnx.load(path)
    weights = {tensor.name: numpy_helper.to_array(tensor).astype(np.float64) for tensor in proto.graph.initializer}
    makers = {node.output[0]: node for node in proto.graph.node}
    for norm in [node for node in proto.graph.node if node.op_type == "BatchNormalization"]:
        conv = makers[norm.input[0]]
        scale, shift, mean, variance = (weights[name] for name in norm.input[1:5])
        epsilon = next((attribute.f for attribute in norm.attribute if attribute.name == "epsilon"), 1e-5)
        factor = scale / np.sqrt(variance + epsilon)
        bias = weights[conv.input[2]] if len(conv.input) > 2 else 0.0
        weights[conv.input[1]] = weights[conv.input[1]] * factor[:, None, None, None]
        weights[norm.input[2]] = (bias - mean) * factor + shift
        conv.input[:] = [*conv.input[:2], norm.input[2]]
        conv.output[0] = norm.output[0]
        proto.graph.node.remove(norm)
    read = {name for node in proto.graph.node for name in node.input}
    del proto.graph.initializer[:], proto.graph.value_info[:]
    proto.graph.initializer.extend(
        numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items() if name in read
    )
    onnx.save(proto, target)


def measure(path: Path) -> str:
    """Accuracy on pictures that nothing was made with."""
    accuracy = srr_onnx.evaluate(path, TEST).accuracy
    assert accuracy is not None
    return f"{100 * accuracy.top1:.1f}"


@click.command()
@click.option("--flops", default=0.6, show_default=True, help="Share of the MACs that goes.")
@click.option("--epochs", default=8, show_default=True, help="Of each training.")
@click.option("--lr", default=0.03, show_default=True, help="Highest learning rate.")
@click.option("--compensate", default="none", show_default=True, help="What is done to the pruned weights before.")
def main(flops: float, epochs: int, lr: float, compensate: str) -> None:
    """Train in every way and print a row for each."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        teacher, pruned = folder / "folded.onnx", folder / "pruned.onnx"
        fold(ASSETS / "resnet20_emoji.onnx", teacher)
        plan = srr_onnx.prune(teacher, pruned, flops=flops, data=TRAIN, compensate=compensate).plan
        print(f"{'unpruned':<34}{measure(teacher)}\n{'pruned':<34}{measure(pruned)}", flush=True)
        for number, (way, (norms, is_planned)) in enumerate(WAYS.items()):
            target = folder / f"{number}.onnx"
            options = srr_onnx.TrainingOptions(epochs=epochs, lr=lr, norms=norms)
            try:
                srr_onnx.fine_tune(
                    pruned, target, data=TRAIN, teacher=teacher, plan=plan if is_planned else None, options=options
                )
                print(f"{way:<34}{measure(target)}", flush=True)
            except srr_onnx.SrrError as error:
                print(f"{way:<34}{error}", flush=True)


if __name__ == "__main__":
    main()
