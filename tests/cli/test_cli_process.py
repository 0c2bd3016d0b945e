"""The program as a process: start-up, streams that break, signals, and being killed while it writes."""

from __future__ import annotations

import os
import pty
import random
import resource
import signal
import subprocess
import sys
import time

import onnx
import pytest
from builders import Graph

import srr_onnx.pipeline
from srr_onnx.cli.main import COMMANDS, program
from srr_onnx.errors import SrrError

PROGRAM = [sys.executable, "-m", "srr_onnx.cli.main"]
# Says when it is at work, and takes its time over the write, so that a signal can meet it there.
SLOW = """
import importlib, os, time
rename, load = os.replace, importlib.import_module
def replace(*names):
    time.sleep(0.15)
    rename(*names)
    time.sleep(0.05)
def import_module(name):
    importlib.import_module = load
    print("ready", flush=True)
    return load(name)
os.replace, importlib.import_module = replace, import_module
from srr_onnx.cli.main import main
main()
"""


def call(*words, **options):
    return subprocess.run([*PROGRAM, *map(str, words)], capture_output=True, text=True, check=False, **options)


def start_slow(*words):
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.fixture
def large_path(tmp_path):
    """A model of 2 MB, whose file is not written at one blow."""
    g = Graph()
    x = g.conv(g.input("x", (1, 3, 4, 4)), 256, 3)
    for _ in range(2):
        x = g.conv(g("Relu", x), 256, 2)
    g.output(g.conv(x, 4))
    onnx.save(g.model(), tmp_path / "large.onnx")
    return tmp_path / "large.onnx"


# Start-up


def test_help_loads_nothing_numerical():
    script = (
        "import sys\nsys.argv = ['srr-onnx', '--help']\nfrom srr_onnx.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "print('loaded', *sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split()[1:])
    assert not loaded & {"numpy", "onnx", "onnxruntime", "onnx_graphsurgeon", "torch", "rich", "google"}
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_says_of_itself(run, name):
    printed = run(name, "--help")
    assert printed.exit_code == 0
    assert COMMANDS[name][1] in " ".join(printed.stdout.split())


def test_without_arguments_there_is_help(run):
    result = run()
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == run("--help").stdout == run("-h").stdout


def test_version(run):
    assert run("--version").stdout == f"srr-onnx, version {srr_onnx.__version__}\n"


# Errors become one line


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (SrrError("a\nb"), 1, "error: a b\n"),
        (MemoryError(), 1, "error: out of memory: the model is too large for this machine\n"),
        (OSError(5, "Input/output error", "x.onnx"), 1, "error: 'x.onnx': Input/output error\n"),
        (KeyboardInterrupt(), 130, "interrupted: nothing was written by halves\n"),
        (
            ZeroDivisionError("division by zero"),
            1,
            "internal error: ZeroDivisionError: division by zero "
            "(please report this; SRR_ONNX_TRACEBACK=1 shows where it happened)\n",
        ),
    ],
)
def test_every_error_becomes_one_line(run, model_path, monkeypatch, error, code, line):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(srr_onnx.pipeline, "prune", fail)
    result = run("prune", model_path, "--flops", "44%")
    assert (result.exit_code, result.stdout, result.stderr.lstrip("\n")) == (code, "", line)


def test_tracebacks_are_shown_on_request(run, monkeypatch):
    monkeypatch.setenv("SRR_ONNX_TRACEBACK", "1")
    result = run("inspect", "none.onnx")
    assert result.exit_code == 1
    assert result.stderr.startswith("Traceback") and "ModelError" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: there is no file")


# Streams


