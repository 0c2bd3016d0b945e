"""Bad input: one line on stderr that says what, where, why and what to do; nothing on stdout; nothing written."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
import zipfile
from pathlib import Path

import onnx
import pytest
from builders import Graph
from cli_models import small_graph

PRUNE = ("--flops", "44%")


def fails(result, code, *parts):
    """Check exit code, one line, and that the line has all parts."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    for part in parts:
        assert part in result.stderr
    assert "internal" not in result.stderr


def make_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", "x")


FILES = {
    "directory": (lambda path: path.mkdir(), "is a directory"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "truncated": (lambda path: path.write_bytes(small_graph().model().SerializeToString()[:-3000]), "truncated"),
    "noise": (lambda path: path.write_bytes(bytes(range(256)) * 40), "not an ONNX model"),
    "text": (lambda path: path.write_text("hello\n"), "not"),
    "png": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100)), "PNG"),
    "json": (lambda path: path.write_text('{"schema": "srr-onnx/plan/1"}'), "JSON"),
    "zip": (make_zip, "zip"),
}


@pytest.mark.parametrize("command", ["inspect", "score", "prune"])
@pytest.mark.parametrize("kind", FILES)
def test_what_is_no_model(run, tmp_path, command, kind):
    make, reason = FILES[kind]
    path = tmp_path / "model.onnx"
    make(path)
    fails(run(command, path, *(PRUNE if command == "prune" else ())), 1, "model.onnx", reason)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


def test_a_missing_file_names_those_that_are_there(run, model_path):
    fails(run("inspect", "nett.onnx"), 1, "there is no file 'nett.onnx'", "net.onnx")


def save_external(folder, location="weights.bin"):
    model = small_graph().model()
    onnx.save(
        model, folder / "net.onnx", save_as_external_data=True, location=os.path.basename(location), size_threshold=0
    )
    if location != os.path.basename(location):
        proto = onnx.load(folder / "net.onnx", load_external_data=False)
        for tensor in proto.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        (folder / "net.onnx").write_bytes(proto.SerializeToString())


def test_external_data_is_read(run, tmp_path):
    save_external(tmp_path)
    assert run("prune", "net.onnx", *PRUNE).exit_code == 0


def test_missing_external_data(run, tmp_path):
    save_external(tmp_path)
    (tmp_path / "weights.bin").unlink()
    fails(run("prune", "net.onnx", *PRUNE), 1, "weights.bin", ".weight")


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "a/../../weights.bin"])
def test_external_data_outside_the_folder(run, tmp_path, location):
    folder = tmp_path / "inner"
    folder.mkdir()
    save_external(folder, location)
    (tmp_path / "weights.bin").write_bytes(bytes(1 << 16))
    fails(run("prune", folder / "net.onnx", *PRUNE), 1, location)


def test_external_data_through_a_link_that_leaves_the_folder(run, tmp_path):
    folder = tmp_path / "inner"
    folder.mkdir()
    save_external(folder)
    (folder / "weights.bin").rename(tmp_path / "outside.bin")
    (folder / "weights.bin").symlink_to(tmp_path / "outside.bin")
    fails(run("prune", folder / "net.onnx", *PRUNE), 1, "weights.bin")


def test_no_convolution(run, tmp_path):
    g = Graph()
    g.output(g("Sigmoid", g("Relu", g.input("x", (1, 4)))))
    onnx.save(g.model(), tmp_path / "m.onnx")
    fails(run("prune", "m.onnx", *PRUNE), 1, "no Conv", "Relu, Sigmoid")
    fails(run("score", "m.onnx"), 1, "no Conv")


def test_every_channel_frozen(run, tmp_path):
    g = Graph()
    g.output(g.conv(g.input("x", (1, 3, 4, 4)), 8, name="only"))
    onnx.save(g.model(), tmp_path / "m.onnx")
    fails(run("prune", "m.onnx", *PRUNE), 1, "every channel", "graph output", "only", "inspect")


def test_an_unreachable_budget_says_how_much_can_go_and_what_is_in_the_way(run, model_path):
    fails(
        run("prune", model_path, "--flops", "99.9%"),
        1,
        "99.9%",
        "at most 98.6%",
        "In the way: channels of a graph output",
        "4 units",
    )
    fails(run("prune", model_path, "--flops", "80%", "--freeze", "first"), 1, "frozen by request", "'first'")


