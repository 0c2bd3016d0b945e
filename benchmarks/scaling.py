"""How time and memory grow with the size of the model, on generated networks of 25 to 550 MB.

Three families, each growing in another way: `deep` by more layers of one width, `wide` by wider residual stages of one
depth, `dense` like VGG by wider convolutions and wider fully connected layers, which hold most of the parameters.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import onnx
from machine import describe_machine
from onnx import TensorProto, helper, numpy_helper
from prune_time import HERE, run_once, write_csv

SIZES_MB = (25, 50, 100, 200, 400, 550)
FIELDS = ("family", "way", "repeat", "seconds", "params", "file_mb", "peak_mb", "process")
IMAGE = 32  # pixels; the time to prune does not depend on it


class Net:
    """A network under construction: `(N, C, H, W)` through Conv and Relu.

    Args:
        seed: Seed of the weights.
    """

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._stored: list[TensorProto] = []
        self.params = 0

    def add(self, op_type: str, *inputs: str, **attributes: object) -> str:
        """Add a node and name its output."""
        output = f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(op_type, inputs, [output], name=f"n{len(self._nodes)}", **attributes))
        return output

    def store(self, *shape: int) -> str:
        """Add a random initializer and name it."""
        fan_in = int(np.prod(shape[1:])) or 1
        array = self._rng.standard_normal(shape, dtype=np.float32) * np.float32((2 / fan_in) ** 0.5)
        self._stored.append(numpy_helper.from_array(array, f"w{len(self._stored)}"))
        self.params += array.size
        return self._stored[-1].name

    def conv(self, value: str, inputs: int, filters: int, kernel: int, stride: int = 1, is_last: bool = False) -> str:
        """Add a convolution and, unless it `is_last` before an addition, a Relu."""
        weight, bias = self.store(filters, inputs, kernel, kernel), self.store(filters)
        pads = [kernel // 2] * 4
        value = self.add("Conv", value, weight, bias, strides=[stride] * 2, pads=pads, kernel_shape=[kernel] * 2)
        return value if is_last else self.add("Relu", value)

    def dense(self, value: str, inputs: int, units: int, is_last: bool = False) -> str:
        """Add a fully connected layer and, unless it `is_last`, a Relu."""
        value = self.add("Gemm", value, self.store(units, inputs), self.store(units), transB=1)
        return value if is_last else self.add("Relu", value)

    def save(self, path: Path, value: str) -> None:
        """Write the network that ends in a value."""
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, IMAGE, IMAGE])
        output = helper.make_tensor_value_info(value, TensorProto.FLOAT, [1, 100])
        graph = helper.make_graph(self._nodes, "generated", [image], [output], self._stored)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def build_deep(net: Net, layers: int) -> str:
    """Stack convolutions of 384 filters, 3 x 3."""
    value = net.conv("image", 3, 384, 3)
    for _ in range(layers):
        value = net.conv(value, 384, 384, 3)
    value = net.add("Flatten", net.add("GlobalAveragePool", value))
    return net.dense(value, 384, 100, is_last=True)


def build_wide(net: Net, width: int) -> str:
    """Stack four stages of three residual blocks; stages have `width`, 2, 4 and 8 times as many channels."""
    value, channels = net.conv("image", 3, width, 3), width
    for stage in range(4):
        for block in range(3):
            filters = width * 2**stage
            stride = 2 if block == 0 and stage else 1
            inner = net.conv(value, channels, filters, 3, stride)
            inner = net.conv(inner, filters, filters, 3, is_last=True)
            if filters != channels or stride != 1:
                value = net.conv(value, channels, filters, 1, stride, is_last=True)
            value, channels = net.add("Relu", net.add("Add", value, inner)), filters
    value = net.add("Flatten", net.add("GlobalAveragePool", value))
    return net.dense(value, channels, 100, is_last=True)


def build_dense(net: Net, width: int) -> str:
    """Stack convolutions of `width` to 8 times as many filters, a Flatten, and three fully connected layers."""
    value, channels = "image", 3
    for factor, count in ((1, 2), (2, 2), (4, 3), (8, 3)):
        for place in range(count):
            stride = 2 if place == 0 and factor > 1 else 1
            value, channels = net.conv(value, channels, width * factor, 3, stride), width * factor
    extent = IMAGE // 8
    value = net.dense(net.add("Flatten", value), channels * extent**2, width * 64)
    value = net.dense(value, width * 64, width * 64)
    return net.dense(value, width * 64, 100, is_last=True)


FAMILIES: dict[str, Callable[[Net, int], str]] = {"deep": build_deep, "wide": build_wide, "dense": build_dense}


class _Counter(Net):
    """Counts parameters without making them."""

    def store(self, *shape: int) -> str:
        self.params += int(np.prod(shape))
        return "w"


def find_scale(family: str, size_mb: float) -> int:
    """Find the number of layers, or the width, at which a network comes closest to a size."""
    sizes = {}
    for scale in range(1, 600):
        counter = _Counter()
        FAMILIES[family](counter, scale)
        sizes[scale] = counter.params * 4 / 1e6
        if sizes[scale] > 2 * size_mb:
            break
    return min(sizes, key=lambda scale: abs(sizes[scale] - size_mb))


@click.command()
@click.option("--families", default=",".join(FAMILIES), show_default=True, help="Comma-separated families.")
@click.option("--sizes", default=",".join(map(str, SIZES_MB)), show_default=True, help="Comma-separated sizes in MB.")
@click.option("--ways", default="srr,srr_proof", show_default=True, help="Without and with the proof.")
@click.option("--repeats", default=3, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=HERE / "results", help="Folder for the CSV files.")
def main(families: str, sizes: str, ways: str, repeats: int, out: Path) -> None:
    """Prune 44 % of the MACs of generated networks with SRR, from file to file."""
    rows: list[dict[str, object]] = []
    for family in families.split(","):
        for size in map(float, sizes.split(",")):
            with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
                source, output = Path(folder) / "net.onnx", Path(folder) / "pruned.onnx"
                net = Net()
                net.save(source, FAMILIES[family](net, find_scale(family, size)))
                params, file_mb = net.params, source.stat().st_size / 1e6
                del net
                for repeat in range(1, repeats + 1):
                    for way in ways.split(","):
                        found = run_once(sys.executable, way, family, source, output)
                        kept = {name: found[name] for name in ("seconds", "peak_mb", "process")}
                        row = {"family": family, "way": way, "repeat": repeat, "params": params, "file_mb": file_mb}
                        rows.append(row | kept)
                        click.echo(
                            f"{family:<6} {file_mb:6.0f} MB {way:<10} {found['seconds']:7.3f} s  "
                            f"{found['peak_mb']:6.0f} MB"
                        )
            write_csv(out / "scaling.csv", FIELDS, rows)
    facts = describe_machine()
    write_csv(out / "scaling_machine.csv", tuple(facts), [dict(facts)])


if __name__ == "__main__":
    main()
