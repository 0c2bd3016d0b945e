"""Random small CNN graphs: a list of blocks, each drawn by name and seed, appended to one another.

A failing example prints as the list of its blocks; hypothesis shrinks it by leaving blocks out. A block takes its
inputs from the maps (rank 4), rows (rank 2) and tokens (rank 3) made so far and adds what it makes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from builders import Graph, feeds_for, run_ort
from hypothesis import strategies as st

Rng = np.random.Generator
Block = Callable[["Net", Rng], None]

BLOCKS: dict[str, tuple[int, Block]] = {}
_MAX_CHANNELS, _MAX_SIDE = 24, 16


def block(since: int = 11) -> Callable[[Block], Block]:
    """Register a block under its name, for models from an opset on."""

    def enter(function: Block) -> Block:
        BLOCKS[function.__name__] = (since, function)
        return function

    return enter


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a random model is made from.

    Attributes:
        opset: Operator set.
        seed: Seed of weights, input form and heads.
        blocks: Name and seed of every block.
    """

    opset: int
    seed: int
    blocks: tuple[tuple[str, int], ...]


@dataclasses.dataclass(frozen=True)
class Random:
    """A random model, the sizes that its file leaves open, those that may be others, and its input shapes."""

    proto: onnx.ModelProto
    sizes: dict[str, int]
    free: frozenset[str]
    inputs: dict[str, tuple[int, ...]]


def recipes(max_blocks: int = 8, only: tuple[str, ...] | None = None) -> st.SearchStrategy[Recipe]:
    """Strategy of random models."""
    names = sorted(only or BLOCKS)
    genes = st.tuples(st.sampled_from(names), st.integers(0, 999))
    return st.builds(
        Recipe, st.integers(11, 21), st.integers(0, 99), st.lists(genes, min_size=1, max_size=max_blocks).map(tuple)
    )


@functools.lru_cache(maxsize=8)
def build(recipe: Recipe) -> Random:
    """Make the model of a recipe; it passes the checker and runs, else the generator is wrong."""
    net = Net(recipe)
    for index, (name, seed) in enumerate(recipe.blocks):
        since, function = BLOCKS[name]
        if recipe.opset >= since:
            function(net, np.random.default_rng([seed, index]))
    model = net.finish()
    assert all(all(net.g.shapes.get(name, ())) for name in net.g.parents), "the generator made an empty value"
    onnx.checker.check_model(model, full_check=True)
    for value in run_ort(model, feeds_for(model, sizes=net.sizes)).values():
        assert np.isfinite(np.asarray(value, np.float64)).all(), "the generator made a model with infinite outputs"
    return Random(model, net.sizes, frozenset(net.sizes) - net.baked, {"x": net.shape("x")})