def test_an_unknown_node_names_those_that_are_close(run, model_path):
    for option in ("--freeze", "--only"):
        fails(run("prune", model_path, *PRUNE, option, "secnd"), 2, "'secnd'", "did you mean 'second'")
    fails(run("prune", model_path, *PRUNE, "--freeze", "layer9*"), 2, "'layer9*'")


def test_an_unknown_criterion_names_those_that_are_close(run, model_path):
    fails(run("prune", model_path, *PRUNE, "--criterion", "fpmg"), 2, "did you mean 'fpgm'")
    fails(run("score", model_path, "--criterion", "x"), 2, "choose from bn_scale, fpgm, l1, l2, random, reconstruction")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ((), ("one or several of --flops, --params, --ratio", "none was given")),
        (("--flops", "0.4", "--ratio", "0.5"), ("--flops, --ratio",)),
        (("--flops", "44"), ("did you mean 44%",)),
        (("--flops", "1.5"), ("between 0 and 1",)),
        (("--flops", "0"), ("between 0 and 1",)),
        (("--flops", "-3%"), ("between 0 and 1",)),
        (("--flops", "nan"), ("between 0 and 1",)),
        (("--flops", "half"), ("'half' is no share",)),
        ((*PRUNE, "--gamma", "big"), ("neither auto nor paper",)),
        ((*PRUNE, "--gamma", "-1"), ("neither auto nor paper",)),
        ((*PRUNE, "--max-group-ratio", "60"), ("did you mean 60%",)),
        (("--ratio", "0.4", "--allocation", "global"), ("--allocation does not go with it",)),
        ((*PRUNE, "--allocation", "fair"), ("--allocation",)),
        ((*PRUNE, "--compensate", "bias"), ("--compensate",)),
        ((*PRUNE, "--seed", "-1"), ("--seed",)),
        ((*PRUNE, "--input", "image=1,3,a"), ("is no shape",)),
        ((*PRUNE, "--input", "image=1,3,0,4"), ("is no shape",)),
        ((*PRUNE, "--input", "1,3,4,4", "--input", "1,3,4,4"), ("two shapes",)),
        ((*PRUNE, "--input", "imagge=1,3,4,4"), ("did you mean 'image'",)),
        ((*PRUNE, "--import", "no_such_module"), ("no_such_module", "Python path")),
        ((*PRUNE, "--import", "mine.py"), ("give the module's name, mine",)),
        ((*PRUNE, "--flop", "1"), ("--flop", "--help")),
    ],
)
def test_wrong_usage(run, model_path, words, parts):
    fails(run("prune", model_path, *words), 2, *parts)
    assert [path.name for path in model_path.parent.iterdir()] == ["net.onnx"]


def test_shapes_that_contradict_the_file(run, model_path):
    fails(run("prune", model_path, *PRUNE, "--input", "1,1,4,4"), 1, "'image'", "axis 1 is fixed to 3")
    fails(run("prune", model_path, *PRUNE, "--input", "3,4,4"), 1, "'image'", "4")


def test_a_shape_without_name_needs_a_model_with_one_input(run, tmp_path):
    g = Graph()
    x = g("Add", g.input("a", (1, 3, 4, 4)), g.input("b", (1, 3, 4, 4)))
    g.output(g.conv(g.conv(x, 16), 4))
    onnx.save(g.model(), tmp_path / "two.onnx")
    fails(run("prune", "two.onnx", *PRUNE, "--input", "1,3,4,4"), 1, "2 inputs (a, b)")


def test_a_module_that_breaks_while_it_is_imported(run, model_path, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "broken_criteria.py").write_text("1 / 0\n")
    words = (*PRUNE, "--import", "broken_criteria")
    fails(run("prune", model_path, *words), 2, "broken_criteria", "ZeroDivisionError")


def test_unknown_command(run):
    fails(run("pruen", "x.onnx"), 2, "pruen")
    fails(run("inspect"), 2, "MODEL")


# Outputs


