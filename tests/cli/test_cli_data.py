"""`prune --data` and its gate, and compensation without samples, on small nets."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import Graph, run_ort
from onnx import TensorProto
from PIL import Image

CLASSES = 4


def net(g: Graph, batch: int = 1, head: str = "Softmax") -> Graph:
    rows = [g.rng.uniform(*span, 16).astype(np.float32) for span in ((0.5, 2), (-1, 1), (-1, 1), (0.5, 2))]
    norm = [g.constant(part, name) for part, name in zip(rows, ("scale", "shift", "mean", "variance"), strict=True)]
    x = g("Relu", g("BatchNormalization", g.conv(g.input("image", (batch, 3, 8, 8)), 16, bias=False), *norm))
    x = g("Relu", g.conv(x, 12))
    x = g("Flatten", g("GlobalAveragePool", x))
    g.output(g(head, g("Gemm", x, g.weight(12, CLASSES), g.weight(CLASSES))))
    return g


def write(count: int = 40, name: str = "data.npz", **more) -> None:
    rng = np.random.default_rng(0)
    np.savez(name, image=rng.standard_normal((count, 3, 8, 8)).astype(np.float32), **more)


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(net(Graph(17)).model(), "net.onnx")
    write()
    return "net.onnx"


def prune(run, *words):
    result = run("prune", "net.onnx", "--ratio", "0.5", "--force", "--plan", "p.json", "--format", "json", *words)
    return result, json.loads(result.stdout) if result.stdout else None


def test_samples_choose_fit_and_judge(run, model):
    result, found = prune(run, "--data", "data.npz", "--samples", "32")
    assert result.exit_code == 0, result.stderr
    assert found["criterion"]["name"] == "reconstruction"
    assert found["compensation"]["kind"] == "least-squares"
    error = found["compensation"]["layer_error"]
    assert 0 <= error["after"] <= error["before"]
    (output,) = found["agreement"]["outputs"]
    assert output["samples"] == 8
    assert 0 <= output["top1"]["low"] <= output["top1"]["mean"] <= output["top1"]["high"] <= 1
    plan = json.loads(Path("p.json").read_text())
    assert plan["compensation"] == found["compensation"]
    assert plan["agreement"] == found["agreement"]
    assert plan["proof"]["relative_error"] < 1e-4


def test_none_is_what_was_proven(run, model):
    prune(run, "--data", "data.npz", "--compensate", "none", "-o", "a.onnx")
    assert run("apply", "net.onnx", "--plan", "p.json", "-o", "b.onnx").exit_code == 0
    assert Path("a.onnx").read_bytes() == Path("b.onnx").read_bytes()


def test_the_same_seed_gives_the_same_file(run, model):
    for name in ("a.onnx", "b.onnx"):
        prune(run, "--data", "data.npz", "--seed", "3", "-o", name)
    assert Path("a.onnx").read_bytes() == Path("b.onnx").read_bytes()


def test_a_gate_that_fails_ends_with_3_and_the_file_is_there(run, model, tmp_path):
    words = ("--data", "data.npz", "--compensate", "none", "--criterion", "random", "--min-agreement")
    result, found = prune(run, *words, "99.9%", "-o", "kept.onnx")
    gate = found["gates"][0]
    assert (result.exit_code, gate["passed"]) == ((0, True) if gate["value"] >= 0.999 else (3, False))
    assert (tmp_path / "kept.onnx").exists()
    assert prune(run, *words, "1%")[0].exit_code == 0


def test_a_gate_without_data_or_classes_is_refused_before_anything_is_written(run, model, tmp_path):
    assert prune(run, "--min-agreement", "0.9")[0].exit_code == 2
    g = Graph(17)
    x = g("Relu", g.conv(g.input("image", (1, 3, 8, 8)), 8))
    g.output(g("Sigmoid", g("ReduceMean", g.conv(x, 1), axes=[1, 2, 3], keepdims=0)))
    onnx.save(g.model(), "net.onnx")
    result, _ = prune(run, "--data", "data.npz", "--min-agreement", "0.9", "-o", "new.onnx")
    assert result.exit_code == 1
    assert "no output of this model has any" in result.stderr
    assert not (tmp_path / "new.onnx").exists()


def test_labels_give_accuracy_and_those_that_do_not_fit_are_told(run, model):
    write(y=np.arange(40) % CLASSES)
    _, found = prune(run, "--data", "data.npz")
    assert 0 <= found["agreement"]["accuracy"]["after"] <= 1
    write(y=np.arange(40) + 500)
    result, found = prune(run, "--data", "data.npz")
    assert found["agreement"]["accuracy"] is None
    assert "no accuracy is told" in result.stderr


def test_activations_that_are_not_finite_are_one_line(run, model, tmp_path):
    image = np.full((40, 3, 8, 8), 3e38, np.float32)
    np.savez("data.npz", image=image)
    result, _ = prune(run, "--data", "data.npz", "-o", "new.onnx")
    assert result.exit_code == 1
    assert "NaN or infinite" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "new.onnx").exists()


def test_criteria_that_need_samples_say_so(run, model):
    for words in (("--criterion", "reconstruction"), ("--compensate", "least-squares")):
        result, _ = prune(run, *words)
        assert result.exit_code == 1
        assert "--data" in result.stderr


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_other_element_types_are_compensated_without_samples(run, model, dtype):
    proto = net(Graph(17)).model()
    for tensor in proto.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            array = onnx.numpy_helper.to_array(tensor)
            kind = onnx.helper.tensor_dtype_to_np_dtype(dtype)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array.astype(kind), tensor.name))
    for value in [*proto.graph.input, *proto.graph.output]:
        value.type.tensor_type.elem_type = dtype
    del proto.graph.value_info[:]
    onnx.save(proto, "net.onnx")
    result, found = prune(run, "-o", "small.onnx")
    assert result.exit_code == 0, result.stderr
    done = found["compensation"]
    assert {done["kind"], done["given_up"]} == {"data-free", "none"}  # of random weights nobody knows whether it helps
    assert done["made_up_error"]["after"] > 0
    if dtype == TensorProto.FLOAT16:
        feeds = {"image": np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float16)}
        assert all(np.isfinite(value).all() for value in run_ort(onnx.load("small.onnx"), feeds).values())


def test_a_curve_rises(run, model):
    result = run("curve", "net.onnx", "--data", "data.npz", "--samples", "32", "--format", "json")
    assert result.exit_code == 0, result.stderr
    points = json.loads(result.stdout)["points"]
    assert len(points) >= 3
    errors = [point["error"] for point in points]
    assert errors == sorted(errors)
    assert errors[-1] > errors[0] >= 0


def test_the_bars_of_a_curve_stand_on_one_line(run, model):
    result = run("curve", "net.onnx", "--data", "data.npz", "--samples", "32", "--steps", "4")
    heading, *rows = result.stdout.split("\n\n")[0].splitlines()
    assert heading.startswith("FLOPs removed")
    bars = [row for row in rows if "#" in row]
    assert len(bars) >= 2
    assert len({row.index("#") for row in bars}) == 1


@pytest.mark.parametrize(("samples", "kind"), [(1, "data-free"), (15, "data-free"), (16, "least-squares")])
def test_few_samples_are_not_fitted_to_where_normalizations_say_more(run, model, samples, kind):
    result, found = prune(run, "--data", "data.npz", "--samples", str(samples))
    assert result.exit_code == 0, result.stderr
    # What follows from normalizations is tried on made-up inputs; weights that were drawn seldom profit.
    assert kind in (found["compensation"]["kind"], found["compensation"]["given_up"])
    assert ("fewer than 16" in result.stderr) == (kind == "data-free")
    _, found = prune(run, "--data", "data.npz", "--samples", str(samples), "--compensate", "least-squares")
    assert found["compensation"]["kind"] == "least-squares"


def test_the_layer_error_is_not_ruled_by_outputs_that_hardly_vary(run, model, monkeypatch):
    from srr_onnx.rewriting import least_squares

    fits = tuple(least_squares.Fit(name, *errors, 9, 1) for name, errors in {"a": (0.5, 0.1), "b": (1e9, 1e8)}.items())
    fits += (least_squares.Fit("c", 0.7, 0.2, 9, 1),)
    monkeypatch.setattr(
        least_squares, "compensate", lambda pruned, *_, **__: least_squares.Compensation(pruned, fits, 0)
    )
    _, found = prune(run, "--data", "data.npz")
    assert found["compensation"]["layer_error"] == {"before": 0.7, "after": 0.2}


def test_layers_that_the_samples_do_not_determine_are_told_with_the_number_that_would_do(run, model):
    note = "fitted layers have more weights than the samples determine"
    words = ("--data", "data.npz", "--compensate", "least-squares", "--samples")
    result, _ = prune(run, *words, "4")
    assert result.stderr.count(note) == 1
    wanted = int(re.search(r"([\d,]+) samples would do", result.stderr)[1].replace(",", ""))
    write(wanted * 2)
    assert note not in prune(run, *words, str(wanted))[0].stderr
    assert note in prune(run, *words, str(wanted - 1))[0].stderr


def test_class_folders_that_are_not_the_models_classes_are_told(run, model):
    for name in ("cat", "dog", "owl"):
        for number in range(8):
            path = Path("pictures", name, f"{number}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), number * 20, np.uint8)).save(path)
    result, found = prune(run, "--data", "pictures")
    assert found["agreement"]["accuracy"]["samples"] > 0
    assert "the data have 3 classes, the model 4" in result.stderr


def test_made_up_pictures_stand_in_for_samples_and_say_so(run, model):
    result = run("prune", "net.onnx", "--ratio", "0.5", "--data", "synthetic", "--plan", "p.json")
    assert result.exit_code == 0, result.stderr
    assert "fitted by least squares on samples (made-up pictures)" in result.stdout
    assert "on 64 made-up pictures, which tells nothing of real ones" in result.stdout
    assert "made-up pictures of shapes and noise, which say nothing of real ones" in result.stderr
    assert json.loads(Path("p.json").read_text())["agreement"]["made_up"] is True
    result, found = prune(run, "--data", "data.npz", "--samples", "32")
    assert found["agreement"]["made_up"] is False


@pytest.mark.parametrize(
    ("words", "exit_code", "text"),
    [
        (("--min-agreement", "0.9"), 2, "--min-agreement judges the result, which made-up pictures cannot"),
        (("--recalibrate-norms",), 1, "made-up pictures have others than real ones"),
    ],
)
def test_made_up_pictures_judge_and_recalibrate_nothing(run, model, words, exit_code, text):
    result = run("prune", "net.onnx", "--ratio", "0.5", "--data", "synthetic", *words)
    assert result.exit_code == exit_code
    assert text in result.stderr
    assert not Path("net.pruned.onnx").exists()


def test_curve_takes_made_up_pictures(run, model):
    """They are what it takes where none are given."""
    words = ("curve", "net.onnx", "--steps", "2", "--format", "json")
    result = run(*words, "--data", "synthetic")
    assert run(*words).stdout == result.stdout
    assert json.loads(result.stdout)["made_up"] is True
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["samples"] == 256
    assert "made-up pictures" in result.stderr


def test_a_single_sample_is_too_few(run, model, tmp_path):
    write(1)
    result, _ = prune(run, "--data", "data.npz", "-o", "small.onnx")
    assert result.exit_code == 1
    assert result.stderr == (
        "error: 'data.npz' holds a single sample: give at least 2, one to calibrate with and one to judge the result "
        "by\n"
    )
    assert not (tmp_path / "small.onnx").exists()


@pytest.mark.parametrize("kind", ["auto", "least-squares"])
@pytest.mark.parametrize("size", [1e9, 1e18, 1e37])
def test_huge_numbers_are_one_line_and_no_warning(run, model, tmp_path, size, kind):
    """Warnings are errors here: sums of squares of what is too large would overflow with one."""
    rng = np.random.default_rng(0)
    np.savez("data.npz", image=(size * rng.standard_normal((40, 3, 8, 8))).astype(np.float32))
    result, _ = prune(run, "--data", "data.npz", "-o", "small.onnx", "--compensate", kind)
    assert result.exit_code == (0 if size < 1e10 else 1), result.stderr
    assert (tmp_path / "small.onnx").exists() == (size < 1e10)
    if size > 1e10:
        assert "too large on the samples" in result.stderr or "NaN or infinite on the samples" in result.stderr
        assert result.stderr.count("\n") == 1


def test_what_is_read_is_never_written_over(run, model):
    Path("labels.txt").write_text("0\n" * 40)
    before = Path("data.npz").read_bytes()
    for words in (("-o", "data.npz"), ("--plan", "labels.txt"), ("--report", "data.npz")):
        result = run(
            "prune", "net.onnx", "--ratio", "0.5", "--data", "data.npz", "--labels", "labels.txt", "--force", *words
        )
        assert result.exit_code == 1
        assert re.search(r"is what --(data|labels) reads: choose another", result.stderr)
    assert Path("data.npz").read_bytes() == before
    assert Path("labels.txt").read_text() == "0\n" * 40


@pytest.mark.parametrize("share", ["100%", "1", "0"])
def test_a_gate_may_ask_for_everything_or_nothing(run, model, share):
    result, found = prune(run, "--data", "data.npz", "--min-agreement", share)
    assert result.exit_code in (0, 3), result.stderr
    assert found["gates"][0]["limit"] == (0 if share == "0" else 1)


def test_few_samples_whose_compensation_is_given_up_say_one_thing(run, model, monkeypatch):
    from srr_onnx.validation import tryout

    monkeypatch.setattr(tryout, "_is_surely_positive", lambda differences: False)
    result, _ = prune(run, "--data", "data.npz", "--samples", "4")
    assert "was left out" in result.stderr
    assert "fewer than 16" in result.stderr and "follow from the normalizations" not in result.stderr
