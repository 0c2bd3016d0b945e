"""What changes no output in exact arithmetic only comes back, and the rest goes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from builders import Graph, feeds_for, run_ort
from click.testing import CliRunner

from srr_onnx.analysis.find import find_groups
from srr_onnx.cli.main import program
from srr_onnx.errors import ProofError
from srr_onnx.graph.load import load_model
from srr_onnx.rewriting import taking_back
from srr_onnx.rewriting.exact.gains import Reason
from srr_onnx.rewriting.lossless import remove_exact, verify_lossless
from srr_onnx.rewriting.taking_back import remove_proven


def make() -> onnx.ModelProto:
    """A first group with a constant that a bias all but cancels; a second with a dead filter and a duplicate."""
    g = Graph(17)
    y = g("Relu", g.conv(g.input("x", (1, 3, 6, 6)), 8, 3, name="first"))
    y = g("Relu", g.conv(y, 6, name="second"))
    g.output(g.conv(y, 2, name="last"))
    g.initializers["first.weight"][3] = 0
    g.initializers["first.bias"][3] = 3e7
    weight, bias = g.initializers["second.weight"], g.initializers["second.bias"]
    weight[:, 3] = 0.1
    bias[:] = -np.float32(3e6)
    weight[4] = weight[2]
    weight[1], bias[1] = 0, 0
    return g.model()


def test_a_rounding_that_is_magnified_takes_its_constant_back_and_no_more() -> None:
    model = load_model(make())
    groups = find_groups(model)
    with pytest.raises(ProofError):
        verify_lossless(model, remove_exact(model, groups)[0])
    found = remove_proven(model, groups)
    assert {entry.unit: entry.reason for entry in found.gains.units} == {9: Reason.DEAD, 12: Reason.DUPLICATE}
    assert found.taken_back == {groups[0].id: 1}
    assert np.flatnonzero(~found.is_kept).tolist() == [9, 12]
    assert found.proof.relative_error <= found.proof.tolerance == 1e-5


def test_the_command_says_what_stays(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    proto = make()
    onnx.save(proto, "net.onnx")
    result = CliRunner().invoke(program, ["prune", "net.onnx", "--lossless", "-o", "small.onnx"])
    assert result.exit_code == 0, result.stderr
    assert "note: 1 unit kept that could go in exact arithmetic (1 of g0)" in result.stderr
    small = onnx.load("small.onnx")
    assert {init.name: init.dims[0] for init in small.graph.initializer}["second.weight"] == 4
    feeds = feeds_for(proto)
    (want,), (got,) = (run_ort(which, feeds).values() for which in (proto, small))
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


def test_a_proof_that_nothing_passes_is_an_error(monkeypatch) -> None:
    def refuse(*arguments):
        raise ProofError("no")

    monkeypatch.setattr(taking_back, "verify_lossless", refuse)
    model = load_model(make())
    with pytest.raises(ProofError):
        remove_proven(model, find_groups(model))
