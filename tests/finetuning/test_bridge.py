"""An exported graph as a torch module, and back: the same file, with other numbers in it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import onnx
import pytest
from builders import Graph, feeds_for, run_ort
from onnx import TensorProto, helper, numpy_helper

from srr_onnx.errors import DataError, UnknownNameError, UnsupportedError
from srr_onnx.graph.load import load_model
from srr_onnx.graph.model import Model
from srr_onnx.graph.save import save_model

torch = pytest.importorskip("torch", reason="the bridge needs torch")

from torch.nn.utils import prune  # noqa: E402

from srr_onnx.finetuning.bridge import TorchGraph, from_torch, to_torch  # noqa: E402

Array = np.ndarray[Any, Any]
# What learns of `net`.
LEARNT = {"first.weight", "first.bias", "Conv_1.weight", "Conv_1.bias", "scale", "shift", "dense", "offset"}


def net(opset: int = 17, batch: int | None = None, kernel: int = 1) -> onnx.ModelProto:
    """Convolutions, a normalization, a shape that is computed at run time, and a dense head."""
    g = Graph(opset=opset)
    x = g.input("x", (batch or 1, 3, 8, 8), dynamic=None if batch else {0: "n"})
    y = g("Relu", g.conv(x, 8, kernel, name="first"))
    parts = [g.weight(8, name="scale", offset=1), g.weight(8, name="shift"), g.weight(8, name="mean", scale=0.1)]
    variance = g.constant(np.linspace(0.5, 2, 8, dtype=np.float32), "variance")
    y = g("BatchNormalization", g.conv(y, 8), *parts, variance)
    y = g("Add", g("Relu", y), y)
    y = g("GlobalAveragePool", g("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2]))
    count = g("Gather", g("Shape", y), g.ints(0), axis=0)
    y = g("Reshape", y, g("Concat", count, g.ints(8), axis=0))
    g.shapes[y], g.dtypes[y] = (batch or 1, 8), TensorProto.FLOAT
    g.output(g("Gemm", y, g.weight(5, 8, name="dense"), g.weight(5, name="offset"), transB=1))
    model = g.model(producer_name="a tool", doc_string="what it is")
    helper.set_model_props(model, {"classes": "a,b,c"})
    return model


def compute(module: TorchGraph, feeds: dict[str, Array]) -> list[Array]:
    with torch.no_grad():
        return [value.numpy() for value in module(*(torch.tensor(feeds[name]) for name in module.inputs))]


def check_agreement(proto: onnx.ModelProto, module: TorchGraph, batch: int = 2, tolerance: float = 1e-5) -> None:
    feeds = feeds_for(proto, batch=batch)
    for found, wanted in zip(compute(module.eval(), feeds), run_ort(proto, feeds).values(), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=tolerance * max(1, np.abs(wanted).max()))


def take_steps(module: TorchGraph, count: int = 2, batch: int = 4) -> None:
    """Train a little."""
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        inputs = [torch.randn((batch, *shape[1:]), generator=generator) for shape in module.model.inputs.values()]
        optimizer.zero_grad()
        sum(value.square().mean() for value in module(*inputs)).backward()
        optimizer.step()
    module.eval()


def write(model: Model, tmp_path: Any) -> onnx.ModelProto:
    return onnx.load(save_model(model, tmp_path / "written.onnx", force=True))


@pytest.mark.parametrize("opset", [8, 11, 13, 17, 22])
def test_the_module_computes_what_the_runtime_does(opset: int) -> None:
    proto = net(opset)
    check_agreement(proto, to_torch(load_model(proto)))


def test_untrained_it_comes_back_as_it_was(tmp_path: Any) -> None:
    proto = net()
    back = write(from_torch(to_torch(load_model(proto))), tmp_path)
    assert back == onnx.load_from_string(write(load_model(proto), tmp_path).SerializeToString())


def test_trained_the_file_has_the_same_nodes_and_the_module_s_numbers(tmp_path: Any) -> None:
    proto = net()
    module = to_torch(load_model(proto))
    take_steps(module)
    back = write(from_torch(module), tmp_path)
    assert list(back.graph.node) == list(proto.graph.node)
    assert [init.name for init in back.graph.initializer] == [init.name for init in proto.graph.initializer]
    for field in ("opset_import", "metadata_props", "ir_version", "producer_name", "doc_string"):
        assert getattr(back, field) == getattr(proto, field)
    check_agreement(back, module)
    changed = {
        init.name
        for init, old in zip(back.graph.initializer, proto.graph.initializer, strict=True)
        if not np.array_equal(numpy_helper.to_array(init), numpy_helper.to_array(old))
    }
    assert changed == LEARNT | {"mean", "variance"}


def test_what_learns_is_chosen_by_slot() -> None:
    module = to_torch(load_model(net()))
    learnt = {name for name, key in module.names.items() if key in dict(module.named_parameters())}
    assert learnt == LEARNT
    assert {"mean", "variance"} <= set(module.names) - learnt
    assert set(module.state_dict()) == set(module.names.values())


def test_names_that_torch_cannot_have_are_told_apart() -> None:
    g = Graph()
    x = g.input("x", (1, 2, 4, 4))
    for name in ("a.b", "a/b", "a_b", "training", "forward"):
        x = g("Conv", x, g.weight(2, 2, 1, 1, name=name))
    g.output(x)
    module = to_torch(load_model(g.model()))
    assert len(set(module.names.values())) == 5
    assert all(torch.equal(module.tensor(name), getattr(module, key)) for name, key in module.names.items())
    check_agreement(g.model(), module, batch=1)


def test_any_value_can_be_asked_for() -> None:
    proto = net()
    module = to_torch(load_model(proto)).eval()
    feeds = feeds_for(proto, batch=3)
    names = ["Relu_0", "MaxPool_0", "Shape_0"]
    shown = onnx.ModelProto()
    shown.CopyFrom(proto)
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    wanted = run_ort(shown, feeds, outputs=names)
    found = module.run([torch.tensor(feeds["x"])], names)
    assert list(found) == names
    for name in names:
        np.testing.assert_allclose(found[name].detach().numpy(), wanted[name], rtol=1e-4, atol=1e-5)
    with pytest.raises(UnknownNameError, match=r"unknown value 'Relu_7': did you mean 'Relu_1' or 'Relu_0'\?"):
        module.run([torch.tensor(feeds["x"])], ["Relu_7"])


def test_only_what_a_value_needs_is_computed() -> None:
    g = Graph()
    g.output(g("Reshape", g("Relu", g.input("x", (1, 2, 3, 4))), shape=[3, -1]))
    module = to_torch(load_model(g.model()))
    wide = torch.ones(1, 2, 4, 4)  # 32 numbers are no three rows
    assert module.run([wide], ["Relu_0"])["Relu_0"].sum() == 32
    with pytest.raises(
        DataError, match=r"node 'Reshape_0' \(Reshape\) cannot be computed on inputs of the shapes \[1, 2"
    ):
        module(wide)


def test_what_is_read_on_the_host_too_keeps_its_gradient() -> None:
    g = Graph(opset=13)
    y = g.conv(g.input("x", (1, 2, 4, 4)), 3)
    top = g("ReduceMax", y, keepdims=0)
    y = g("Clip", y, "", top)  # a bound is read on the host
    g.output(g("Add", y, g("Mul", top, top)))
    proto = g.model()
    module = to_torch(load_model(proto))
    check_agreement(proto, module, batch=1)
    squares = [module.run([torch.ones(1, 2, 4, 4) * size], ["Mul_0"])["Mul_0"] for size in (1.0, 2.0)]
    assert squares[0] < squares[1]  # the first run has settled nothing
    squares[0].backward()
    assert module.tensor("Conv_0.weight").grad.abs().sum() > 0


def test_names_of_tensors_choose_what_learns() -> None:
    model = load_model(net())
    module = to_torch(model, train=["dense", "variance"])
    assert [name for name, _ in module.named_parameters()] == ["dense"]  # statistics never learn
    with pytest.raises(UnknownNameError, match=r"unknown stored tensor 'dens': did you mean 'dense'\?"):
        to_torch(model, train=["dens"])


def test_constants_of_other_nodes_never_learn() -> None:
    g = Graph(opset=13)
    x = g.input("x", (1, 4, 4, 4))
    y = g("Div", g("Sub", x, g.weight(1, 4, 1, 1, name="center")), g.weight(1, 4, 1, 1, name="spread"))
    y = g("Clip", g.conv(y, 4, bias=False), min=0.0, max=6.0)
    y = g("Pow", y, g.constant(np.float32(2)))
    y = g("Add", g("MatMul", y, g.weight(4, 6, name="product")), g.weight(6, name="behind"))
    y = g("Mul", y, g.weight(1, 4, 4, 6, name="grid"))
    g.output(y)
    module = to_torch(load_model(g.model()))
    assert [name for name, _ in module.named_parameters()] == ["Conv_0_weight", "product", "behind"]


def test_a_normalization_made_of_nodes_learns() -> None:
    g = Graph(opset=13)
    x = g.input("x", (1, 3, 8))
    apart = g("Sub", x, g("ReduceMean", x, axes=[-1]))
    deviation = g("Sqrt", g("Add", g("ReduceMean", g("Mul", apart, apart), axes=[-1]), g.constant(np.float32(1e-5))))
    y = g("Mul", g("Div", apart, deviation), g.weight(8, name="scale"))
    g.output(g("Add", y, g.weight(8, name="shift")))
    module = to_torch(load_model(g.model()))
    assert [name for name, _ in module.named_parameters()] == ["scale", "shift"]
    check_agreement(g.model(), module, batch=1)


def constant(name: str, array: Array) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, name))


def test_weights_in_constant_nodes_and_behind_identity_learn_and_come_back(tmp_path: Any) -> None:
    g = Graph(opset=13)
    x = g.input("x", (2, 3, 6, 6))
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    g.nodes.append(constant("held", weight))
    g.shapes["held"], g.dtypes["held"] = weight.shape, TensorProto.FLOAT
    y = g("Conv", x, "held", g("Identity", g.weight(4, name="behind")))
    g.output(g("MatMul", y, g("Transpose", g.weight(5, 4, name="turned"), perm=[1, 0])))
    proto = g.model()
    module = to_torch(load_model(proto))
    assert sorted(name for name, _ in module.named_parameters()) == ["behind", "held", "turned"]
    take_steps(module, batch=2)
    back = write(from_torch(module), tmp_path)
    assert [node.op_type for node in back.graph.node] == [node.op_type for node in proto.graph.node]
    held = numpy_helper.to_array(back.graph.node[0].attribute[0].t)
    assert np.array_equal(held, module.tensor("held").detach().numpy())
    assert not np.array_equal(held, weight)
    check_agreement(back, module)


def test_tied_tensors_stay_tied(tmp_path: Any) -> None:
    g = Graph(opset=13)
    x = g.input("x", (1, 3, 4, 4))
    shared = g.weight(3, 3, 1, 1, name="shared")
    g.output(g("Conv", g("Conv", x, shared), g("Identity", shared)))
    module = to_torch(load_model(g.model()))
    assert [name for name, _ in module.named_parameters()] == ["shared"]
    assert module.notes == []
    take_steps(module, batch=1)
    back = write(from_torch(module), tmp_path)
    assert len(back.graph.initializer) == 1
    check_agreement(back, module, batch=1)


@pytest.mark.parametrize("is_behind", [False, True])
def test_a_bias_that_is_a_statistic_too_parts(is_behind: bool, tmp_path: Any) -> None:
    g = Graph(opset=17)
    x = g.input("x", (2, 3, 4, 4))
    zeros = g.constant(np.zeros(4, np.float32), "zeros")
    ones = g.constant(np.ones(4, np.float32), "ones")
    bias = g("Identity", zeros) if is_behind else zeros
    y = g("Conv", x, g.weight(4, 3, 1, 1, name="w"), bias)
    g.output(g("BatchNormalization", y, ones, zeros, zeros, ones))
    proto = g.model()
    module = to_torch(load_model(proto))
    assert len(module.notes) == (4 if is_behind else 3)
    assert "is read by others too" in module.notes[0]
    take_steps(module, batch=2)
    back = write(from_torch(module), tmp_path)
    assert [node.op_type for node in back.graph.node] == [node.op_type for node in proto.graph.node]
    check_agreement(back, module)


def test_half_precision_trains_in_single(tmp_path: Any) -> None:
    proto = net()
    half = onnx.ModelProto()
    half.CopyFrom(proto)
    for init in half.graph.initializer:
        if init.data_type == TensorProto.FLOAT:
            init.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(init).astype(np.float16), init.name))
    for value in [*half.graph.input, *half.graph.output]:
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    del half.graph.value_info[:]
    module = to_torch(load_model(half))
    assert {tensor.dtype for tensor in module.state_dict().values() if tensor.is_floating_point()} == {torch.float32}
    assert from_torch(module).proto == load_model(half).proto
    take_steps(module)
    back = write(from_torch(module), tmp_path)
    kinds = {init.name: init.data_type for init in half.graph.initializer}
    assert {init.name: init.data_type for init in back.graph.initializer} == kinds
    feeds = feeds_for(back, batch=2)
    (wanted,) = run_ort(back, feeds).values()
    (found,) = compute(module, {"x": feeds["x"].astype(np.float32)})
    np.testing.assert_allclose(found, wanted, rtol=2e-2, atol=2e-2)
    with torch.no_grad():
        module.tensor("dense").fill_(1e5)
    with pytest.raises(DataError, match="'dense' has values up to 100000, too large for float16"):
        from_torch(module)


def test_what_diverged_is_not_written() -> None:
    module = to_torch(load_model(net()))
    with torch.no_grad():
        module.tensor("dense")[0, 0] = float("nan")
    with pytest.raises(DataError, match="'dense' is NaN or infinite: training has diverged"):
        from_torch(module)


def test_a_graph_is_cut_where_it_is_said() -> None:
    g = Graph(opset=17)
    x = g.input("x", (1, 3, 8, 8))
    scores = g.conv(x, 4)
    g.output(g("Unheard", scores, domain="elsewhere", shape=(1,)))
    model = load_model(g.model())
    with pytest.raises(
        UnsupportedError,
        match=r"operator elsewhere.Unheard of version 0 \(node 'Unheard_0'\) cannot be trained, no version of it is "
        r"known: cut the graph before it \(cut=\[...\]\), or register",
    ):
        to_torch(model)
    module = to_torch(model, cut=[scores])
    assert module.outputs == (scores,)
    assert module(torch.ones(1, 3, 8, 8))[0].shape == (1, 4, 8, 8)
    assert module.notes == ["cut at 'Conv_0': 1 node not run, left as in the file"]
    take_steps(module, batch=1)
    assert [node.op_type for node in from_torch(module).nodes] == ["Conv", "Unheard"]
    with pytest.raises(UnknownNameError, match="unknown value 'Conv_9'"):
        to_torch(model, cut=["Conv_9"])


def test_a_version_that_nobody_read_is_refused() -> None:
    g = Graph(opset=6)
    parts = [g.weight(3) for _ in range(4)]
    g.output(g("BatchNormalization", g.input("x", (1, 3, 8, 8)), *parts, is_test=1))
    with pytest.raises(
        UnsupportedError, match=r"BatchNormalization of version 6 .* only versions 7, 9, 14, 15 of it are known: cut"
    ):
        to_torch(load_model(g.model()))


def test_quantized_models_are_refused() -> None:
    g = Graph(opset=13)
    x = g.input("x", (1, 3, 8, 8))
    scale, zero = g.constant(np.float32(0.1)), g.constant(np.int8(0))
    g.output(g("DequantizeLinear", g("QuantizeLinear", x, scale, zero), scale, zero))
    with pytest.raises(UnsupportedError, match=r"quantized \(node 'QuantizeLinear_0', .*: fine-tune the float model"):
        to_torch(load_model(g.model()))


def test_copies_go_their_own_ways() -> None:
    module = to_torch(load_model(net()))
    other = copy.deepcopy(module)
    assert other.model is module.model
    take_steps(other)
    x = torch.ones(2, 3, 8, 8)
    assert not torch.allclose(module.eval()(x)[0], other(x)[0])
    other.load_state_dict(module.state_dict())
    assert torch.equal(module(x)[0], other(x)[0])


def test_evaluation_changes_no_statistics() -> None:
    module = to_torch(load_model(net())).eval()
    before = module.tensor("mean").clone()
    module(torch.ones(2, 3, 8, 8))
    assert torch.equal(module.tensor("mean"), before)
    module.train()(torch.ones(2, 3, 8, 8))
    assert not torch.equal(module.tensor("mean"), before)


def test_inputs_are_counted() -> None:
    with pytest.raises(DataError, match=r"the graph has 1 inputs \(x\), 2 are given"):
        to_torch(load_model(net()))(torch.ones(1, 3, 8, 8), torch.ones(1))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((1, 3, 8, 8), np.float32), "input 'x' is of the type ndarray, a torch tensor is wanted"),
        (None, "input 'x' is of the type NoneType, a torch tensor is wanted"),
        (torch.ones(3, 8, 8), r"input 'x' has the shape \[3, 8, 8\], 4 axes are wanted"),
        (torch.ones(1, 3, 8, 8, dtype=torch.uint8), "input 'x' is of the type torch.uint8, the graph takes float32"),
    ],
)
def test_inputs_that_do_not_fit_are_named(x: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        to_torch(load_model(net()))(x)


def test_numbers_are_no_whole_numbers() -> None:
    g = Graph()
    ids = g.input("ids", (2,), dtype=TensorProto.INT64)
    g.output(g("MatMul", g("Gather", g.weight(4, 3), ids), g.weight(3, 2)))
    with pytest.raises(DataError, match=r"input 'ids' is of the type torch.float32, the graph takes int64"):
        to_torch(load_model(g.model()))(torch.ones(2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_types_that_are_not_computed_in_are_refused(dtype: Any) -> None:
    with pytest.raises(UnsupportedError, match=f"{dtype} .*: take torch.float32 or torch.float64"):
        to_torch(load_model(net()), dtype=dtype)


@pytest.mark.parametrize("is_trained", [False, True])
def test_a_module_can_be_pickled(is_trained: bool, tmp_path: Any) -> None:
    module = to_torch(load_model(net()))
    if is_trained:
        take_steps(module)
    torch.save(module, tmp_path / "module.pt")
    other = torch.load(tmp_path / "module.pt", weights_only=False)
    x = torch.ones(2, 3, 8, 8)
    assert torch.equal(module.eval()(x)[0], other.eval()(x)[0])
    assert not any(array.flags.writeable for array in other.model.constants.values())
    assert other.model.sha256 == module.model.sha256
    first, second = (save_model(from_torch(part), tmp_path / f"{n}.onnx") for n, part in enumerate((module, other)))
    assert first.read_bytes() == second.read_bytes()


def test_tensors_may_be_made_of_others_by_torch() -> None:
    module = to_torch(load_model(net())).eval()
    x = torch.ones(2, 3, 8, 8)
    (before,) = module(x)
    torch.nn.utils.parametrizations.weight_norm(module, module.names["dense"])
    assert torch.allclose(module(x)[0], before, atol=1e-6)
    prune.l1_unstructured(module, module.names["first.weight"], 0.5)
    written = from_torch(module).constants
    assert int((written["first.weight"] == 0).sum()) == 12
    assert np.allclose(written["dense"], load_model(net()).constants["dense"], atol=1e-6)


def branching() -> onnx.ModelProto:
    """A convolution, and one of two others behind it."""

    def branch(name: str, factor: float) -> onnx.GraphProto:
        weight = numpy_helper.from_array(np.full((2, 3, 1, 1), factor, np.float32), f"{name}.w")
        node = helper.make_node("Conv", ["h", f"{name}.w"], [f"{name}_y"])
        made = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, [1, 2, 4, 4])
        return helper.make_graph([node], name, [], [made], [weight])

    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"]),
        helper.make_node("If", ["c"], ["y"], then_branch=branch("then", 1), else_branch=branch("else", 2)),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4]),
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
    ]
    weight = np.random.default_rng(0).standard_normal((3, 3, 1, 1)).astype(np.float32)
    made = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 4, 4])]
    graph = helper.make_graph(nodes, "g", inputs, made, [numpy_helper.from_array(weight, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_channels_last_the_numbers_are_the_same(tmp_path: Any) -> None:
    proto = net(kernel=3)
    model = load_model(proto)
    usual, other = to_torch(model), to_torch(model)
    other.put_channels_last()
    assert not other.tensor("first.weight").is_contiguous()
    check_agreement(proto, other)
    assert write(from_torch(other), tmp_path) == write(model, tmp_path)  # before a step the very same numbers
    for module in (usual, other):
        take_steps(module)
    for name in LEARNT:
        torch.testing.assert_close(other.tensor(name), usual.tensor(name), rtol=1e-4, atol=1e-5)
    trained = write(from_torch(other), tmp_path)
    check_agreement(trained, other)


def test_channels_last_leaves_other_ranks_alone() -> None:
    g = Graph()
    x = g.input("x", (1, 3, 6, 6, 6))
    y = g("GlobalAveragePool", g("Conv", x, g.weight(4, 3, 3, 3, 3), pads=[1] * 6))
    g.shapes[y], g.dtypes[y] = (1, 4, 1, 1, 1), TensorProto.FLOAT
    g.output(y)
    module = to_torch(load_model(g.model()))
    module.put_channels_last()
    assert all(value.is_contiguous() for value in module.parameters())


def test_of_two_branches_the_one_taken_learns(tmp_path: Any) -> None:
    proto = branching()
    module = to_torch(load_model(proto))
    assert module.notes == ["'If(y)' (If): only the branch that is taken learns"]
    x = np.random.default_rng(1).standard_normal((1, 3, 4, 4)).astype(np.float32)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    module(torch.tensor(x), torch.tensor(True))[0].sum().backward()
    optimizer.step()
    back = write(from_torch(module), tmp_path)
    stored = {
        attribute.name: numpy_helper.to_array(attribute.g.initializer[0]) for attribute in back.graph.node[1].attribute
    }
    assert np.all(stored["else_branch"] == 2)
    assert not np.any(stored["then_branch"] == 1)
    for condition in (True, False):
        feeds = {"x": x, "c": np.array(condition)}
        np.testing.assert_allclose(compute(module, feeds)[0], run_ort(back, feeds)["y"], rtol=1e-4, atol=1e-5)


def lending(*, is_nested: bool = False, is_shown: bool = False) -> onnx.ModelProto:
    """Two branches that have no weights of their own: both read those of the graph around them, the second one more."""

    def branch(name: str, *weights: str) -> onnx.GraphProto:
        nodes, last = [], "x"
        for number, weight in enumerate(weights):
            nodes.append(helper.make_node("Conv", [last, weight], [f"{name}_{number}"]))
            last = f"{name}_{number}"
        made = helper.make_tensor_value_info(last, TensorProto.FLOAT, [1, 3, 4, 4])
        return helper.make_graph(nodes, name, [], [made])

    first = branch("then", "w")
    if is_nested:
        node = helper.make_node("If", ["c"], ["inner"], then_branch=first, else_branch=branch("never", "v"))
        made = helper.make_tensor_value_info("inner", TensorProto.FLOAT, [1, 3, 4, 4])
        first = helper.make_graph([node], "outer", [], [made])
    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=first, else_branch=branch("else", "w", "v"))]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4]),
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 4, 4])]
    if is_shown:  # as a number that is no weight
        nodes.append(helper.make_node("Exp", ["w"], ["z"]))
        outputs.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [3, 3, 1, 1]))
    rng = np.random.default_rng(0)
    stored = [numpy_helper.from_array(rng.standard_normal((3, 3, 1, 1)).astype(np.float32), name) for name in "wv"]
    graph = helper.make_graph(nodes, "g", inputs, outputs, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("is_nested", [False, True])
@pytest.mark.parametrize("train", [None, ["w"]])
def test_weights_that_branches_read_from_around_them_learn(
    is_nested: bool, train: list[str] | None, tmp_path: Any
) -> None:
    proto = lending(is_nested=is_nested)
    module = to_torch(load_model(proto), train=train)
    assert len(list(module.parameters())) == (2 if train is None else 1)
    copied = copy.deepcopy(module)
    for part in (module, copied):
        part.train()
        optimizer = torch.optim.SGD(part.parameters(), lr=0.05)
        for condition in (False, True):
            optimizer.zero_grad()
            part(torch.ones(1, 3, 4, 4), torch.tensor(condition))[0].square().mean().backward()
            optimizer.step()
    assert torch.equal(module.tensor("w"), copied.tensor("w"))
    written = write(from_torch(module), tmp_path)
    assert list(written.graph.node) == list(proto.graph.node)
    before, after = ({t.name: numpy_helper.to_array(t) for t in p.graph.initializer} for p in (proto, written))
    assert not np.array_equal(before["w"], after["w"])
    assert np.array_equal(before["v"], after["v"]) == (train is not None)
    for condition in (False, True):
        feeds = {"x": np.random.default_rng(1).standard_normal((1, 3, 4, 4)).astype(np.float32), "c": condition}
        feeds = {name: np.asarray(value) for name, value in feeds.items()}
        np.testing.assert_allclose(compute(module.eval(), feeds)[0], run_ort(written, feeds)["y"], rtol=1e-4, atol=1e-5)


def test_what_branches_read_stays_where_others_read_it_as_no_weight() -> None:
    module = to_torch(load_model(lending(is_shown=True)))
    assert [name for name, variable in module.variables.items() if variable.is_trainable] == ["v"]
    assert len(list(module.parameters())) == 1


def test_a_branch_reads_what_has_no_shape_before_it_runs(tmp_path: Any) -> None:
    """As in exports of a recurrent net: one If takes an axis away or not, a branch of the next reads what it gives."""

    def branch(name: str, node: onnx.NodeProto, *stored: onnx.TensorProto) -> onnx.GraphProto:
        made = helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None)
        return helper.make_graph([node], name, [], [made], list(stored))

    g = Graph(opset=17)
    h = g.conv(g.input("x", (2, 3, 1, 4)), 5, kernel=1)
    size = g("Gather", g("Shape", h), g.ints(2), axis=0)
    squeezed = helper.make_node("Squeeze", [h, "axis"], ["squeezed"])
    bare = branch("bare", squeezed, numpy_helper.from_array(np.array([2]), "axis"))
    whole = branch("whole", helper.make_node("Identity", [h], ["passed"]))
    y = g("If", g("Equal", size, g.ints(1)), then_branch=bare, else_branch=whole, shape=(2, 5, 4))
    weight = numpy_helper.from_array(np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32), "w")
    dense = branch("dense", helper.make_node("MatMul", [y, "w"], ["product"]), weight)
    other = branch("other", helper.make_node("Relu", [y], ["cut"]))
    z = g("If", g("Equal", size, g.ints(1)), then_branch=dense, else_branch=other, shape=(2, 5, 6))
    g.dtypes[z] = TensorProto.FLOAT
    g.output(z)
    proto = g.model()
    module = to_torch(load_model(proto))
    check_agreement(proto, module)
    take_steps(module, batch=2)
    back = write(from_torch(module), tmp_path)
    assert [node.op_type for node in back.graph.node] == [node.op_type for node in proto.graph.node]
    trained = next(a.g for a in back.graph.node[-1].attribute if a.name == "then_branch").initializer[0]
    assert not np.array_equal(numpy_helper.to_array(trained), numpy_helper.to_array(weight))
    check_agreement(back, module)


def test_shapes_are_no_part_of_the_compiled_graph() -> None:
    g = Graph(opset=13)
    y = g("Clip", g.conv(g.input("x", (1, 4, 8, 8), dynamic={0: "n"}), 8), min=0.0, max=6.0)
    count = g("Gather", g("Shape", y), g.ints(0), axis=0)
    y = g("Reshape", g("Slice", y, starts=[1], ends=[7], axes=[1]), g("Concat", count, g.ints(-1), axis=0))
    g.shapes[y], g.dtypes[y] = (1, 384), TensorProto.FLOAT
    g.output(g("ReduceSum", g("Unsqueeze", y, axes=[1]), axes=[2]))
    module = to_torch(load_model(g.model()))
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    wanted = module(x)[0]  # the first run settles what follows from shapes
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(x)[0], wanted, atol=1e-6)


def test_compiled_it_settles_shapes_by_itself() -> None:
    module = to_torch(load_model(net())).eval()
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    compiled = torch.compile(module, backend="eager")
    found = [compiled(x)[0] for _ in range(2)]
    assert torch.allclose(found[0], module(x)[0], atol=1e-6)
    assert torch.equal(found[0], found[1])


def test_steps_of_a_compiled_module_are_those_of_the_module() -> None:
    module, other = (to_torch(load_model(net())) for _ in range(2))
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    module.eval()(x)
    module.train()(x)
    other.train()(x)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    for one in (compiled, other):
        one(x)[0].square().mean().backward()
    assert torch.allclose(module.tensor("dense").grad, other.tensor("dense").grad, atol=1e-6)
    assert torch.allclose(module.tensor("variance"), other.tensor("variance"), atol=1e-6)


def test_data_beside_the_file_is_left_alone(tmp_path: Any) -> None:
    proto = net()
    onnx.save(proto, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    before = (tmp_path / "net.data").read_bytes()
    module = to_torch(tmp_path / "net.onnx")
    take_steps(module)
    back = write(from_torch(module), tmp_path)
    assert (tmp_path / "net.data").read_bytes() == before
    beside = onnx.load(tmp_path / "written.onnx", load_external_data=False)
    for tensor in beside.graph.initializer:
        assert tensor.external_data[0].value == "written.onnx.data"
    check_agreement(back, module)
