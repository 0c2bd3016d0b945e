"""Give the `light` graphs of the onnx package seeded random weights, for structure tests.

They are nine architectures of the model zoo, of opset 9, whose weights were replaced by ConstantOfShape nodes.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import onnx
from onnx import numpy_helper

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def fill(model: onnx.ModelProto, seed: int = 0) -> None:
    """Replace every ConstantOfShape by an initializer, in place: filters of unit gain, scales and variances about 1."""
    rng = np.random.default_rng(seed)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    is_positive = {
        name
        for node in model.graph.node
        if node.op_type == "BatchNormalization"
        for name in (node.input[1], node.input[4])
    }
    kept = []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape" or node.input[0] not in stored:
            kept.append(node)
            continue
        name, shape = node.output[0], tuple(int(size) for size in stored[node.input[0]])
        if name in is_positive:
            array = rng.uniform(0.5, 1.5, shape)
        elif len(shape) > 1:
            array = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        else:
            array = rng.standard_normal(shape) * 0.1
        model.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder to write to.")
def main(out: Path) -> None:
    """Write light_*.onnx with random weights."""
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(LIGHT.glob("*.onnx")):
        model = onnx.load(path)
        fill(model)
        onnx.save(model, out / path.name)
        click.echo(f"{path.name}: {len(model.graph.initializer)} initializers")


if __name__ == "__main__":
    main()
