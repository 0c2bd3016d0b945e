"""The error of a group is what its readers' outputs lose, fitted anew, whatever the graph around them."""

from __future__ import annotations

import numpy as np
import pytest
from builders import Graph, feeds_for, run_ort

from srr_onnx.analysis.find import find_groups
from srr_onnx.calibration.layers import find_layers
from srr_onnx.calibration.observe import Samples, observe
from srr_onnx.errors import DataError
from srr_onnx.graph.load import load_model
from srr_onnx.scoring import reconstruction
from srr_onnx.scoring.reconstruction import RIDGE, EliminationSearch, choose_columns, find_eliminations, find_readers
from srr_onnx.scoring.score import score_groups


def norm(g, value):
    count = g.shapes[value][1]
    vectors = [g.weight(count, scale=0.3, offset=1.0) for _ in range(3)]
    return g("BatchNormalization", value, *vectors, g.constant(g.rng.uniform(0.5, 2, count), dtype="f4"))


def plain(g, x):
    return g.conv(g("Relu", norm(g, g.conv(x, 6, 3))), 4, 3)


def residual(g, x):
    x = g("Relu", g.conv(x, 6, 3))
    x = g("Relu", g("Add", norm(g, g.conv(g("Relu", g.conv(x, 5)), 6)), x))
    return norm(g, g.conv(x, 3))


def joined(g, x):
    return g.conv(g("Concat", g("Relu", g.conv(x, 4)), g("Relu", g.conv(x, 5, 3)), axis=1), 3)


def same_offset(g, x):
    return g.conv(g("Relu", g.conv(g("Relu", g.conv(x, 8)), 8, 3, group=2)), 3)


def whole_blocks(g, x):
    return g.conv(g("Relu", g.conv(g("Relu", g.conv(x, 8)), 4, 1, group=4)), 3)


def depthwise(g, x):
    return g.conv(g("Relu", g.conv(g("Relu", g.conv(x, 6)), 6, 3, group=6)), 3)


def flattened(g, x):
    flat = g("Flatten", g("Relu", g.conv(x, 3, strides=[2, 2])))
    return g("Gemm", flat, g.weight(4, g.shapes[flat][1]), g.weight(4), transB=1, alpha=0.5)


def crossing(g, x):
    """The first block of a grouped convolution reads all of one group and a part of another."""
    parts = g("Concat", g.conv(x, 2), g.conv(x, 6), axis=1)
    return g.conv(g.conv(parts, 8, group=2), 3)


NETS = [plain, residual, joined, same_offset, whole_blocks, depthwise, flattened, crossing]


def measure(net, seed=0, count=8, columns=None):
    """Model, groups, what was observed, and the values that onnxruntime gives for all samples at once."""
    g = Graph(seed=seed)
    g.output(net(g, g.input("x", (count, 3, 5, 5))))
    proto = g.model()
    model = load_model(proto)
    groups = find_groups(model)
    layers = find_layers(model)
    readers = find_readers(layers, groups)
    wanted = {layer.output: (columns or {}).get(layer.output) for layer in readers}
    feeds = feeds_for(proto, seed)
    found = observe(model, layers, Samples([feeds], count), wanted, ())
    names = sorted({name for layer in readers for name in (layer.source, found.layers[layer.output].tail.total)})
    shown = type(proto)()
    shown.CopyFrom(proto)
    known = {output.name for output in proto.graph.output} | {"x"}
    for name in names:
        if name not in known:
            shown.graph.output.add().name = name
    return model, groups, found, run_ort(shown, feeds, outputs=names)


def direct(model, groups, observation, values, group, gone):
    """Error of a group without some units, layer by layer and block by block, from the samples themselves."""
    lost = group.first_unit + np.asarray(gone)
    error = 0.0
    for observed in observation.layers.values():
        layer, tail = observed.layer, observed.tail
        shape = values[tail.total].shape
        rows = layer.take_rows(values[layer.source], shape, np.arange(layer.count_positions(shape))).astype(np.float64)
        outputs = layer.take_outputs(values[tail.total], np.arange(len(rows)))
        matrix = layer.to_matrix(model.constants[layer.weight]).astype(np.float64)
        matrix = matrix * tail.scale.reshape(layer.blocks, 1, -1)
        units = np.repeat(groups.values[layer.source, layer.source_axis], layer.taps).reshape(layer.blocks, -1)
        made = groups.values.get((layer.output, layer.output_axis), np.full(layer.outputs, -1)).reshape(
            units.shape[0], -1
        )
        for block in range(layer.blocks):
            if len({*units[block].tolist(), *made[block].tolist()}) == 1 and units[block][0] >= 0:
                continue  # it goes with its outputs
            covariance = np.atleast_2d(np.cov(rows[:, block], rowvar=False, bias=True))
            covariance += RIDGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
            is_gone = np.isin(units[block], lost)
            change = np.where(is_gone[:, None], -matrix[block], 0)
            across = covariance[np.ix_(~is_gone, is_gone)]
            change[~is_gone] = -np.linalg.solve(covariance[np.ix_(~is_gone, ~is_gone)], across @ change[is_gone])
            error += np.trace(change.T @ covariance @ change) / outputs.var(axis=0, dtype=np.float64).sum()
    return error


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.__name__)
def test_errors_are_those_of_the_samples(net):
    model, groups, observation, values = measure(net)
    found = find_eliminations(model, groups, observation)
    assert found.keys() == {group.id for group in groups}
    assert len(groups) > 0
    for group in groups:
        order, errors = found[group.id].order, found[group.id].errors
        assert sorted(order.tolist()) == list(range(group.size))
        wants = [direct(model, groups, observation, values, group, order[: n + 1]) for n in range(group.size)]
        if max(wants) > 0:
            assert np.allclose(errors, wants, rtol=0.01, atol=1e-4)


