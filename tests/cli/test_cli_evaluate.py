"""`srr-onnx evaluate` and `compare`, from options to exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import Graph
from documented import documented_shape, mismatches
from PIL import Image

CLASSES = 4
COLORS = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 250)]


def net(path="net.onnx", name="image", scale=1.0, size=8, batch=None):
    """Tells red, green, blue and white apart by the mean of each channel."""
    g = Graph()
    image = g.input(name, (batch or 1, 3, size, size), dynamic=None if batch else {0: "batch"})
    x = g("Flatten", g("GlobalAveragePool", image))
    weight = np.array([[1, 0, 0, 0.5], [0, 1, 0, 0.5], [0, 0, 1, 0.5]], np.float32)
    g.output(g("Mul", g("MatMul", x, g.constant(weight)), g.constant(np.float32(scale)), outputs=["scores"]))
    onnx.save(g.model(), path)
    return path


def blind(path="blind.onnx"):
    """Sees the red channel only."""
    g = Graph()
    x = g("Flatten", g("GlobalAveragePool", g.input("image", (1, 3, 8, 8), dynamic={0: "batch"})))
    weight = np.array([[1, 0, 0, 0.5], [0, 0, 0, 0.5], [0, 0, 0, 0.5]], np.float32)
    g.output(g("MatMul", x, g.constant(weight), outputs=["scores"]))
    onnx.save(g.model(), path)
    return path


def pictures(folder="pictures", each=3):
    for label, color in enumerate(COLORS):
        for number in range(each):
            path = Path(folder) / f"{label} color" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), color).save(path)
    return folder


@pytest.fixture(autouse=True)
def _files():
    net()
    blind()
    pictures()


def facts(result):
    return json.loads(result.stdout)


def fails(result, code, *parts):
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (code, "", 1), result.output
    assert result.stderr.startswith("error: ")
    for part in parts:
        assert part in result.stderr


def test_a_table(run):
    result = run("evaluate", "blind.onnx", "--data", "pictures")
    assert result.exit_code == 0, result.stderr
    assert "top-1    50.0 %" in result.stdout
    assert "3 3 color     100.0 %" not in result.stdout  # white looks red to the blind one
    assert "12 pictures of 4 classes, numbered by name; unit (default for this input)" in result.stderr


def test_json_is_as_documented(run):
    result = run("evaluate", "net.onnx", "--data", "pictures", "--reference", "blind.onnx", "--format", "json")
    assert mismatches(documented_shape("evaluating.md", "srr-onnx/evaluate/1"), facts(result)) == []
    result = run("compare", "net.onnx", "blind.onnx", "--data", "pictures", "--max-size", "1MB", "--format", "json")
    assert mismatches(documented_shape("evaluating.md", "srr-onnx/compare/1"), facts(result)) == []


def test_many_classes_are_listed_from_the_lowest(run):
    g = Graph()
    g.output(g("Identity", g.input("x", (1, 40), dynamic={0: "batch"})))
    onnx.save(g.model(), "many.onnx")
    rows = np.eye(40, dtype=np.float32)
    np.savez("many.npz", x=rows[[1, 0, *range(2, 40)]], y=np.arange(40))
    result = run("evaluate", "many.onnx", "--data", "many.npz")
    lines = result.stdout.splitlines()
    place = next(place for place, line in enumerate(lines) if line.startswith("class (20 lowest of 40)"))
    assert [line.split()[:2] for line in lines[place + 1 : place + 4]] == [["0", "0.0"], ["1", "0.0"], ["2", "100.0"]]
    assert [line.split() for line in lines[-2:]] == [["0", "1", "1"], ["1", "0", "1"]]


def test_a_gate(run):
    words = ("evaluate", "blind.onnx", "--data", "pictures", "--min-accuracy")
    assert run(*words, "50%").exit_code == 0
    result = run(*words, "51%")
    assert result.exit_code == 3
    assert "gate failed: accuracy is 50.0 %, at least 51.0 % was asked for" in result.stderr
    assert "top-1" in result.stdout


def test_bad_pictures_are_counted_and_listed(run):
    (Path("pictures") / "0 color" / "1.png").write_bytes(b"bad")
    result = run("evaluate", "net.onnx", "--data", "pictures", "--bad-list", "bad.txt", "--format", "json")
    assert result.exit_code == 0, result.stderr
    assert facts(result)["samples"] == 11
    assert [entry["name"] for entry in facts(result)["unreadable"]] == ["0 color/1.png"]
    assert Path("bad.txt").read_text() == "0 color/1.png\tno picture that can be read\n"
    assert "1 sample could not be read, the first is '0 color/1.png'" in result.stderr
    words = ("evaluate", "net.onnx", "--data", "pictures", "--bad-list")
    fails(run(*words, "bad.txt"), 1, "'bad.txt' exists", "--force")
    assert run(*words, "bad.txt", "--force").exit_code == 0
    fails(run(*words, "net.onnx", "--force"), 1, "'net.onnx' is a file that is read")


def test_the_preprocessing_is_stored_and_taken_from_there(run):
    before = Path("net.onnx").read_bytes()
    words = ("evaluate", "net.onnx", "--data", "pictures", "--format", "json")
    first = run(*words, "--range", "-1..1", "--mean", "0.1", "--store-preprocessing")
    assert first.exit_code == 0, first.stderr
    assert "'net.onnx' states this preprocessing now" in first.stderr
    assert Path("net.onnx").read_bytes().startswith(before)
    second = run(*words)
    assert "preprocessing of the model (stated in its metadata): " in second.stderr
    assert "range -1..1, mean 0.1" in second.stderr
    assert facts(second)["accuracy"] == facts(first)["accuracy"]
    expected = {**facts(first)["preprocessing"], "name": "preprocessing of the model"}
    assert facts(second)["preprocessing"] == expected
    third = run(*words, "--preset", "unit")
    assert "unit (given)" in third.stderr


def test_numbers_that_pass_as_they_are_have_no_preprocessing_to_store(run):
    np.savez("floats.npz", x=np.zeros((2, 3, 8, 8), np.float32), y=np.zeros(2, int))
    before = Path("net.onnx").read_bytes()
    result = run("evaluate", "net.onnx", "--data", "floats.npz", "--store-preprocessing")
    fails(result, 1, "nothing is done to these samples")
    assert Path("net.onnx").read_bytes() == before


def test_a_function_of_ones_own(run):
    Path("mine.py").write_text(
        "import numpy as np\ndef give():\n    yield np.ones((3, 3, 8, 8), np.float32), [3, 3, 0]\n"
    )
    result = run("evaluate", "net.onnx", "--data", "mine:give", "--format", "json")
    assert facts(result)["accuracy"]["correct"] == 2


def test_two_models_side_by_side(run):
    result = run("compare", "net.onnx", "blind.onnx", "--data", "pictures", "--max-accuracy-drop", "60%")
    assert result.exit_code == 0, result.stderr
    assert "accuracy      100.0 %     50.0 %  -50.0 points" in result.stdout
    assert "passed    accuracy is 50.00 points lower than the reference's" in result.stdout


def test_what_is_better_is_no_drop(run):
    result = run("compare", "blind.onnx", "net.onnx", "--data", "pictures", "--max-accuracy-drop", "1%")
    assert result.exit_code == 0, result.stderr
    assert "passed    accuracy is 50.00 points higher than the reference's" in result.stdout


def test_every_gate_that_fails_has_a_line(run):
    gates = ("--max-accuracy-drop", "0.01", "--min-agreement", "0.95", "--max-size", "0.1kB")
    result = run("compare", "net.onnx", "blind.onnx", "--data", "pictures", *gates)
    assert result.exit_code == 3
    failed = [line for line in result.stderr.splitlines() if line.startswith("gate failed: ")]
    assert len(failed) == 3
    assert "50.00 points lower than the reference's, 1 points lower were allowed" in failed[0]
    assert "top-1 agreement with the reference is 50.0 %" in failed[1]
    assert "at most 100 B was allowed" in failed[2]
    assert result.stdout.count("FAILED") == 3


def test_a_speedup_is_a_gate_with_a_row_of_its_own(run):
    net("other.onnx", scale=2.0)
    words = ("compare", "net.onnx", "other.onnx", "--limit", "3", "--threads", "2", "--report", "page.html")
    passed = run(*words, "--min-speedup", "0.001")
    assert passed.exit_code == 0, passed.stderr
    assert re.search(r"^latency +\S+ [um]s +\S+ [um]s +\S+x as fast \(.* to .*\)$", passed.stdout, re.MULTILINE)
    assert re.search(r"^timed     [\d,]+ rounds on cpu, 2 threads, on made-up inputs$", passed.stdout, re.MULTILINE)
    assert "passed    a run is" in passed.stdout
    assert 'id="latency"' in Path("page.html").read_text(encoding="utf-8")
    failed = run("compare", "net.onnx", "other.onnx", "--limit", "3", "--min-speedup", "1000", "--format", "json")
    assert failed.exit_code == 3
    assert "times as fast as the reference's, at least 1000 times was asked for" in failed.stderr
    found = facts(failed)
    (speedup,) = found["speed"]["comparisons"][0]["speedups"]
    assert found["gates"] == [{**found["gates"][0], "name": "speedup", "value": speedup["value"], "passed": False}]


def test_nothing_is_timed_without_the_gate(run):
    assert facts(run("compare", "net.onnx", "net.onnx", "--limit", "3", "--format", "json"))["speed"] is None
    refused = run("compare", "net.onnx", "net.onnx", "--threads", "2")
    assert refused.exit_code == 2
    assert "--threads says how models are timed: give --min-speedup too" in refused.stderr


@pytest.mark.parametrize("words", [("evaluate", "net.onnx", "--data", "pictures"), ("compare", "net.onnx", "net.onnx")])
def test_samples_run_where_they_are_asked_to(run, words):
    assert run(*words, "--provider", "cpu").exit_code == 0
    absent = run(*words, "--provider", "nnapi")
    assert absent.exit_code == 1
    assert "has no provider nnapi here" in absent.stderr
    unknown = run(*words, "--provider", "cuba")
    assert unknown.exit_code == 2
    assert "cuda" in unknown.stderr
    optioned = run(*words, "--provider-option", "a=1")
    assert optioned.exit_code == 1
    assert "the provider cpu takes no options" in optioned.stderr


def test_made_up_inputs(run):
    net("other.onnx", scale=2.0)
    result = run("compare", "net.onnx", "other.onnx", "--limit", "3", "--max-size", "1MB", "--format", "json")
    assert result.exit_code == 0, result.stderr
    found = facts(result)
    assert (found["samples"], found["is_made_up"], found["accuracy_drop"]) == (3, True, None)
    assert found["agreement"][0]["top1"]["mean"] == 1
    assert "3 made-up random inputs, which says nothing of accuracy" in result.stderr


def test_macs_of_another_batch_are_told(run):
    net("four.onnx", batch=4)
    result = run("compare", "net.onnx", "four.onnx", *DATA)
    assert result.exit_code == 0, result.stderr
    told = "MACs are those of one run: of image 1x3x8x8 in the reference, image 4x3x8x8 in the candidate"
    assert told in result.stderr
    assert "MACs are" not in run("compare", "net.onnx", "net.onnx", *DATA).stderr


DATA = ("--data", "pictures")


@pytest.mark.parametrize(
    ("words", "code", "parts"),
    [
        (("evaluate", "net.onnx"), 2, ["give --data"]),
        (("evaluate", "net.onnx", "--data", "nothing"), 1, ["there is no 'nothing'"]),
        (("evaluate", "no.onnx", *DATA), 1, ["there is no file 'no.onnx'"]),
        (("evaluate", "net.onnx", "--data", "flat"), 1, ["'flat' has no labels", "--labels FILE, or --reference"]),
        (("evaluate", "net.onnx", *DATA, "--labels", "high.txt"), 1, ["labels from 4 to 4", "4 classes"]),
        (("evaluate", "net.onnx", *DATA, "--labels", "few.txt"), 1, ["12 samples, but there are 2 labels"]),
        (("evaluate", "net.onnx", *DATA, "--class-output", "score"), 2, ["did you mean 'scores'?"]),
        (("evaluate", "net.onnx", *DATA, "--reference", "named.onnx"), 1, ["inputs differ", "'image'", "'picture'"]),
        (("evaluate", "net.onnx", *DATA, "--workers", "0"), 2, ["--workers"]),
        (("evaluate", "net.onnx", "--data", "broken"), 1, ["none of 2 samples of 'broken' can be read"]),
        (("evaluate", "net.onnx", *DATA, "--bad-list", "no/bad.txt"), 1, ["the folder 'no' does not exist"]),
        (("compare", "net.onnx", "named.onnx"), 1, ["inputs differ", "'image'", "'picture'"]),
        (("compare", "net.onnx", "large.onnx"), 1, ["inputs differ", "3x8x8", "3x9x9"]),
        (("compare", "net.onnx"), 2, ["CANDIDATE"]),
        (("compare", "net.onnx", "blind.onnx", "--min-agreement", "0.9"), 2, ["give --data"]),
        (("compare", "net.onnx", "blind.onnx", "--max-accuracy-drop", "1%"), 2, ["give --data"]),
        (
            ("compare", "net.onnx", "blind.onnx", "--data", "flat", "--max-accuracy-drop", "1%"),
            1,
            ["'flat' has no labels, so no accuracy can be measured"],
        ),
        (("compare", "net.onnx", "blind.onnx", "--max-size", "10XB"), 2, ["'10XB' is no size", "10MB"]),
        (("compare", "net.onnx", "blind.onnx", "--max-size", "0"), 2, ["'0' is no size"]),
        (("compare", "net.onnx", "blind.onnx", "--max-size", "1.5"), 2, ["'1.5' is no size"]),
        (("compare", "net.onnx", "blind.onnx", *DATA, "--min-agreement", "0.95%"), 2, ["did you mean 0.95?"]),
        (("compare", "net.onnx", "blind.onnx", "--min-speedup", "nan"), 2, ["'nan' is no speed-up", "1.2"]),
        (("compare", "net.onnx", "blind.onnx", "--min-speedup", "0"), 2, ["'0' is no speed-up"]),
        (("compare", "net.onnx", "blind.onnx", "--report", "no/r.html"), 1, ["choose another with --report"]),
        (("compare", "net.onnx", "blind.onnx", "--labels", "few.txt"), 2, ["give --data too"]),
    ],
)
def test_what_does_not_go_together(run, words, code, parts):
    net("named.onnx", name="picture")
    net("large.onnx", size=9)
    Path("high.txt").write_text("4\n" * 12)
    Path("few.txt").write_text("0\n1\n")
    for folder, content in (("flat", (Path("pictures") / "0 color" / "0.png").read_bytes()), ("broken", b"bad")):
        for name in ("a/1.png", "b/1.png") if folder == "broken" else ("1.png", "2.png"):
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    fails(run(*words), code, *parts)


@pytest.mark.parametrize(("text", "size"), [("10MB", 10_000_000), ("1.5 KiB", 1536), ("700", 700), ("2g", 2 * 10**9)])
def test_sizes(run, text, size):
    result = run("compare", "net.onnx", "net.onnx", "--limit", "1", "--max-size", text, "--format", "json")
    assert facts(result)["gates"][0]["limit"] == size
