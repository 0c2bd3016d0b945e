"""Files that were made to do harm: each ends as a model or as one SrrError, at once and without much memory.

Most of these were found by tools/fuzz.py, which tries them by the ten thousand.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import Graph, varint
from onnx import TensorProto, helper, numpy_helper

from srr_onnx.analysis.find import find_groups
from srr_onnx.errors import ModelError, SrrError
from srr_onnx.graph.load import load_model
from srr_onnx.pipeline import prune

GIGABYTES = 1 << 30


@pytest.fixture(autouse=True)
def _little_memory() -> Iterator[None]:
    """What asks for memory by the size that a file states shall not get it."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = (
        int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        if sys.platform == "linux"
        else 0
    )
    resource.setrlimit(resource.RLIMIT_AS, (used + 2 * GIGABYTES, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


def tiny() -> onnx.ModelProto:
    g = Graph(17)
    y = g("Relu", g.conv(g.input("x", (1, 3, 8, 8)), 8, 3, name="first"))
    g.output(g.conv(y, 2, name="last"))
    return g.model()


def external(tensor: TensorProto, location: str | bytes) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)


# Sizes


@pytest.mark.parametrize("size", [1 << 24, 1 << 31, 1 << 40, (1 << 63) - 1])
def test_an_empty_tensor_with_a_huge_axis(size: int) -> None:
    proto = tiny()
    proto.graph.initializer[0].dims[:] = [size, 0, 3, 3]
    proto.graph.initializer[0].raw_data = b""
    with pytest.raises(SrrError):
        prune(load_model(proto), ratio=0.5)


@pytest.mark.parametrize("size", [1 << 31, 1 << 40, (1 << 63) - 1])
def test_a_huge_input(size: int) -> None:
    proto = tiny()
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_value = size
    with pytest.raises(ModelError, match=f"'x' of shape.*{size}.*larger than memory"):
        load_model(proto)


@pytest.mark.parametrize("operator", ["Tile", "Expand", "ConstantOfShape", "Range", "Pad", "EyeLike", "Concat"])
def test_constants_that_unfold_to_any_size(operator: str) -> None:
    """A few bytes ask for 64 GB, which are not made; what depends on them freezes."""
    g = Graph(17)
    side = 1 << 17
    x = g.conv(g.input("x", (1, 3, 4, 4)), 4)
    small, large = g.constant(np.ones((1, 1), np.float32)), g.ints(side, side)
    made = {
        "Tile": lambda: g("Tile", small, large, shape=(side, side)),
        "Expand": lambda: g("Transpose", g("Expand", small, large, shape=(side, side)), shape=(side, side)),
        "ConstantOfShape": lambda: g("Neg", g("ConstantOfShape", large, shape=(side, side)), shape=(side, side)),
        "Range": lambda: g(
            "Range", g.constant(np.int64(0)), g.constant(np.int64(1 << 34)), g.constant(np.int64(1)), shape=(1 << 34,)
        ),
        "Pad": lambda: g("Pad", small, g.ints(0, 0, side, side), shape=(side, side)),
        "EyeLike": lambda: g("EyeLike", g("ConstantOfShape", large, shape=(side, side)), shape=(side, side)),
        "Concat": lambda: g(
            "Concat", *[g("ConstantOfShape", g.ints(1 << 26), shape=(1 << 26,))] * 64, axis=0, shape=(1 << 32,)
        ),
    }[operator]()  # fmt: skip
    g.output(g("Add", x, g("Cast", g("ReduceMax", made, keepdims=0, shape=()), to=1, shape=()), shape=(1, 4, 4, 4)))
    find_groups(load_model(g.model()))


def test_vectors_of_any_length_cost_no_memory() -> None:
    """ONNX's propagation of values made a message of 100 bytes for every element, and the system ended the process."""
    g = Graph(17)
    x = g.conv(g.input("x", (1, 3, 4, 4)), 4)
    part = g("ConstantOfShape", g.ints(1 << 24), shape=(1 << 24,))
    joined = g("Concat", part, part, axis=0, shape=(1 << 25,))
    g.output(g("Add", x, g("ReduceMax", joined, keepdims=0, shape=()), shape=(1, 4, 4, 4)))
    assert load_model(g.model()).shapes["Concat_0"] == (1 << 25,)


def test_a_repeat_count_that_is_huge() -> None:
    g = Graph(17)
    x = g.conv(g.input("x", (1, 3, 4, 4)), 4)
    g.output(g("ReduceMean", g("Tile", x, g.ints(1, 1 << 40, 1, 1), shape=(1, 1 << 42, 4, 4)), shape=(1, 1, 1, 1)))
    with pytest.raises(SrrError):
        prune(load_model(g.model()), ratio=0.5)


# Counts, types and versions


@pytest.mark.parametrize("version", [0, -1, 1 << 31, (1 << 63) - 1])
def test_an_opset_that_cannot_be(version: int) -> None:
    proto = tiny()
    proto.opset_import[0].version = version
    with pytest.raises(ModelError, match=f"version {version} of the standard operators"):
        load_model(proto)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda node: node.ClearField("input"), "'first' has 0 inputs, Conv of version 11 has 2"),
        (lambda node: node.input.extend(["x"] * 3), "'first' has 6 inputs, Conv of version 11 has 3"),
        (lambda node: node.output.append("more"), "'first' has 2 outputs, Conv of version 11 has 1"),
    ],
)
def test_operands_of_a_wrong_number(edit: Callable[[onnx.NodeProto], None], words: str) -> None:
    proto = tiny()
    edit(proto.graph.node[0])
    with pytest.raises(ModelError, match=words):
        load_model(proto)