def test_an_existing_output_is_left_alone(run, model_path, tmp_path):
    for words in (PRUNE, (*PRUNE, "-o", "out.onnx", "--plan", "plan.json")):
        for name in ("net.pruned.onnx", "plan.json"):
            (tmp_path / name).write_text("precious")
        fails(run("prune", model_path, *words), 1, "exists", "--force")
        assert not (tmp_path / "out.onnx").exists()
        assert (tmp_path / "net.pruned.onnx").read_text() == (tmp_path / "plan.json").read_text() == "precious"
    assert run("prune", model_path, *PRUNE, "--plan", "plan.json", "--force").exit_code == 0
    assert (tmp_path / "net.pruned.onnx").stat().st_size > 1000
    assert (tmp_path / "plan.json").read_text().startswith("{")


@pytest.mark.parametrize("spelled", ["net.onnx", "./net.onnx", "sub/../net.onnx", "link.onnx"])
def test_the_model_itself_is_never_replaced(run, model_path, tmp_path, spelled):
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.onnx").symlink_to(model_path)
    before = model_path.read_bytes()
    for words in (("-o", spelled), ("--plan", spelled)):
        fails(run("prune", "net.onnx", *PRUNE, *words, "--force"), 1, "is the model that is read")
    assert model_path.read_bytes() == before


def test_model_and_plan_need_different_files(run, model_path, tmp_path):
    fails(run("prune", model_path, *PRUNE, "-o", "a", "--plan", "a"), 1, "the plan")
    assert not (tmp_path / "a").exists()


def test_the_plan_that_is_read_is_never_replaced(run, model_path, tmp_path):
    assert run("prune", model_path, *PRUNE, "--plan", "plan.json").exit_code == 0
    (tmp_path / "link.json").symlink_to(tmp_path / "plan.json")
    before = (tmp_path / "plan.json").read_bytes()
    for spelled in ("plan.json", "./plan.json", "link.json"):
        words = ("--plan", "plan.json", "-o", spelled, "--force")
        fails(run("apply", model_path, *words), 1, "is the plan that is read")
    assert (tmp_path / "plan.json").read_bytes() == before


@pytest.mark.parametrize("command", [("inspect",), ("prune", "--flops", "0.3"), ("apply", "--plan", "plan.json")])
@pytest.mark.parametrize("name", ["", ".", "/"])
def test_a_model_without_a_name(run, command, name):
    fails(run(command[0], name, *command[1:]), 1, "is a directory")


def test_outputs_that_cannot_be(run, model_path, tmp_path):
    fails(run("prune", model_path, *PRUNE, "-o", tmp_path), 1, "is a directory")
    fails(run("prune", model_path, *PRUNE, "-o", "none/out.onnx"), 1, "'none' does not exist")
    fails(run("prune", model_path, *PRUNE, "-o", "x" * 300), 1, "xxx", "too long")
    if os.path.exists("/dev/full"):
        fails(run("prune", model_path, *PRUNE, "-o", "/dev/full", "--force"), 1, "not a regular file")
    if os.path.isdir("/proc/self"):  # a folder that nobody can write to, not even root
        fails(run("prune", model_path, *PRUNE, "-o", "/proc/self/out.onnx"), 1, "/proc/self")


def test_a_folder_that_is_not_writable(run, model_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *args, **kwargs: False)
    fails(run("prune", model_path, *PRUNE), 1, "is not writable")


