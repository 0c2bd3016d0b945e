"""A pruned file in runtimes that are right, wrong, refuse, crash or are missing; fakes are onnxruntime underneath."""

from __future__ import annotations

import csv
import importlib.util
import math
import os
import shutil

import deploy_check
import numpy as np
import onnx
import pytest
from builders import Graph
from click.testing import CliRunner
from deploy.check import TOLERANCE, Settings, find_reference, judge, measure_error, measure_top1, run_file, time_files
from deploy.runtimes import RUNTIMES, TOOLS, Runtime
from deploy.subject import Subject
from deploy.table import Row, format_rows

import srr_onnx

QUICK = Settings(threads=1, seconds=0.0, patience=60.0)
FAKE = """
from deploy import ort
VERSION = "1.0"

class Session(ort.Session):
    def __init__(self, path, threads):
        self.is_pruned = "pruned" in path.name
        {opening}
        super().__init__(path, threads)

    def run(self, feeds):
        return {{name: {output} for name, array in super().run(feeds).items()}}
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Makes a runtime of one line on opening and an expression for outputs, or of a whole module."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))

    def make(opening="pass", output="array", module=""):
        (tmp_path / "fake_runtime.py").write_text(module or FAKE.format(opening=opening, output=output))
        return Runtime("fake", "fake_runtime", "pip install fake")

    return make


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a net of ten classes and its pruned file."""
    folder = tmp_path_factory.mktemp("files")
    g = Graph()
    x = g("Relu", g.conv(g("Relu", g.conv(g.input("x", (1, 3, 8, 8)), 16)), 16))
    g.output(g("Gemm", g("Flatten", g("GlobalAveragePool", x)), g.weight(10, 16, scale=1.0), transB=1))
    onnx.save(g.model(), folder / "net.onnx")
    srr_onnx.prune(folder / "net.onnx", folder / "net.pruned.onnx", ratio=0.5, criterion="l1", compensate="none")
    return folder


@pytest.fixture(scope="module")
def subject(folder):
    rng = np.random.default_rng(0)
    samples = tuple({"x": rng.standard_normal((1, 3, 8, 8)).astype(np.float32)} for _ in range(2))
    (output,) = srr_onnx.load_model(folder / "net.onnx").outputs
    return Subject("net", {"float": (folder / "net.onnx", folder / "net.pruned.onnx")}, {output: 1}, samples, ())


@pytest.fixture(scope="module")
def check(subject):
    """Runs the two files in a runtime."""
    wanted = {path: find_reference(path, subject.samples, QUICK) for path in subject.pairs["float"]}

    def check(runtime):
        (row,) = deploy_check.check_subject(subject, wanted, [runtime], QUICK)
        return row

    return check


@pytest.mark.parametrize("runtime", RUNTIMES, ids=lambda runtime: runtime.name)
def test_a_pruned_file_drops_into_every_runtime_that_is_here(runtime, check):
    row = check(runtime)
    assert not row.is_failure, row.verdict
    if row.verdict.startswith(("not installed", "cannot run here")):
        pytest.skip(row.verdict)
    assert row.verdict == "agrees"
    assert max(row.error_original, row.error_pruned) < TOLERANCE
    assert row.top1 == 1
    assert row.version
    assert row.rounds == 5
    assert min(row.original_ms, row.pruned_ms) > 0


def test_onnxruntime_is_here(check):
    assert check(RUNTIMES[0]).verdict == "agrees"


def test_wrong_numbers_for_the_pruned_file_are_a_failure(check, fake):
    row = check(fake(output="array * (1.01 if self.is_pruned else 1)"))
    assert row.is_failure
    assert row.verdict == "FAILS: other outputs for the pruned file"
    assert TOLERANCE < row.error_pruned <= 0.01 * (1 + 1e-3)  # of the original's largest element, which may be larger
    assert row.error_original < TOLERANCE


def test_numbers_that_are_as_wrong_for_the_original_are_none(check, fake):
    row = check(fake(output="array * 1.01"))
    assert not row.is_failure
    assert row.verdict == "differs for the original too"