def test_a_foreign_operator_without_operands() -> None:
    """Only the standard operators are known to have inputs."""
    proto = tiny()
    proto.opset_import.add(domain="own", version=1)
    for op_type in ("Shape", "CastLike", "Constant"):
        proto.graph.node.append(helper.make_node(op_type, [], [f"{op_type}_out"], domain="own"))
    # nor those of versions to come
    proto.graph.node.append(helper.make_node("GroupNormalization", [], ["norm_out"]))
    assert find_groups(load_model(proto)).num_units == 8


@pytest.mark.parametrize("operator", ["SequenceAt", "SequenceErase", "SequenceInsert", "OneHot"])
def test_numbers_that_are_not_there(operator: str) -> None:
    """onnxruntime reads the first element of nothing, which ends the process."""
    g = Graph(17)
    x = g.conv(g.input("x", (1, 3, 4, 4)), 4)
    nothing = g.constant(np.zeros((2, 0), np.int64), name="nothing")
    parts = g("SplitToSequence", x, axis=1)
    if operator == "OneHot":
        g.output(g("OneHot", g("Cast", x, to=7), nothing, g.constant(np.float32([0, 1])), shape=(1, 4, 4, 4, 1)))
    else:
        g.output(g(operator, *[parts, x][: 2 if operator == "SequenceInsert" else 1], nothing, shape=(1, 1, 4, 4)))
    with pytest.raises(ModelError, match=r"reads one number from 'nothing', which has the shape \[2, 0\]"):
        load_model(g.model())


def test_a_tensor_without_element_type() -> None:
    proto = tiny()
    proto.graph.initializer[0].ClearField("data_type")
    with pytest.raises(ModelError, match=r"'first\.weight' has no element type"):
        load_model(proto)


def test_an_input_of_an_unknown_element_type() -> None:
    proto = tiny()
    proto.graph.input[0].type.tensor_type.elem_type = 99
    with pytest.raises(ModelError, match="input 'x' has the unknown element type 99"):
        load_model(proto)


@pytest.mark.parametrize("kind", ["input", "initializer"])
def test_what_has_no_name(kind: str) -> None:
    proto = tiny()
    getattr(proto.graph, kind)[0].name = ""
    with pytest.raises(ModelError, match="without a name"):
        load_model(proto)


