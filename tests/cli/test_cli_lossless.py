"""`prune --lossless` from a file to a file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import Graph, feeds_for, run_ort
from click.testing import CliRunner, Result
from documented import documented_shape, mismatches

import srr_onnx
from srr_onnx.cli.main import program
from srr_onnx.errors import PlanError


def write(name: str, is_planted: bool = True) -> onnx.ModelProto:
    """Six filters: one dead, one constant, one a double of another."""
    g = Graph(17)
    y = g("Relu", g.conv(g.input("x", (1, 3, 6, 6), dynamic={0: "batch"}), 6, 3, name="first"))
    g.output(g.conv(y, 2, name="last"))
    if is_planted:
        weight, bias = (g.initializers[f"first.{part}"] for part in ("weight", "bias"))
        weight[[1, 2]], bias[1], bias[2] = 0, -1, 1
        weight[5], bias[5] = 2 * weight[0], 2 * bias[0]
    proto = g.model()
    onnx.save(proto, name)
    return proto


def run(*words: str) -> Result:
    return CliRunner().invoke(program, ["prune", "net.onnx", "--lossless", *words])


def test_the_command_writes_a_model_that_computes_the_same() -> None:
    proto = write("net.onnx")
    result = run("--plan", "plan.json")
    assert result.exit_code == 0, result.stderr
    assert ["g0", "6", "1", "1", "1", "3"] in [line.split() for line in result.stdout.splitlines()]
    assert "lossless: same outputs as the original" in result.stdout
    small, feeds = onnx.load("net.pruned.onnx"), feeds_for(proto, batch=2)
    for name, value in run_ort(proto, feeds).items():
        np.testing.assert_allclose(run_ort(small, feeds)[name], value, rtol=1e-4, atol=1e-5)
    plan = json.loads(Path("plan.json").read_text())
    assert plan["criterion"] == {"name": "lossless"}
    assert [group["keep"] for group in plan["groups"]] == [[0, 3, 4]]
    assert plan["proof"]["kind"] == "lossless"
    assert plan["proof"]["relative_error"] <= plan["proof"]["tolerance"] == 1e-5
    shape = documented_shape("plan-file.md", "srr-onnx/plan/1")
    shape["proof"]["kind"] = "string"
    assert mismatches(shape, plan) == []


def test_json_is_as_documented() -> None:
    write("net.onnx")
    found = json.loads(run("--format", "json").stdout)
    shape = documented_shape("commands.md", "srr-onnx/prune/1")
    shape["proof"]["kind"] = "string"
    assert mismatches(shape, found) == []
    assert found["lossless"] == [{"id": "g0", "units": 6, "kept": 3, "dead": 1, "constant": 1, "duplicate": 1}]


def test_nothing_to_remove_is_no_error() -> None:
    proto = write("net.onnx", is_planted=False)
    result = run()
    assert result.exit_code == 0
    assert "nothing to remove" in result.stdout
    assert onnx.load("net.pruned.onnx") == proto


def test_a_dry_run_writes_nothing() -> None:
    write("net.onnx")
    result = run("--dry-run", "--plan", "plan.json")
    assert result.exit_code == 0
    assert [path.name for path in Path().iterdir()] == ["net.onnx"]


@pytest.mark.parametrize(
    "words",
    [
        ["--flops", "44%"],
        ["--params", "1%"],
        ["--ratio", "0.5"],
        ["--criterion", "l1"],
        ["--freeze", "last"],
        ["--no-verify"],
        ["--allow-inexact"],
        ["--seed", "1"],
        ["--allocation", "global"],
    ],
    ids=lambda words: words[0],
)
def test_options_that_decide_what_goes_are_wrong_usage(words: list[str]) -> None:
    write("net.onnx")
    result = run(*words)
    assert result.exit_code == 2
    assert f"so {words[0]} does not go with it" in result.stderr
    assert not Path("net.pruned.onnx").exists()


def test_existing_files_are_replaced_on_request_only() -> None:
    write("net.onnx")
    Path("net.pruned.onnx").write_text("mine")
    assert run().exit_code == 1
    assert Path("net.pruned.onnx").read_text() == "mine"
    assert run("--force").exit_code == 0
    assert len(onnx.load("net.pruned.onnx").graph.node) == 3


def test_its_plan_cannot_be_replayed() -> None:
    write("net.onnx")
    pruned = srr_onnx.prune_lossless("net.onnx")
    assert pruned.path is None
    assert pruned.gains is not None
    assert len(pruned.gains.units) == 3
    with pytest.raises(PlanError, match="run `srr-onnx prune --lossless`"):
        srr_onnx.apply_plan(pruned.original, pruned.plan)
