"""Draws from normalizations look like what the network makes of white noise."""

from __future__ import annotations

import numpy as np
import pytest
from builders import Graph, run_ort

from srr_onnx.calibration.gaussians import DRAWS, draw_activations
from srr_onnx.graph.load import load_model

NOISE = np.random.default_rng(5).standard_normal((30_000, 3, 1, 1)).astype(np.float32)


def normed(g, x, channels, **options):
    """A convolution and a normalization that has seen the noise."""
    conv = g.conv(x, channels, **options)
    shown = Graph()
    shown.nodes, shown.inputs, shown.initializers = list(g.nodes), list(g.inputs), dict(g.initializers)
    shown.outputs = [conv]
    (values,) = run_ort(shown.model(), {"x": NOISE}).values()
    gamma, beta = (g.constant(g.rng.uniform(0.5, 2, channels), dtype="f4") for _ in range(2))
    mean, variance = (g.constant(part(axis=(0, 2, 3)), dtype="f4") for part in (values.mean, values.var))
    return g("BatchNormalization", conv, gamma, beta, mean, variance, epsilon=0.0)


def check(g, value, draws, tolerance=0.06):
    """Means, spreads and correlations of draws are those of a value on noise."""
    g.output(value)
    want = run_ort(g.model(), {"x": NOISE}, outputs=[value])[value][:, :, 0, 0]
    assert draws.shape == (DRAWS, want.shape[1])
    assert np.allclose(draws.mean(axis=0), want.mean(axis=0), atol=tolerance * want.std(axis=0).max())
    assert np.allclose(draws.std(axis=0), want.std(axis=0), rtol=tolerance)
    assert np.abs(np.corrcoef(draws.T) - np.corrcoef(want.T)).max() < tolerance


def start():
    g = Graph()
    return g, g.input("x", (len(NOISE), 3, 1, 1))


def draws_of(g, *readers):
    """What layers at the end read, by the value."""
    for value in readers:
        g.output(g.conv(value, 2, name=f"reader_of_{value}"))
    found = {layer.source: draws for layer, draws in draw_activations(load_model(g.model()))}
    g.outputs.clear()
    return found


def test_behind_one_normalization():
    g, x = start()
    value = g("Relu", normed(g, x, 6))
    check(g, value, draws_of(g, value)[value])


def test_behind_two_and_a_sum():
    g, x = start()
    first = g("Relu", normed(g, x, 5))
    second = normed(g, first, 6)
    scaled = g("Mul", g("Sigmoid", second), g.weight(6, 1, 1))
    draws = draws_of(g, first, second, scaled)
    # Behind a Relu nothing is quite normal any more.
    for value, tolerance in ((first, 0.06), (second, 0.1), (scaled, 0.2)):
        check(g, value, draws[value], tolerance)


@pytest.mark.parametrize("group", [2, 6])
def test_behind_a_grouped_convolution(group):
    g, x = start()
    first = g("Relu", normed(g, x, 6))
    second = normed(g, first, 12, group=group)
    check(g, second, draws_of(g, second)[second], 0.1)


def test_a_depthwise_kernel_keeps_what_goes_together():
    """Of one channel, two kernels that are alike give outputs that are alike."""
    g = Graph()
    x = g.input("x", (1, 3, 8, 8))
    vectors = [g.constant(np.ones(count, np.float32)) for count in (2, 4) for _ in range(4)]
    first = g("BatchNormalization", g.conv(x, 2), *vectors[:4])
    depthwise = g.conv(first, 4, 3, group=2, name="deep")
    g.initializers["deep.weight"][1] = 2 * g.initializers["deep.weight"][0]
    g.initializers["deep.weight"][3] = -g.initializers["deep.weight"][2]
    value = g("BatchNormalization", depthwise, *vectors[4:])
    correlation = np.corrcoef(draws_of(g, value)[value].T)
    assert correlation[0, 1] == pytest.approx(1, abs=1e-5)
    assert correlation[2, 3] == pytest.approx(-1, abs=1e-5)


def test_what_follows_from_no_normalization_is_not_drawn():
    g, x = start()
    plain = g("Relu", g.conv(x, 4))
    value = normed(g, x, 4)
    mixed = g("Add", value, plain)
    turned = g("Softmax", value)
    assert set(draws_of(g, plain, value, mixed, turned)) == {value}


def test_pooling_and_flattening_pass_channels_on():
    g = Graph()
    conv = g.conv(g.input("x", (1, 3, 8, 8)), 4)
    vectors = [g.constant(np.ones(4, np.float32)) for _ in range(4)]
    value = g("BatchNormalization", conv, *vectors)
    row = g("Flatten", g("GlobalAveragePool", value))
    spread = g("Flatten", value)
    for source, width in ((row, 4), (spread, 256)):
        g.output(g("Gemm", source, g.weight(width, 2)))
    found = {layer.source: draws for layer, draws in draw_activations(load_model(g.model()))}
    assert {name: draws.shape for name, draws in found.items()} == {row: (DRAWS, 4)}


def test_draws_depend_on_the_seed_only():
    g, x = start()
    value = g("Relu", normed(g, x, 4))
    g.output(g.conv(value, 2))
    model = load_model(g.model())
    first, again, other = (next(iter(draw_activations(model, seed)))[1] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
