"""An entry of the metadata is set; every other byte stays."""

from __future__ import annotations

import os

import onnx
import pytest
from builders import Graph
from onnx import helper

from srr_onnx.errors import ModelError, OutputError
from srr_onnx.graph.metadata import store_metadata


def write_model(path, metadata):
    g = Graph()
    g.output(g("MatMul", g.input("x", (1, 40)), g.weight(40, 50)))
    proto = g.model()
    helper.set_model_props(proto, metadata)
    onnx.save(proto, path)
    return path


def read_metadata(path):
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def test_an_entry_is_added_and_the_rest_is_the_same(tmp_path):
    path = write_model(tmp_path / "m.onnx", {"classes": '["a"]'})
    before = path.read_bytes()
    store_metadata(path, "key", "täxt")
    assert path.read_bytes().startswith(before)
    assert read_metadata(path) == {"classes": '["a"]', "key": "täxt"}


def test_entries_of_that_name_are_replaced(tmp_path):
    path = write_model(tmp_path / "m.onnx", {"key": "old", "other": "1"})
    expected = onnx.load(path)
    store_metadata(path, "key", "new")
    store_metadata(path, "key", "newer")
    assert read_metadata(path) == {"other": "1", "key": "newer"}
    found = onnx.load(path)
    for proto in (found, expected):
        del proto.metadata_props[:]
    assert found.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)
    assert os.listdir(tmp_path) == ["m.onnx"]


def test_unknown_fields_survive(tmp_path):
    path = write_model(tmp_path / "m.onnx", {})
    unknown = helper.make_node("X", [], []).SerializeToString()
    record = bytes([0xFA, 0x3F, len(unknown)]) + unknown  # field 1023, length-delimited
    path.write_bytes(path.read_bytes() + record)
    store_metadata(path, "key", "value")
    assert record in path.read_bytes()


def test_what_is_no_model_stays_as_it_is(tmp_path):
    path = write_model(tmp_path / "m.onnx", {})
    path.write_bytes(path.read_bytes()[:-100])
    before = path.read_bytes()
    with pytest.raises(ModelError, match="truncated"):
        store_metadata(path, "key", "value")
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.onnx"]


def test_a_disk_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = write_model(tmp_path / "m.onnx", {})
    before = path.read_bytes()

    def fail(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OutputError, match="No space left"):
        store_metadata(path, "key", "value")
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.onnx"]
