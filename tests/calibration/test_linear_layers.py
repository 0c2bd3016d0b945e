"""A layer's rows times its matrix are what onnxruntime makes of it."""

from __future__ import annotations

import numpy as np
import pytest
from builders import Graph, feeds_for, run_ort
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from srr_onnx.calibration.layers import find_layers
from srr_onnx.graph.load import load_model

MODES = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")


def check(g: Graph, seed: int = 0) -> None:
    """The only layer of a graph, at random positions."""
    proto = g.model()
    model = load_model(proto)
    (layer,) = find_layers(model)
    feeds = feeds_for(proto, seed)
    output = run_ort(proto, feeds, outputs=[layer.output])[layer.output]
    total = layer.count_positions(output.shape)
    rng = np.random.default_rng(seed)
    positions = rng.integers(0, total, min(total, 50))
    rows = layer.take_rows(feeds[layer.source], output.shape, positions)
    matrix = layer.to_matrix(model.constants[layer.weight])
    assert rows.shape == (len(positions), layer.blocks, layer.columns)
    made = (rows.transpose(1, 0, 2) @ matrix).transpose(1, 0, 2).reshape(len(positions), layer.outputs)
    if layer.bias:
        made = made + model.constants[layer.bias].reshape(-1) * layer.bias_scale
    assert np.allclose(made, layer.take_outputs(output, positions), rtol=1e-3, atol=1e-4)
    assert np.allclose(layer.from_matrix(matrix), model.constants[layer.weight], rtol=1e-6)


@st.composite
def convolutions(draw, max_pad=2):
    """Sizes and attributes of a convolution of one to three dimensions."""
    rank = draw(st.integers(1, 3))
    each = {
        "size": st.integers(3, 7 if rank < 3 else 5),
        "kernel": st.integers(1, 3),
        "stride": st.integers(1, 3),
        "dilation": st.integers(1, 2),
    }
    drawn = {name: [draw(kind) for _ in range(rank)] for name, kind in each.items()}
    mode = draw(st.sampled_from(MODES))
    attributes = {"strides": drawn["stride"], "dilations": drawn["dilation"], "auto_pad": mode}
    if mode == "NOTSET":
        attributes["pads"] = [draw(st.integers(0, max_pad)) for _ in range(2 * rank)]
    groups, inner, outer = draw(st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)))
    return drawn["size"], drawn["kernel"], groups, inner, outer, attributes


def runs(g: Graph) -> bool:
    return all(size > 0 for output in g.outputs for size in g.shapes.get(output, (0,)))


@settings(max_examples=60)
@given(spec=convolutions(), bias=st.booleans(), batch=st.integers(1, 3), seed=st.integers(0, 99))
@example(([6], [3], 1, 2, 3, {"auto_pad": "SAME_LOWER", "strides": [2]}), True, 2, 0)
@example(([5, 6], [3, 2], 4, 1, 2, {"pads": [0, 2, 1, 0]}), False, 1, 0)
def test_conv(spec, bias, batch, seed):
    size, kernel, groups, inner, outer, attributes = spec
    g = Graph(seed=seed)
    operands = [g.input("x", (batch, groups * inner, *size)), g.weight(groups * outer, inner, *kernel)]
    if bias:
        operands.append(g.weight(groups * outer))
    dilations = attributes.get("dilations", [1] * len(size))
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    pads = attributes.get("pads", [0] * 2 * len(size))
    padded = [s + b + e for s, b, e in zip(size, pads[: len(size)], pads[len(size) :], strict=True)]
    is_same = attributes.get("auto_pad", "").startswith("SAME")
    assume(is_same or all(e <= p for e, p in zip(extents, padded, strict=True)))
    # The runtime refuses to be told nothing about padding and something at once, and to dilate where it pads itself.
    if is_same:
        attributes = {key: value for key, value in attributes.items() if key != "dilations"}
    g.output(g("Conv", *operands, group=groups, **attributes))
    assume(runs(g))
    check(g, seed)


@settings(max_examples=60)
@given(
    spec=convolutions(max_pad=1),
    extra=st.integers(0, 1),
    target=st.sampled_from([None, -1, 0, 1, 2]),
    seed=st.integers(0, 99),
)
@example(([4, 4], [3, 3], 2, 2, 3, {"strides": [2, 2], "auto_pad": "NOTSET", "pads": [1, 0, 0, 1]}), 1, None, 0)
@example(([4], [3], 1, 1, 1, {"strides": [2], "auto_pad": "SAME_UPPER"}), 0, None, 0)
@example(([4], [4], 1, 1, 1, {"strides": [2], "auto_pad": "NOTSET"}), 0, -1, 0)
def test_conv_transpose(spec, extra, target, seed):
    size, kernel, groups, inner, outer, attributes = spec
    rank = len(size)
    g = Graph(seed=seed)
    strides = attributes["strides"]
    dilations = attributes.get("dilations", [1] * rank)
    if extra and all(stride > 1 for stride in strides):
        attributes["output_padding"] = [1] * rank
    else:
        attributes.pop("output_padding", None)
        extra = 0
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    full = [s * (n - 1) + e + extra for s, n, e in zip(strides, size, extents, strict=True)]
    if target is not None and target <= 0:  # below what comes out without padding
        attributes["output_shape"] = [max(1, length + target) for length in full]
        attributes.pop("pads", None)
    if attributes["auto_pad"].startswith("SAME"):
        assume(all(s * n <= f for s, n, f in zip(strides, size, full, strict=True)))
    pads = attributes.get("pads", [0] * 2 * rank)
    assume(all(f - pads[a] - pads[a + rank] > 0 for a, f in enumerate(full)))
    operands = [g.input("x", (2, groups * inner, *size)), g.weight(groups * inner, outer, *kernel)]
    g.output(g("ConvTranspose", *operands, group=groups, **attributes))
    check(g, seed)


@settings(max_examples=20)
@given(
    turned=st.booleans(),
    alpha=st.sampled_from([1.0, 0.5, -2.0]),
    beta=st.sampled_from([1.0, 0.0, 3.0]),
    bias=st.sampled_from([None, (5,), (1, 5), (1,), ()]),
)
def test_gemm(turned, alpha, beta, bias):
    g = Graph()
    operands = [g.input("x", (4, 3)), g.weight(*((5, 3) if turned else (3, 5)))]
    if bias is not None:
        operands.append(g.weight(*bias))
    g.output(g("Gemm", *operands, transB=int(turned), alpha=alpha, beta=beta))
    check(g)


@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4), (2, 3, 2, 4)])
def test_matmul(shape):
    g = Graph()
    g.output(g("MatMul", g.input("x", shape), g.weight(4, 6)))
    check(g)


def test_what_is_no_layer():
    g = Graph()
    x = g.input("x", (4, 4))
    product = g("MatMul", x, x)
    turned = g("Gemm", x, g.weight(4, 4), transA=1)
    nothing = g("Gemm", x, g.weight(4, 4), alpha=0.0)
    left = g("MatMul", g.weight(4, 4), x)
    stack = g("MatMul", g("Unsqueeze", x, axes=[0]), g.weight(2, 4, 4))
    for name in (product, turned, nothing, left, stack):
        g.output(name)
    assert find_layers(load_model(g.model())) == []


def test_half_precision_becomes_single():
    g = Graph()
    g.output(g("MatMul", g.input("x", (2, 3), dtype=10), g.constant(np.ones((3, 2), np.float16))))
    (layer,) = find_layers(load_model(g.model()))
    assert layer.to_matrix(np.ones((3, 2), np.float16)).dtype == np.float32
