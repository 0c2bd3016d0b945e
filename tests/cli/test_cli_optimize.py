"""`srr-onnx optimize` as a user calls it: output, gates, errors, being killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from documented import documented_shape, mismatches
from training_models import save_net, save_pictures

from srr_onnx.graph.load import load_model

PROGRAM = [sys.executable, "-m", "srr_onnx.cli.main"]
RECIPE = """\
data: data.npz
test: {share: 20%}
prune: {flops: 40%, criterion: l1}
"""
TRAINED = RECIPE + "steps: 2\nfinetune: {epochs: EPOCHS, batch: 14, lr: 0.05, checkpoint_every: 1, ema: 0.9}\n"
# The nightly run kills as often as was promised.
KILLS = int(os.environ.get("SRR_ONNX_KILLS", "2"))


@pytest.fixture
def files(tmp_path):
    save_net(tmp_path / "net.onnx", channels=16)
    save_pictures(tmp_path / "data.npz")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def words(*more):
    return [str(word) for word in ("optimize", "net.onnx", "--recipe", "recipe.yaml", *more)]


def test_a_table_on_stdout_and_files_beside_the_model(run, files):
    result = run(*words())
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split("  ")[0] == "stage" and lines[0].endswith("same top-1")
    assert [line.split()[0] for line in lines[1:3]] == ["original", "01-prune"]
    assert "written   net.optimized.onnx; every stage in net.optimize, the report in net.optimize/report.html" in lines
    assert (files / "net.optimized.onnx").exists() and (files / "net.optimize" / "report.html").exists()
    assert all(line.startswith("note: ") for line in result.stderr.splitlines())


def test_the_json_form_is_as_documented(run, files):
    result = run(*words("--format", "json"))
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert mismatches(documented_shape("optimize.md", "srr-onnx/optimize/1"), found) == []
    assert [stage["name"] for stage in found["stages"]] == ["original", "01-prune"]


def test_gates_end_with_exit_code_3_and_the_file_is_there(run, files):
    (files / "recipe.yaml").write_text(RECIPE + "gates: {max_size: 1kB, max_accuracy_drop: 90%}\n")
    result = run(*words())
    assert result.exit_code == 3
    assert "gate failed: the file has " in result.stderr and "passed    accuracy is" in result.stdout
    assert "FAILED    the file has" in result.stdout and (files / "net.optimized.onnx").exists()
    assert "gate failed: the file has" in (files / "net.optimize" / "report.html").read_text()


@pytest.mark.parametrize(
    ("recipe", "more", "line"),
    [
        ("prun: 1", (), "error: 'recipe.yaml': unknown key 'prun': did you mean 'prune'?"),
        ("prune: {flops: 40}", (), "error: 'recipe.yaml': prune: flops: 40.0 is out of range"),
        (RECIPE, ("--resume",), "error: 'net.optimize' holds no run to go on with"),
        (RECIPE, ("-o", "net.onnx"), "error: 'net.onnx' is a file that is read: choose another name with -o"),
        (RECIPE, ("--run-dir", "data.npz"), "error: the folder 'data.npz' cannot be made: File exists"),
        (RECIPE.replace("data.npz", "none"), (), "error: there is no 'none': give a folder of pictures"),
    ],
)
def test_errors_are_one_line(run, files, recipe, more, line):
    (files / "recipe.yaml").write_text(recipe)
    result = run(*words(*more))
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1), result.stderr
    assert line in result.stderr


def test_killed_runs_go_on_to_the_same_weights(files):
    pytest.importorskip("torch", reason="torch is not installed")
    (files / "recipe.yaml").write_text(TRAINED.replace("EPOCHS", str(6 * KILLS)))
    # As many threads in all of them: sums that are taken in another order are rounded otherwise.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    rng = random.Random(os.environ.get("SRR_ONNX_SEED", "0"))
    settings = files / "net.optimize" / "settings.json"
    for number in range(KILLS):
        process = subprocess.Popen(
            [*PROGRAM, *words(*(["--resume"] if number else []))],
            cwd=files,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
        )
        before = progress(files)
        while process.poll() is None and (not settings.exists() or progress(files) == before):
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        errors = process.communicate()[1]
        assert process.returncode == -signal.SIGKILL, f"the run was over before it was killed: {errors}"
    for more in (("--resume",), ("--run-dir", "whole", "-o", "whole.onnx")):
        subprocess.run([*PROGRAM, *words(*more)], cwd=files, env=environment, check=True, capture_output=True)
    one, other = (load_model(files / name).constants for name in ("net.optimized.onnx", "whole.onnx"))
    assert one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)
    kept, whole = (sorted(path.name for path in (files / name).iterdir()) for name in ("net.optimize", "whole"))
    assert kept == whole


def progress(folder):
    """What changes whenever a run has got further: its files and when they were written."""
    found = (folder / "net.optimize").rglob("*.*")
    return {(path.name, path.stat().st_mtime_ns) for path in found if path.suffix in (".ckpt", ".json", ".onnx")}
