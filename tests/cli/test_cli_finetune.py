"""`srr-onnx finetune` as a user calls it: output, options, being killed, several processes."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest
from documented import documented_shape, mismatches
from onnx import numpy_helper
from training_models import save_net, save_pictures

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("lightning_utilities", reason="Lightning is not installed")

from PIL import Image  # noqa: E402

from srr_onnx.finetuning.options import TrainingOptions  # noqa: E402

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "finetuning"))


PROGRAM = [sys.executable, "-m", "srr_onnx.cli.main"]
QUICK = ("--batch", 14, "--lr", 0.05)


@pytest.fixture
def files(tmp_path):
    torch.set_num_threads(1)  # so that results in this process are those of the others
    save_net(tmp_path / "net.onnx")
    save_net(tmp_path / "teacher.onnx", seed=1)
    save_pictures(tmp_path / "data.npz")
    return tmp_path


def words(*more, out="out.onnx"):
    return [
        str(word)
        for word in (
            "finetune",
            "net.onnx",
            "--teacher",
            "teacher.onnx",
            "--data",
            "data.npz",
            "-o",
            out,
            *QUICK,
            *more,
        )
    ]


def weights(path):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def test_a_table_on_stdout_and_notes_on_stderr(run, files):
    result = run(*words("--epochs", 3))
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["before", "after", "teacher"]
    assert [line.split("  ")[0] for line in lines[1:5]] == [
        "accuracy",
        "same top-1 as the teacher",
        "cosine to the teacher's output",
        "KL from the teacher, nats",
    ]
    assert lines[-1] == "written   out.onnx; checkpoints and logs in out.run"
    assert all(line.startswith("note: ") for line in result.stderr.splitlines())
    assert sorted(path.name for path in (files / "out.run").iterdir()) == [
        "best.onnx", "epochs.csv", "last.ckpt", "settings.json", "tensorboard",
    ]  # fmt: skip


def test_the_json_form_is_as_documented(run, files):
    result = run(*words("--epochs", 1, "--format", "json"))
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert mismatches(documented_shape("finetuning.md", "srr-onnx/finetune/1"), found) == []
    assert found["samples"] == {"trained": 86, "held_out": 10}


def test_every_setting_is_an_option_with_the_same_usual_value(run, files):
    printed = " ".join(run("finetune", "--help").stdout.split())
    usual = TrainingOptions()
    for name in vars(usual):
        assert f"--{name.replace('_', '-')} " in printed
    assert f"[default: {usual.rate} for sgd, {TrainingOptions(optimizer='adamw').rate} for adamw]" in printed


@pytest.mark.parametrize(
    ("more", "code", "line"),
    [
        (("--augment", "flip,turn"), 2, "'turn' is not known: give none, or some of flip, crop, randaugment"),
        (("--lr", "-1"), 1, "error: lr is -1.0: give above 0"),
        (("--loss", "both", "--temperature", "0"), 1, "error: temperature is 0.0: give above 0"),
        (("--resume",), 1, "'out.run' holds no run to go on with: leave --resume out, or give its --run-dir"),
        (("--head", "nothing"), 2, "unknown value of the model 'nothing'"),
        (("--accelerator", "abacus"), 1, "error: training cannot be set up: "),
        (("--accelerator", "cuda"), 1, "error: training cannot be set up: "),
    ],
)
def test_errors_are_one_line(run, files, more, code, line):
    result = run(*words("--epochs", 1, *more))
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (code, "", 1), result.stderr
    assert line in result.stderr


@pytest.mark.parametrize("out", ["data.npz", "labels.txt", "plan.json", "teacher.onnx"])
def test_nothing_is_written_over_that_is_read(run, files, out):
    (files / "labels.txt").write_text("0\n" * 96)
    (files / "plan.json").write_text("{}")
    before = (files / out).read_bytes()
    result = run(*words("--labels", "labels.txt", "--plan", "plan.json", "--force", out=out))
    assert result.exit_code == 1
    assert f"{out!r} is a file that is read: choose another name" in result.stderr
    assert (files / out).read_bytes() == before


def test_training_needs_data(run, files):
    result = run("finetune", "net.onnx")
    assert result.exit_code == 2
    assert "a model is trained on samples: give --data" in result.stderr


def test_empty_folders_and_damaged_pictures(run, files):
    (files / "empty").mkdir()
    result = run("finetune", "net.onnx", "--teacher", "teacher.onnx", "--data", "empty")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    folder = files / "pictures"
    rng = np.random.default_rng(0)
    for number in range(24):
        (folder / f"class{number % 4}").mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
        picture.save(folder / f"class{number % 4}" / f"{number:02}.png")
    (folder / "class1" / "01.png").write_bytes(b"no picture")
    (folder / "class2" / "02.png").write_bytes((folder / "class2" / "06.png").read_bytes()[:60])
    result = run("finetune", "net.onnx", "--teacher", "teacher.onnx", "--data", "pictures", "--epochs", 2, "--batch", 7)
    assert result.exit_code == 0, result.stderr
    assert "could not be read, replaced by others; the first is " in result.stderr
    for picture in folder.rglob("*.png"):
        picture.write_bytes(b"no picture")
    result = run("finetune", "net.onnx", "--teacher", "teacher.onnx", "--data", "pictures", "-o", "new.onnx")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert "can be read: the first, " in result.stderr


# Processes: each takes seconds to import what it needs


def start(*more, folder, out="out.onnx", launcher=(), environment=None):
    return subprocess.Popen(
        [*launcher, *PROGRAM, *words(*more, out=out)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
    )


def finish(process):
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return printed


def kill_during(folder, moments, *more):
    """Start a run and kill it again and again while it trains; gives how often a checkpoint was there to go on from."""
    kept = 0
    for number in range(len(moments)):
        process = start(*more, *(["--resume"] if number else []), folder=folder)
        last = folder / "out.run" / "last.ckpt"
        before = last.stat().st_mtime_ns if last.exists() else None
        while process.poll() is None and (not last.exists() or last.stat().st_mtime_ns == before):
            time.sleep(0.002)
        time.sleep(moments[number])
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "the run was over before it was killed"
        kept += last.exists()
    return kept


# The nightly run kills as often as was promised.
KILLS = int(os.environ.get("SRR_ONNX_KILLS", "2"))


def test_killed_runs_go_on_to_the_same_weights(run, files):
    settings = ("--epochs", 10 * KILLS, "--checkpoint-every", 1, "--ema", 0.9)
    rng = random.Random(os.environ.get("SRR_ONNX_SEED", "0"))
    moments = [rng.uniform(0, 0.4) for _ in range(KILLS)]
    assert kill_during(files, moments, *settings) == KILLS
    finish(start(*settings, "--resume", folder=files))
    assert run(*words(*settings, out="whole.onnx")).exit_code == 0
    one, other = weights(files / "out.onnx"), weights(files / "whole.onnx")
    assert all(np.array_equal(one[name], other[name]) for name in other)
    assert (files / "out.run" / "epochs.csv").read_text() == (files / "whole.run" / "epochs.csv").read_text()
    assert sorted(path.name for path in (files / "out.run").iterdir()) == sorted(
        path.name for path in (files / "whole.run").iterdir()
    )


def start_by_itself(settings, folder):
    return [start(*settings, "--devices", 2, folder=folder, out="2.onnx")]


def start_by_torchrun(settings, folder):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--no-python"]
    return [start(*settings, "--devices", 2, folder=folder, out="2.onnx", launcher=launcher)]


def start_by_slurm(settings, folder):
    """Two nodes with a process each, as srun tells them: both are this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = {
        "SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "train",
        "SLURM_JOB_NODELIST": "127.0.0.1", "SLURM_NODELIST": "127.0.0.1",
        "SLURM_NNODES": "2", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_LOCALID": "0",
        "MASTER_PORT": str(port),
    }  # fmt: skip
    return [
        start(
            *settings,
            *("--devices", 1, "--nodes", 2),
            folder=folder,
            out="2.onnx",
            environment={**job, "SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank)},
        )
        for rank in (0, 1)
    ]


@pytest.mark.parametrize("launch", [start_by_itself, start_by_torchrun, start_by_slurm])
def test_two_processes_train_like_one(run, files, launch):
    settings = ("--epochs", 3, "--norms", "keep", "--accelerator", "cpu", "--format", "json")
    printed, *nothing = map(finish, launch(settings, files))
    assert not any(nothing), "the first process alone speaks"
    two = json.loads(printed)
    single = json.loads(run(*words(*settings, out="1.onnx")).stdout)
    one, other = weights(files / "1.onnx"), weights(files / "2.onnx")
    for name in one:
        assert np.allclose(one[name], other[name], rtol=1e-4, atol=1e-5), name
    assert single["best_epoch"] == two["best_epoch"]
    figures = [[epoch["figure"] for epoch in found["epochs"]] for found in (single, two)]
    assert figures[0] == pytest.approx(figures[1], abs=1e-4)
