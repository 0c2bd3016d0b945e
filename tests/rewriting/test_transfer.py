"""Removed channels that others can stand for are put on those, without samples."""

from __future__ import annotations

import numpy as np
import pytest
from builders import Graph, feeds_for
from compensating import make_case, norm, run_model, twins

from srr_onnx.rewriting import data_free
from srr_onnx.rewriting.data_free import find_transfers
from srr_onnx.rewriting.merging import LEAST_COSINE, find_merges
from srr_onnx.rewriting.transfer import Transfer, apply_transfers, find_readers

PAIRS = ((0, 4), (1, 5))


def alike(g, value, pairs=PAIRS):
    """Make channels equal: filters and biases of the node, and vectors of the norm, that a value comes from."""
    node = next(node for node in g.nodes if value in node.output)
    twins(g, *[name for name in node.input[1:] if name], pairs=pairs)
    return value


def plain(g, x):
    return g.conv(g("Relu", alike(g, g.conv(x, 6, 3))), 4, 3)


def normed(g, x):
    value = alike(g, norm(g, alike(g, g.conv(x, 6, 3, bias=False))))
    return g.conv(g("Relu", value), 4, 3)


def depthwise(g, x):
    value = g("Relu", alike(g, norm(g, alike(g, g.conv(x, 6)))))
    value = g("Relu", alike(g, norm(g, alike(g, g.conv(value, 6, 3, group=6, bias=False)))))
    return g.conv(value, 4)


def grouped(g, x):
    """Units are the same offset of both groups, so both are twins."""
    value = g("Relu", alike(g, norm(g, alike(g, g.conv(x, 6), ((0, 1), (3, 4)))), ((0, 1), (3, 4))))
    return g.conv(value, 4, 3, group=2)


def joined(g, x):
    first = g("Relu", alike(g, norm(g, alike(g, g.conv(x, 6)))))
    return g.conv(g("Concat", g("Relu", g.conv(x, 3)), first, axis=1), 4)


def dense(g, x):
    value = g("Flatten", g("GlobalAveragePool", g("Relu", alike(g, norm(g, alike(g, g.conv(x, 6, 3)))))))
    return g("Gemm", value, g.weight(4, 6), g.weight(4), transB=1, alpha=0.5)


def flattened(g, x):
    value = g("Flatten", g("Relu", alike(g, g.conv(x, 6))))
    return g("MatMul", value, g.weight(6 * 36, 4))


def last_twins(case):
    """The later one of each pair of channels of the group whose filters come first."""
    group = next(group for group in case.groups if group.size in (6, 3))
    return [group.first_unit + unit for unit in ((4, 5) if group.size == 6 else (1,))]


def make(net, gone=None, **options):
    def build():
        g = Graph(seed=1)
        g.output(net(g, g.input("x", (4, 3, 6, 6))))
        return g

    if gone is None:
        gone = last_twins(make_case(build(), gone=[]))
    return make_case(build(), gone=gone, **options)


@pytest.mark.parametrize(
    "net", [plain, normed, depthwise, grouped, joined, dense, flattened], ids=lambda net: net.__name__
)
def test_merging_duplicates_is_exact(net):
    case = make(net)
    merges = find_merges(case.model, case.groups, case.kept)
    found, nodes, created = apply_transfers(case.model, case.pruned, case.kept, merges)
    assert case.error(case.pruned) > 1e-3
    assert case.error(found) < 1e-9
    assert len(nodes) == len(merges) > 0
    assert created == 0  # nothing to put into a bias


@pytest.mark.parametrize(("ridge", "share"), [(data_free.RIDGE, 0.01), (1e-7, 1e-6)])
@pytest.mark.parametrize("net", [normed, depthwise, grouped, dense], ids=lambda net: net.__name__)
def test_regressing_duplicates_is_exact_but_for_the_ridge(net, ridge, share, monkeypatch):
    monkeypatch.setattr(data_free, "RIDGE", ridge)
    case = make(net)
    transfers = find_transfers(case.model, case.kept)
    found, nodes, _ = apply_transfers(case.model, case.pruned, case.kept, transfers)
    assert nodes
    assert case.error(found) < share * case.error(case.pruned)