def test_a_reader_that_leaves_is_no_error_worth_a_message(model_path):
    process = subprocess.Popen([*PROGRAM, "inspect", str(model_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_under_stdout_or_stderr(model_path):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*PROGRAM, "inspect", str(model_path)], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert done.stderr == "error: the result cannot be printed: No space left on device\n"
        assert subprocess.run([*PROGRAM, "inspect", "none"], stdout=full, stderr=full, check=False).returncode == 1


def test_closed_streams(model_path):
    line = f"{sys.executable} -m srr_onnx.cli.main inspect {model_path} >&- 2>&-"
    assert subprocess.run(["sh", "-c", line], check=False).returncode == 0


def test_progress_is_shown_on_a_terminal_only(model_path):
    script = (
        "import time, srr_onnx.pipeline as p\nsave = p.save_results\n"
        "p.save_results = lambda *a, **k: (time.sleep(1), save(*a, **k))\nfrom srr_onnx.cli.main import main\nmain()"
    )
    words = [sys.executable, "-c", script, "prune", str(model_path), "--flops", "44%", "--compensate", "none"]
    quiet = subprocess.run(words, capture_output=True, text=True, check=True)
    assert quiet.stderr == ""
    ours, theirs = pty.openpty()
    shown = subprocess.Popen(
        [*words, "--force"], stdout=subprocess.PIPE, stderr=theirs, text=True, env={**os.environ, "TERM": "xterm"}
    )
    printed = shown.stdout.read()
    os.close(theirs)
    assert shown.wait() == 0
    shown.stdout.close()
    text = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert printed == quiet.stdout
    assert "writing" in text


# Signals


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir() if path.name not in ("large.onnx", "out.onnx", "plan.json"))


def test_a_file_that_grows_too_large_leaves_the_old_one(large_path, tmp_path):
    (tmp_path / "out.onnx").write_text("old")
    done = call(
        "prune", large_path, "--flops", "44%", "-o", "out.onnx", "--plan", "plan.json", "--force",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000)),
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "error: 'out.onnx' cannot be written: File too large\n"
    assert (tmp_path / "out.onnx").read_text() == "old"
    assert not (tmp_path / "plan.json").exists() and leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("mount", "place", "words"),
    [
        ("mount -t tmpfs -o size=300k tmpfs there && echo old > there/out.onnx", "there", "No space left on device"),
        ("echo old > there/out.onnx && mount --bind -o ro there there", "there", "the folder 'there' is not writable"),
    ],
    ids=["full", "read-only"],
)
def test_a_real_disk_that_takes_nothing(large_path, tmp_path, mount, place, words):
    """A small disk and a read-only one, in a namespace of their own: seen by nobody else, and gone with the process."""
    (tmp_path / place).mkdir()
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("this system lets no user mount anything")
    command = " ".join([*PROGRAM, "prune", str(large_path), "--flops", "44%", "-o", "there/out.onnx", "--force"])
    script = f"{mount} && {{ {command}; echo $?; cat there/out.onnx; ls -A there; }}"
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["1", "old", "out.onnx"]
    assert done.stderr.count("\n") == 1 and words in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("delay", [0.0, 0.1, 0.3, 0.5, "writing"])
def test_interrupts_leave_no_trace(large_path, tmp_path, number, code, delay):
    (tmp_path / "out.onnx").write_text("old")
    process = start_slow("prune", large_path, "--flops", "44%", "-o", "out.onnx", "--force")
    if delay == "writing":
        wait_for_write(process, tmp_path)
    else:
        time.sleep(delay)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    # Whoever is too late finds the work done.
    assert process.returncode in (code, 0)
    assert "Traceback" not in errors
    if process.returncode:
        assert errors.strip() == ("interrupted: nothing was written by halves" if code == 130 else "")
        assert (tmp_path / "out.onnx").read_text() == "old"
    else:
        assert (tmp_path / "out.onnx").stat().st_size > 100_000
    assert leftovers(tmp_path) == []


def wait_for_write(process, folder):
    while process.poll() is None and not list(folder.glob(".*.part")):
        time.sleep(0.002)


def test_kill_at_any_moment_leaves_the_old_file_or_the_new_one(large_path, tmp_path):
    words = ("prune", large_path, "--flops", "44%", "-o", "out.onnx", "--plan", "plan.json", "--force")
    process = start_slow(*words)
    wait_for_write(process, tmp_path)
    begin = time.monotonic()
    process.communicate()
    writing = time.monotonic() - begin  # on this machine, from the first byte to the end
    new = (tmp_path / "out.onnx").read_bytes()
    moments = random.Random(0)
    seen = set()
    for number in range(20):
        old = b"old" * number
        (tmp_path / "out.onnx").write_bytes(old)
        process = start_slow(*words)
        if number % 2:
            wait_for_write(process, tmp_path)
            time.sleep(writing * (number / 10 if number < 19 else 10))  # the last is too late on a busy machine, too
        else:
            time.sleep(moments.uniform(0, 0.8))
        process.kill()
        process.communicate()
        found = (tmp_path / "out.onnx").read_bytes()
        assert found in (old, new)
        seen.add(found == new)
        assert not list(tmp_path.glob(".*.onnx"))
        for name in leftovers(tmp_path):
            assert name.startswith(".") and name.endswith(".part")
            (tmp_path / name).unlink()  # or the next one would seem to write from the first moment on
    assert seen == {True, False}
    assert call(*words).returncode == 0
    assert (tmp_path / "out.onnx").read_bytes() == new


def test_the_program_is_what_is_installed():
    assert program.name == "program"
    names = [
        "inspect",
        "score",
        "curve",
        "prune",
        "apply",
        "finetune",
        "optimize",
        "evaluate",
        "compare",
        "profile",
        "demo",
    ]
    assert list(COMMANDS) == names


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "srr_onnx", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()[0]) == (0, "srr-onnx,")