def test_an_empty_list_is_an_attribute_like_any_other() -> None:
    """graphsurgeon cannot write one; the others, and this one, survive."""
    proto = tiny()
    proto.graph.node[1].attribute.add(name="unused", type=onnx.AttributeProto.INTS)
    proto.graph.node[2].attribute.add(name="idle", type=onnx.AttributeProto.INTS)
    pruned = prune(load_model(proto), ratio=0.5, verify=False).model.proto
    assert [a.name for a in pruned.graph.node[1].attribute] == ["unused"]
    assert list(pruned.graph.node[2].attribute) == list(proto.graph.node[2].attribute)


# Attributes


@pytest.mark.parametrize(
    ("operator", "attributes"),
    [
        ("Unsqueeze", {"axes": [1, 1, 2, 3, 4, 5]}),
        ("Transpose", {"perm": [0, 0, 1]}),
        ("Transpose", {"perm": [0, 1, 2, 3, 4, 5, 6]}),
    ],
)
def test_axes_that_do_not_fit(operator: str, attributes: dict[str, list[int]]) -> None:
    """Whatever a rule makes of it, the rest of the model is analyzed."""
    g = Graph(11)
    x = g.conv(g.conv(g.input("x", (1, 3, 4, 4)), 8, name="first"), 4)
    odd = g(operator, g("Reshape", x, shape=[1, 2, 2, 4, 4]), shape=(1, 2, 2, 4, 4), **attributes)
    g.output(g("Reshape", odd, shape=[1, 4, 4, 4]))
    assert [group.nodes for group in find_groups(load_model(g.model()))] == [("first",)]


def test_a_value_that_is_no_tensor() -> None:
    proto = tiny()
    proto.graph.initializer.append(numpy_helper.from_array(np.array([2]), "shape"))
    proto.graph.node.append(helper.make_node("ConstantOfShape", ["shape"], ["filled"], value=[1]))
    assert find_groups(load_model(proto)).num_units == 8


def test_padding_of_channels_by_millions() -> None:
    g = Graph(17)
    x = g.conv(g.input("x", (1, 3, 2, 2)), 4)
    padded = g("Pad", x, g.ints(0, 1 << 24, 0, 0, 0, 0, 0, 0))
    g.output(g("ReduceMean", padded, axes=[1, 2, 3]))
    assert find_groups(load_model(g.model())).num_units == 0


def test_a_network_of_constants_is_not_computed() -> None:
    """The reference implementation takes minutes for it."""
    g = Graph(17)
    data = g.constant(np.zeros((64, 64, 64, 64), np.float32))
    fed = g.conv(g.input("x", (1, 3, 4, 4)), 64)
    pooled = g("MaxPool", g.conv(data, 64, 3), kernel_shape=[64, 64])
    g.output(g("Add", fed, g("ReduceMax", pooled, axes=[0], keepdims=1)))
    model = load_model(g.model())
    assert set(model.constants) <= set(model.stored)


# External data


@pytest.mark.parametrize("location", ["a\0b", "x" * 5000, "loop", "pipe", "~/secret.data", "file:///etc/passwd", "."])
def test_places_that_are_no_file_in_the_folder(location: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    proto = tiny()
    external(proto.graph.initializer[0], location)
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match=r"first\.weight"):
        load_model(tmp_path / "model.onnx")


def test_a_place_that_is_no_text(tmp_path: Path) -> None:
    proto = tiny()
    external(proto.graph.initializer[0], "????.data")
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString().replace(b"????", b"\xff\xfe\xfd\xfc"))
    with pytest.raises(ModelError, match=r"first\.weight|decoded"):
        load_model(tmp_path / "model.onnx")


