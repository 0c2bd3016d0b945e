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
from onnx import TensorProto, helper, numpy_helper

import srr_onnx
from srr_onnx.errors import OutputError
from srr_onnx.graph import save
from srr_onnx.graph.edit import Edits, apply_edits
from srr_onnx.graph.load import load_model
from srr_onnx.graph.save import count_bytes, point_outside, save_model
from srr_onnx.graph.tensors import stored_tensors
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
    assert places("pruned.onnx") == {"first.weight": "pruned.onnx.data", "second.weight": "pruned.onnx.data"} | {
        "last.weight": "pruned.onnx.data"
    }


def places(path: str | Path) -> dict[str, str]:
    """Where the tensors of a file lie that lie outside it."""
    stored = stored_tensors(onnx.load(path, load_external_data=False).graph)
    return {
        name: entry.value
        for name, tensor in stored
        if tensor.data_location == TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }


def write_scattered(path: str) -> onnx.ModelProto:
    """A net with weights in two files, not from their beginning on, in the file, and in a node; gives it whole."""
    g = Graph(13)
    weight = np.random.default_rng(0).standard_normal((4, 16, 1, 1)).astype(np.float32)
    node = helper.make_node("Constant", [], ["held"], value=numpy_helper.from_array(weight, "held"))
    y = g.conv(g("Relu", g.conv(g.input("x", (1, 3, 8, 8)), 16, 3, name="first")), 16, 3, name="second")
    g.nodes.append(node)
    g.shapes["held"], g.dtypes["held"] = weight.shape, TensorProto.FLOAT
    g.output(g("Conv", y, "held"))
    proto = g.model()
    spread = onnx.ModelProto()
    spread.CopyFrom(proto)
    for name, tensor in stored_tensors(spread.graph):
        if name in SCATTERED:
            with Path(SCATTERED[name]).open("ab") as file:
                file.write(b"12345678")
                array = numpy_helper.to_array(tensor)
                point_outside(tensor, SCATTERED[name], file.tell(), array.nbytes, array.shape)
                file.write(array.tobytes())
    Path(path).write_bytes(spread.SerializeToString())
    return proto


SCATTERED = {"first.weight": "one.bin", "first.bias": "one.bin", "held": "two.bin"}


def test_what_lies_beside_the_file_does_so_in_the_next() -> None:
    proto = write_scattered("net.onnx")
    before = {name: Path(name).read_bytes() for name in ("one.bin", "two.bin", "net.onnx")}
    model = load_model("net.onnx")
    changed = {name: model.constants[name] * 2 for name in ("first.bias", "second.weight")}
    edits = Edits(tensors=dict(changed))
    for number, one in enumerate((model, apply_edits(model, edits))):
        path = save_model(one, f"next{number}.onnx")
        assert places(path) == dict.fromkeys(SCATTERED, f"next{number}.onnx.data")
        assert count_bytes(path) == path.stat().st_size + Path(f"next{number}.onnx.data").stat().st_size
        onnx.checker.check_model(str(path), full_check=True)
        again = load_model(path)
        assert again.external == model.external == set(SCATTERED)
        for name, tensor in stored_tensors(proto.graph):
            wanted = numpy_helper.to_array(tensor)
            assert np.array_equal(again.constants[name], changed[name] if number and name in changed else wanted)
    assert {name: Path(name).read_bytes() for name in before} == before


def test_a_new_tensor_lies_beside_the_file_where_others_do() -> None:
    write_scattered("net.onnx")
    model = load_model("net.onnx")
    edits = Edits(added={"large": model.constants["second.weight"] + 1, "small": np.zeros(16, np.float32)})
    second = next(node for node in model.nodes if node.input(1) == "second.weight")
    edits.node(second.index).inputs.update({1: "large", 2: "small"})
    path = save_model(apply_edits(model, edits), "next.onnx")
    assert set(places(path)) == {*SCATTERED, "large"}
    whole = load_model(onnx.load("net.onnx"))
    assert apply_edits(whole, Edits(added=edits.added, nodes=edits.nodes)).external == frozenset()


def test_data_go_again_where_their_model_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    write_scattered("net.onnx")
    before = set(Path().iterdir())
    replace = os.replace

    def fail(source: str, target: Path) -> None:
        if Path(target).name == "next.onnx":
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(save.os, "replace", fail)
    with pytest.raises(OutputError, match="No space left"):
        save_model(load_model("net.onnx"), "next.onnx")
    assert set(Path().iterdir()) == before


def test_the_file_itself_is_written_anew_beside_its_old_data() -> None:
    """The old data may be mapped by this very model, or belong to a copy of the file."""
    write_scattered("net.onnx")
    save_model(load_model("net.onnx"), "next.onnx")
    old = Path("next.onnx.data").read_bytes()
    path = save_model(load_model("next.onnx"), "next.onnx", force=True)
    assert set(places(path).values()) == {"next.onnx.1.data"}
    assert Path("next.onnx.data").read_bytes() == old
    assert count_bytes(path) == path.stat().st_size + Path("next.onnx.1.data").stat().st_size
    path = save_model(load_model(onnx.load("next.onnx")), "next.onnx", force=True)
    assert places(path) == {}
    assert count_bytes(path) == path.stat().st_size


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