def test_numbers_that_are_far_more_wrong_than_those_of_the_original_are_a_failure(check, fake):
    assert check(fake(output="array * (1.5 if self.is_pruned else 1.01)")).is_failure


@pytest.mark.parametrize("output", ["array[:, 1:]", "array * float('nan')"])
def test_another_shape_and_no_number_are_failures(output, check, fake):
    row = check(fake(output=f"{output} if self.is_pruned else array"))
    assert row.is_failure
    assert math.isinf(row.error_pruned)


def test_a_runtime_that_refuses_both_is_listed(check, fake):
    row = check(fake(opening="raise ValueError('no Gemm here')"))
    assert not row.is_failure
    assert row.verdict == "refuses the original too: no Gemm here"
    assert row.rounds == 0


def test_a_runtime_that_refuses_the_pruned_file_only_is_a_failure(check, fake):
    row = check(fake(opening="assert not self.is_pruned, 'odd channels'"))
    assert row.is_failure
    assert row.verdict == "FAILS on the pruned file only: odd channels"


def test_a_runtime_that_refuses_the_original_only_is_none(check, fake):
    row = check(fake(opening="assert self.is_pruned, 'too large'"))
    assert not row.is_failure
    assert row.verdict == "agrees; refuses the original: too large"


@pytest.mark.parametrize(
    ("end", "text"),
    [("os.kill(os.getpid(), 11)", "crashed (SIGSEGV)"), ("os._exit(3)", "ended without an answer (exit code 3)")],
)
def test_a_crash_is_a_row(end, text, check, fake):
    row = check(fake(opening=f"import os; self.is_pruned and {end}"))
    assert row.is_failure
    assert row.verdict == f"FAILS on the pruned file only: {text}"
    row = check(fake(opening=f"import os; {end}"))
    assert not row.is_failure
    assert row.verdict == f"refuses the original too: {text}"


def test_a_process_that_hangs_is_ended(subject, fake):
    patience = Settings(threads=1, patience=2.0)
    found = run_file(fake(opening="import time; time.sleep(600)"), subject.pairs["float"][0], subject.samples, patience)
    assert found.problem == "no answer in 2 s"


def test_a_runtime_that_is_missing_says_how_to_install_it(check, fake):
    row = check(fake(module="import no_such_package"))
    assert not row.is_failure
    assert row.verdict == "not installed: pip install fake"
    row = check(fake(module="raise ImportError('wants another processor')"))
    assert row.verdict == "cannot run here: wants another processor"
    nowhere = Runtime("fake", "fake_runtime", "pip install fake", python="/nowhere/python")
    assert check(nowhere).verdict == "not installed: pip install fake"


def test_files_take_turns(subject):
    found = time_files(RUNTIMES[0], subject.pairs["float"], subject.samples[0], QUICK)
    assert [len(times) for times in found.milliseconds] == [5, 5]


def test_a_difference_is_relative_to_the_largest_element_of_its_output():
    wanted = [{"a": np.array([1.0, -4.0]), "b": np.array([100.0])}]
    assert measure_error(wanted, [{"a": np.array([1.0, -3.0]), "b": np.array([101.0])}]) == pytest.approx(0.25)
    nothing = [*wanted, {"a": np.zeros(2), "b": np.zeros(1)}]
    assert measure_error(nothing, [*wanted, {"a": np.array([1e-3, 0.0]), "b": np.zeros(1)}]) == pytest.approx(2.5e-4)
    assert measure_error(wanted, [{"a": np.array([[1.0], [-4.0]]), "b": np.array(100.0), "c": np.array(0)}]) == 0
    assert math.isinf(measure_error(wanted, [{"a": np.array([1.0, -4.0])}]))
    little = [{"a": np.array([1e-6]), "b": np.array([1.0])}]
    given = [{"a": np.array([2e-6]), "b": np.array([1.0])}]
    assert measure_error(little, given) == pytest.approx(1.0)
    assert measure_error(little, given, wanted) == pytest.approx(2.5e-7)


def test_a_reference_that_is_no_number_agrees_with_nothing():
    wanted = [{"a": np.array([1.0, np.nan])}]
    assert math.isinf(measure_error(wanted, [{"a": np.array([7.0, 2.0])}]))


