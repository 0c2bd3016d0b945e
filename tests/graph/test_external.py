"""Weights beside the file: pruned and proven like any others; more than a protobuf holds too, in little memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import oracle
import pytest
from builders import Graph, feeds_for, run_ort
from onnx import TensorProto, helper

import srr_onnx
from srr_onnx.pipeline import prune

# Peak memory of a prune with its proof, in sizes of the model: original and pruned model are in memory together.
_LARGEST_SHARE = 2.5
_RUN = """
from srr_onnx.pipeline import prune
plan = prune("large.onnx", "pruned.onnx", ratio=0.5, criterion="l1", compensate="none").plan
assert plan.proof["relative_error"] <= plan.proof["tolerance"] < plan.proof["moved"], plan.proof
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def test_a_file_with_its_weights_beside_it() -> None:
    g = Graph(13)
    y = g("Relu", g.conv(g.input("x", (1, 3, 8, 8)), 64, 3, name="first"))
    g.output(g.conv(g("Relu", g.conv(y, 64, 3, name="second")), 4, name="last"))
    proto = g.model()
    onnx.save_model(proto, "beside.onnx", save_as_external_data=True, location="beside.data", size_threshold=512)
    before = Path("beside.data").read_bytes()
    result = prune("beside.onnx", "pruned.onnx", flops=0.5, criterion="l1", compensate="none")
    assert result.original.size_bytes == len(before) + Path("beside.onnx").stat().st_size
    assert Path("beside.data").read_bytes() == before
    kept = {(name, e["axis"]): np.array(e["keep"]) for name, axes in result.plan.values.items() for e in axes}
    pruned = onnx.load("pruned.onnx")
    assert oracle.pruned_equals_masked(proto, pruned, kept, result.original.shapes) <= oracle.TOLERANCE
    assert run_ort(pruned, feeds_for(proto))["last"].shape == (1, 4, 8, 8)


def write_large(width: int, layers: int, activation: str) -> int:
    """A chain of dense layers as 1x1 convolutions, its weights written one by one; gives their size in bytes."""
    rng = np.random.default_rng(0)
    names, tensors, offset = ["x"], [], 0
    nodes = []
    with open("large.data", "wb") as file:
        for number in range(layers):
            shape = (width, 16 if number == 0 else width, 1, 1)
            rows = rng.standard_normal(shape, np.float32)
            rows *= np.float32(shape[1] ** -0.5)
            file.write(rows.data)
            tensor = TensorProto(name=f"w{number}", data_type=TensorProto.FLOAT, dims=shape)
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", "large.data"), ("offset", offset), ("length", rows.nbytes)):
                tensor.external_data.add(key=key, value=str(value))
            tensors.append(tensor)
            offset += rows.nbytes
            nodes.append(helper.make_node("Conv", [names[-1], f"w{number}"], [f"c{number}"], name=f"conv{number}"))
            nodes.append(helper.make_node(activation, [f"c{number}"], [f"r{number}"]))
            names.append(f"r{number}")
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size, 1, 1])
        for name, size in (("x", 16), (names[-1], width))
    ]
    graph = helper.make_graph(nodes, "large", infos[:1], infos[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    Path("large.onnx").write_bytes(model.SerializeToString())
    return offset


@pytest.mark.skipif("SRR_ONNX_LARGE" not in os.environ, reason="writes 3 GB; set SRR_ONNX_LARGE to run it")
@pytest.mark.parametrize("activation", ["Relu", "Identity"])  # the runtime folds factors into a layer right before them
def test_more_than_two_gibibytes(activation: str) -> None:
    size = write_large(width=8192, layers=10, activation=activation)
    assert size > 1 << 31
    try:
        paths = {**os.environ, "PYTHONPATH": str(Path(srr_onnx.__file__).parents[1])}
        done = subprocess.run([sys.executable, "-c", _RUN], capture_output=True, text=True, env=paths, check=False)
        assert done.returncode == 0, done.stderr
        peak = int(done.stdout) * 1024
        print(f"{size:,} bytes of weights, peak memory {peak:,} bytes: {peak / size:.2f} times")
        assert peak < _LARGEST_SHARE * size
        stored = onnx.load("pruned.onnx", load_external_data=False).graph.initializer
        shapes = {init.name: tuple(init.dims) for init in stored}
        assert shapes["w1"] == (4096, 4096, 1, 1)
    finally:
        for path in Path().glob("*"):
            path.unlink()
