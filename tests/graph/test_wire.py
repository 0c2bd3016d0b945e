"""Reading a file piece by piece: what protobuf reads, without its copies, from files that lie or change, too."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import Graph, varint
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper

from srr_onnx.graph import wire
from srr_onnx.graph.load import load_model
from srr_onnx.graph.wire import read_model


def canonical(proto: onnx.ModelProto) -> bytes:
    return proto.SerializeToString(deterministic=True)


def damaged(data: bytes, places: list[int], rng: np.random.Generator) -> bytes:
    """Lengths that lie, fields that repeat or are cut, most of them near the heads of tensors."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        near = int(rng.choice(places)) - int(rng.integers(40)) if rng.random() < 0.6 else int(rng.integers(len(data)))
        place = min(max(0, near), len(changed) - 1)
        kind = int(rng.integers(4))
        if kind == 0:
            changed[place] = int(rng.integers(256))
        elif kind == 1:
            del changed[place : place + int(rng.integers(1, 6))]
        elif kind == 2:
            changed[place:place] = changed[place : place + int(rng.integers(1, 3000))]
        else:
            changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def read_piecewise(data: bytes) -> onnx.ModelProto:
    proto, payload, _ = read_model(io.BytesIO(data), len(data))
    for place, content in payload.items():
        proto.graph.initializer[place].raw_data = content.tobytes()
    return proto


def test_reading_piece_by_piece_is_what_protobuf_reads() -> None:
    """Of a damaged file, too: the same message, or none."""
    g = Graph(17)
    g.output(g.conv(g("Relu", g.conv(g.input("x", (1, 16, 4, 4)), 40)), 24))
    proto = g.model()
    data = proto.SerializeToString()
    places = [data.find(tensor.raw_data) for tensor in proto.graph.initializer if len(tensor.raw_data) > 500]
    rng = np.random.default_rng(0)
    outcomes = {"same": 0, "refused": 0}
    for _ in range(4000):
        changed = damaged(data, places, rng)
        try:
            want = onnx.ModelProto.FromString(changed)
        except DecodeError:
            outcomes["refused"] += 1
            with pytest.raises(DecodeError):
                read_model(io.BytesIO(changed), len(changed))
        else:
            outcomes["same"] += 1
            assert canonical(read_piecewise(changed)) == canonical(want)
    assert min(outcomes.values()) > 500


@pytest.mark.parametrize(("first", "second"), [(5000, 6000), (5000, 100), (100, 5000), (100, 200), (5000, 0)])
def test_a_payload_that_comes_twice(first: int, second: int) -> None:
    """The last one counts, whether it stays in the message or is taken out."""

    def tensor(size: int, content: bytes) -> bytes:
        return TensorProto(name="w", dims=[size // 4], data_type=1, raw_data=content * size).SerializeToString()

    twice = tensor(first, b"a") + TensorProto(dims=[second // 4], raw_data=b"b" * second).SerializeToString()
    g = Graph(17)
    g.output(g.conv(g.input("x", (1, 3, 8, 8)), 2))
    joined = g.model()
    graph = joined.graph.SerializeToString() + b"\x2a" + varint(len(twice)) + twice
    joined.ClearField("graph")
    data = joined.SerializeToString() + b"\x3a" + varint(len(graph)) + graph
    want = onnx.ModelProto.FromString(data)
    assert want.graph.initializer[-1].raw_data == b"b" * second
    assert canonical(read_piecewise(data)) == canonical(want)


def large_file(path: Path) -> onnx.ModelProto:
    g = Graph(17)
    g.output(g.conv(g("Relu", g.conv(g.input("x", (1, 16, 4, 4)), 640, name="a")), 4, name="b"))
    proto = g.model()
    path.write_bytes(proto.SerializeToString())
    return proto


def test_a_file_that_is_mapped_gives_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_MAPPED", 4096)
    proto = large_file(tmp_path / "large.onnx")
    model = load_model(tmp_path / "large.onnx")
    with (tmp_path / "large.onnx").open("rb") as file:
        _, payload, _ = read_model(file, model.size_bytes)
    assert [isinstance(content, np.memmap) for content in payload.values()] == [True, False, True]
    for tensor in proto.graph.initializer:
        assert np.array_equal(model.constants[tensor.name], numpy_helper.to_array(tensor))
    assert model.sha256 == hashlib.sha256((tmp_path / "large.onnx").read_bytes()).hexdigest()
    # The file may go, or be replaced, while the model is in use.
    (tmp_path / "other.onnx").write_bytes(b"other")
    os.replace(tmp_path / "other.onnx", tmp_path / "large.onnx")
    assert np.array_equal(model.constants["a.weight"], numpy_helper.to_array(proto.graph.initializer[0]))


@pytest.mark.parametrize("mapped", [4096, 1 << 30])
@pytest.mark.parametrize("left", [0, 100, 30_000])
def test_a_file_that_shrinks_while_it_is_read(
    left: int, mapped: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "_MAPPED", mapped)
    large_file(tmp_path / "large.onnx")
    size = (tmp_path / "large.onnx").stat().st_size
    assert size > 40_000
    with (tmp_path / "large.onnx").open("rb") as file:
        os.truncate(tmp_path / "large.onnx", left)
        with pytest.raises(DecodeError):
            read_model(file, size)
