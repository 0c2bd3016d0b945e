"""Saving: the old file or the new one, never a torn one; and a file that is read back is the same model."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import Graph, feeds_for, run_ort
from onnx import TensorProto, helper, numpy_helper

from srr_onnx.errors import OutputError
from srr_onnx.graph import save
from srr_onnx.graph.load import load_model
from srr_onnx.graph.model import Model
from srr_onnx.graph.save import save_model, write_atomically


def a_graph() -> Graph:
    g = Graph(13)
    g.output(g.conv(g("Relu", g.conv(g.input("x", (1, 3, 8, 8)), 32, 3)), 2))
    return g


def a_model() -> Model:
    return load_model(a_graph().model())


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_round_trip(tmp_path: Path) -> None:
    path = save_model(a_model(), tmp_path / "out.onnx")
    assert path == tmp_path / "out.onnx"
    want = a_graph().model().SerializeToString(deterministic=True)
    assert onnx.load(str(path)).SerializeToString(deterministic=True) == want
    assert leftovers(tmp_path) == []


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = save_model(a_model(), tmp_path / "a.onnx"), save_model(a_model(), tmp_path / "b.onnx")
    assert first.read_bytes() == second.read_bytes()
    assert load_model(first).sha256 == load_model(second).sha256


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    path.write_bytes(b"precious")
    with pytest.raises(OutputError, match="--force"):
        save_model(a_model(), path)
    assert path.read_bytes() == b"precious"
    save_model(a_model(), path, force=True)
    assert load_model(path).outputs == a_model().outputs


def test_a_folder_cannot_be_written_over(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="directory"):
        save_model(a_model(), tmp_path, force=True)
    with pytest.raises(OutputError, match="does not exist"):
        save_model(a_model(), tmp_path / "missing" / "out.onnx")


def test_a_link_stays_and_the_file_that_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    real, link = tmp_path / "deep" / "real.onnx", tmp_path / "link.onnx"
    real.write_bytes(b"old")
    link.symlink_to(tmp_path / "second.onnx")
    (tmp_path / "second.onnx").symlink_to(Path("deep") / "real.onnx")
    with pytest.raises(OutputError, match="--force"):
        save_model(a_model(), link)
    assert real.read_bytes() == b"old"
    assert save_model(a_model(), link, force=True) == link
    assert link.is_symlink()
    assert not real.is_symlink()
    assert load_model(real).outputs == a_model().outputs
    assert leftovers(tmp_path) == leftovers(tmp_path / "deep") == []


def test_a_link_to_nothing_makes_the_file_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "link.onnx").symlink_to(tmp_path / "new.onnx")
    save_model(a_model(), tmp_path / "link.onnx")
    assert (tmp_path / "link.onnx").is_symlink()
    assert load_model(tmp_path / "new.onnx").outputs == a_model().outputs


@pytest.mark.parametrize("kind", ["pipe", "loop", "folder", "missing folder"])
def test_a_link_to_what_is_no_file_is_refused(kind: str, tmp_path: Path) -> None:
    link, goal = tmp_path / "link.onnx", tmp_path / "goal"
    if kind == "pipe":
        os.mkfifo(goal)
    elif kind == "loop":
        goal.symlink_to(link)
    elif kind == "folder":
        goal.mkdir()
    else:
        goal = goal / "out.onnx"
    link.symlink_to(goal)
    with pytest.raises(OutputError, match=r"regular file|directory|does not exist"):
        save_model(a_model(), link, force=True)
    assert link.is_symlink()
    assert leftovers(tmp_path) == []


def test_data_of_a_large_model_lie_beside_the_file_that_a_link_leads_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(save, "_PROTOBUF_LIMIT", 0)
    (tmp_path / "deep").mkdir()
    (tmp_path / "link.onnx").symlink_to(tmp_path / "deep" / "real.onnx")
    save_model(a_model(), tmp_path / "link.onnx")
    assert (tmp_path / "deep" / "real.onnx.data").is_file()
    assert load_model(tmp_path / "link.onnx").outputs == a_model().outputs


def test_a_folder_that_is_not_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(save.os, "access", lambda path, mode: False)
    with pytest.raises(OutputError, match="not writable"):
        save_model(a_model(), tmp_path / "out.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["replace", "chmod"])
def test_a_failing_write_leaves_the_old_file(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.onnx"
    path.write_bytes(b"precious")

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(save.os, step, fail)
    with pytest.raises(OutputError, match="No space left"):
        save_model(a_model(), path, force=True)
    assert path.read_bytes() == b"precious"
    assert leftovers(tmp_path) == []


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    path.write_bytes(b"precious")
    with pytest.raises(KeyboardInterrupt), write_atomically(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"precious"
    assert leftovers(tmp_path) == []


def test_rights_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    mask = os.umask(0o027)
    try:
        save_model(a_model(), path)
        assert path.stat().st_mode & 0o777 == 0o640
        path.chmod(0o604)
        save_model(a_model(), path, force=True)
        assert path.stat().st_mode & 0o777 == 0o604
    finally:
        os.umask(mask)


def test_more_than_a_protobuf_holds_goes_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    g = a_graph()
    g.output(g("Mul", g.outputs.pop(), g.constant(np.float32(3), name="factor")))
    proto = g.model()
    want = run_ort(proto, feeds_for(proto))
    monkeypatch.setattr(save, "_PROTOBUF_LIMIT", 1000)
    path = save_model(load_model(proto), tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx.data").is_file()
    assert path.stat().st_size < 2000
    again = load_model(path)
    assert again.detached
    for init in proto.graph.initializer:
        assert np.array_equal(again.constants[init.name], numpy_helper.to_array(init))
    onnx.checker.check_model(str(path), full_check=True)
    got = run_ort(onnx.load(str(path)), feeds_for(proto))
    assert all(np.array_equal(got[name], want[name]) for name in want)


@pytest.mark.parametrize("is_first", [True, False])
def test_data_beside_the_file_of_another_model_stay(
    is_first: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Model and data are two files, which no system replaces at once: the old data stay, whatever happens."""
    monkeypatch.setattr(save, "_PROTOBUF_LIMIT", 1000)
    path = tmp_path / "out.onnx"
    if is_first:  # a file of somebody else
        (tmp_path / "out.onnx.data").write_bytes(b"precious")
    else:
        save_model(load_model(a_graph().model()), path)
    old = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    replace = os.replace

    def fail(source: str, target: Path) -> None:
        if Path(target) == path:
            raise OSError(28, "No space left on device")
        replace(source, target)

    proto = a_graph().model()
    proto.graph.initializer[0].raw_data = b"\1" * len(proto.graph.initializer[0].raw_data)
    with monkeypatch.context() as patch:
        patch.setattr(save.os, "replace", fail)
        with pytest.raises(OutputError, match="No space left"):
            save_model(load_model(proto), path, force=True)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == old
    again = load_model(save_model(load_model(proto), path, force=True))
    assert np.array_equal(
        again.constants[proto.graph.initializer[0].name], numpy_helper.to_array(proto.graph.initializer[0])
    )
    old.pop("out.onnx", None)
    assert all((tmp_path / name).read_bytes() == content for name, content in old.items())


@pytest.mark.parametrize("is_beside", [False, True])
@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE, TensorProto.INT8])
def test_payloads_of_every_element_type(
    kind: int, is_beside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_beside:
        monkeypatch.setattr(save, "_PROTOBUF_LIMIT", 0)
    proto = a_graph().model()
    values = [float(value) for value in range(-50, 50)] * 8
    proto.graph.initializer.append(helper.make_tensor("extra", kind, [2, 400], values))
    path = save_model(load_model(proto), tmp_path / "out.onnx")
    again = next(init for init in onnx.load(str(path)).graph.initializer if init.name == "extra")
    assert again.data_type == kind
    assert numpy_helper.to_array(again).astype(np.float64).reshape(-1).tolist() == values


def test_values_in_typed_fields_are_kept(tmp_path: Path) -> None:
    proto = a_graph().model()
    tensor = proto.graph.initializer.add(name="typed", data_type=TensorProto.FLOAT, dims=[3])
    tensor.float_data.extend([1.0, 2.0, 3.0])
    path = save_model(load_model(proto), tmp_path / "out.onnx")
    again = load_model(path)
    assert again.constants["typed"].tolist() == [1.0, 2.0, 3.0]
