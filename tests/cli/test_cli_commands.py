"""What every command prints and writes."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from builders import Graph, run_ort
from cli_models import small_graph
from documented import documented_shape, mismatches
from onnx import helper, numpy_helper

from srr_onnx.graph.cost import count_cost, count_layers
from srr_onnx.graph.load import load_model

# No note on whether compensation helps a net of random weights.
UNTOUCHED = ("--compensate", "none")


def lines(text):
    return text.strip().splitlines()


def facts(result):
    assert result.exit_code == 0
    assert result.stderr == "" or "do so in large steps" in result.stderr  # the test's model is small
    return json.loads(result.stdout)


def test_prune_writes_beside_the_model_and_prints_what_it_did(run, model_path):
    result = run("prune", model_path, "--flops", "44%", *UNTOUCHED)
    assert (result.exit_code, result.stderr) == (0, "")
    printed = lines(result.stdout)
    assert printed[0].split() == ["before", "after", "change"]
    assert [line.split()[0] for line in printed[1:4]] == ["MACs", "parameters", "file"]
    labels = [line.split()[0] for line in printed[5:]]
    assert labels == ["inputs", "groups", "proof", "written", "counted"]
    assert "pruned = masked original in onnxruntime: relative error" in result.stdout
    written = load_model(model_path.with_name("net.pruned.onnx"))
    before = load_model(model_path)
    assert 0.44 <= 1 - count_cost(written).macs / count_cost(before).macs <= 0.60


def test_the_written_file_equals_the_masked_original(run, model_path, tmp_path):
    assert run("prune", model_path, "--ratio", "50%", "--plan", "plan.json", "--compensate", "none").exit_code == 0
    plan = json.loads((tmp_path / "plan.json").read_text())
    masked = onnx.load(model_path)
    for entry in masked.graph.initializer:
        for group in plan["groups"]:
            for member in group["members"]:
                if member["initializer"] == entry.name and member["role"] == "input":
                    array = numpy_helper.to_array(entry).copy()
                    gone = sorted(set(range(array.shape[member["axis"]])) - set(group["keep"]))
                    np.moveaxis(array, member["axis"], 0)[gone] = 0
                    entry.CopyFrom(numpy_helper.from_array(array, entry.name))
    image = {"image": np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)}
    want = next(iter(run_ort(masked, image).values()))
    got = next(iter(run_ort(onnx.load(tmp_path / "net.pruned.onnx"), image).values()))
    assert want.shape == (2, 4)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("budget", [("--flops", "0.3"), ("--params", "30%"), ("--ratio", ".25")])
@pytest.mark.parametrize("criterion", ["srr", "l1", "l2", "fpgm", "random"])
def test_prune_json_is_as_documented(run, model_path, budget, criterion):
    found = facts(run("prune", model_path, *budget, "--criterion", criterion, *UNTOUCHED, "--format", "json"))
    shape = documented_shape("commands.md", "srr-onnx/prune/1")
    assert mismatches(shape, found) == []
    assert found["criterion"]["name"] == criterion
    assert found["budget"]["kind"] == budget[0].strip("-")
    assert found["proof"]["is_exact"] and found["proof"]["relative_error"] < 1e-4
    assert found["file_bytes"]["after"] == model_path.with_name("net.pruned.onnx").stat().st_size


def test_a_percentage_and_a_share_mean_the_same(run, model_path):
    found = [
        facts(run("prune", model_path, "--flops", share, *UNTOUCHED, "--force", "--format", "json"))
        for share in ("44%", "0.44")
    ]
    assert found[0] == found[1]


def test_dry_run_counts_and_writes_nothing(run, model_path, tmp_path):
    words = ("prune", model_path, "--flops", "44%", "--plan", "plan.json", "--dry-run", *UNTOUCHED)
    found = facts(run(*words, "--format", "json"))
    assert found["output"] is found["plan"] is found["proof"] is found["file_bytes"]["after"] is None
    assert found["removed"]["macs"] >= 0.44
    assert "NONE: dry run" in run(*words).stdout
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


def test_no_verify_is_loud(run, model_path):
    result = run("prune", model_path, "--flops", "44%", "--no-verify", *UNTOUCHED)
    assert result.exit_code == 0
    assert "NONE: --no-verify" in result.stdout
    assert result.stderr == "warning: not proven, as asked by --no-verify\n"
    assert model_path.with_name("net.pruned.onnx").exists()


def test_a_relaxed_cap_is_told(run, model_path):
    result = run("prune", model_path, "--flops", "90%", "--format", "json")
    found = facts(result)
    assert found["budget"]["cap_used"] > found["budget"]["max_group_ratio"] == 0.6
    text = run("prune", model_path, "--flops", "90%", "--force").stdout
    assert "more than the 60.0 % allowed at first" in text


def test_inexact_groups_are_named_and_not_called_proven(run, tmp_path):
    g = Graph()
    x = g.conv(g.input("x", (1, 3, 4, 4)), 16, 3)
    x = g("Softmax", x, axis=1)
    g.output(g.conv(x, 4))
    onnx.save(g.model(), tmp_path / "soft.onnx")
    refused = run("prune", "soft.onnx", "--flops", "44%")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "--allow-inexact" in refused.stderr
    result = run("prune", "soft.onnx", "--flops", "44%", "--allow-inexact")
    assert result.exit_code == 0
    assert "SHAPES ONLY: 1 inexact group pruned" in result.stdout
    assert "pruned = masked" not in result.stdout
    reachable = facts(run("inspect", "soft.onnx", "--format", "json"))["reachable"]
    assert [entry["allow_inexact"] for entry in reachable] == [False, False, True, True]
    assert reachable[0]["macs"] == 0 < reachable[2]["macs"]


@pytest.mark.parametrize(
    ("words", "pruned_groups"),
    [
        ((), {"g0", "g1"}),
        (("--freeze", "first"), {"g1"}),
        (("--freeze", "sec*"), set()),  # it reads the first's filters too
        (("--only", "first"), {"g0"}),
        (("--only", "f?rst", "--only", "second"), {"g0", "g1"}),
        (("--only", "g1"), {"g1"}),
    ],
)
def test_freeze_and_only(run, model_path, tmp_path, words, pruned_groups):
    result = run("prune", model_path, "--ratio", "50%", "--plan", "plan.json", *words)
    if not pruned_groups:
        assert result.exit_code == 1
        assert "--freeze and --only leave nothing to prune" in result.stderr
        return
    assert result.exit_code == 0, result.stderr
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert {group["id"] for group in plan["groups"]} == pruned_groups


def test_gamma_paper_is_the_paper_in_all_that_is_not_said_otherwise(run, model_path):
    words = ("prune", model_path, "--flops", "44%", "--force", *UNTOUCHED, "--format", "json", "--gamma")
    paper = facts(run(*words, "paper"))["criterion"]
    assert (paper["gamma"], paper["normalize"]) == ("paper", False)
    assert (paper["node_removal"], paper["filter_choice"]) == ("smallest_l1", "l1")
    mixed = facts(run(*words, "paper", "--node-removal", "random", "--filter-choice", "closest_pair"))["criterion"]
    assert (mixed["node_removal"], mixed["filter_choice"]) == ("random", "closest_pair")
    fixed = facts(run(*words, "0.2", "--seed", "7"))["criterion"]
    assert (fixed["gamma"], fixed["normalize"], fixed["seed"]) == (0.2, True, 7)


def test_apply_repeats_prune_exactly(run, model_path, tmp_path):
    assert run("prune", model_path, "--flops", "44%", "--plan", "plan.json", "--compensate", "none").exit_code == 0
    found = facts(run("apply", model_path, "--plan", "plan.json", "-o", "again.onnx", "--format", "json"))
    shape = documented_shape("commands.md", "srr-onnx/prune/1") | {"schema": "srr-onnx/apply/1"}
    assert mismatches(shape, found) == []
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "net.pruned.onnx").read_bytes()


def test_apply_takes_a_retrained_file_only_with_force(run, model_path, tmp_path):
    assert run("prune", model_path, "--flops", "44%", "--plan", "plan.json", "--compensate", "none").exit_code == 0
    onnx.save(small_graph(seed=5).model(), "retrained.onnx")
    refused = run("apply", "retrained.onnx", "--plan", "plan.json")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "made for another file" in refused.stderr and "--force" in refused.stderr
    assert not (tmp_path / "retrained.pruned.onnx").exists()
    result = run("apply", "retrained.onnx", "--plan", "plan.json", "--force")
    assert result.exit_code == 0, result.stderr
    assert "pruned = masked" in result.stdout
    pruned = count_cost(load_model(tmp_path / "retrained.pruned.onnx"))
    assert pruned == count_cost(load_model(tmp_path / "net.pruned.onnx"))


def test_the_plan_is_as_documented(run, model_path, tmp_path):
    assert run("prune", model_path, "--flops", "44%", "--plan", "plan.json").exit_code == 0
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert mismatches(documented_shape("plan-file.md", "srr-onnx/plan/1"), plan) == []
    # What the contract names, whatever the page says.
    assert {"schema", "srr_onnx", "model", "criterion", "budget", "cost", "groups", "values", "frozen"} <= plan.keys()
    assert plan["model"]["inputs"] == {"image": [1, 3, 4, 4]}
    assert plan["frozen"][0]["reason"] == "graph_output"
    assert (plan["frozen"][0]["filters"], plan["frozen"][0]["units"]) == ("head", 4)
    kept = {group["id"]: group["keep"] for group in plan["groups"]}
    assert plan["values"]["first"] == [{"axis": 1, "rank": 4, "size": 16, "keep": kept["g0"]}]
    (member,) = (m for m in plan["groups"][0]["members"] if m["initializer"] == "first.weight")
    assert member == {"initializer": "first.weight", "axis": 0, "role": "filter"}


def test_inspect_json_is_as_documented(run, model_path):
    found = facts(run("inspect", model_path, "--format", "json"))
    assert mismatches(documented_shape("commands.md", "srr-onnx/inspect/1"), found) == []
    assert found["cost"]["macs"] == 16 * 16 * 3 * 9 + 16 * 16 * 16 * 9 + 64
    assert [layer["node"] for layer in found["layers"]] == ["first", "second", "head"]
    assert sum(layer["params"] for layer in found["layers"]) == found["cost"]["params"]
    assert [(group["id"], group["units"], group["exact"]) for group in found["groups"]] == [
        ("g0", 16, True),
        ("g1", 16, True),
    ]
    assert found["model"]["is_dynamic"] is True
    most = {entry["max_group_ratio"]: entry["macs"] for entry in found["reachable"]}
    assert 0.6 < most[0.6] < most[1.0] < 1


def test_what_inspect_calls_reachable_can_be_pruned_and_no_more(run, model_path):
    found = facts(run("inspect", model_path, "--format", "json"))
    most = found["reachable"][-1]["macs"]
    assert run("prune", model_path, "--flops", f"{most - 1e-6:.9f}", "--dry-run").exit_code == 0
    assert run("prune", model_path, "--flops", f"{most + 1e-6:.9f}", "--dry-run").exit_code == 1


def test_inspect_shows_groups_what_is_frozen_and_why(run, model_path):
    result = run("inspect", model_path)
    assert (result.exit_code, result.stderr) == (0, "")
    printed = lines(result.stdout)
    assert "inputs: image 1x3x4x4 (dynamic in the file)" in printed
    assert next(line.split()[:6] for line in printed if line.startswith("head ") and "graph output" in line) == [
        "head",
        "channels",
        "of",
        "a",
        "graph",
        "output",
    ]
    assert any(line.split()[:4] == ["g0", "first", "yes", "16"] for line in printed)


def test_inspect_cuts_long_lists_unless_told_otherwise(run, tmp_path):
    g = Graph()
    x = g.input("x", (1, 4, 2, 2))
    for number in range(14):
        x = g.conv(x, 4, name=f"layer{number}")
    g.output(x)
    onnx.save(g.model(), tmp_path / "deep.onnx")
    short, full = run("inspect", "deep.onnx").stdout, run("inspect", "deep.onnx", "--all").stdout
    assert "... and 4 more (--all shows them)" in short
    assert "more (--all" not in full
    assert full.count("\nlayer") == 1 + 14 + 1  # heading, layers, the frozen one


def test_inspect_works_where_nothing_can_be_pruned(run, tmp_path):
    g = Graph()
    g.output(g("Relu", g.input("x", (1, 4))))
    onnx.save(g.model(), tmp_path / "relu.onnx")
    result = run("inspect", "relu.onnx")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "No channel of this model can be pruned." in result.stdout


def test_score_json_is_as_documented(run, model_path):
    shape = documented_shape("commands.md", "srr-onnx/score/1")
    found = facts(run("score", model_path, "--format", "json"))
    assert mismatches(shape, found) == []
    for group in found["groups"]:
        units, k, covering = group["units"], group["components"], group["covering"]
        assert group["redundancy"] == pytest.approx(units / (0.35 * k + 0.65 * covering))
        assert group["normalized"] == pytest.approx((group["redundancy"] - 1) / (units - 1))
    plain = facts(run("score", model_path, "--criterion", "l1", "--format", "json"))
    assert set(plain["groups"][0]) == {"id", "name", "units", "scores"}
    weight = np.abs(load_model(model_path).constants["first.weight"]).sum(axis=(1, 2, 3))
    assert plain["groups"][0]["scores"]["min"] == pytest.approx(float(weight.min()), rel=1e-5)


def test_score_tables(run, model_path):
    printed = lines(run("score", model_path).stdout)
    assert printed[0].split() == [
        "group",
        "filters",
        "of",
        "N",
        "edge",
        "density",
        "k",
        "N1c",
        "R",
        "(R-1)/(N-1)",
        "gamma",
    ]
    assert printed[1].split()[:3] == ["g0", "first", "16"]
    printed = lines(run("score", model_path, "--criterion", "l2").stdout)
    assert printed[0].split() == ["group", "filters", "of", "N", "lowest", "median", "highest"]


def test_dynamic_axes_take_the_shape_that_is_given(run, tmp_path):
    g = Graph()
    x = g.conv(g.input("image", (1, 3, 8, 8), dynamic={0: "n", 2: "height", 3: "width"}), 16, 3)
    g.output(g.conv(g("Relu", x), 4, 3))
    onnx.save(g.model(), tmp_path / "any.onnx")
    for command in (("inspect",), ("score",), ("prune", "--flops", "0.3", "-o", "guess.onnx")):
        guessed = run(command[0], "any.onnx", *command[1:])
        assert guessed.exit_code == 0, guessed.stderr
        assert "taken as image 1x3x224x224 (--input chooses others)" in guessed.stderr
    assert "once more at image 1x3x256x256" in guessed.stdout
    for given in ("image=2,3,8,8", "2,3,8,8"):
        found = facts(run("inspect", "any.onnx", "--input", given, "--format", "json"))
        assert found["model"]["inputs"] == {"image": [2, 3, 8, 8]}
        assert found["cost"]["macs"] == 2 * 64 * (16 * 27 + 4 * 144)
    result = run("prune", "any.onnx", "--flops", "44%", "--input", "1,3,8,8", "--plan", "plan.json")
    assert result.exit_code == 0, result.stderr
    kept = onnx.load(tmp_path / "any.pruned.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in kept] == ["n", 3, "height", "width"]
    # The plan knows the shape, so `apply` need not be told.
    assert run("apply", "any.onnx", "--plan", "plan.json", "-o", "again.onnx").exit_code == 0


def test_names_from_files_are_printed_as_they_are_and_harmlessly(run, tmp_path):
    g = Graph()
    x = g.conv(g.input("x", (1, 3, 4, 4)), 16, name="[red]:smile:\x1b[31m")
    g.output(g.conv(x, 4))
    onnx.save(g.model(), tmp_path / "odd.onnx")
    result = run("inspect", "odd.onnx")
    assert result.exit_code == 0
    assert "[red]:smile:\\x1b[31m" in result.stdout
    assert "\x1b" not in result.stdout


def test_long_names_are_not_cut_when_piped(run, tmp_path):
    g = Graph()
    name = "/".join(["block"] * 60)
    g.output(g.conv(g.conv(g.input("x", (1, 3, 4, 4)), 16, name=name), 4))
    onnx.save(g.model(), tmp_path / "long.onnx")
    printed = lines(run("inspect", "long.onnx").stdout)
    assert sum(line.startswith(name + " ") for line in printed) == 1
    assert sum(line.split()[1:2] == [name] for line in printed) == 1


def test_layer_costs_add_up_behind_shared_and_derived_constants(tmp_path):
    g = Graph()
    x = g.input("x", (1, 4, 2, 2))
    weight = g.weight(4, 4, 1, 1, name="shared")
    behind = g("Identity", weight)
    g.output(g("Conv", g("Conv", x, weight, name="a"), behind, name="b"))
    model = load_model(g.model())
    layers = {layer.node.name: (layer.macs, layer.params) for layer in count_layers(model)}
    assert layers == {"a": (64, 16), "b": (64, 0)}


def test_prune_says_when_coarse_units_take_more_than_was_asked(run, tmp_path):
    g = Graph()
    x = g("Relu", g.conv(g.input("image", (1, 3, 4, 4)), 3, 3))
    g.output(g.conv(x, 4, 3))
    onnx.save(g.model(), tmp_path / "coarse.onnx")
    result = run("prune", tmp_path / "coarse.onnx", "--flops", "10%", *UNTOUCHED)
    assert result.exit_code == 0
    assert result.stderr == (
        "warning: 33.3% of the FLOPs went instead of 10.0%: the groups that can shrink do so in large steps\n"
    )


def test_layers_that_cannot_be_counted_are_shown_and_named(run, tmp_path):
    g = Graph(opset=17)
    known = g("Relu", g.conv(g("Relu", g.conv(g.input("x", (1, 3, 8, 8)), 16)), 8))
    g.output(g.conv(g("Mystery", known, domain="com.example", shape=(1, 8, 8, 8)), 5, name="behind"))
    del g.shapes["behind"]
    onnx.save(g.model(), tmp_path / "odd.onnx")
    shown = run("inspect", tmp_path / "odd.onnx")
    assert any(line.split()[:3] == ["behind", "Conv", "?"] for line in lines(shown.stdout))
    assert shown.stderr.startswith("warning: the MACs of behind count as zero")
    result = run(
        "prune", tmp_path / "odd.onnx", "--flops", "0.2", "--no-verify", "--format", "json", "--plan", "plan.json"
    )
    assert "warning: the MACs of behind count as zero" in result.stderr
    assert json.loads(result.stdout)["uncounted"] == ["behind"]
    assert json.loads((tmp_path / "plan.json").read_text())["uncounted"] == ["behind"]
    layers = json.loads(run("inspect", tmp_path / "odd.onnx", "--format", "json").stdout)["layers"]
    assert {layer["node"]: layer["macs"] for layer in layers}["behind"] is None


def test_a_file_that_grows_is_no_surprise(run, tmp_path):
    g = Graph(opset=17)
    value = g("Relu", g.conv(g.input("x", (1, 3, 8, 8)), 16, 3))
    product = g("MatMul", g.weight(24, 2), g.weight(2, 144))
    g.output(g.conv(g.conv(value, 24, 3, weight=g("Reshape", product, shape=(24, 16, 3, 3))), 5))
    onnx.save(g.model(), tmp_path / "thin.onnx")
    result = run("prune", tmp_path / "thin.onnx", "--flops", "0.2")
    assert result.exit_code == 0
    assert "warning: the pruned model has more parameters than the original" in result.stderr
    again = run("prune", tmp_path / "thin.onnx", "--params", "0.2", "-o", tmp_path / "small.onnx")
    assert (again.exit_code, "more parameters" in again.stderr) == (0, False)


def test_a_note_says_where_a_plan_names_inlined_values(run, tmp_path):
    g = Graph(opset=17)
    value = g("Double", g.conv(g.input("x", (1, 3, 8, 8)), 8), domain="local", shape=(1, 8, 8, 8))
    g.output(g.conv(value, 5))
    proto = g.model()
    body = [helper.make_node("Add", ["a", "a"], ["r"])]
    proto.functions.append(helper.make_function("local", "Double", ["a"], ["r"], body, [helper.make_opsetid("", 17)]))
    onnx.save(proto, tmp_path / "calls.onnx")
    result = run("prune", tmp_path / "calls.onnx", "--ratio", "0.5", "--plan", "plan.json")
    assert (result.exit_code, "onnx.inliner.inline_local_functions" in result.stderr) == (0, True)
    assert json.loads((tmp_path / "plan.json").read_text())["inlined"] is True
    assert run("prune", tmp_path / "calls.onnx", "--ratio", "0.5", "--force").stderr == ""