def test_readers_are_those_whose_inputs_can_go():
    model, groups, observation, _ = measure(residual)
    outputs = {layer.output for layer in find_readers(find_layers(model), groups)}
    assert outputs == {layer.output for layer in find_layers(model) if layer.source != "x"}
    assert observation.layers.keys() == outputs


@pytest.mark.parametrize("net", [whole_blocks, depthwise])
def test_what_goes_with_its_outputs_is_no_reader(net):
    model, groups, _, _ = measure(net)
    (reader,) = find_readers(find_layers(model), groups)
    assert reader.output == model.outputs[0]


def test_where_nothing_can_be_measured_the_energy_of_the_filters_stands_in():
    model, groups, observation, _ = measure(depthwise)
    observation.layers.clear()
    found = find_eliminations(model, groups, observation)["g0"]
    assert found.errors[-1] == pytest.approx(1)
    weights = [model.constants[layer.weight] for layer in find_layers(model)[:2]]
    energy = sum((weight**2).reshape(6, -1).sum(axis=1) for weight in weights)
    assert found.order.tolist() == np.argsort(energy).tolist()


def test_a_share_of_the_columns_stands_for_all(monkeypatch):
    monkeypatch.setattr(reconstruction, "_MOST_COLUMNS", 12)
    model, groups, _, _ = measure(plain)
    columns = choose_columns(find_readers(find_layers(model), groups), groups)
    (chosen,) = columns.values()
    units = np.repeat(np.arange(6), 9)[chosen]
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert np.bincount(units).tolist() == [2] * 6
    model, groups, observation, _ = measure(plain, columns=columns)
    few = find_eliminations(model, groups, observation)["g0"]
    monkeypatch.undo()
    model, groups, observation, _ = measure(plain)
    assert choose_columns(find_readers(find_layers(model), groups), groups) == {}
    whole = find_eliminations(model, groups, observation)["g0"]
    assert sorted(few.order.tolist()) == sorted(whole.order.tolist())
    assert 0.2 < few.errors[-1] / whole.errors[-1] < 5


def test_duplicates_go_first():
    def net(g, x):
        conv = g.conv(x, 6, name="twins")
        for name in ("twins.weight", "twins.bias"):
            g.initializers[name][4] = g.initializers[name][1]
        return g.conv(g("Relu", conv), 4)

    model, groups, observation, _ = measure(net)
    found = find_eliminations(model, groups, observation)["g0"]
    assert found.order[0] in (1, 4)


def test_the_criterion_ranks_by_the_elimination():
    model, groups, observation, _ = measure(residual)
    found = find_eliminations(model, groups, observation)
    scores = score_groups(model, groups, "reconstruction", eliminations=found)
    assert scores.redundancy is None
    for group in groups:
        assert scores.order(group.id).tolist() == found[group.id].order.tolist()
        assert np.array_equal(scores.errors[group.id], found[group.id].errors)
        assert np.allclose(np.sort(scores.units[group.id]), found[group.id].errors, rtol=1e-6)
    both = score_groups(model, groups, "srr+reconstruction", eliminations=found)
    assert both.redundancy is not None
    with pytest.raises(DataError, match="--data"):
        score_groups(model, groups, "reconstruction")


def test_a_group_is_settled_with_its_last_reader():
    model, groups, observation, _ = measure(residual)
    readers = find_readers(find_layers(model), groups)
    search = EliminationSearch(model, groups, readers)
    settled = []
    for layer in readers:
        search.add(observation.layers[layer.output])
        settled.append(set(search._found))
    assert [len(ids) for ids in settled] == [0, 1, 2]  # what the sum holds is read by the first and the last
    model, groups, observation, _ = measure(residual)
    whole = find_eliminations(model, groups, observation)
    assert all(np.array_equal(search.finish()[name].order, found.order) for name, found in whole.items())
