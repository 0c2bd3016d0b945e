"""A whole run: its files, going on after any stage, what it refuses, and the original it is judged by."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest
from builders import Graph
from training_models import pictures, save_net, save_pictures

import srr_onnx
from srr_onnx.errors import DataError, OutputError, PlanError, RecipeError
from srr_onnx.graph.load import load_model
from srr_onnx.optimizing.run import optimize

PRUNE = {"flops": "40%", "criterion": "l1"}
PLAIN = {"data": "data.npz", "steps": 2, "prune": PRUNE, "test": {"share": 0.2}}
TRAINED = {**PLAIN, "finetune": {"epochs": 2, "batch": 14, "lr": 0.05, "checkpoint_every": 1}}


@pytest.fixture(autouse=True)
def files(tmp_path):
    save_net(tmp_path / "net.onnx", channels=16)
    save_pictures(tmp_path / "data.npz")


def run(recipe=PLAIN, output="out.onnx", folder="run", **options):
    return optimize("net.onnx", output, recipe=recipe, run_dir=folder, **options)


def weights(path):
    return load_model(path).constants


def same(one, other):
    one, other = weights(one), weights(other)
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_every_stage_leaves_its_files_and_the_last_one_is_the_result(tmp_path):
    found = run()
    assert sorted(path.relative_to(tmp_path / "run").as_posix() for path in (tmp_path / "run").rglob("*.*")) == [
        "01-prune/model.onnx", "01-prune/plan.json", "01-prune/stage.json",
        "02-prune/model.onnx", "02-prune/plan.json", "02-prune/stage.json",
        "report.html", "settings.json",
    ]  # fmt: skip
    assert [stage.name for stage in found.stages] == ["original", "01-prune", "02-prune"]
    first, *_, last = found.stages
    assert 0.55 < last.macs / first.macs <= 0.6
    assert same("out.onnx", "run/02-prune/model.onnx") and last.sha256 == load_model("run/02-prune/model.onnx").sha256
    assert last.samples == 19 and first.agreement is None and last.agreement is not None
    page = (tmp_path / "run" / "report.html").read_text()
    assert "02-prune" in page and "prune.flops" in page and 'id="stages"' in page


def test_a_run_goes_on_after_every_stage_to_the_same_weights(tmp_path):
    pytest.importorskip("torch", reason="torch is not installed")
    whole = run(TRAINED)
    names = [stage.name for stage in whole.stages[1:]]
    assert names == ["01-prune", "02-finetune", "03-prune", "04-finetune"]
    for done in range(len(names)):
        shutil.copytree("run", f"part{done}")
        for name in names[done + 1 :]:
            shutil.rmtree(f"part{done}/{name}")
        (tmp_path / f"part{done}" / names[done] / "stage.json").unlink()  # it was still at work
        again = run(TRAINED, f"out{done}.onnx", f"part{done}", resume=True)
        assert same("out.onnx", f"out{done}.onnx"), names[done]
        assert [stage.sha256 for stage in again.stages] == [stage.sha256 for stage in whole.stages]


def test_the_teacher_is_the_original_in_every_step_and_its_channels_are_known(tmp_path):
    pytest.importorskip("torch", reason="torch is not installed")
    run({**TRAINED, "finetune": {**TRAINED["finetune"], "feature": "Relu_0"}, "final_finetune": {"epochs": 1}})
    settings = [json.loads((tmp_path / "run" / name / "run" / "settings.json").read_text()) for name in (
        "02-finetune", "04-finetune",
    )]  # fmt: skip
    assert {found["teacher"] for found in settings} == {load_model("net.onnx").sha256}
    assert [found["epochs"] for found in settings] == [2, 1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prune": {**PRUNE, "flops": "30%"}}, "prune.flops was '40%' and is '30%' now"),
        ({"steps": 3}, "steps was 2 and is 3 now"),
        ({"data": "other.npz"}, "the data are others"),
        ({"test": {"share": 0.3}}, "test.share was 0.2 and is 0.3 now"),
        ({"teacher": "other.onnx"}, "the teacher is another file"),
    ],
)
def test_a_run_does_not_go_on_with_something_else(tmp_path, change, words):
    run()
    save_pictures(tmp_path / "other.npz", seed=1)
    save_net(tmp_path / "other.onnx", channels=16, seed=1)
    with pytest.raises(RecipeError, match="cannot go on") as caught:
        run({**PLAIN, **change}, "new.onnx", resume=True)
    assert words in str(caught.value)


def test_gates_and_the_report_may_change():
    run()
    found = run({**PLAIN, "gates": {"max_size": "1kB"}, "report": "page.html"}, "new.onnx", resume=True)
    assert not found.validation.is_passed and same("out.onnx", "new.onnx")


def test_runs_and_files_of_others_stay(tmp_path):
    with pytest.raises(RecipeError, match="holds no run to go on with"):
        run(resume=True)
    run()
    with pytest.raises(OutputError, match=r"out\.onnx' exists: give --force"):
        run()
    with pytest.raises(RecipeError, match="holds a run already: give --resume"):
        run(output="new.onnx")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    assert run(force=True).path.exists() and (tmp_path / "run" / "notes.txt").exists()
    with pytest.raises(OutputError, match="is a file that is read"):
        run(output="net.onnx", folder="other", force=True)
    with pytest.raises(OutputError, match="with the key report"):
        run({**PLAIN, "report": "data.npz"}, "new.onnx", "other", force=True)


def test_files_of_stages_that_were_changed_are_noticed(tmp_path):
    run()
    shutil.copy("net.onnx", "run/01-prune/model.onnx")
    with pytest.raises(RecipeError, match="is not the file that the stage has made: remove"):
        run(output="new.onnx", resume=True)
    (tmp_path / "run" / "01-prune" / "stage.json").write_text("{}")
    with pytest.raises(RecipeError, match="is damaged: remove it"):
        run(output="new.onnx", resume=True)


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"prune": {"flops": "99%"}}, PlanError, "99"),
        ({"data": "nowhere.npz"}, DataError, "nowhere.npz"),
        ({"data": "bare.npz", "gates": {"max_accuracy_drop": 0.1}}, RecipeError, "needs labels"),
        ({"data": "synthetic", "gates": {"min_agreement": 0.1}}, RecipeError, "is measured on real samples"),
        ({"test": {"data": "other.npz"}}, RecipeError, "test: labels from 4 to 4, but 'head' has 4 classes"),
        ({"test": {"class_output": "haed"}}, RecipeError, "test: unknown output 'haed': did you mean 'head'"),
    ],
)
def test_what_cannot_end_well_is_refused_before_the_first_stage(tmp_path, change, kind, words):
    save_pictures(tmp_path / "bare.npz", labelled=False)
    np.savez("other.npz", image=pictures()[0], labels=np.full(96, 4))
    with pytest.raises(kind, match=words):
        run({**PLAIN, **change})
    assert not (tmp_path / "run").exists() and not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"teacher": "other.onnx"}, DataError, "cannot be compared, as their outputs differ"),
        ({"finetune": {"head": "nothing"}}, RecipeError, "finetune: unknown value of the model 'nothing'"),
        ({"final_finetune": {"feature": "nothing"}}, RecipeError, "final_finetune: unknown value of the model"),
        ({"data": "alike.npz", "test": {"limit": 9}}, RecipeError, "finetune: all .* samples .* have the label 0"),
    ],
)
def test_training_that_cannot_end_well_is_refused_before_the_first_stage(tmp_path, change, kind, words):
    pytest.importorskip("torch", reason="torch is not installed")
    x, labels = pictures()
    np.savez("alike.npz", image=x, labels=0 * labels)
    g = Graph()
    g.output(g.conv(g.input("image", (1, 3, 8, 8), dynamic={0: "n"}), 4, 1, name="other"))
    onnx.save(g.model(), "other.onnx")
    with pytest.raises(kind, match=words):
        run({**TRAINED, **change})
    assert not (tmp_path / "run").exists()


def test_without_data_costs_are_told_and_nothing_else():
    found = run({"prune": {"flops": "40%"}, "steps": 2})
    assert [(stage.accuracy, stage.agreement, stage.samples) for stage in found.stages] == [(None, None, 0)] * 3
    assert srr_onnx.optimize is optimize


def test_a_run_writes_over_no_file_that_is_read(tmp_path):
    run()
    source = tmp_path / "run" / "01-prune" / "model.onnx"
    with pytest.raises(OutputError, match="is a file that is read, and a run's own: choose another folder"):
        optimize(source, "other.onnx", recipe=PLAIN, run_dir="run", force=True)
    assert source.exists()


@pytest.mark.parametrize("output", ["run", "run/01-prune/model.onnx", "run/settings.json"])
def test_the_result_is_no_place_of_the_run_s_own(tmp_path, output):
    (tmp_path / "run").mkdir()
    with pytest.raises(OutputError, match="is a place of the run's own"):
        run(output=output)


@pytest.mark.parametrize(("report", "output"), [("./out.onnx", "out.onnx"), (None, "run/report.html")])
def test_the_result_is_not_the_report(tmp_path, report, output):
    with pytest.raises(OutputError, match=f"{output!r} would be the report too: choose another name with -o"):
        run({**PLAIN, **({"report": report} if report else {})}, output)
    assert not (tmp_path / "run").exists()


def test_what_the_samples_show_to_be_wrong_names_the_recipe_too(tmp_path):
    (tmp_path / "recipe.yaml").write_text("data: data.npz\nprune: {flops: 40%}\ntest: {class_output: haed}\n")
    with pytest.raises(RecipeError, match=r"^'recipe.yaml': test: unknown output 'haed'"):
        run("recipe.yaml")


def test_stages_without_settings_are_a_run_too(tmp_path):
    run()
    (tmp_path / "run" / "settings.json").unlink()
    with pytest.raises(RecipeError, match="holds a run already"):
        run({**PLAIN, "steps": 1}, "other.onnx")


def test_thrown_away_are_stages_of_three_digits_too(tmp_path):
    run()
    shutil.copytree("run/01-prune", "run/100-prune")
    run(output="other.onnx", force=True)
    assert not (tmp_path / "run" / "100-prune").exists()
