"""Loading: what is no usable model ends as one ModelError that says why and what to do."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import Graph, feeds_for, run_ort
from onnx import TensorProto, helper, numpy_helper

from srr_onnx.errors import ModelError, UnknownNameError
from srr_onnx.graph.load import load_model
from srr_onnx.targets.onnxruntime import Session


def tiny(**dynamic: str) -> Graph:
    g = Graph(13)
    x = g.input("x", (1, 3, 8, 8), dynamic={{"n": 0, "h": 2, "w": 3}[key]: value for key, value in dynamic.items()})
    y = g("Relu", g.conv(x, 8, 3, name="first"))
    g.output(g.conv(y, 2, name="last"))
    return g


def a_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model/data.pkl", b"\x80\x02.")
    return buffer.getvalue()


NOT_ONNX = {
    "png": (b"\x89PNG\r\n\x1a\n" + b"\0" * 64, "PNG picture"),
    "jpeg": (b"\xff\xd8\xff\xe0" + b"\0" * 64, "JPEG picture"),
    "zip": (a_zip(), "zip archive"),
    "pdf": (b"%PDF-1.7\n" + b"\0" * 64, "PDF document"),
    "tflite": (struct.pack("<I", 28) + b"TFL3" + b"\0" * 64, "TensorFlow Lite"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + b"\0" * 64, "HDF5"),
    "gzip": (b"\x1f\x8b\x08" + b"\0" * 64, "gzip"),
    "json": (json.dumps({"schema": "srr-onnx/plan/1", "groups": []}).encode(), "JSON"),
    "empty": (b"", "empty"),
    "text": (b"This is a text that somebody named model.onnx by mistake.\n", "ONNX"),
    "html": (b"<!DOCTYPE html><html><body>404: Not Found</body></html>", "ONNX"),
    "noise": (bytes(range(256)) * 8, "ONNX"),
    "zeros": (b"\0" * 512, "ONNX"),
    "npy": (b"\x93NUMPY\x01\x00v\x00" + b" " * 64, "ONNX"),
}


@pytest.mark.parametrize("kind", sorted(NOT_ONNX))
def test_not_onnx(kind: str, tmp_path: Path) -> None:
    data, words = NOT_ONNX[kind]
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    for source in (path, str(path), data):
        with pytest.raises(ModelError, match=words) as caught:
            load_model(source)
        assert "\n" not in str(caught.value)
        assert ("model.onnx" in str(caught.value)) == (source is not data)


def test_places_that_hold_no_model(tmp_path: Path) -> None:
    (tmp_path / "resnet.onnx").write_bytes(b"")
    with pytest.raises(ModelError, match="directory"):
        load_model(tmp_path)
    with pytest.raises(ModelError, match=r"no file.*there: resnet\.onnx"):
        load_model(tmp_path / "resmet.onnx")
    with pytest.raises(ModelError, match="no file"):
        load_model(tmp_path / "missing" / "model.onnx")
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(ModelError, match="not a regular file"):
        load_model(tmp_path / "pipe.onnx")


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.5, 0.8, 0.95, 0.999])
def test_truncated_model(share: float) -> None:
    data = tiny().model().SerializeToString()
    cut = data[: max(1, int(len(data) * share))]
    with pytest.raises(ModelError):
        load_model(cut)


def test_every_length_of_a_truncated_model_is_an_error_or_a_model() -> None:
    """Cut anywhere, a file may still be a valid message, of which the end is left out; else it is a ModelError."""
    data = tiny().model().SerializeToString()
    outcomes = set()
    for length in range(0, len(data), 7):
        try:
            load_model(data[:length])
            outcomes.add("loaded")
        except ModelError:
            outcomes.add("refused")
    assert outcomes <= {"loaded", "refused"}
    assert "refused" in outcomes


def test_damaged_bytes_are_an_error_or_a_model() -> None:
    data = bytearray(tiny().model().SerializeToString())
    rng = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 3):
            damaged[place] = rng.integers(256)
        try:
            load_model(bytes(damaged))
        except (ModelError, UnknownNameError) as error:
            assert str(error)


def with_external(proto: onnx.ModelProto, folder: Path, location: str = "model.data") -> Path:
    """Save with all weights in a file beside the model."""
    offset, data = 0, b""
    for init in proto.graph.initializer:
        raw = init.raw_data
        init.ClearField("raw_data")
        init.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", str(offset)), ("length", str(len(raw)))):
            init.external_data.add(key=key, value=value)
        data += raw
        offset += len(raw)
    (folder / "model.data").write_bytes(data)
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def test_external_data_are_read(tmp_path: Path) -> None:
    proto = tiny().model()
    model = load_model(with_external(onnx.ModelProto.FromString(proto.SerializeToString()), tmp_path))
    for init in proto.graph.initializer:
        assert np.array_equal(model.constants[init.name], numpy_helper.to_array(init))
    assert model.size_bytes == (tmp_path / "model.onnx").stat().st_size + (tmp_path / "model.data").stat().st_size


def test_an_external_scalar_stays_a_scalar(tmp_path: Path) -> None:
    g = tiny()
    g.output(g("Mul", g.outputs.pop(), g.constant(np.float32(2), name="factor")))
    proto = g.model()
    model = load_model(with_external(onnx.ModelProto.FromString(proto.SerializeToString()), tmp_path))
    assert model.constants["factor"].shape == ()
    feeds = feeds_for(proto)
    (got,), (want,) = Session(model).run(feeds).values(), run_ort(proto, feeds).values()
    assert np.allclose(got, want, atol=1e-5)


def test_external_data_missing(tmp_path: Path) -> None:
    path = with_external(tiny().model(), tmp_path)
    (tmp_path / "model.data").unlink()
    with pytest.raises(ModelError, match=r"'model\.data'.*missing"):
        load_model(path)


def test_external_data_too_short(tmp_path: Path) -> None:
    path = with_external(tiny().model(), tmp_path)
    (tmp_path / "model.data").write_bytes(b"\0" * 100)
    with pytest.raises(ModelError, match="truncated"):
        load_model(path)


@pytest.mark.parametrize("location", ["../secret.data", "/etc/passwd", "sub/../../secret.data", ""])
def test_external_data_outside_the_folder(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "secret.data").write_bytes(b"\0" * 10_000)
    with pytest.raises(ModelError, match="outside the model's folder"):
        load_model(with_external(tiny().model(), folder, location))


def test_external_data_through_a_link_that_leaves(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "secret.data").write_bytes(b"\0" * 10_000)
    (folder / "link.data").symlink_to(tmp_path / "secret.data")
    with pytest.raises(ModelError, match="outside the model's folder"):
        load_model(with_external(tiny().model(), folder, "link.data"))


def test_external_data_that_are_a_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    with pytest.raises(ModelError, match="not a regular file"):
        load_model(with_external(tiny().model(), tmp_path, "sub"))


@pytest.mark.parametrize(("key", "value"), [("offset", "-4"), ("offset", "many"), ("length", "5"), ("length", "-8")])
def test_external_data_with_bad_bounds(key: str, value: str, tmp_path: Path) -> None:
    path = with_external(tiny().model(), tmp_path)
    proto = onnx.load(str(path), load_external_data=False)
    entry = next(entry for entry in proto.graph.initializer[0].external_data if entry.key == key)
    entry.value = value
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="external data"):
        load_model(path)


def test_external_data_of_bytes_have_no_folder(tmp_path: Path) -> None:
    path = with_external(tiny().model(), tmp_path)
    with pytest.raises(ModelError, match="load the model from its file"):
        load_model(path.read_bytes())


def test_external_data_inside_a_subgraph_do_not_escape(tmp_path: Path) -> None:
    g = tiny()
    inner = helper.make_graph(
        [helper.make_node("Add", [g.outputs[0], "offset"], ["sum"])],
        "branch",
        [],
        [helper.make_tensor_value_info("sum", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.zeros(300, np.float32), "offset")],
    )
    init = inner.initializer[0]
    init.ClearField("raw_data")
    init.data_location = TensorProto.EXTERNAL
    init.external_data.add(key="location", value="../secret.data")
    condition = g.constant(np.array(True), name="yes")
    g.output(g("If", condition, then_branch=inner, else_branch=inner, shape=(1, 2, 8, 8)))
    (tmp_path / "model.onnx").write_bytes(g.model().SerializeToString())
    with pytest.raises(ModelError, match="subgraph"):
        load_model(tmp_path / "model.onnx")


def edited(edit: str) -> onnx.ModelProto:
    """The tiny model with one kind of damage."""
    proto = tiny().model()
    graph, weight = proto.graph, proto.graph.initializer[0]
    if edit == "negative dimension":
        weight.dims[0] = -8
    elif edit == "wrong payload":
        weight.raw_data = weight.raw_data[:-4]
    elif edit == "payload of another shape":
        weight.dims[0] = 9
    elif edit == "unknown element type":
        weight.data_type = 99
    elif edit == "cycle":
        graph.node[0].input[0] = graph.node[1].output[0]
    elif edit == "two producers":
        graph.node.append(helper.make_node("Relu", ["x"], [graph.node[0].output[0]]))
    elif edit == "no nodes":
        del graph.node[:]
    elif edit == "no outputs":
        del graph.output[:]
    elif edit == "no opset":
        del proto.opset_import[:]
    elif edit == "no ir version":
        proto.ClearField("ir_version")
    elif edit == "weight that does not fit":
        weight.CopyFrom(numpy_helper.from_array(np.zeros((8, 5, 3, 3), np.float32), weight.name))
    elif edit == "missing value":
        graph.node[1].input[0] = "nowhere"
    elif edit == "missing output":
        graph.output[0].name = "nowhere"
    return proto


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ("negative dimension", "negative dimension"),
        ("wrong payload", "damaged"),
        ("payload of another shape", "damaged"),
        ("unknown element type", "element type"),
        ("cycle", "cycle through node 'first'"),
        ("two producers", "made by two nodes"),
        ("no nodes", "no nodes"),
        ("no outputs", "no graph outputs"),
        ("no opset", "no opset"),
        ("no ir version", "no IR version"),
        ("missing value", "nowhere"),
        ("missing output", "nowhere"),
    ],
)
def test_damaged_graph(edit: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        load_model(edited(edit))


def test_open_sizes_can_be_given() -> None:
    proto = tiny(n="batch", h="height", w="width").model()
    model = load_model(proto, {"x": (2, 3, 16, 12)})
    assert model.shapes["first"] == (2, 8, 16, 12)
    assert model.is_dynamic
    assert load_model(tiny(n="batch").model()).inputs == {"x": (1, 3, 8, 8)}
    assert not load_model(tiny().model()).is_dynamic


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 3, 8), "3 axes, the model's input has 4"),
        ((1, 4, 16, 16), "axis 1 is fixed to 3"),
        ((1, 3, 0, 16), "must be positive"),
        ((1, 3, -1, 16), "must be positive"),
    ],
)
def test_wrong_input_shape(shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        load_model(tiny(h="height", w="width").model(), {"x": shape})


def test_unknown_input_name() -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean 'x'|choose from x"):
        load_model(tiny().model(), {"image": (1, 3, 8, 8)})


def test_an_input_without_shape() -> None:
    proto = tiny().model()
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(ModelError, match="no shape in the file"):
        load_model(proto)
    assert load_model(proto, {"x": (1, 3, 8, 8)}).shapes["last"] == (1, 2, 8, 8)


def test_nodes_out_of_order_are_sorted() -> None:
    proto = tiny().model()
    nodes = list(proto.graph.node)[::-1]
    shuffled = onnx.ModelProto()
    shuffled.CopyFrom(proto)
    del shuffled.graph.node[:]
    shuffled.graph.node.extend(nodes)
    model = load_model(shuffled)
    assert [node.op_type for node in model.nodes] == ["Conv", "Relu", "Conv"]
    assert [node.index for node in model.nodes] == [2, 1, 0]


def test_an_initializer_that_is_an_input_needs_no_feed() -> None:
    proto = tiny().model()
    weight = proto.graph.initializer[0]
    proto.graph.input.append(helper.make_tensor_value_info(weight.name, TensorProto.FLOAT, weight.dims))
    assert list(load_model(proto).inputs) == ["x"]


def test_the_protobuf_given_is_not_changed() -> None:
    proto = tiny().model()
    before = proto.SerializeToString(deterministic=True)
    load_model(proto)
    assert proto.SerializeToString(deterministic=True) == before


def test_constants_cannot_be_written_to() -> None:
    model = load_model(tiny().model())
    for array in model.constants.values():
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_a_large_weight_is_held_once() -> None:
    g = Graph(13)
    x = g.input("x", (1, 64, 2, 2))
    g.output(g.conv(x, 1024, 3, name="wide"))
    data = g.model().SerializeToString()
    model = load_model(data)
    weight = model.constants["wide.weight"]
    assert model.detached == {"wide.weight", "wide.bias"}
    assert model.proto.ByteSize() < 2_000 < weight.nbytes
    assert not next(init for init in model.proto.graph.initializer if init.name == "wide.weight").raw_data


def test_stored_values_of_every_element_type() -> None:
    g = tiny()
    kinds = [TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE, TensorProto.INT8, TensorProto.BOOL]
    proto = g.model()
    for kind in kinds:
        proto.graph.initializer.append(helper.make_tensor(f"of_{kind}", kind, [2], [1, 0]))
    proto.graph.initializer.append(helper.make_tensor("words", TensorProto.STRING, [1], [b"class"]))
    proto.graph.initializer.append(helper.make_tensor("nibbles", TensorProto.INT4, [3], [1, 2, 3]))
    model = load_model(proto)
    for kind in kinds:
        assert model.constants[f"of_{kind}"].astype(np.float32).tolist() == [1, 0]
    assert {"words", "nibbles"} & set(model.constants) == set()
