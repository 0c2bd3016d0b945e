"""Pictures whose height and width a file leaves open: a size is chosen, the file stays open, the proof runs twice."""

from __future__ import annotations

import numpy as np
import onnx
import oracle
import pytest
from builders import Graph, feeds_for, run_ort

from srr_onnx.analysis.find import find_groups
from srr_onnx.errors import ModelError, ProofError
from srr_onnx.graph.load import load_model
from srr_onnx.graph.model import Model
from srr_onnx.pipeline import prune
from srr_onnx.rewriting.apply import kept_positions, prune_units
from srr_onnx.rewriting.verify import verify_pruned

OPEN = {0: "batch", 2: "height", 3: "width"}


def a_unet() -> onnx.ModelProto:
    """Halves the picture twice and joins the halves again: odd sizes do not fit."""
    g = Graph(13)
    x = g.input("x", (1, 3, 16, 16), dynamic=OPEN)
    top = g("Relu", g.conv(x, 8, 3))
    low = g("MaxPool", g("Relu", g.conv(g("MaxPool", top, kernel_shape=[2, 2], strides=[2, 2]), 12, 3)),
            kernel_shape=[2, 2], strides=[2, 2])  # fmt: skip
    scales = g.constant(np.array([1, 1, 4, 4], np.float32))
    up = g("Resize", low, g.constant(np.zeros(0, np.float32)), scales, mode="nearest")
    g.output(g.conv(g("Concat", up, top, axis=1), 2, name="last"))
    return g.model()


def a_classifier(side: int, axes: tuple[int, int] = (2, 3)) -> onnx.ModelProto:
    """A dense layer behind all pixels: one size fits."""
    g = Graph(13)
    shape = (1, 3, side, side) if axes == (2, 3) else (1, side, side, 3)
    x = g.input("x", shape, dynamic={axes[0]: "height", axes[1]: "width"})
    if axes == (1, 2):
        x = g("Transpose", x, perm=[0, 3, 1, 2])
    y = g("Flatten", g("Relu", g.conv(x, 8, 3, name="first")))
    g.output(g("Add", g("Gemm", y, g.weight(8 * side * side, 2)), g.input("bias", (1, 2))))
    return g.model()


def test_a_common_size_is_taken_and_the_file_stays_open() -> None:
    proto = a_unet()
    onnx.save(proto, "unet.onnx")
    result = prune("unet.onnx", "pruned.onnx", flops=0.4, compensate="none")
    model = result.original
    assert model.inputs == {"x": (1, 3, 224, 224)}
    assert model.guessed == {"x"}
    assert model.elsewhere == {"x": (1, 3, 256, 256)} == result.plan.proof["elsewhere"] | {"x": (1, 3, 256, 256)}
    pruned = onnx.load("pruned.onnx")
    assert list(pruned.graph.input) == list(proto.graph.input)
    kept = {(name, e["axis"]): np.array(e["keep"]) for name, axes in result.plan.values.items() for e in axes}
    for height, width in ((16, 24), (64, 32)):
        sizes = {"batch": 2, "height": height, "width": width}
        assert oracle.pruned_equals_masked(proto, pruned, kept, model.shapes, sizes) <= oracle.TOLERANCE


@pytest.mark.parametrize("axes", [(2, 3), (1, 2)], ids=["NCHW", "NHWC"])
def test_the_size_that_fits_is_found(axes: tuple[int, int]) -> None:
    model = load_model(a_classifier(48, axes))
    assert {model.inputs["x"][axis] for axis in axes} == {48}
    assert model.guessed == {"x"}
    assert not model.elsewhere
    groups = find_groups(model)
    assert [group.size for group in groups] == [8]
    is_kept = np.arange(8) % 2 == 0
    proof = verify_pruned(model, prune_units(model, groups, is_kept), kept_positions(groups, is_kept))
    assert proof.relative_error <= proof.tolerance
    assert proof.elsewhere == {}


def test_where_no_size_fits_one_is_asked_for() -> None:
    with pytest.raises(ModelError, match=r"dynamic axes 2 \(height\), 3 \(width\).*--input x=1,3,224,224"):
        load_model(a_classifier(17))
    assert load_model(a_classifier(17), {"x": (1, 3, 17, 17)}).guessed == frozenset()