def test_the_class_on_top_is_counted_over_all_positions():
    wanted = [{"map": np.array([[[1, 2], [3, 0]]]), "other": np.zeros(3)}]
    given = [{"map": np.array([[[1, 0], [3, 2]]]), "other": np.ones(3)}]
    assert measure_top1(wanted, given, {"map": 1, "other": None}) == 0.5
    assert math.isnan(measure_top1(wanted, given, {"other": None}))


def test_int8_copies_may_differ_by_a_few_roundings(subject, fake):
    pruned = run_file(RUNTIMES[0], subject.pairs["float"][1], subject.samples, QUICK)
    shifted = run_file(fake(output="array * 1.1"), subject.pairs["float"][1], subject.samples, QUICK)
    wanted = (pruned.outputs, pruned.outputs)
    assert judge(RUNTIMES[0], pruned, shifted, wanted).is_failure
    assert not judge(RUNTIMES[0], pruned, shifted, wanted, tolerance=0.2).is_failure


def test_the_table_points_at_failures():
    rows = [Row("net", "A", "1", "float", "agrees"), Row("net", "B", "1", "float", "FAILS: x | y", is_failure=True)]
    lines = format_rows(rows).splitlines()
    assert "| agrees |" in lines[2]
    assert "| **FAILS: x \\| y** |" in lines[3]


def test_the_whole_way_from_the_file_to_the_page(folder, fake, tmp_path, monkeypatch):
    page = tmp_path / "deployment.md"
    page.write_text(
        "".join(f"<!-- {name} -->\n<!-- /{name} -->\n" for name in ("machine", "float", "int8", "gains", "agreement"))
    )
    wrong = fake(output="array * (1.01 if self.is_pruned else 1)")
    monkeypatch.setattr(deploy_check, "RUNTIMES", (RUNTIMES[0], wrong))
    monkeypatch.setattr(deploy_check, "PAGE", page)
    monkeypatch.setattr(deploy_check, "CSV", tmp_path / "deployment.csv")
    pictures = np.random.default_rng(1).standard_normal((40, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "pictures.npz", x=pictures)
    words = [folder / "net.onnx", "--flops", "0.3", "--data", tmp_path / "pictures.npz", "--samples", "32", "--write"]
    done = CliRunner().invoke(deploy_check.main, [str(word) for word in (*words, "--seconds", "0", "--threads", "1")])
    assert done.exit_code == 1, done.output
    with (tmp_path / "deployment.csv").open() as file:
        rows = {(row["runtime"], row["kind"]): row for row in csv.DictReader(file)}
    assert rows["onnxruntime", "float"]["verdict"] == rows["onnxruntime", "int8"]["verdict"] == "agrees"
    assert rows["fake", "float"]["verdict"].startswith("FAILS")
    with (tmp_path / "deployment_agreement.csv").open() as file:
        files = {row["file"]: row for row in csv.DictReader(file)}
    assert list(files) == ["original", "pruned", "original int8", "pruned int8"]
    assert float(files["original int8"]["cosine"]) > 0.99
    assert int(files["pruned"]["samples"]) == 8
    assert "**FAILS: other outputs for the pruned file**" in page.read_text()
    assert "| net | onnxruntime |" in page.read_text()
    assert "pictures pictures.npz; to calibrate with 32" in page.read_text()


def test_a_net_that_cannot_be_pruned_is_a_failure(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(deploy_check, "RUNTIMES", RUNTIMES[:1])
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    done = CliRunner().invoke(deploy_check.main, [str(tmp_path / "broken.onnx")])
    assert done.exit_code == 1
    assert "FAILS before any runtime" in done.output


def test_the_packages_are_pinned():
    lines = (TOOLS / "deploy" / "requirements.txt").read_text().splitlines()
    assert {line.split("==")[0] for line in lines if "==" in line} >= {
        "onnxruntime",
        "openvino",
        "opencv-python-headless",
    }
    # The test environment itself: what is installed there is what the tests above ran.
    assert importlib.util.find_spec("onnxruntime")
    assert shutil.which(RUNTIMES[0].python)