@pytest.mark.parametrize("fails_at", [1, 2], ids=["plan", "model"])
def test_a_full_disk_leaves_nothing_behind(run, model_path, tmp_path, monkeypatch, fails_at):
    opened, make = [], Path.open

    class Full(io.FileIO):
        """A file on a disk without room."""

        def write(self, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def make_file(path, mode="r", *args, **options):
        if mode != "xb":
            return make(path, mode, *args, **options)
        opened.append(path)
        return Full(path, "x") if len(opened) == fails_at else make(path, mode)

    monkeypatch.setattr(Path, "open", make_file)
    (tmp_path / "net.pruned.onnx").write_text("old")
    (tmp_path / "plan.json").write_text("old plan")
    result = run("prune", model_path, *PRUNE, "--plan", "plan.json", "--force")
    fails(result, 1, ("plan.json", "net.pruned.onnx")[fails_at - 1], "cannot be written", "No space left on device")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx", "net.pruned.onnx", "plan.json"]
    assert (tmp_path / "net.pruned.onnx").read_text() == "old"
    assert (tmp_path / "plan.json").read_text() == "old plan"


# Plans

PLANS = {
    "missing": (None, "cannot be read"),
    "not JSON": ("{", "is not JSON"),
    "binary": ("\udcff", "is not JSON"),
    "another schema": ('{"schema": "srr-onnx/plan/2"}', "srr-onnx/plan/2"),
    "a list": ("[]", "not a plan file"),
    "incomplete": ('{"schema": "srr-onnx/plan/1", "model": {}}', "incomplete"),
}


@pytest.mark.parametrize("kind", PLANS)
def test_plans_that_are_none(run, model_path, tmp_path, kind):
    text, reason = PLANS[kind]
    if text is not None:
        (tmp_path / "plan.json").write_bytes(text.encode(errors="surrogateescape"))
    fails(run("apply", model_path, "--plan", "plan.json"), 1, reason)
    assert not (tmp_path / "net.pruned.onnx").exists()


@pytest.mark.parametrize("value", [None, 3, "x", [1], {"a": []}])
@pytest.mark.parametrize(
    "key",
    ["criterion", "budget", "cost", "groups", "values", "frozen", "proof", "srr_onnx", "model", "uncounted", "inlined"],
)
def test_a_plan_with_a_value_of_another_kind(run, model_path, tmp_path, key, value):
    assert run("prune", model_path, *PRUNE, "--plan", "plan.json").exit_code == 0
    plan = json.loads((tmp_path / "plan.json").read_text())
    is_same_kind = type(plan[key]) is type(value)
    (tmp_path / "plan.json").write_text(json.dumps({**plan, key: value}))
    result = run("apply", model_path, "--plan", "plan.json", "-o", "again.onnx")
    assert "internal error" not in result.stderr
    if not is_same_kind:
        fails(result, 1, "the plan is incomplete or damaged", repr(key))


@pytest.mark.parametrize("key", ["cap_used", "max_group_ratio"])
def test_a_plan_whose_budget_holds_no_numbers(run, model_path, tmp_path, key):
    assert run("prune", model_path, *PRUNE, "--plan", "plan.json").exit_code == 0
    plan = json.loads((tmp_path / "plan.json").read_text())
    plan["budget"][key] = "much"
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    fails(run("apply", model_path, "--plan", "plan.json", "-o", "again.onnx"), 1, f"'budget.{key}' has to be a number")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("limits", [1, 2]),
        ("limits", [{"kind": "flops"}, {"kind": "size"}]),
        ("limits", [{"kind": "flops", "amount": "much", "reached": 0.4}] * 2),
        ("limits", [{"kind": "flops", "amount": 0, "reached": 0.4}] * 2),
        ("alignment", {"steps": {}, "source": "auto"}),
        ("alignment", {"steps": {"dense": 8}}),
    ],
)
def test_a_plan_whose_budget_tells_nothing(run, model_path, tmp_path, key, value):
    assert run("prune", model_path, *PRUNE, "--plan", "plan.json").exit_code == 0
    plan = json.loads((tmp_path / "plan.json").read_text())
    plan["budget"][key] = value
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    fails(run("apply", model_path, "--plan", "plan.json", "-o", "again.onnx"), 1, f"'budget.{key}' has to be ")


def test_a_plan_of_another_network(run, model_path, tmp_path):
    assert run("prune", model_path, *PRUNE, "--plan", "plan.json").exit_code == 0
    g = Graph()
    g.output(g.conv(g.conv(g.input("image", (1, 3, 4, 4)), 16, name="first"), 4, name="other"))
    onnx.save(g.model(), tmp_path / "other.onnx")
    fails(run("apply", "other.onnx", "--plan", "plan.json", "--force"), 1, "does not fit", "'first.bias'")
    fails(run("apply", "other.onnx"), 2, "--plan")


def test_a_demo_leaves_foreign_files_alone(run, tmp_path):
    (tmp_path / "plan.json").write_text("mine")
    fails(run("demo"), 1, "plan.json", "--out")
    assert (tmp_path / "plan.json").read_text() == "mine"
    (tmp_path / "file").write_text("")
    fails(run("demo", "--out", "file/inner"), 1, "file/inner")