@pytest.mark.parametrize("opened", [{1: "channels", 2: "h", 3: "w"}, {1: "channels"}], ids=["all", "channels"])
def test_the_number_of_channels_is_not_guessed(opened: dict[int, str]) -> None:
    g = Graph(13)
    g.output(g.conv(g("Relu", g.conv(g.input("x", (1, 3, 8, 8), dynamic=opened), 4)), 2))
    with pytest.raises(ModelError, match="dynamic axes 1"):
        load_model(g.model())


def test_sizes_that_are_given_win() -> None:
    model = load_model(a_unet(), {"x": (2, 3, 64, 32)})
    assert (model.inputs, model.guessed, model.elsewhere) == ({"x": (2, 3, 64, 32)}, frozenset(), {})
    with pytest.raises(ModelError, match="axis 1 is fixed to 3"):
        load_model(a_unet(), {"": (1, 4, 32, 32)})


def test_two_pictures_take_the_same_size() -> None:
    g = Graph(13)
    first, second = (g.conv(g.input(name, (1, 3, 8, 8), dynamic=OPEN), 8) for name in "ab")
    g.output(g.conv(g("Relu", g("Add", first, second)), 2))
    assert load_model(g.model()).inputs == dict.fromkeys("ab", (1, 3, 224, 224))
    model = load_model(g.model(), {"a": (1, 3, 64, 64)})  # 224 contradicts it
    assert model.inputs == dict.fromkeys("ab", (1, 3, 64, 64))
    assert model.guessed == {"b"}


def a_flattening_net(size: int) -> tuple[Model, onnx.ModelProto]:
    g = Graph(13)
    y = g("Relu", g.conv(g.input("x", (1, 3, 8, 8), dynamic=OPEN), 8, 3))
    rows = g("Reshape", g.conv(y, 2, name="last"), g.ints(1, 2, size, name="target"))
    g.output(g("ReduceMax", rows, axes=[2]))
    return load_model(g.model()), g.model()


def test_a_pruned_model_that_is_right_at_one_size_only_fails() -> None:
    model, proto = a_flattening_net(-1)
    groups = find_groups(model)
    is_kept = np.arange(8) % 2 == 0
    pruned, kept = prune_units(model, groups, is_kept), kept_positions(groups, is_kept)
    assert verify_pruned(model, pruned, kept).elsewhere == {"x": (1, 3, 256, 256)}
    baked = onnx.ModelProto()
    baked.CopyFrom(pruned.proto)
    target = next(init for init in baked.graph.initializer if init.name == "target")
    target.CopyFrom(onnx.numpy_helper.from_array(np.array([1, 2, 224 * 224]), "target"))
    with pytest.raises(ProofError, match="does not run at another size, as the original does"):
        verify_pruned(model, load_model(baked, {"x": (1, 3, 224, 224)}), kept)
    assert run_ort(proto, feeds_for(proto, sizes={"height": 9, "width": 7}))


def test_an_original_that_runs_at_one_size_only_is_proven_there() -> None:
    """Shape inference has nothing against another size, the runtime has."""
    g = Graph(13)
    y = g("Relu", g.conv(g.input("x", (1, 3, 8, 8), dynamic=OPEN), 8, 3))
    here = g("Gather", g("Shape", y), g.constant(np.array(2, np.int64)))
    # Anything but 224 gives the Reshape a second -1.
    fits = g("Cast", g("Equal", here, g.constant(np.array(224, np.int64))), to=7)
    sign = g("Sub", g("Add", fits, fits), g.constant(np.array(1, np.int64)))
    target = g("Concat", g.ints(1), g("Unsqueeze", sign, axes=[0]), g.ints(2, -1), axis=0)
    rows = g("Reshape", g.conv(y, 2, name="last"), target)
    g.output(g("ReduceMax", rows, axes=[3]))
    model = load_model(g.model())
    groups = find_groups(model)
    is_kept = np.arange(8) % 2 == 0
    proof = verify_pruned(model, prune_units(model, groups, is_kept), kept_positions(groups, is_kept))
    assert model.elsewhere
    assert proof.elsewhere == {}
    assert proof.relative_error <= proof.tolerance