def test_a_filter_twice_as_large_is_merged_with_its_factor():
    g = Graph()
    conv = g.conv(g.input("x", (4, 3, 6, 6)), 4, 3, name="c")
    for name in ("c.weight", "c.bias"):
        g.initializers[name][2] = 2 * g.initializers[name][0]
    g.output(g.conv(g("Relu", conv), 3))
    case = make_case(g, gone=[2])
    merges = find_merges(case.model, case.groups, case.kept)
    (transfer,) = merges.values()
    assert transfer.coefficients[0, 2] == pytest.approx(2)
    assert np.count_nonzero(transfer.coefficients) == 1
    assert case.error(apply_transfers(case.model, case.pruned, case.kept, merges)[0]) < 1e-9


def test_a_filter_of_the_other_sign_with_a_scale_of_the_other_sign_is_the_same():
    g = Graph()
    conv = g.conv(g.input("x", (4, 3, 6, 6)), 4, 3, bias=False, name="c")
    value = norm(g, conv)
    scale, shift, mean, variance = (g.initializers[name] for name in g.nodes[-1].input[1:])
    for array, sign in ((g.initializers["c.weight"], -1), (scale, -1), (shift, 1), (mean, -1), (variance, 1)):
        array[2] = sign * array[0]
    g.output(g.conv(g("Relu", value), 3))
    case = make_case(g, gone=[2])
    merges = find_merges(case.model, case.groups, case.kept)
    assert case.error(apply_transfers(case.model, case.pruned, case.kept, merges)[0]) < 1e-9


def test_filters_that_are_not_alike_are_not_merged():
    g = Graph()
    conv = g.conv(g.input("x", (4, 3, 6, 6)), 3, name="c")
    g.initializers["c.weight"][:] = np.eye(3, dtype=np.float32)[:, :, None, None]
    g.initializers["c.weight"][2, 0] = -1.0
    g.output(g.conv(g("Relu", conv), 3))
    case = make_case(g, gone=[2])
    assert find_merges(case.model, case.groups, case.kept) == {}
    assert 0 < LEAST_COSINE < 1
    assert apply_transfers(case.model, case.pruned, case.kept, {}) == (case.pruned, [], 0)


@pytest.mark.parametrize("keep_structure", [False, True])
def test_a_constant_channel_goes_into_the_bias(keep_structure):
    g = Graph()
    value = norm(g, g.conv(g.input("x", (4, 3, 6, 6)), 4))
    scale, shift = g.nodes[-1].input[1:3]
    g.initializers[scale][1], g.initializers[shift][1] = 0, 3
    g.output(g.conv(g("Relu", value), 3, bias=False))
    case = make_case(g, gone=[1])
    transfers = find_transfers(case.model, case.kept)
    found, nodes, created = apply_transfers(
        case.model, case.pruned, case.kept, transfers, keep_structure=keep_structure
    )
    assert len(nodes) == 1
    assert created == (not keep_structure)
    error = case.error(found)
    assert error > 0.1 if keep_structure else error < 1e-9


def test_blocks_that_went_as_a_whole_need_nothing():
    g = Graph()
    value = g("Relu", norm(g, g.conv(g.input("x", (4, 3, 6, 6)), 8)))
    blocks = g("Relu", norm(g, g.conv(value, 4, group=4, bias=False)))
    g.output(g.conv(blocks, 3))
    case = make_case(g, gone=[1])
    for transfers in (find_merges(case.model, case.groups, case.kept), find_transfers(case.model, case.kept)):
        found, nodes, created = apply_transfers(case.model, case.pruned, case.kept, transfers)
        assert created == 0
        assert set(nodes) <= {case.model.producers[case.model.outputs[0]].label}
        run_model(found, feeds_for(case.proto))


def test_a_layer_of_which_only_whole_blocks_went_gets_no_bias():
    g = Graph()
    value = g("Relu", g.conv(g.input("x", (4, 3, 6, 6)), 8))
    blocks = g("Conv", value, g.weight(4, 2, 1, 1), group=4, name="blocks")
    g.output(g.conv(g("Relu", blocks), 3))
    case = make_case(g, gone=[1])
    transfer = Transfer(np.zeros((8, 8)), np.ones(8))
    assert apply_transfers(case.model, case.pruned, case.kept, {blocks: transfer}) == (case.pruned, [], 0)


def test_readers_are_those_that_lose_inputs_and_sum_over_them():
    case = make(depthwise)
    assert [layer.output for layer in find_readers(case.model, case.kept)] == list(case.model.outputs)
    assert find_readers(case.model, {}) == []
