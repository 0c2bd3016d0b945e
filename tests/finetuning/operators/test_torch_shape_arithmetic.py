"""Sizes that a graph computes from shapes: on the host, by the same functions, at any size of the input."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from onnx import TensorProto

from srr_onnx.finetuning.bridge import to_torch
from srr_onnx.graph.load import load_model
from tests.builders import Graph, feeds_for, run_ort


def sizes_by_gather(g: Graph, x: str) -> str:
    """(N, C, H, W) -> (N, C, H W), the last size a product of two that are picked and joined again."""
    shape = g("Shape", x)
    height, width = (g("Gather", shape, g.constant(np.int64(axis)), axis=0) for axis in (2, -1))
    area = g("Unsqueeze", g("Mul", height, width), axes=[0])
    head = g("Slice", shape, starts=[0], ends=[2], axes=[0])
    return str(g("Reshape", x, g("Concat", head, area, axis=0)))


def sizes_by_reduction(g: Graph, x: str) -> str:
    """The same by a product over all but the first axis, split off the shape."""
    first, rest = g("Split", g("Shape", x), outputs=2, split=[1, 3], axis=0)
    return str(g("Reshape", x, g("Concat", first, g("ReduceProd", rest, axes=[0], keepdims=1), axis=0)))


def a_mesh(g: Graph, x: str) -> str:
    """Every element times its number along the last axis, made with Range, Cast, Expand and Where."""
    shape = g("Shape", x)
    width = g("Squeeze", g("Slice", shape, starts=[-1], ends=[2**31 - 1], axes=[0]), axes=[0])
    zero, one = g.constant(np.int64(0)), g.constant(np.int64(1))
    steps = g("Range", zero, width, one)
    even = g("Equal", g("Mod", steps, g.constant(np.int64(2))), zero)
    signed = g("Where", even, steps, g("Neg", steps))
    return str(g("Mul", x, g("Expand", g("Cast", signed, to=TensorProto.FLOAT), shape)))


def an_upsampled(g: Graph, x: str) -> str:
    """Resized to twice the size that a graph finds at run time."""
    head, tail = g("Split", g("Shape", x), outputs=2, split=[2, 2], axis=0)
    sizes = g("Concat", head, g("Mul", tail, g.ints(2, 3)), axis=0)
    return str(g("Resize", x, "", "", sizes, mode="linear"))


def a_padded(g: Graph, x: str) -> str:
    """Padded to an even width."""
    width = g("Slice", g("Shape", x), starts=[3], ends=[4], axes=[0])
    odd = g("Mod", width, g.ints(2))
    return str(g("Pad", x, g("Concat", g.ints(0, 0, 0, 0, 0, 0, 0), odd, axis=0), mode="reflect"))


def a_window(g: Graph, x: str) -> str:
    """Backwards from the middle, every other one."""
    width = g("Slice", g("Shape", x), starts=[3], ends=[4], axes=[0])
    middle = g("Div", width, g.ints(2))
    return str(g("Slice", x, middle, g.ints(-(2**31)), g.ints(3), g.ints(-2)))


@pytest.mark.parametrize("build", [sizes_by_gather, sizes_by_reduction, a_mesh, an_upsampled, a_padded, a_window])
def test_sizes_at_run_time(build: Callable[[Graph, str], str]) -> None:
    g = Graph(opset=18)
    x = g.input("x", (2, 3, 4, 5), dynamic={0: "n", 3: "w"})
    g.output(build(g, g.conv(x, 3, kernel=3)))
    model = g.model()
    module = to_torch(load_model(model, {"x": (2, 3, 4, 5)}))
    for batch, width in ((2, 5), (3, 8), (1, 7)):
        feeds = feeds_for(model, batch=batch, sizes={"w": width})
        (expected,) = run_ort(model, feeds).values()
        (found,) = module(torch.tensor(feeds["x"]))
        np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-5)
        found.square().mean().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_a_compiled_graph_has_no_breaks() -> None:
    g = Graph(opset=18)
    x = g.conv(g.input("x", (2, 3, 4, 6)), 4, kernel=3)
    x = g("Resize", x, "", g.constant(np.array([1, 1, 2, 1.5], np.float32)), mode="linear")
    x = g("Resize", x, "", g.constant(np.array([1, 1, 2, 2], np.float32)), mode="nearest")
    x = g("Pad", x, pads=[0, 0, 1, 1, 0, 0, 1, 1], mode="reflect")
    x = g("Concat", *g("Split", x, split=[1, 3], axis=1, outputs=2), axis=1)
    x = g("Slice", x, starts=[-1], ends=[-(2**31)], axes=[3], steps=[-2])
    x = g("Expand", g("ReduceMean", x, axes=[3], keepdims=1), g.ints(1, 4, 18, 3))
    g.output(g("Transpose", g("Reshape", x, shape=[0, 4, -1]), perm=[0, 2, 1]))
    module = to_torch(g.model())
    picture = torch.randn(2, 3, 4, 6)
    expected = module(picture)[0]
    found = torch.compile(module, backend="aot_eager", fullgraph=True)(picture)[0]
    assert torch.allclose(found, expected, atol=1e-6)
