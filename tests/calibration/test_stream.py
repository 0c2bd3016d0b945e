"""A model run in parts gives what it gives as a whole."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from builders import Graph, feeds_for, run_ort
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from random_models import BLOCKS, Recipe, build, recipes

from srr_onnx.calibration import stream as streams
from srr_onnx.calibration.stream import Store, Stream, count_live_bytes
from srr_onnx.errors import ModelError
from srr_onnx.graph.load import load_model


def run_in_parts(model, chunks, stops, **options):
    """Values wanted at every stop, by stop and chunk."""
    with Stream(model, chunks, stops, **options) as stream:
        return [[dict(values) for values in stream.advance()] for _ in stops]


def check(proto, model, chunks, stops):
    wanted = sorted({name for stop in stops for name in stop} - set(model.inputs))
    shown = onnx.ModelProto()
    shown.CopyFrom(proto)
    known = {output.name for output in shown.graph.output}
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in known)
    whole = [{**feeds, **run_ort(shown, feeds, outputs=wanted)} if wanted else feeds for feeds in chunks]
    for stop, found in zip(stops, run_in_parts(model, chunks, stops), strict=True):
        for values, want in zip(found, whole, strict=True):
            assert values.keys() == set(stop)
            for name, value in values.items():
                assert value.dtype == want[name].dtype
                scale = max(1.0, float(np.abs(want[name]).max())) if value.dtype.kind == "f" else 1.0
                assert np.allclose(value, want[name], rtol=1e-3, atol=1e-4 * scale), name


def draw_stops(data, model):
    values = [name for name in model.shapes if name not in model.constants and model.dtypes[name].kind == "f"]
    count = data.draw(st.integers(1, 4))
    return [set(data.draw(st.lists(st.sampled_from(values), max_size=3))) for _ in range(count)]


@settings(max_examples=25)
@given(recipe=recipes(max_blocks=6), data=st.data(), limit=st.sampled_from([0, 2000, 1 << 30]))
def test_random_models_at_random_stops(recipe, data, limit):
    made = build(recipe)
    model = load_model(made.proto.SerializeToString(), made.inputs)
    chunks = [feeds_for(made.proto, seed, sizes=made.sizes) for seed in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "_MOST_RESIDENT", limit)
        check(made.proto, model, chunks, draw_stops(data, model))


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_every_block_can_be_cut_at_every_value(name):
    made = build(Recipe(20, 1, (("conv", 1), (name, 3), (name, 4))))
    model = load_model(made.proto.SerializeToString(), made.inputs)
    stops = [{o} for node in model.nodes for o in node.outputs if o in model.shapes and o not in model.constants]
    stops = [stop for stop in stops if all(model.dtypes[name].kind == "f" for name in stop)]
    check(made.proto, model, [feeds_for(made.proto, 0, sizes=made.sizes)], stops)


def chain(depth=3, **options):
    """Convolutions one after the other."""
    g = Graph()
    value = g.input("x", (2, 3, 5, 5), **options)
    for number in range(depth):
        value = g.conv(g("Relu", value, name=f"relu{number}", outputs=[f"r{number}"]), 3, 3, name=f"conv{number}")
    g.output(value)
    return g


def test_new_weights_take_effect_from_their_layer_on():
    g = chain()
    proto = g.model()
    model = load_model(proto)
    feeds = feeds_for(proto)
    before = run_ort(proto, feeds, outputs=["conv2"])["conv2"]
    changed = {f"conv{n}.weight": g.initializers[f"conv{n}.weight"] * 2 for n in (0, 1)}
    with Stream(model, [feeds], [["conv0"], ["conv1"], ["conv2"]]) as stream:
        (first,) = stream.advance()
        (second,) = stream.advance(changed)  # conv0 has run: its own new weight is too late
        (third,) = stream.advance(changed)
    assert np.allclose(first["conv0"], run_conv(g, feeds["x"], 0, 1), atol=1e-4)
    assert np.allclose(second["conv1"], run_conv(g, first["conv0"], 1, 2), atol=1e-4)
    assert np.allclose(third["conv2"], run_conv(g, second["conv1"], 2, 1), atol=1e-4)
    assert not np.allclose(third["conv2"], before, atol=1e-2)


def run_conv(g, value, number, factor):
    alone = Graph()
    operands = [
        alone.constant(g.initializers[f"conv{number}.weight"] * np.float32(factor)),
        alone.constant(g.initializers[f"conv{number}.bias"]),
    ]
    alone.output(alone("Conv", alone("Relu", alone.input("x", value.shape)), *operands, pads=[1, 1, 1, 1]))
    return next(iter(run_ort(alone.model(), {"x": value}).values()))


def info(name, dtype=TensorProto.FLOAT, shape=None):
    return helper.make_tensor_value_info(name, dtype, shape)


def test_bodies_of_if_and_loop_read_what_earlier_parts_made():
    g = Graph()
    x = g.input("x", (1, 3, 4, 4))
    inner = g.conv(x, 4, 3, name="inner")
    factor = g.constant(np.float32(3), "factor")
    branches = [
        helper.make_graph([helper.make_node("Mul", [inner, factor], [op]), helper.make_node("Neg", [op], [f"{op}_"])]
                          if op == "b" else [helper.make_node("Mul", [inner, factor], [op])], op, [],
                          [info(f"{op}_" if op == "b" else op)])
        for op in "ab"
    ]  # fmt: skip
    above = g("Greater", g("ReduceSum", x, keepdims=0), g.constant(np.float32(0)))
    chosen = g("If", above, then_branch=branches[0], else_branch=branches[1], shape=g.shapes[inner])
    body = helper.make_graph(
        [helper.make_node("Add", ["carried", inner], ["sum"]), helper.make_node("Identity", ["go"], ["go_on"])],
        "loop",
        [info("i", TensorProto.INT64, []), info("go", TensorProto.BOOL, []), info("carried")],
        [info("go_on", TensorProto.BOOL), info("sum")],
    )
    operands = [g.constant(np.array(3, np.int64)), g.constant(np.array(True)), chosen]
    g.output(g.record(g("Loop", *operands, body=body, shape=g.shapes[inner])))
    proto = g.model()
    model = load_model(proto)
    stops = [{"inner"}, {chosen} & set(model.dtypes), set(g.outputs)]
    check(proto, model, [feeds_for(proto, seed) for seed in range(3)], stops)


def test_half_precision_is_computed_in_single():
    g = Graph()
    x = g.input("x", (1, 2), dtype=TensorProto.FLOAT16)
    big = g("MatMul", x, g.constant(np.full((2, 700), 300, np.float16)))  # beyond the inline limit
    g.output(g("Mul", big, g.constant(np.float16(300))))
    model = load_model(g.model())
    stops = [[big], g.outputs]
    chunks = [{"x": np.ones((1, 2), np.float16)}]
    first, second = run_in_parts(model, chunks, stops, as_float32=True)
    assert first[0][big].dtype == np.float32
    assert second[0][g.outputs[0]].max() == 180_000  # infinite in float16
    assert np.isinf(run_in_parts(model, chunks, stops)[1][0][g.outputs[0]]).all()


def test_an_initializer_that_numpy_has_no_type_for_is_handed_on():
    g = Graph(opset=21)
    conv = g.conv(g.input("x", (1, 3, 4, 4)), 4)
    made = g("DequantizeLinear", "nibbles", g.constant(np.float32(0.5)), shape=(4, 4, 1, 1))
    g.output(g("Conv", conv, made, shape=(1, 4, 4, 4)))
    proto = g.model()
    steps = np.arange(16) % 8
    proto.graph.initializer.append(helper.make_tensor("nibbles", TensorProto.INT4, (4, 4, 1, 1), steps))
    check(proto, load_model(proto), [feeds_for(proto)], [[conv], g.outputs])


def test_what_exceeds_the_limit_lies_on_disk_and_goes_again(monkeypatch):
    monkeypatch.setattr(streams, "_MOST_RESIDENT", 100)
    with Store() as store:
        store.put("a", 0, np.arange(10.0))
        store.put("a", 1, np.arange(10.0) + 1)
        store.put("list", 0, [np.arange(100)])
        (path,) = store._spilled.values()
        assert path.exists()
        assert ("a", 1) in store
        assert ("b", 1) not in store
        assert store.get("a", 0).tolist() == list(range(10))
        assert store.get("a", 1).tolist() == list(range(1, 11))
        assert store.get("list", 0)[0].shape == (100,)
        store.drop("a", 1)
        assert not path.exists()
        store.drop("a", 0)
        store.put("a", 2, np.zeros(12))  # what was dropped makes room
        assert len(store._spilled) == 0
        store.put("a", 3, np.zeros(12))
        folder = path.parent
    assert not folder.exists()


def test_nothing_is_kept_that_no_stop_needs():
    model = load_model(chain(5).model())
    feeds = [feeds_for(model.proto)]
    with Stream(model, feeds, [["r1"], ["r2"]]) as stream:
        list(stream.advance())
        assert {name for name, _ in stream._store._resident} == {"r1"}
        list(stream.advance())
        assert not stream._store._resident


def test_a_wrong_batch_is_an_error_of_the_model():
    model = load_model(chain().model())
    with pytest.raises(ModelError, match="onnxruntime cannot run"):
        run_in_parts(model, [{"x": np.zeros((1, 7, 5, 5), np.float32)}], [["conv2"]])


def test_live_bytes_are_those_of_the_widest_cut():
    g = Graph()
    x = g.input("x", (1, 2, 4, 4))  # 128 bytes
    wide = g.conv(x, 8)  # 512 bytes
    g.output(g("Add", g.conv(wide, 2), g.conv(x, 2)))
    assert count_live_bytes(load_model(g.model())) == 512 + 128
