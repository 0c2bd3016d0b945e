"""Budgets and widths on the command line, and what is said of milliseconds."""

from __future__ import annotations

import json

import pytest

from srr_onnx.cli.pace import describe_limits, warn_of_pace, warn_of_widths
from srr_onnx.graph.load import load_model
from srr_onnx.validation import pace


def fails(result, code, part):
    assert result.exit_code == code
    assert part in result.stderr
    assert not result.stdout


def make_latency(**changes):
    rounds = [{"predicted_ms": 6.1, "measured_ms": 6.0}]
    target = {"provider": "cpu", "threads": 2, "batch": None, "options": {}}
    return {
        "target": target,
        "before_ms": 10.0,
        "after_ms": 6.0,
        "is_faster": True,
        "slower": [],
        "goal_share": 0.4,
        "goal_ms": 6.0,
        "table_error": 0.02,
        "rounds": rounds,
        **changes,
    }


def make_facts(latency, **budget):
    cost = {"before": {"macs": 200}, "after": {"macs": 100}}
    return {"latency": latency, "cost": cost, "budget": {"kind": "latency", "limits": [], "alignment": None, **budget}}


def test_milliseconds_stand_beside_macs():
    ((label, text),) = describe_limits(make_facts(make_latency()))
    assert label == "latency"
    assert text.startswith("10 ms -> 6 ms, 1.67 times as fast for 2.00 times fewer MACs (cpu, 2 threads)")
    assert "goal 6.00 ms, 1 plan measured; the table said 6.1 ms, the run 6 ms" in text
    ((_, text),) = describe_limits(make_facts(make_latency(goal_ms=90.0, table_error=None, rounds=[])))
    assert text.endswith("; its goal was met already")


def test_nothing_is_said_where_nothing_was_asked():
    assert describe_limits(make_facts(None)) == []
    assert list(warn_of_pace(make_facts(None))) == []
    assert list(warn_of_pace(make_facts(make_latency()))) == []


def test_what_is_not_faster_is_called_so_with_its_layers():
    slower = [{"node": f"conv{n}", "before_ms": 1.0, "after_ms": 2.0} for n in range(7)]
    found = make_latency(after_ms=11.0, is_faster=False, slower=slower)
    (text,) = warn_of_pace(make_facts(found))
    assert "not faster: 10 ms before, 11 ms after" in text
    assert "conv0 (1 -> 2 ms)" in text
    assert "and 2 more" in text
    assert "--align auto" in text
    (aligned,) = warn_of_pace(make_facts(found, alignment={"steps": {"dense": 8}, "source": "given"}))
    assert "--align auto" not in aligned


@pytest.mark.parametrize(
    ("steps", "text"),
    [({"dense": 8, "spatial": 8}, "multiples of 8 channels"), ({"dense": 4, "spatial": 8}, "4 (dense), 8 (spatial)")],
)
def test_widths_are_told(steps, text):
    ((label, told),) = describe_limits(make_facts(None, alignment={"steps": steps, "source": "auto"}))
    assert label == "widths"
    assert text in told
    assert "as measured on this machine; finer ones in groups narrower" in told


def test_a_ratio_that_the_widths_change_is_told():
    groups = {"narrowest": {"id": "g0", "units": 16, "kept": 8}}
    budget = {"kind": "ratio", "amount": 0.3, "alignment": {"steps": {"dense": 8}, "source": "given"}}
    (text,) = warn_of_widths({"budget": budget, "groups": groups})
    assert "g0 lost 50.0 % of its units instead of 30.0 %" in text
    assert not list(warn_of_widths({"budget": {**budget, "amount": 0.5}, "groups": groups}))
    assert not list(warn_of_widths({"budget": {**budget, "alignment": None}, "groups": groups}))


def test_several_budgets_are_met_by_one_command(run, model_path):
    result = run(
        "prune", model_path, "--flops", "30%", "--size", "20%", "--align", "4", "--format", "json", "--no-verify"
    )
    facts = json.loads(result.stdout)
    assert [limit["kind"] for limit in facts["budget"]["limits"]] == ["flops", "size"]
    assert all(limit["reached"] >= limit["amount"] for limit in facts["budget"]["limits"])
    assert facts["budget"]["alignment"]["steps"]["spatial"] == 4
    assert facts["file_bytes"]["after"] < 0.83 * facts["file_bytes"]["before"]
    assert facts["latency"] is None
    table = run("prune", model_path, "--flops", "30%", "--size", "20%", "--force").stdout
    assert "is the one that binds" in table
    words = ("--flops", "30%", "--size", "5MB", "--force")
    assert "removed: FLOPs 3" in (table := run("prune", model_path, *words).stdout)
    assert "at least 30.0 %; the file size was within 5.00 MB already" in table


def test_a_budget_that_is_met_needs_no_pruning(run, model_path, tmp_path):
    output = tmp_path / "small.onnx"
    fails(run("prune", model_path, "--size", "5MB", "-o", output), 1, "meets --size 5.00 MB (the file size is ")
    assert not output.exists()


def test_a_target_asks_for_milliseconds(run, model_path, monkeypatch):
    seen = []

    def probe(target):
        seen.append(target.threads)
        return {"spatial": 2}

    monkeypatch.setattr(pace, "probe_steps", probe)
    result = run("prune", model_path, "--flops", "30%", "--threads", "2", "--format", "json")
    facts = json.loads(result.stdout)
    assert seen == [2]
    assert facts["latency"]["target"]["threads"] == 2
    assert facts["latency"]["before_ms"] > 0
    assert facts["budget"]["alignment"] == {"source": "auto", "steps": {"spatial": 2}}


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--latency", "0"), "between 0 and 1"),
        (("--latency", "100%"), "between 0 and 1"),
        (("--latency", "8 apples"), "is no latency"),
        (("--memory", "20"), "20MB"),
        (("--latency", "0.4%"), "did you mean 0.4?"),
        (("--flops", "0.3", "--align", "0"), "no alignment"),
        (("--flops", "0.3", "--ratio", "0.3"), "no other budget"),
        (("--lossless", "--latency", "0.3"), "--latency does not go with it"),
    ],
)
def test_wrong_budgets_are_wrong_usage(run, model_path, words, part):
    fails(run("prune", model_path, *words), 2, part)


def test_faster_than_possible_is_an_error(run, model_path, tmp_path):
    output = tmp_path / "small.onnx"
    fails(run("prune", model_path, "--latency", "0.1ns", "--align", "off", "-o", output), 1, "cannot be removed")
    assert not output.exists()
    assert load_model(model_path).nodes
