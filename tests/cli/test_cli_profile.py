"""`profile`: what it prints, and what it says of what cannot be measured."""

from __future__ import annotations

import json
import os
import re
import subprocess

import onnx
import pytest
from cli_models import small_graph
from documented import ROOT, documented_shape, mismatches

from srr_onnx.cli.profile import describe_speedup
from srr_onnx.validation.timing import Figure

OTHER_PYTHON = os.environ.get("SRR_ONNX_OPENVINO_PYTHON")
QUICK = ("--repeat", 20, "--budget-seconds", 1)


def test_a_model_beside_another(run, model_path, tmp_path):
    onnx.save(small_graph().model(), tmp_path / "other.onnx")
    done = run("profile", model_path, tmp_path / "other.onnx", "--batch", "1,3", "--layers", 2, *QUICK)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["model", "batch", "fastest", "median", "p90", "p99", "rows/s", "load", "memory"]
    assert [line.split()[:2] for line in lines[1:5]] == [
        [name, batch] for name in ("net.onnx", "other.onnx") for batch in "13"
    ]
    speeds = [line for line in lines if line.startswith("speed")]
    assert [re.search(r"at a batch of (\d), other.onnx is .* than net.onnx", line)[1] for line in speeds] == ["1", "3"]
    assert re.search(r"^measured  20 rounds on cpu, 1 thread; onnxruntime", done.stdout, re.MULTILINE)
    assert "\ninputs    image 1x3x4x4\n" in done.stdout
    assert "net.onnx: slowest nodes, 2 of" in done.stdout
    assert "second  " in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx", "other.onnx"]


def test_json_is_as_documented(run, model_path):
    done = run("profile", model_path, "--format", "json", "--threads", 2, *QUICK)
    found = json.loads(done.stdout)
    assert mismatches(documented_shape("profiling.md", "srr-onnx/profile/1"), found) == []
    assert found["target"] == {"provider": "cpu", "threads": 2, "batch": None, "options": {}}
    assert found["comparisons"] == []


def test_nodes_can_be_left_out(run, model_path):
    done = run("profile", model_path, "--layers", 0, *QUICK)
    assert "slowest" not in done.stdout
    assert (
        json.loads(run("profile", model_path, "--layers", 0, "--format", "json", *QUICK).stdout)["models"][0]["layers"]
        is None
    )


def test_a_noisy_machine_is_told(run, model_path, monkeypatch):
    monkeypatch.setattr("os.getloadavg", lambda: (99.0, 0.0, 0.0), raising=False)
    done = run("profile", model_path, *QUICK)
    assert "note: this machine is noisy, so take the figures with care: 99.0 processes wanted a core" in done.stderr


@pytest.mark.skipif(not OTHER_PYTHON, reason="SRR_ONNX_OPENVINO_PYTHON names no interpreter with onnxruntime-openvino")
def test_openvino_is_measured_as_openvino(model_path):
    words = ["-m", "srr_onnx.cli.main", "profile", str(model_path), "--provider", "openvino", "--format", "json"]
    done = subprocess.run(
        [OTHER_PYTHON, *words, *map(str, QUICK)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if "openvino finds no device" in done.stderr or "has no provider openvino" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    (model,) = json.loads(done.stdout)["models"]
    (row,) = model["layers"]["rows"]
    assert (row["node"], row["providers"]) == ("runtime (OpenVINO-EP-subgraph)", ["OpenVINOExecutionProvider"])
    assert model["batches"][0]["load_seconds"] > 0


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--provider", "VitisAIExecutionProvider"], 1, "has no provider VitisAIExecutionProvider here, it has"),
        (["--provider", "cdua"], 2, "unknown provider 'cdua': did you mean 'cuda'"),
        (
            ["--provider-option", "device_id=1"],
            1,
            "the provider cpu takes no options, 'device_id' would change nothing",
        ),
        (["--provider-option", "device_id"], 2, "'device_id' is no option of a provider: give KEY=VALUE"),
        (["--provider-option", "a=1", "--provider-option", "a=2"], 2, "'a' is given twice"),
        (["--batch", "1,x"], 2, "'1,x' is no list of batches: give sizes such as 1,4,8"),
        (["--batch", "0"], 2, "'0' is no list of batches"),
        (["--budget-seconds", "0"], 2, "'--budget-seconds'"),
        (["--repeat", "0"], 2, "'--repeat'"),
        (["missing.onnx"], 1, "there is no file 'missing.onnx'"),
    ],
)
def test_what_cannot_be_measured_is_one_line(run, model_path, words, code, text):
    done = run("profile", model_path, *words)
    assert (done.exit_code, done.stdout) == (code, "")
    assert done.stderr.count("\n") == 1
    assert text in done.stderr


def test_sizes_that_were_chosen_are_those_of_all_models_and_told(run, tmp_path):
    for name, size in (("open.onnx", "height"), ("other.onnx", "rows")):
        model = small_graph().model()
        for axis in (2, 3):
            model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"{size}{axis}"
        onnx.save(model, tmp_path / name)
    done = run("profile", tmp_path / "open.onnx", tmp_path / "other.onnx", "--layers", 0, *QUICK)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("inputs")]
    chosen = line.split()[-1]
    assert f"the file leaves height and width open, taken as image {chosen}" in done.stderr


def test_a_fixed_batch_is_one_line(run, tmp_path):
    model = small_graph().model()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, tmp_path / "fixed.onnx")
    done = run("profile", tmp_path / "fixed.onnx", "--batch", "2")
    assert done.stderr == (
        "error: a batch of 2 is not possible: 'fixed.onnx' takes 1 in one run, as its file says; "
        "export it with an open batch\n"
    )


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        (Figure(1.42, 1.39, 1.45), "b is 1.42x faster than a (1.39 to 1.45)"),
        (Figure(1.02, 0.99, 1.04), "b is not faster than a: 1.020x (0.990 to 1.040)"),
        (Figure(0.5, 0.4, 0.8), "b is 2.00x slower than a (1.25 to 2.50)"),
    ],
)
def test_a_ratio_in_words(figure, text):
    assert describe_speedup(figure, "b", "a") == text