class Net:
    """A graph that grows block by block."""

    def __init__(self, recipe: Recipe) -> None:
        self.rng = np.random.default_rng([recipe.seed, 7])
        self.g = Graph(recipe.opset, recipe.seed)
        self.opset = recipe.opset
        batch = int(self.rng.choice([1, 1, 2]))
        self.is_dynamic = batch == 1 and bool(self.rng.random() < 0.4)
        side = [int(size) for size in self.rng.choice([4, 6, 8], 2)]
        self.is_resizable = self.is_dynamic and bool(self.rng.random() < 0.5)
        self.sizes = {"N": 1} if self.is_dynamic else {}
        # Sizes written into a Reshape whose -1 stands for the batch: at others it would mix pictures, not fail.
        self.baked: set[str] = set()
        if self.is_resizable:
            self.sizes |= {"H": side[0], "W": side[1]}
        dynamic = {{"N": 0, "H": 2, "W": 3}[name]: name for name in self.sizes}
        x = self.g.input("x", (batch, 3, *side), dynamic=dynamic)
        self.maps = [x]
        self.rows: list[str] = []
        self.tokens: list[str] = []
        self.extra_outputs: list[str] = []
        self.shared: list[str] = []

    def shape(self, value: str) -> tuple[int, ...]:
        return self.g.shapes[value]

    def channels(self, value: str) -> int:
        return self.g.shapes[value][1]

    def sides(self, value: str) -> tuple[int, ...]:
        return self.g.shapes[value][2:]

    def pick(self, rng: Rng, values: list[str] | None = None) -> str:
        """One of the values made so far, more often the last."""
        values = self.maps if values is None else values
        return values[-1] if rng.random() < 0.6 else values[int(rng.integers(len(values)))]

    def push(self, value: str) -> None:
        if self.channels(value) <= _MAX_CHANNELS and max(self.sides(value)) <= _MAX_SIDE:
            self.maps.append(value)

    def has_unknown_shapes(self) -> bool:
        """Whether ONNX's checker has lost track: it takes a part of a shape that it does not know for empty."""
        return any(node.op_type == "GroupNormalization" for node in self.g.nodes)

    def count(self, rng: Rng) -> int:
        return int(rng.choice([1, 2, 3, 4, 4, 6, 8, 8, 12]))

    def fresh_map(self, rng: Rng, channels: int | None = None) -> str:
        """A map, taken as it is or put through a convolution; always so where a channel count is asked for."""
        x = self.pick(rng)
        if channels is None and rng.random() < 0.5 and x != "x":
            return x
        return self.conv(rng, x, channels or self.count(rng))

    def conv(self, rng: Rng, x: str, filters: int, kernel: int = 1, group: int = 1, **attributes: Any) -> str:
        shape = (filters, self.channels(x) // group, kernel, kernel)
        name = self.g.fresh("Conv")
        weight = self.stored(rng, shape, name)
        bias = bool(rng.random() < 0.6)
        return self.g.conv(x, filters, kernel, bias=bias, group=group, name=name, weight=weight, **attributes)

    def stored(self, rng: Rng, shape: tuple[int, ...], stem: str) -> str:
        """A random weight, kept in one of the ways in which exporters keep weights."""
        g, form = self.g, rng.random()
        if form < 0.15:
            for name in self.shared:
                if g.shapes[name] == shape:
                    return name
        if form < 0.65 or form > 0.95:
            name = g.weight(*shape, name=f"{stem}.weight")
            self.shared.append(name)
            if form > 0.95:  # an initializer that is declared as an input too
                g.inputs.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
            return name
        if form < 0.70 and g.opset >= 13:
            return self.quantized(rng, shape, stem)
        if form < 0.75:
            array = g.initializers.pop(g.weight(*shape, name=f"{stem}.tmp"))
            return str(g("Constant", value=onnx.numpy_helper.from_array(array)))
        if form < 0.85:
            return str(g("Identity", g.weight(*shape, name=f"{stem}.weight")))
        order = [int(axis) for axis in rng.permutation(len(shape))]
        turned = g.weight(*[shape[axis] for axis in order], name=f"{stem}.weight", scale=shape[0] ** -0.5)
        back = [order.index(axis) for axis in range(len(shape))]
        return str(g("Transpose", turned, perm=back))

    def quantized(self, rng: Rng, shape: tuple[int, ...], stem: str) -> str:
        """A weight stored as eight-bit integers, with one scale for all or one along some axis."""
        g, axis = self.g, int(rng.integers(-1, len(shape)))
        count = shape[axis] if axis >= 0 else 1
        sizes = [count if place == axis else 1 for place in range(len(shape))]
        scale = (rng.uniform(0.5, 1.5, count) / 64 / np.sqrt(max(1, int(np.prod(shape[1:]))))).astype(np.float32)
        zero = rng.integers(-30, 30, count).astype(np.int8)
        steps = np.clip(rng.standard_normal(shape) * 50 + zero.reshape(sizes), -128, 127).astype(np.int8)
        parts = [steps, scale, zero] if axis >= 0 else [steps, scale[0], zero[0]]
        names = [g.constant(part, f"{stem}.{word}") for part, word in zip(parts, ("int", "scale", "zero"), strict=True)]
        return str(g("DequantizeLinear", *names, **({"axis": axis} if axis >= 0 else {})))

    def finish(self) -> onnx.ModelProto:
        """Put heads on what is left over, and make outputs."""
        g, rng = self.g, self.rng
        read = {name for parents in g.parents.values() for name in parents}
        loose = [name for name in self.maps if name not in read]
        loose = [name for name in loose if rng.random() < 0.9] or loose[-1:] or self.maps[-1:]
        heads = [self.head(rng, name) for name in loose]
        for name in [*self.rows, *self.tokens]:
            if name not in read:
                width = g.shapes[name][-1]
                value = g("MatMul", name, g.weight(width, 3, scale=width**-0.5))
                heads.append(g("ReduceMean", value, axes=[1], keepdims=0) if name in self.tokens else value)
        total = heads[0]
        for other in heads[1:]:
            total = g("Add", total, other)
        g.output(total)
        for name in self.extra_outputs:
            g.output(name)
        maps = [name for name in self.maps if name != "x"]
        if maps and rng.random() < 0.3:
            g.output(maps[int(rng.integers(len(maps)))])
        if maps and rng.random() < 0.3:
            g.output(self.conv(rng, maps[int(rng.integers(len(maps)))], 2))
        return g.model()

    def head(self, rng: Rng, x: str) -> str:
        """Row of three numbers from a map."""
        g = self.g
        if rng.random() < 0.5:
            pooled = g("Flatten", g("GlobalAveragePool", self.conv(rng, x, 3)))
            return str(pooled)
        pooled = g("Flatten", g("GlobalMaxPool" if rng.random() < 0.3 else "GlobalAveragePool", x))
        return str(g("Gemm", pooled, self.stored(rng, (3, self.channels(x)), g.fresh("head")), transB=1))


# Convolutions -------------------------------------------------------------------------------------------------------


@block()
def conv(net: Net, rng: Rng) -> None:
    kernel = int(rng.choice([1, 3]))
    attributes: dict[str, Any] = {}
    x = net.pick(rng)
    if min(net.sides(x)) >= 4 and rng.random() < 0.3:
        attributes["strides"] = [2, 2]
    elif kernel == 3 and rng.random() < 0.3:
        attributes["dilations"] = [2, 2]
    net.push(net.conv(rng, x, net.count(rng), kernel, **attributes))


@block()
def conv_same(net: Net, rng: Rng) -> None:
    x = net.pick(rng)
    net.push(net.conv(rng, x, net.channels(x), 3, auto_pad="SAME_UPPER"))


@block()
def grouped_conv(net: Net, rng: Rng) -> None:
    group = int(rng.choice([2, 3, 4]))
    x = net.fresh_map(rng, group * int(rng.integers(1, 4)))
    net.push(net.conv(rng, x, group * int(rng.integers(1, 4)), int(rng.choice([1, 3])), group))


@block()
def depthwise(net: Net, rng: Rng) -> None:
    x = net.fresh_map(rng)
    group = net.channels(x)
    if group > 1:
        net.push(net.conv(rng, x, group * int(rng.choice([1, 1, 2, 3])), 3, group))


@block()
def conv_transpose(net: Net, rng: Rng) -> None:
    group = int(rng.choice([1, 1, 2, 4]))
    x = net.fresh_map(rng, group * int(rng.integers(1, 4)))
    per_group = int(rng.integers(1, 4))
    name = net.g.fresh("ConvTranspose")
    operands = [x, net.stored(rng, (net.channels(x), per_group, 2, 2), name)]
    if rng.random() < 0.5:
        operands.append(net.g.weight(group * per_group))
    stride = 2 if max(net.sides(x)) <= 8 else 1
    net.push(net.g("ConvTranspose", *operands, name=name, strides=[stride, stride], group=group))


@block(since=19)
def deform_conv(net: Net, rng: Rng) -> None:
    g, shared = net.g, int(rng.choice([1, 1, 2]))
    x = net.fresh_map(rng, 2 * int(rng.integers(1, 4)))
    count, name = net.channels(x), g.fresh("DeformConv")
    group = count if shared == 1 and rng.random() < 0.3 else 1
    offsets = net.conv(rng, x, shared * 4)
    filters = count if group > 1 else net.count(rng)
    weight = net.stored(rng, (filters, count // group, 1, 2), name)
    net.push(g("DeformConv", x, weight, offsets, name=name, group=group, offset_group=shared, pads=[0, 0, 0, 1]))


@block()
def twice_one_weight(net: Net, rng: Rng) -> None:
    g = net.g
    x = net.fresh_map(rng)
    count = net.channels(x)
    weight = g.weight(count, count, 1, 1)
    net.push(g("Conv", g("Relu", g("Conv", x, weight)), weight))


@block()
def one_weight_two_inputs(net: Net, rng: Rng) -> None:
    g, count = net.g, int(rng.choice([2, 4, 6]))
    weight = g.weight(net.count(rng), count, 1, 1)
    for _ in range(2):
        net.push(g("Conv", net.fresh_map(rng, count), weight))


@block()
def computed_weight(net: Net, rng: Rng) -> None:
    g, x = net.g, net.fresh_map(rng)
    weight = g("Mul", g.weight(net.count(rng), net.channels(x), 1, 1), g.weight(1, scale=1.0))
    net.push(g("Conv", x, weight))


# Position by position -----------------------------------------------------------------------------------------------


@block()
def activation(net: Net, rng: Rng) -> None:
    g, x = net.g, net.pick(rng)
    kinds: list[Callable[[], Any]] = [
        lambda: g("Relu", x),
        lambda: g("Sigmoid", x),
        lambda: g("LeakyRelu", x, alpha=0.2),
        lambda: g("Clip", x, min=-0.5, max=1.0),
        lambda: g("Clip", x, max=0.7),
        lambda: g("HardSigmoid", x),
        lambda: g("Mul", x, g("Sigmoid", x)),
        lambda: g("Softplus", x),
        lambda: g("Cos", x),
        lambda: g("Elu", x),
        lambda: g("Erf", x),
        lambda: g("PRelu", x, g.weight(net.channels(x), 1, 1)),
        lambda: g("PRelu", x, g.weight(1, offset=0.2)),
        lambda: g("Cast", g("Cast", x, to=11), to=1),
        lambda: g("Dropout", x, ratio=0.3),
        lambda: g("Identity", x),
    ]
    if net.opset >= 14:
        kinds.append(lambda: g("HardSwish", x))
    if net.opset >= 18:
        kinds.append(lambda: g("Mish", x))
    if net.opset >= 20:
        kinds.append(lambda: g("Gelu", x))
    net.push(kinds[int(rng.integers(len(kinds)))]())


@block()
def batch_norm(net: Net, rng: Rng) -> None:
    g, x = net.g, net.fresh_map(rng)
    count = net.channels(x)
    scale, shift, mean = (g.weight(count, scale=1.0) for _ in range(3))
    variance = g.constant(np.abs(g.initializers[g.weight(count, scale=1.0)]) + 0.5)
    net.push(g("BatchNormalization", x, scale, shift, mean, variance))


@block()
def residual(net: Net, rng: Rng) -> None:
    x = net.pick(rng)
    shortcut = x
    if rng.random() < 0.5:
        shortcut = net.conv(rng, x, net.count(rng))
    inner = net.conv(rng, net.g("Relu", x), net.channels(shortcut), int(rng.choice([1, 3])))
    net.push(net.g(str(rng.choice(["Add", "Sub", "Mul", "Max", "Sum"])), inner, shortcut))


@block()
def gate(net: Net, rng: Rng) -> None:
    g, x = net.g, net.pick(rng)
    squeezed = g("GlobalAveragePool", x)
    if rng.random() < 0.5:
        squeezed = g("ReduceMean", x, axes=[2, -1], keepdims=1)
    gates = g("Sigmoid", net.conv(rng, g("Relu", net.conv(rng, squeezed, 2)), net.channels(x)))
    net.push(g("Mul", gates, x) if rng.random() < 0.5 else g("Mul", x, gates))


@block()
def spatial_gate(net: Net, rng: Rng) -> None:
    g, x = net.g, net.pick(rng)
    net.push(g("Mul", x, g("Sigmoid", net.conv(rng, x, 1))))


@block()
def broadcast_constant(net: Net, rng: Rng) -> None:
    g, x = net.g, net.fresh_map(rng)
    count = net.channels(x)
    shapes = [(), (1,), (count, 1, 1), (1, count, 1, 1), (1, 1, net.sides(x)[1]), (1, 1, 1, 1)]
    other = g.weight(*shapes[int(rng.integers(len(shapes)))], scale=0.3, offset=1.0)
    operator = str(rng.choice(["Add", "Sub", "Mul", "Div", "Min"]))
    net.push(g(operator, other, x) if operator != "Div" and rng.random() < 0.5 else g(operator, x, other))


@block()
def compare_and_choose(net: Net, rng: Rng) -> None:
    g, x = net.g, net.fresh_map(rng)
    y = net.conv(rng, x, net.channels(x))
    net.push(g("Where", g("Greater", x, g.constant(np.float32(0.1))), x, y))


# Joining and cutting ------------------------------------------------------------------------------------------------


def same_sides(net: Net, rng: Rng, x: str) -> list[str]:
    return [name for name in net.maps if net.sides(name) == net.sides(x)]


@block()
def concat(net: Net, rng: Rng) -> None:
    x = net.pick(rng)
    others = same_sides(net, rng, x)
    parts = [x] + [others[int(rng.integers(len(others)))] for _ in range(int(rng.integers(1, 3)))]
    if rng.random() < 0.2:
        parts.append(net.g.weight(net.shape(x)[0], 2, *net.sides(x)) if not net.is_dynamic else x)
    net.push(net.conv(rng, net.g("Concat", *parts, axis=int(rng.choice([1, -3]))), net.count(rng)))
    net.push(net.g("Concat", *parts, axis=1))


@block()
def split(net: Net, rng: Rng) -> None:
    g, count = net.g, int(rng.choice([2, 3]))
    x = net.fresh_map(rng, count * int(rng.integers(1, 4)))
    size = net.channels(x) // count
    forms: list[dict[str, Any]] = [{"split": [size] * count}, {"split": [size, net.channels(x) - size]}]
    if net.opset < 18:
        forms.append({})
    else:
        forms.append({"num_outputs": count})
    form = forms[int(rng.integers(len(forms)))]
    parts = g("Split", x, outputs=len(form.get("split", range(count))), axis=1, **form)
    for part in parts:
        if rng.random() < 0.7:
            net.push(g("Relu", part))
    if rng.random() < 0.5:
        net.push(g("Concat", *parts[::-1], axis=1))


@block()
def split_uneven(net: Net, rng: Rng) -> None:
    if net.opset >= 18:
        for part in net.g("Split", net.fresh_map(rng, 7), outputs=3, axis=1, num_outputs=3):  # 3, 3, 1
            net.push(part)


@block()
def c2f(net: Net, rng: Rng) -> None:
    g = net.g
    first, second = g("Split", net.fresh_map(rng, 8), outputs=2, axis=1, split=[4, 4])
    parts = [first, second]
    for _ in range(int(rng.integers(1, 3))):
        inner = g("Relu", net.conv(rng, parts[-1], 4, 3))
        parts.append(g("Add", parts[-1], inner) if rng.random() < 0.5 else inner)
    net.push(net.conv(rng, g("Concat", *parts, axis=1), net.count(rng)))


@block()
def slice_channels(net: Net, rng: Rng) -> None:
    x = net.fresh_map(rng, int(rng.choice([4, 6, 8])))
    count = net.channels(x)
    forms = [
        (1, count, 1), (0, -1, 1), (-3, 1 << 62, 1), (2, 3, 1),
        (0, count, 2), (1, count, 2), (-1, -(1 << 62), -1), (-2, 0, -1),
    ]  # fmt: skip
    start, end, step = forms[int(rng.integers(len(forms)))]
    if rng.random() < 0.6:
        net.push(net.g("Slice", x, starts=[start], ends=[end], axes=[int(rng.choice([1, -3]))], steps=[step]))
    else:
        net.push(
            net.g("Slice", x, starts=[0, start, 1], ends=[1 << 62, end, -1], axes=[3, 1, 2], steps=[1, step, 1])
            if net.sides(x)[0] > 2
            else net.g("Slice", x, starts=[0, 1], ends=[9, -1])
        )


@block()
def slice_space(net: Net, rng: Rng) -> None:
    x = net.pick(rng)
    if min(net.sides(x)) >= 4:
        step = int(rng.choice([1, 2, -1]))
        starts, ends = ([-1, -1], [-(1 << 62)] * 2) if step < 0 else ([0, 1], [1 << 62, -1])
        net.push(net.g("Slice", x, starts=starts, ends=ends, axes=[2, 3], steps=[step, step]))


@block()
def focus(net: Net, rng: Rng) -> None:
    x = net.pick(rng)
    if all(side % 2 == 0 for side in net.sides(x)) and net.channels(x) <= 6:
        parts = [
            net.g("Slice", x, starts=[row, column], ends=[1 << 62] * 2, axes=[2, 3], steps=[2, 2])
            for row in (0, 1)
            for column in (0, 1)
        ]
        net.push(net.g("Concat", *parts, axis=1))


@block()
def gather_channels(net: Net, rng: Rng) -> None:
    x = net.fresh_map(rng)
    count = net.channels(x)
    forms = [
        rng.permutation(count),
        rng.integers(0, count, 5),
        rng.integers(-count, 0, 3),
        np.array([count - 1, 0, count - 1]),
    ]
    indices = net.g.ints(*forms[int(rng.integers(len(forms)))].tolist())
    net.push(net.g("Gather", x, indices, axis=1))


@block()
def gather_one_channel(net: Net, rng: Rng) -> None:
    g, x = net.g, net.fresh_map(rng)
    number = g.constant(np.array(int(rng.integers(net.channels(x))), np.int64))
    net.push(g("Unsqueeze", g("Gather", x, number, axis=1), axes=[1]))


@block()
def sequence_parts(net: Net, rng: Rng) -> None:
    g, x = net.g, net.fresh_map(rng, 6)
    forms = [np.array(2, np.int64), np.array([2, 2, 2], np.int64)]
    parts = g("SplitToSequence", x, g.constant(forms[int(rng.integers(2))]), axis=1)
    shape = (net.shape(x)[0], 2, *net.sides(x))
    picked = [g("SequenceAt", parts, g.constant(np.array(place, np.int64)), shape=shape) for place in (0, -1)]
    net.push(g("Concat", *picked, axis=1) if rng.random() < 0.5 else g("Mul", *picked))


@block()
def pad_space(net: Net, rng: Rng) -> None:
    x = net.pick(rng)
    mode = str(rng.choice(["constant", "reflect", "edge"]))
    if min(net.sides(x)) >= 2:
        net.push(net.g("Pad", x, pads=[0, 0, 1, 0, 0, 0, 0, 1], mode=mode))


@block()
def pad_channels(net: Net, rng: Rng) -> None:
    x = net.fresh_map(rng)
    before, behind = (int(count) for count in rng.integers(0, 3, 2))
    form: dict[str, Any] = {"value": 0.5} if rng.random() < 0.3 else {}
    net.push(net.g("Pad", x, pads=[0, before, 0, 1, 0, behind, 0, 0], **form))


@block(since=18)
def pad_axes(net: Net, rng: Rng) -> None:
    g = net.g
    pads = [int(size) for size in rng.integers(0, 3, 4)]
    net.push(g("Pad", net.fresh_map(rng), g.ints(*pads), "", g.ints(-1, 1)))


@block()
def crop_channels(net: Net, rng: Rng) -> None:
    net.push(net.g("Pad", net.fresh_map(rng, 6), pads=[0, -1, 0, 0, 0, -2, 0, 0]))


@block()
def tile(net: Net, rng: Rng) -> None:
    repeats = [1, 2, 1, 1] if rng.random() < 0.5 else [1, 1, 2, 1]
    net.push(net.g("Tile", net.fresh_map(rng), net.g.ints(*repeats)))


@block()
def listed_channels(net: Net, rng: Rng) -> None:
    """Channels read or written one element at a time, at positions that are constant."""
    g, x = net.g, net.fresh_map(rng)
    if net.is_dynamic:
        return
    batch, count, sides = net.shape(x)[0], net.channels(x), net.sides(x)
    chosen = rng.permutation(count)[: max(1, count // 2)] - (count if rng.random() < 0.3 else 0)
    table = np.broadcast_to(chosen[:, None, None], (batch, len(chosen), *sides)).astype(np.int64)
    grid = np.stack(np.meshgrid(range(batch), chosen, *map(range, sides), indexing="ij"), axis=-1).astype(np.int64)
    kind = int(rng.integers(4))
    if kind == 0:
        net.push(g("GatherElements", x, g.constant(table), axis=1))
    elif kind == 1:
        net.push(g("GatherND", x, g.constant(grid)))
    elif kind == 2:
        net.push(g("ScatterElements", x, g.constant(table), net.conv(rng, x, len(chosen)), axis=1))
    else:
        net.push(g("ScatterND", x, g.constant(grid), net.conv(rng, x, len(chosen))))


@block()
def listed_rows(net: Net, rng: Rng) -> None:
    g, x = net.g, net.fresh_map(rng)
    if net.is_dynamic:
        return
    batch, count, (height, width) = net.shape(x)[0], net.channels(x), net.sides(x)
    rows = rng.permutation(height)[: max(1, height // 2)]
    table = g.constant(np.broadcast_to(rows[:, None], (batch, count, len(rows), width)).astype(np.int64))
    if rng.random() < 0.5:
        net.push(g("GatherElements", x, table, axis=2))
    else:
        updates = g("Slice", net.conv(rng, x, count), starts=[0], ends=[len(rows)], axes=[2])
        net.push(g("ScatterElements", x, table, updates, axis=-2))


@block()
def compress_channels(net: Net, rng: Rng) -> None:
    x = net.fresh_map(rng)
    condition = rng.random(net.channels(x)) < 0.6
    condition[0] = True
    shape = (net.shape(x)[0], int(condition.sum()), *net.sides(x))
    net.push(net.g("Compress", x, net.g.constant(condition), axis=1, shape=shape))


# Moving axes --------------------------------------------------------------------------------------------------------


def batch_size(net: Net, x: str) -> int:
    """Batch size for a Reshape that names all other sizes."""
    net.baked |= {"H", "W"}
    return -1 if net.is_dynamic else net.shape(x)[0]


@block()
def shuffle(net: Net, rng: Rng) -> None:
    g, count = net.g, int(rng.choice([2, 3]))
    x = net.fresh_map(rng, count * int(rng.integers(1, 5)))
    channels, sides = net.channels(x), net.sides(x)
    n = batch_size(net, x)
    cut = g("Reshape", x, shape=[n, count, channels // count, *sides])
    net.push(g("Reshape", g("Transpose", cut, perm=[0, 2, 1, 3, 4]), shape=[n, channels, *sides]))


@block()
def shuffle_rows(net: Net, rng: Rng) -> None:
    g, x = net.g, net.fresh_map(rng)
    height, width = net.sides(x)
    if height % 2 == 0:
        n, count = batch_size(net, x), net.channels(x)
        cut = g("Reshape", x, shape=[n, count, 2, height // 2, width])
        net.push(g("Reshape", g("Transpose", cut, perm=[0, 1, 3, 2, 4]), shape=[n, count, height, width]))


@block()
def depth_to_space(net: Net, rng: Rng) -> None:
    x = net.fresh_map(rng, 4 * int(rng.integers(1, 4)))
    net.push(net.g("DepthToSpace", x, blocksize=2, mode=str(rng.choice(["DCR", "CRD"]))))


@block()
def pixel_shuffle_by_hand(net: Net, rng: Rng) -> None:
    g = net.g
    x = net.fresh_map(rng, 4 * int(rng.integers(1, 4)))
    (height, width), count = net.sides(x), net.channels(x) // 4
    cut = g("Reshape", x, shape=[0, count, 2, 2, height, width])
    turned = g("Transpose", cut, perm=[0, 1, 4, 2, 5, 3])
    net.push(g("Reshape", turned, shape=[0, count, height * 2, width * 2]))


@block()
def space_to_depth(net: Net, rng: Rng) -> None:
    x = net.fresh_map(rng)
    if all(side % 2 == 0 for side in net.sides(x)):
        net.push(net.g("SpaceToDepth", x, blocksize=2))


@block()
def resize(net: Net, rng: Rng) -> None:
    g, x = net.g, net.pick(rng)
    mode = str(rng.choice(["nearest", "linear"]))
    if max(net.sides(x)) > 8:
        return
    if rng.random() < 0.5:
        scales = g.constant(np.array([1, 1, 2, 2], np.float32))
        net.push(g("Resize", x, g.constant(np.zeros(0, np.float32)), scales, mode=mode))
    elif net.opset >= 18 and rng.random() < 0.5:
        net.push(g("Resize", x, "", "", g.ints(7, 5), mode=mode, axes=[2, 3]))
    elif not net.is_dynamic:
        sizes = g.ints(net.shape(x)[0], net.channels(x), 7, 5)
        empty = g.constant(np.zeros(0, np.float32))
        net.push(g("Resize", x, empty, g.constant(np.zeros(0, np.float32)), sizes, mode=mode))


@block()
def resize_like(net: Net, rng: Rng) -> None:
    """Size of another map, measured at run time."""
    g, x = net.g, net.pick(rng)
    if net.has_unknown_shapes():
        return
    like = net.pick(rng)
    head = g("Slice", g("Shape", x), starts=[0], ends=[2])
    tail = g("Slice", g("Shape", like), starts=[2], ends=[4])
    sizes = g("Concat", head, tail, axis=0)
    empty = g.constant(np.zeros(0, np.float32))
    shape = (*net.shape(x)[:2], *net.sides(like))
    net.push(g("Resize", x, empty, g.constant(np.zeros(0, np.float32)), sizes, mode="nearest", shape=shape))


@block()
def pool(net: Net, rng: Rng) -> None:
    g, x = net.g, net.pick(rng)
    if min(net.sides(x)) >= 2:
        kind = str(rng.choice(["MaxPool", "AveragePool", "LpPool"]))
        net.push(g(kind, x, kernel_shape=[2, 2], strides=[2, 2]))


@block()
def unpool(net: Net, rng: Rng) -> None:
    """On the first map, where no two numbers are alike: rounding must not decide which one is the largest."""
    g, x = net.g, net.conv(rng, "x", net.count(rng))
    if all(side % 2 == 0 for side in net.sides(x)):
        values, where = g("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], outputs=2)
        net.push(g("MaxUnpool", g("Relu", values), where, kernel_shape=[2, 2], strides=[2, 2]))


@block(since=16)
def on_grid(net: Net, rng: Rng) -> None:
    g, x = net.g, net.fresh_map(rng)
    grid = g("Transpose", g("Tanh", net.conv(rng, x, 2)), perm=[0, 2, 3, 1])
    net.push(g("GridSample", x, grid, padding_mode="border"))


@block()
def global_pool(net: Net, rng: Rng) -> None:
    net.push(net.g(str(rng.choice(["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])), net.fresh_map(rng)))


@block()
def expand(net: Net, rng: Rng) -> None:
    g, x = net.g, net.fresh_map(rng)
    pooled = g("GlobalAveragePool", x)
    target = [1, net.channels(x), *net.sides(x)] if rng.random() < 0.5 else [1, 1, *net.sides(x)]
    net.push(g("Expand", pooled, g.ints(*target)))


@block()
def normalized(net: Net, rng: Rng) -> None:
    """Divided by the length over channels, as exporters write it: stretched back to the shape, measured or written."""
    g, x = net.g, net.fresh_map(rng)
    length = g("Add", g("ReduceL2", x, axes=[1], keepdims=1), g.constant(np.float32(0.5)))
    is_measured = rng.random() < 0.5 and not net.has_unknown_shapes()
    target = g("Shape", x) if is_measured else g.ints(net.channels(x), 1, 1)
    net.push(g("Div", x, g("Expand", length, target, shape=net.shape(x))))


@block()
def stretched_gate(net: Net, rng: Rng) -> None:
    """One channel for all, repeated as often as there are channels, or repeated and read as it is."""
    g, x = net.g, net.fresh_map(rng)
    gate = g("Sigmoid", net.conv(rng, x, 1))
    wide = g("Tile", gate, g.ints(1, net.channels(x), 1, 1))
    net.push(wide if rng.random() < 0.2 else g("Mul", wide, x))


@block()
def each_channel_alone(net: Net, rng: Rng) -> None:
    """Channels folded into the batch, all of them through the same filters."""
    g, x = net.g, net.fresh_map(rng)
    if net.is_dynamic:
        return
    batch, count, sides = net.shape(x)[0], net.channels(x), net.sides(x)
    each = g("Reshape", x, shape=[batch * count, 1, *sides])
    if rng.random() < 0.5:
        each = g("MaxPool", each, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    many = int(rng.choice([1, 2]))
    each = g.conv(each, many, 3)
    net.push(g("Reshape", each, shape=[batch, count * many, *sides]))


@block()
def squeeze_and_back(net: Net, rng: Rng) -> None:
    g = net.g
    pooled = g("GlobalAveragePool", net.fresh_map(rng))
    vector = g("Relu", g("Squeeze", pooled, axes=[2, -1]))
    net.push(g("Unsqueeze", vector, axes=[-1, 2]))


@block()
def squeeze_every_one(net: Net, rng: Rng) -> None:
    """Squeeze without axes: takes whatever has size 1."""
    g, x = net.g, net.fresh_map(rng)
    if net.shape(x)[0] > 1 and net.channels(x) > 1:
        vector = g("Squeeze", g("GlobalAveragePool", x))
        net.push(g("Unsqueeze", vector, axes=[2, 3]))


@block()
def to_nhwc_and_back(net: Net, rng: Rng) -> None:
    g, x = net.g, net.fresh_map(rng)
    last = g("Transpose", x, perm=[0, 2, 3, 1])
    made = g("MatMul", last, net.stored(rng, (net.channels(x), net.count(rng)), g.fresh("nhwc")))
    if rng.random() < 0.5:
        made = g("Add", made, g.weight(g.shapes[made][-1]))
    net.push(g("Transpose", g("Relu", made), perm=[0, 3, 1, 2]))


@block()
def attention(net: Net, rng: Rng) -> None:
    g, x = net.g, net.pick(rng)
    heads, width = int(rng.choice([1, 2])), int(rng.choice([2, 4]))
    n, (height, w) = batch_size(net, x), net.sides(x)
    if height * w > 64:
        return
    query, key, value = (
        g("Reshape", net.conv(rng, x, heads * width), shape=[n, heads, width, height * w]) for _ in range(3)
    )
    scores = g("MatMul", g("Transpose", query, perm=[0, 1, 3, 2]), key)
    scores = g("Softmax", g("Mul", scores, g.constant(np.float32(width**-0.5))), axis=-1)
    mixed = g("MatMul", value, g("Transpose", scores, perm=[0, 1, 3, 2]))
    net.push(net.conv(rng, g("Reshape", mixed, shape=[n, heads * width, height, w]), net.count(rng)))


@block()
def attention_in_one(net: Net, rng: Rng) -> None:
    """Queries, keys and values from one convolution; between places, or between the channels of a head."""
    g, x = net.g, net.pick(rng)
    heads, width, (height, w) = int(rng.choice([1, 2, 3, 4])), int(rng.choice([2, 3, 4])), net.sides(x)
    if height * w > 64:
        return
    n = batch_size(net, x)
    folded = g("Reshape", net.conv(rng, x, 3 * heads * width), shape=[n, 3, heads, width, height * w])
    parts = g("Split", folded, axis=1, split=[1, 1, 1], outputs=3)
    query, key, value = (g("Squeeze", part, axes=[1]) for part in parts)
    if rng.random() < 0.5:
        scores = g("Softmax", g("MatMul", g("Transpose", query, perm=[0, 1, 3, 2]), key), axis=-1)
        mixed = g("MatMul", value, g("Transpose", scores, perm=[0, 1, 3, 2]))
    else:
        scores = g("Softmax", g("MatMul", query, g("Transpose", key, perm=[0, 1, 3, 2])), axis=-1)
        mixed = g("MatMul", scores, value)
    net.push(net.conv(rng, g("Reshape", mixed, shape=[n, heads * width, height, w]), net.count(rng)))


@block()
def measured_reshape(net: Net, rng: Rng) -> None:
    """Batch size read at run time, as exporters of dynamic models write it."""
    g, x = net.g, net.fresh_map(rng)
    sides = net.sides(x)
    zero = g.constant(np.array(0, np.int64))
    batch = g("Unsqueeze", g("Gather", g("Shape", x), zero, axis=0), axes=[0])
    if rng.random() < 0.5:
        count = g.ints(net.channels(x))
    else:
        one = g.constant(np.array(1, np.int64))
        count = g("Unsqueeze", g("Gather", g("Shape", x), one, axis=0), axes=[0])
    target = g("Concat", batch, count, g.ints(int(np.prod(sides))), axis=0)
    flat = g("Reshape", x, target)
    g.shapes[flat], g.dtypes[flat] = (*net.shape(x)[:2], int(np.prod(sides))), 1
    back = g("Reshape", g("Relu", flat), shape=[0, 0, *sides])
    net.push(back)


@block()
def measured_half(net: Net, rng: Rng) -> None:
    """Slice to the half of the channels, the half computed from the shape."""
    g = net.g
    x = net.fresh_map(rng, int(rng.choice([4, 6])))
    one = g.constant(np.array(1, np.int64))
    size = g("Gather", g("Shape", x), one, axis=0)
    half = g("Unsqueeze", g("Div", size, g.constant(np.array(2, np.int64))), axes=[0])
    shape = (net.shape(x)[0], net.channels(x) // 2, *net.sides(x))
    first = g("Slice", x, g.ints(0), half, g.ints(1), shape=shape)
    second = g("Slice", x, half, g.ints(1 << 62), g.ints(1), shape=shape)
    net.push(g("Mul", first, g("Sigmoid", second)) if rng.random() < 0.5 else second)


@block()
def rows_by_count(net: Net, rng: Rng) -> None:
    """As many rows of one map as another one has channels."""
    if net.has_unknown_shapes():
        return
    g, x = net.g, net.fresh_map(rng, int(rng.choice([1, 2, 3])))
    other = net.pick(rng)
    count, height = net.channels(x), net.sides(other)[0]
    if height > count:
        size = g("Slice", g("Shape", x), starts=[1], ends=[2])
        if rng.random() < 0.5:
            shape = (*net.shape(other)[:2], count, net.sides(other)[1])
            net.push(g("Slice", other, g.ints(0), size, g.ints(2), shape=shape))
        else:
            shape = (*net.shape(other)[:2], 1, net.sides(other)[1])
            net.push(g("Gather", other, size, axis=2, shape=shape))


@block()
def scaled_by_count(net: Net, rng: Rng) -> None:
    """The number of channels enters the computation: it has to stay."""
    g, x = net.g, net.fresh_map(rng)
    one = g.constant(np.array(1, np.int64))
    size = g("Cast", g("Gather", g("Shape", x), one, axis=0), to=1)
    net.push(g("Div", x, size))


@block(since=12)
def einsum(net: Net, rng: Rng) -> None:
    g, x = net.g, net.fresh_map(rng)
    count, made = net.channels(x), net.count(rng)
    kind = int(rng.integers(4))
    if kind == 0:
        net.push(g("Einsum", x, net.stored(rng, (count, made), g.fresh("einsum")), equation="nchw,ck->nkhw"))
    elif kind == 1:
        net.push(g("Einsum", x, g.weight(count, scale=1.0), equation="...chw,c->...chw"))
    elif kind == 2:
        net.push(g("Einsum", x, net.conv(rng, x, count), g.weight(made, count), equation="nchw,nchw,kc->nkhw"))
    elif max(net.sides(x)) <= 8:
        scores = g("Einsum", x, net.conv(rng, x, count), equation="bchw,bcij->bhwij")
        net.push(g("Einsum", scores, net.conv(rng, x, made), equation="bhwij,bcij->bchw"))


# Reductions and normalizations --------------------------------------------------------------------------------------


@block()
def reduce_space(net: Net, rng: Rng) -> None:
    g, x = net.g, net.fresh_map(rng)
    kind = str(rng.choice(["ReduceMean", "ReduceMax", "ReduceSum", "ReduceL2"]))
    if rng.random() < 0.5:
        net.push(g(kind, x, axes=[2, 3], keepdims=1))
    else:
        net.rows.append(g(kind, x, axes=[-1, -2], keepdims=0))


@block()
def reduce_channels(net: Net, rng: Rng) -> None:
    kinds = ["ReduceSum", "ReduceL2", "ReduceSumSquare", "ReduceMean", "ReduceMax"]
    net.push(net.g(str(rng.choice(kinds)), net.fresh_map(rng), axes=[1], keepdims=1))


@block()
def unfollowable(net: Net, rng: Rng) -> None:
    g, x = net.g, net.fresh_map(rng)
    kind = int(rng.integers(6))
    if kind == 0:
        net.push(g("CumSum", x, g.constant(np.array(1, np.int64))))
    elif kind == 1:
        net.push(g("Cast", g("ArgMax", x, axis=1, keepdims=1), to=1))
    elif kind == 2:
        values, _ = g("TopK", x, k=[min(2, net.channels(x))], axis=1, outputs=2)
        net.push(values)
    elif kind == 3:
        values, _ = g("TopK", x, k=[1], axis=-1, outputs=2)
        net.push(values)
    elif kind == 4 and net.opset >= 14:
        turned = g("Trilu", g("Transpose", x, perm=[0, 2, 3, 1]), upper=0)
        net.push(g("Transpose", turned, perm=[0, 3, 1, 2]))
    else:
        index = g.constant(np.zeros((*net.shape(x)[:1], 1, *net.sides(x)), np.int64))
        if not net.is_dynamic:
            net.push(g("GatherElements", x, index, axis=1))


@block()
def instance_norm(net: Net, rng: Rng) -> None:
    g, x = net.g, net.fresh_map(rng)
    if min(net.sides(x)) >= 2:
        count = net.channels(x)
        net.push(g("InstanceNormalization", x, g.weight(count, scale=1.0), g.weight(count), epsilon=1e-2))


@block(since=21)  # the checker calls the version before deprecated
def group_norm(net: Net, rng: Rng) -> None:
    g, count = net.g, int(rng.choice([1, 2, 4]))
    x = net.fresh_map(rng, count * int(rng.integers(1, 4)))
    size = net.channels(x)
    operands = [x, g.weight(size, scale=1.0), g.weight(size)]
    net.push(g("GroupNormalization", *operands, num_groups=count, epsilon=1e-2, shape=net.shape(x)))


@block()
def mixing_norm(net: Net, rng: Rng) -> None:
    g, x = net.g, net.fresh_map(rng)
    if rng.random() < 0.4:
        net.push(g("Softmax", x, axis=1))
    elif rng.random() < 0.5:
        net.push(g("LRN", x, size=3, alpha=0.1))
    elif net.opset >= 17:
        last = g("Transpose", x, perm=[0, 2, 3, 1])
        count = net.channels(x)
        normal = g("LayerNormalization", last, g.weight(count, scale=1.0), g.weight(count), axis=-1, epsilon=1e-2)
        net.push(g("Transpose", normal, perm=[0, 3, 1, 2]))


# Rows ---------------------------------------------------------------------------------------------------------------


def flat(net: Net, rng: Rng, x: str) -> str:
    g = net.g
    size = int(np.prod(net.shape(x)[1:]))
    form = int(rng.integers(4))
    if form == 0:
        return str(g("Flatten", x, axis=int(rng.choice([1, -3]))))
    if form == 1 and not net.is_dynamic:
        return str(g("Reshape", x, shape=[net.shape(x)[0], -1]))
    if form == 2:
        net.baked |= {"H", "W"}
        return str(g("Reshape", x, shape=[-1, size]))
    return str(g("Reshape", x, shape=[0, -1]))


@block()
def dense(net: Net, rng: Rng) -> None:
    g = net.g
    row = net.pick(rng, net.rows) if net.rows and rng.random() < 0.6 else flat(net, rng, net.fresh_map(rng))
    size, units = g.shapes[row][1], net.count(rng)
    form = int(rng.integers(3))
    if form == 0:
        made = g("Gemm", row, net.stored(rng, (units, size), g.fresh("fc")), g.weight(units), transB=1, alpha=0.5)
    elif form == 1:
        made = g("Gemm", row, net.stored(rng, (size, units), g.fresh("fc")), *([g.weight(1, units)] * (units % 2)))
    else:
        made = g("Add", g.weight(units), g("MatMul", row, net.stored(rng, (size, units), g.fresh("fc"))))
    net.rows.append(g("Tanh", made))


@block()
def rows_gate_map(net: Net, rng: Rng) -> None:
    g, x = net.g, net.pick(rng)
    if not net.rows:
        net.rows.append(g("Flatten", g("GlobalAveragePool", x)))
    row = net.pick(rng, net.rows)
    made = g("Gemm", row, g.weight(net.channels(x), g.shapes[row][1]), transB=1)
    if rng.random() < 0.5:
        made = g("Reshape", made, shape=[-1, net.channels(x), 1, 1])
    else:
        made = g("Unsqueeze", made, axes=[2, 3])
    net.push(g("Mul", x, g("Sigmoid", made)))


@block()
def rows_to_map(net: Net, rng: Rng) -> None:
    if net.rows:
        g, row = net.g, net.pick(rng, net.rows)
        made = g("Gemm", row, g.weight(g.shapes[row][1], 8, scale=0.3))
        net.push(g("Reshape", made, shape=[-1, 2, 2, 2]))


@block()
def rows_joined(net: Net, rng: Rng) -> None:
    if net.rows:
        g, first, second = net.g, net.pick(rng, net.rows), net.pick(rng, net.rows)
        net.rows.append(g("Concat", first, second, axis=-1))


# Tokens -------------------------------------------------------------------------------------------------------------


@block()
def tokens_from_map(net: Net, rng: Rng) -> None:
    g, x = net.g, net.fresh_map(rng)
    folded = g("Reshape", x, shape=[0, 0, -1])
    net.tokens.append(g("Transpose", folded, perm=[0, 2, 1]))


@block()
def token_mixer(net: Net, rng: Rng) -> None:
    if not net.tokens:
        tokens_from_map(net, rng)
    g, x = net.g, net.pick(rng, net.tokens)
    width = g.shapes[x][2]
    inner = g("MatMul", x, net.stored(rng, (width, net.count(rng)), g.fresh("mlp")))
    inner = g("Add", inner, g.weight(g.shapes[inner][2]))
    back = g("MatMul", g("Relu", inner), net.stored(rng, (g.shapes[inner][2], width), g.fresh("mlp")))
    net.tokens.append(g("Add", x, back))


# Outputs ------------------------------------------------------------------------------------------------------------


@block()
def inner_output(net: Net, rng: Rng) -> None:
    """A value that is a graph output and is read on."""
    x = net.fresh_map(rng)
    if x != "x":
        net.extra_outputs.append(x)


@block()
def weight_output(net: Net, rng: Rng) -> None:
    """A weight, or what is computed from it, that is a graph output as well."""
    x = net.fresh_map(rng)
    name = net.g.fresh("Conv")
    weight = net.stored(rng, (net.count(rng), net.channels(x), 1, 1), name)
    net.push(net.g.conv(x, net.shape(weight)[0], name=name, weight=weight))
    net.extra_outputs.append(weight if rng.random() < 0.5 else net.g("Transpose", weight, perm=[1, 0, 2, 3]))


@block()
def branch(net: Net, rng: Rng) -> None:
    """A subgraph that reads a map or a weight from outside."""
    g, x = net.g, net.fresh_map(rng)
    captured = g.weight(net.channels(x), 1, 1) if rng.random() < 0.5 else x
    made = onnx.helper.make_tensor_value_info(g.fresh("made"), 1, None)
    inner = onnx.helper.make_graph([onnx.helper.make_node("Neg", [captured], [made.name])], "inner", [], [made])
    condition = g("Greater", g("ReduceSum", x, keepdims=0), g.constant(np.float32(0)))
    chosen = g("If", condition, then_branch=inner, else_branch=inner, shape=net.shape(captured))
    g.dtypes[chosen] = 1
    net.push(g("Mul", x, chosen))


@block()
def recurrent(net: Net, rng: Rng) -> None:
    g, x = net.g, net.fresh_map(rng)
    if net.shape(x)[0] != 1 or net.is_dynamic or int(np.prod(net.sides(x))) > 36:
        return
    kind = str(rng.choice(["LSTM", "GRU", "RNN"]))
    gates, hidden, steps = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], 4, int(np.prod(net.sides(x)))
    sequence = g("Transpose", g("Reshape", x, shape=[1, net.channels(x), steps]), perm=[2, 0, 1])
    weights = [g.weight(1, gates * hidden, size, scale=0.4) for size in (net.channels(x), hidden)]
    made = g(kind, sequence, *weights, g.weight(1, 2 * gates * hidden), hidden_size=hidden, shape=(steps, 1, 1, hidden))
    back = g("Transpose", g("Squeeze", made, axes=[1]), perm=[1, 2, 0])
    net.push(g("Reshape", back, shape=[1, hidden, *net.sides(x)]))


@block()
def dead_end(net: Net, rng: Rng) -> None:
    """Nodes that nobody reads."""
    net.g("Relu", net.conv(rng, net.pick(rng), net.count(rng)))