@pytest.mark.parametrize("where", ["attribute", "function", "sparse initializer", "training", "subgraph"])
def test_external_data_in_other_places(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The libraries behind us would read it, relative to wherever the program was started."""
    secret = np.full(1, 42, np.float32)
    (tmp_path / "secret.data").write_bytes(secret.tobytes())
    monkeypatch.chdir(tmp_path)
    tensor = numpy_helper.from_array(secret, "stolen")
    external(tensor, "secret.data")
    proto = tiny()
    node = helper.make_node("ConstantOfShape", ["shape"], ["filled"], value=tensor)
    branch = helper.make_graph([], "b", [], [helper.make_tensor_value_info("stolen", 1, [1])], [tensor])
    if where == "attribute":
        proto.graph.initializer.append(numpy_helper.from_array(np.array([2]), "shape"))
        proto.graph.node.append(node)
    elif where == "function":
        proto.opset_import.add(domain="own", version=1)
        proto.functions.append(helper.make_function("own", "F", ["shape"], ["filled"], [node], proto.opset_import))
    elif where == "sparse initializer":
        proto.graph.sparse_initializer.add().values.CopyFrom(tensor)
    elif where == "training":
        proto.training_info.add().algorithm.CopyFrom(branch)
    else:
        proto.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch))
    with pytest.raises(ModelError, match="'stolen' in a subgraph, a function or an attribute has external data"):
        load_model(proto.SerializeToString())


# Nesting


def nested(depth: int) -> bytes:
    """A model with Ifs in one another, written without protobuf, which refuses to."""

    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2]) + varint(len(content)) + content

    relu = field(1, helper.make_node("Relu", ["x"], ["y"]).SerializeToString())
    output = field(12, helper.make_tensor_value_info("y", 1, None).SerializeToString())
    graph = relu + output
    for _ in range(depth):
        attribute = field(1, b"then_branch") + field(6, graph) + bytes([20 << 3 & 0x7F | 0x80, 1, 5])
        graph = field(1, field(1, b"x") + field(2, b"y") + field(4, b"If") + field(5, attribute)) + output
    whole = helper.make_model(helper.make_graph([], "g", [helper.make_tensor_value_info("x", 1, [1, 3])], []))
    return whole.SerializeToString() + field(7, graph)


@pytest.mark.parametrize(("depth", "is_read"), [(1, True), (10, True), (100, False), (10_000, False)])
def test_nested_subgraphs(depth: int, is_read: bool) -> None:
    data = nested(depth)
    if is_read:
        assert len(load_model(data).nodes) == 1
    else:
        with pytest.raises(ModelError, match="nested deeper than protobuf can read"):
            load_model(data)


def test_a_function_that_calls_itself() -> None:
    proto = tiny()
    opset = proto.opset_import.add(domain="own", version=1)
    body = helper.make_node("F", ["a"], ["b"], domain="own")
    proto.functions.append(helper.make_function("own", "F", ["a"], ["b"], [body], [proto.opset_import[0], opset]))
    proto.graph.node[1].op_type, proto.graph.node[1].domain = "F", "own"
    with pytest.raises(ModelError, match="recursive"):
        load_model(proto)


# The file itself


def test_brackets_without_end() -> None:
    with pytest.raises(ModelError, match="JSON"):
        load_model(b"[" * 100_000)


def test_a_device_is_no_file() -> None:
    with pytest.raises(ModelError, match="not a regular file"):
        load_model("/dev/zero")


def test_a_program_that_reads_a_hostile_file_opens_nothing_else(tmp_path: Path) -> None:
    """Seen from outside, by the audit hook of a process of its own."""
    proto = tiny()
    tensor = numpy_helper.from_array(np.ones(1, np.float32), "stolen")
    external(tensor, "secret.data")
    proto.graph.initializer.append(numpy_helper.from_array(np.array([2]), "shape"))
    proto.graph.node.append(helper.make_node("ConstantOfShape", ["shape"], ["filled"], value=tensor))
    (tmp_path / "secret.data").write_bytes(b"\0" * 4)
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    script = (
        "import sys\nfrom srr_onnx.graph.load import load_model\nseen = []\n"
        "sys.addaudithook(lambda event, args: event == 'open' and seen.append(str(args[0])))\n"
        "try:\n    load_model('model.onnx')\nexcept Exception as error:\n    print(type(error).__name__)\n"
        "print([name for name in seen if 'secret' in name])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["ModelError", "[]"]
