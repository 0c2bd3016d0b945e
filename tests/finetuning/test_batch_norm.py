"""Normalizations behind folded convolutions: nothing changes by putting them in, nothing by folding them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from builders import Graph, feeds_for, run_ort

from srr_onnx.analysis.find import find_groups
from srr_onnx.errors import DataError
from srr_onnx.graph.load import load_model
from srr_onnx.graph.model import Model
from srr_onnx.graph.save import save_model
from srr_onnx.rewriting.apply import kept_positions, prune_units

torch = pytest.importorskip("torch", reason="the bridge needs torch")

from srr_onnx.finetuning.batch_norm import fold_norms, insert_norms  # noqa: E402
from srr_onnx.finetuning.bridge import from_torch, to_torch  # noqa: E402


def net(**first: Any) -> Model:
    """Three convolutions, the last of them a head."""
    g = Graph(opset=17)
    y = g("Relu", g.conv(g.input("x", (1, 3, 8, 8), dynamic={0: "n"}), 8, name="first", **first))
    y = g("Relu", g.conv(y, 6, 3, name="second"))
    g.output(g("GlobalAveragePool", g.conv(y, 4, name="head")))
    return load_model(g.model())


def batches(count: int = 2, size: int = 8) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(size, 3, 8, 8, generator=generator) for _ in range(count)]


def train(module: Any, steps: int = 2) -> None:
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-2)
    for x in batches(steps):
        optimizer.zero_grad()
        module(x)[0].square().sum().backward()
        optimizer.step()
    module.eval()


def write(model: Model) -> onnx.ModelProto:
    return onnx.load(save_model(model, "written.onnx"))


def test_putting_them_in_changes_nothing() -> None:
    module = to_torch(net()).eval()
    x = batches()[0]
    before = module(x)[0]
    norms = insert_norms(module, batches())
    assert list(norms) == ["first", "second"]
    assert torch.allclose(module(x)[0], before, atol=1e-6)
    assert module.notes == ["no normalization behind 'head': it is the last before an output"]
    assert {"norms.first.weight", "norms.second.running_var"} <= set(module.state_dict())
    values = module.run([torch.cat(batches())], ["first"])["first"]
    assert torch.allclose(norms["first"].running_mean, values.mean((0, 2, 3)), atol=1e-6)
    assert torch.allclose(norms["first"].running_var, values.var((0, 2, 3), correction=0), rtol=1e-5)


def test_in_training_a_channel_comes_back_to_its_mean_and_spread() -> None:
    module = to_torch(net())
    insert_norms(module, batches())
    first = module.run([torch.cat(batches())], ["first"])["first"].detach()
    with torch.no_grad():
        module.tensor("first.weight").mul_(7)
    again = module.train().run([torch.cat(batches())], ["first"])["first"].detach()
    assert torch.allclose(again.mean((0, 2, 3)), first.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(again.std((0, 2, 3)), first.std((0, 2, 3)), rtol=1e-3)


@pytest.mark.parametrize("bias", [True, False])
def test_folded_the_file_computes_what_the_module_does(bias: bool) -> None:
    model = net(bias=bias)
    module = to_torch(model)
    insert_norms(module, batches())
    train(module)
    x = batches()[1]
    wanted = module(x)[0].detach()
    back = from_torch(module)
    assert module.norm_keys  # the module itself is left alone
    assert [node.op_type for node in back.nodes] == [node.op_type for node in model.nodes]
    assert len(back.proto.graph.initializer) == len(model.proto.graph.initializer) + (not bias)
    (found,) = run_ort(write(back), {"x": x.numpy()}).values()
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-5)
    fold_norms(module)
    assert not module.norm_keys
    assert torch.allclose(module(x)[0], wanted, rtol=1e-4, atol=1e-5)
    assert any("has a bias of its own now" in note for note in module.notes) is not bias


def test_folding_is_exact_to_rounding_in_double() -> None:
    module = to_torch(net(), dtype=torch.float64)
    data = [x.double() for x in batches()]
    insert_norms(module, data)
    module.train()(data[0])[0].square().sum().backward()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter -= 0.01 * parameter.grad
    module.eval()
    wanted = module(data[1])[0]
    fold_norms(module)
    assert torch.allclose(module(data[1])[0], wanted, rtol=1e-12, atol=1e-12)


def test_a_bias_that_others_read_parts() -> None:
    g = Graph(opset=17)
    shared = g.constant(np.zeros(4, np.float32), "zeros")
    y = g("Conv", g.input("x", (2, 3, 6, 6)), g.weight(4, 3, 1, 1, name="w"), shared)
    y = g("Conv", g("Relu", y), g.weight(4, 4, 1, 1, name="v"), shared)
    g.output(g.conv(g("Relu", y), 2))
    model = load_model(g.model())
    module = to_torch(model)
    x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    assert list(insert_norms(module, [x])) == ["Conv_0", "Conv_1"]
    with torch.no_grad():
        module.norms["Conv_0"].bias.add_(1)
    wanted = module.eval()(x)[0].detach()
    back = from_torch(module)
    (found,) = run_ort(write(back), {"x": x.numpy()}).values()
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-5)
    assert [node.op_type for node in back.nodes] == [node.op_type for node in model.nodes]


def test_without_new_biases_they_are_left_out() -> None:
    module = to_torch(net(bias=False))
    assert list(insert_norms(module, batches(), new_biases=False)) == ["second"]
    assert "no normalization behind 'first': it has no bias" in module.notes


def test_where_they_do_harm_they_are_left_out() -> None:
    g = Graph(opset=17)
    y = g("Relu", g.conv(g.input("x", (1, 3, 8, 8), dynamic={0: "n"}), 8, name="normed"))
    y = g("InstanceNormalization", g.conv(y, 8, name="before"), g.weight(8), g.weight(8))
    gate = g("Sigmoid", g.conv(g("GlobalAveragePool", y), 8, name="narrow"))
    y = g.conv(g("Mul", y, gate), 4, name="chosen")
    weights = g("Softmax", g.conv(y, 4, name="box"), axis=1)
    g.output(g.conv(weights, 1, name="expectation"))
    module = to_torch(load_model(g.model()))
    assert list(insert_norms(module, batches(), skip=["chosen"])) == ["normed"]
    assert module.notes == [
        "no normalization behind 'before': another normalization follows",
        "no normalization behind 'chosen': left out by choice",
        "no normalization behind 'box', 'expectation': it is the last before an output",
        "no normalization behind 'narrow': fewer than 50 numbers per channel in a batch",
    ]


def test_statistics_of_the_unpruned_model_are_cut_to_the_channels_that_stayed() -> None:
    model = net()
    groups = find_groups(model)
    is_kept = np.arange(groups.num_units) % 2 == 0
    pruned = prune_units(model, groups, is_kept)
    kept = {value: places for (value, axis), places in kept_positions(groups, is_kept).items() if axis == 1}
    reference, module = to_torch(model), to_torch(pruned)
    norms = insert_norms(module, batches(), reference=reference, kept=kept)
    values = reference.eval().run([torch.cat(batches())], ["second"])["second"][:, kept["second"]]
    assert torch.allclose(norms["second"].running_mean, values.mean((0, 2, 3)), atol=1e-6)
    assert torch.allclose(norms["second"].weight.detach() ** 2, values.var((0, 2, 3), correction=0), rtol=1e-3)
    x = batches()[0]
    plain = to_torch(pruned).eval()(x)[0]
    assert torch.allclose(module.eval()(x)[0], plain, atol=1e-5)
    with pytest.raises(DataError, match="has 8 channels in 'first', the module 4: give the plan"):
        insert_norms(to_torch(pruned), batches(), reference=reference)


def test_dead_channels_stay_finite() -> None:
    model = net()
    module = to_torch(model)
    with torch.no_grad():
        module.tensor("first.weight")[0] = 0
    insert_norms(module, batches())
    train(module)
    assert all(bool(torch.isfinite(parameter).all()) for parameter in module.parameters())
    assert np.isfinite(next(iter(run_ort(write(from_torch(module)), feeds_for(model.proto)).values()))).all()


def test_modes_of_all_parts_are_as_before() -> None:
    module = to_torch(net()).train()
    norms = insert_norms(module, batches())
    assert all(norm.training for norm in norms.values())
    norms["first"].eval()
    insert_norms(module, batches())
    assert module.training
    assert not norms["first"].training


def test_samples_are_needed() -> None:
    with pytest.raises(DataError, match="no samples to take the statistics"):
        insert_norms(to_torch(net()), [])


@pytest.mark.parametrize("name", ["keys", "values", "type", "forward", "training", "a.b"])
def test_whatever_the_value_is_called(name: str) -> None:
    g = Graph()
    y = g("Relu", g("Conv", g.input("x", (1, 3, 8, 8), dynamic={0: "n"}), g.weight(4, 3, 3, 3), outputs=[name]))
    g.output(g.conv(y, 2, name="head"))
    module = to_torch(load_model(g.model())).eval()
    assert list(insert_norms(module, batches())) == [name]
    train(module)
    x = batches()[0]
    found, wanted = to_torch(from_torch(module)).eval()(x)[0], module(x)[0]
    assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()
