"""Small real model files, and ways to damage them, for fuzz.py.

Every damage is drawn from a generator of its own, so that a seed and a number name one input for ever.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from random_models import BLOCKS, Recipe, build  # noqa: E402 - needs the path above

from srr_onnx.graph.tensors import find_tensors  # noqa: E402

Rng = np.random.Generator
EXTREMES = (0, 1, -1, 2, -2, 7, 255, 65_537, 1 << 24, 1 << 31, -(1 << 31), 1 << 40, (1 << 63) - 1, -(1 << 63))
# A resource that a file might name as its external data; all of them are refused.
PLACES = (
    "../secret.data", "/etc/passwd", "sub/../../secret.data", "link.data", "linked/secret.data", "pipe", "/dev/zero",
    "/dev/stdin", "/proc/self/mem", "", ".", "..", "a\0b", "x" * 5000, "input.onnx", "short.data", "beside.data",
    "~/secret.data", "file:///etc/passwd", "loop",
)  # fmt: skip


@functools.lru_cache(maxsize=1)
def make_seeds() -> tuple[tuple[str, bytes], ...]:
    """Real files: every block of the test generator, the demo network, and those that come with the onnx package."""
    seeds = []
    for number, name in enumerate(sorted(BLOCKS)):
        opset = max(BLOCKS[name][0], (11, 13, 17, 18, 21)[number % 5])
        recipe = Recipe(opset, number, (("conv", number), (name, number), ("conv", number + 1)))
        seeds.append((name, build(recipe).proto.SerializeToString()))
    seeds.append(("resnet20_emoji", (ROOT / "srr_onnx/assets/resnet20_emoji.onnx").read_bytes()))
    light = Path(onnx.__file__).parent / "backend/test/data/light"
    seeds += [(path.stem, path.read_bytes()) for path in sorted(light.glob("*.onnx")) if path.stat().st_size < 100_000]
    return tuple(seeds)


def make_input(seed: int, number: int) -> tuple[str, bytes]:
    """Draw one damaged file.

    Args:
        seed: Seed of the whole run.
        number: Number of the input.

    Returns:
        What was done to which file, and the bytes.
    """
    rng = np.random.default_rng([seed, number])
    seeds = make_seeds()
    # Most of the time goes into the small files: they are the fast ones.
    name, data = seeds[int(rng.integers(len(seeds)))]
    if len(data) > 30_000 and rng.random() < 0.7:
        name, data = seeds[int(rng.integers(len(BLOCKS)))]
    done = []
    for _ in range(int(rng.choice([1, 1, 1, 2, 4]))):
        kind = str(rng.choice(sorted(DAMAGES)))
        data = DAMAGES[kind](data, rng)
        done.append(kind)
    return f"{name}: {', '.join(done)}", data


DAMAGES: dict[str, Callable[[bytes, Rng], bytes]] = {}


def on_bytes(function: Callable[[bytearray, Rng], None]) -> None:
    """Register a damage that knows nothing of the format."""

    def damage(data: bytes, rng: Rng) -> bytes:
        changed = bytearray(data)
        if changed:
            function(changed, rng)
        return bytes(changed)

    DAMAGES[function.__name__] = damage


def on_model(function: Callable[[onnx.ModelProto, Rng], None]) -> None:
    """Register a damage of the decoded model; bytes that are none any more stay as they are."""

    def damage(data: bytes, rng: Rng) -> bytes:
        try:
            model = onnx.ModelProto.FromString(data)
            function(model, rng)
            return model.SerializeToString()
        except (DecodeError, ValueError, IndexError, UnicodeError):  # ValueError: nothing left to draw from
            return data

    DAMAGES[function.__name__] = damage


def _pick(rng: Rng, items: object) -> object:
    items = list(items)  # type: ignore[call-overload]
    return items[int(rng.integers(len(items)))]


@on_bytes
def flip_bits(data: bytearray, rng: Rng) -> None:
    for _ in range(int(rng.integers(1, 9))):
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))


@on_bytes
def set_bytes(data: bytearray, rng: Rng) -> None:
    # The head of the file and the end hold more structure than payload.
    place = int(rng.integers(min(len(data), 400))) if rng.random() < 0.5 else int(rng.integers(len(data)))
    data[place : place + int(rng.integers(1, 5))] = bytes(
        rng.choice([0, 1, 0x7F, 0x80, 0xFF], int(rng.integers(1, 12)))
    )


@on_bytes
def truncate(data: bytearray, rng: Rng) -> None:
    del data[int(rng.integers(len(data))) :]


@on_bytes
def cut(data: bytearray, rng: Rng) -> None:
    start = int(rng.integers(len(data)))
    del data[start : start + int(rng.integers(1, 200))]


@on_bytes
def repeat(data: bytearray, rng: Rng) -> None:
    start = int(rng.integers(len(data)))
    data[start:start] = data[start : start + int(rng.integers(1, 2000))]


@on_bytes
def splice(data: bytearray, rng: Rng) -> None:
    other = _pick(rng, make_seeds())[1]  # type: ignore[index]
    start, place = int(rng.integers(len(other))), int(rng.integers(len(data)))
    data[place : place + int(rng.integers(1, 200))] = other[start : start + int(rng.integers(1, 2000))]


@on_bytes
def append_other(data: bytearray, rng: Rng) -> None:
    """A second message behind the first: protobuf merges them."""
    data += _pick(rng, make_seeds())[1]  # type: ignore[index]


@on_model
def change_dims(model: onnx.ModelProto, rng: Rng) -> None:
    tensor = _pick(rng, model.graph.initializer)
    if len(tensor.dims) and rng.random() < 0.8:
        tensor.dims[int(rng.integers(len(tensor.dims)))] = int(rng.choice(EXTREMES))
    else:
        tensor.dims.append(int(rng.choice(EXTREMES)))


@on_model
def empty_but_huge(model: onnx.ModelProto, rng: Rng) -> None:
    """A tensor without elements may have axes of any size."""
    tensor = _pick(rng, model.graph.initializer)
    tensor.dims[:] = [int(rng.choice(EXTREMES)), 0, int(rng.choice(EXTREMES))]
    tensor.raw_data = b""


@on_model
def change_input_shape(model: onnx.ModelProto, rng: Rng) -> None:
    dims = _pick(rng, model.graph.input).type.tensor_type.shape.dim
    if rng.random() < 0.3:
        dims.add().dim_value = int(rng.choice(EXTREMES))
    _pick(rng, dims).dim_value = int(rng.choice(EXTREMES))


@on_model
def change_integers(model: onnx.ModelProto, rng: Rng) -> None:
    """Content of shape constants: targets, axes, pads, repeats."""
    tensor = _pick(rng, [t for t in model.graph.initializer if t.data_type == TensorProto.INT64])
    array = np.frombuffer(tensor.raw_data, np.int64).copy()
    array[int(rng.integers(len(array)))] = int(rng.choice(EXTREMES))
    tensor.raw_data = array.tobytes()


@on_model
def change_payload(model: onnx.ModelProto, rng: Rng) -> None:
    tensor = _pick(rng, model.graph.initializer)
    if rng.random() < 0.5:
        tensor.raw_data = b"\xff" * len(tensor.raw_data)  # no numbers
    else:
        tensor.float_data.extend([1.0] * int(rng.integers(1, 400)))  # payload twice
        if rng.random() < 0.5:
            tensor.ClearField("raw_data")


@on_model
def change_type(model: onnx.ModelProto, rng: Rng) -> None:
    kind = int(rng.choice([*range(30), 99, -1]))
    if rng.random() < 0.5:
        _pick(rng, model.graph.initializer).data_type = kind
    else:
        _pick(rng, model.graph.input).type.tensor_type.elem_type = kind


@on_model
def rewire(model: onnx.ModelProto, rng: Rng) -> None:
    """Cycles, unknown values, operands of the wrong kind, empty slots."""
    node = _pick(rng, [node for node in model.graph.node if node.input])
    values = ["", "nowhere", *(name for other in model.graph.node for name in [*other.input, *other.output])]
    node.input[int(rng.integers(len(node.input)))] = str(_pick(rng, values))


@on_model
def change_arity(model: onnx.ModelProto, rng: Rng) -> None:
    node = _pick(rng, model.graph.node)
    names = _pick(rng, [node.input, node.output])
    if rng.random() < 0.6:
        del names[int(rng.integers(len(names))) :]
    else:
        names.extend(["", *names])


@on_model
def repeat_names(model: onnx.ModelProto, rng: Rng) -> None:
    graph = model.graph
    kind = int(rng.integers(4))
    if kind == 0:
        graph.initializer.add().CopyFrom(_pick(rng, graph.initializer))
    elif kind == 1:
        graph.input.add().CopyFrom(_pick(rng, graph.input))
    elif kind == 2:
        graph.output.add().CopyFrom(_pick(rng, graph.output))
    else:
        graph.node.add().CopyFrom(_pick(rng, graph.node))


@on_model
def change_operator(model: onnx.ModelProto, rng: Rng) -> None:
    node = _pick(rng, model.graph.node)
    node.op_type = _pick(rng, onnx.defs.get_all_schemas()).name
    if rng.random() < 0.1:
        node.domain = str(rng.choice(["ai.onnx", "ai.onnx.ml", "com.microsoft", "none"]))


@on_model
def change_attribute(model: onnx.ModelProto, rng: Rng) -> None:
    node = _pick(rng, [node for node in model.graph.node if node.attribute])
    attribute = _pick(rng, node.attribute)
    kind = int(rng.integers(5))
    if kind == 0:
        attribute.type = int(rng.integers(15))
    elif kind == 1:
        node.attribute.remove(attribute)
    elif kind == 2:
        attribute.name = str(rng.choice(["axis", "axes", "perm", "group", "to", "value", "pads", "split", ""]))
    elif len(attribute.ints):
        attribute.ints[int(rng.integers(len(attribute.ints)))] = int(rng.choice(EXTREMES))
        if rng.random() < 0.3:
            attribute.ints.append(1)
    else:
        attribute.i = int(rng.choice(EXTREMES))


@on_model
def change_versions(model: onnx.ModelProto, rng: Rng) -> None:
    model.opset_import[0].version = int(rng.choice([*range(30), *EXTREMES]))
    if rng.random() < 0.3:
        model.ir_version = int(rng.choice([*range(15), (1 << 63) - 1]))


@on_model
def point_outside(model: onnx.ModelProto, rng: Rng) -> None:
    """External data anywhere in the model, in any kind of tensor."""
    tensor = _pick(rng, list(find_tensors(model)))
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, values in (
        ("location", PLACES),
        ("offset", ("", "0", "4", "-4", "many", str(1 << 63))),
        ("length", ("", "0", "4", "-8", "1e3", str(1 << 63))),
    ):
        if rng.random() < 0.8:
            tensor.external_data.add(key=key, value=str(_pick(rng, values)))


@on_model
def nest(model: onnx.ModelProto, rng: Rng) -> None:
    """Put a node into nested Ifs; the deepest go past what protobuf decodes."""
    node = _pick(rng, model.graph.node)
    inner = onnx.NodeProto()
    inner.CopyFrom(node)
    for depth in range(int(rng.choice([1, 2, 5, 20, 30, 32, 33, 40, 100]))):
        outputs = [helper.make_tensor_value_info(name, 1, None) for name in inner.output]
        graph = helper.make_graph([inner], f"g{depth}", [], outputs)
        inner = helper.make_node("If", [node.input[0]], list(node.output), then_branch=graph, else_branch=graph)
        if depth > 6:  # twice as large with every level
            del inner.attribute[1]
    node.CopyFrom(inner)


@on_model
def add_function(model: onnx.ModelProto, rng: Rng) -> None:
    """A function, perhaps one that calls itself, and a node that calls it."""
    node = _pick(rng, model.graph.node)
    body = onnx.NodeProto()
    body.CopyFrom(node)
    if rng.random() < 0.3:
        body.op_type, body.domain = "F", "own"
    opsets = [*model.opset_import, helper.make_opsetid("own", 1)]
    names = [list(dict.fromkeys(filter(None, part))) for part in (node.input, node.output)]
    model.functions.append(helper.make_function("own", "F", *names, [body], opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    node.op_type, node.domain = "F", "own"


@on_model
def break_text(model: onnx.ModelProto, rng: Rng) -> None:
    """A name that is empty, long, or holds what terminals act on; broken UTF-8 comes from the damages of bytes."""
    word = str(rng.choice(["", "\0", "\n\n", "\x1b[2J", "é" * 3000, "{}", "%s"]))
    kind = int(rng.integers(4))
    node = _pick(rng, model.graph.node)
    if kind == 0:
        node.name = word
    elif kind == 1:
        node.op_type = word
    elif kind == 2:
        old = node.output[0]
        for other in model.graph.node:
            for names in (other.input, other.output):
                names[:] = [word if name == old else name for name in names]
    else:
        _pick(rng, model.graph.input).name = word


@on_model
def empty_message(model: onnx.ModelProto, rng: Rng) -> None:
    """Leave some part out."""
    messages = [part for parts in (model.graph.node, model.graph.initializer, model.graph.output, model.graph.input)
                for part in parts]  # fmt: skip
    message = _pick(rng, messages)
    message.ClearField(_pick(rng, message.ListFields())[0].name)  # type: ignore[index]
