"""Recipes: keys are the options of the commands, and what is wrong is one line with file and key."""

from __future__ import annotations

import dataclasses
import sys

import click
import pytest

from srr_onnx.cli.compare import compare
from srr_onnx.cli.data_options import DATA_KEYS, SOURCE_KEYS
from srr_onnx.cli.prune import prune
from srr_onnx.errors import MissingDependencyError, RecipeError
from srr_onnx.optimizing.recipe import load_recipe, make_recipe
from srr_onnx.optimizing.sections import GateSettings, PruneSettings

# What a recipe says once for all stages, or what only a single command does.
OUTSIDE = {"model", "output", "inputs", "plan_path", "report_path", "output_format", "force", "modules", "dry_run"}
SMALL = "prune: {flops: 40%}\n"


def load(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return load_recipe(path)


def options(command: click.Command) -> set[str]:
    return {parameter.opts[-1].removeprefix("--").replace("-", "_") for parameter in command.params}


def test_the_keys_of_a_section_are_the_options_of_the_command():
    left_out = {"lossless", "min_agreement", "model", "output", "input", "import", "plan", "report", "format", "force"}
    named = options(prune) - left_out - {"dry_run"} - (set(DATA_KEYS) - {"samples"})
    assert {field.name for field in dataclasses.fields(PruneSettings)} == named
    assert {field.name for field in dataclasses.fields(GateSettings)} == {
        name for name in options(compare) - set(SOURCE_KEYS) if name.startswith(("min_", "max_"))
    }


def test_usual_values_are_those_of_the_command():
    usual = PruneSettings(flops=0.4)
    for parameter in prune.params:
        key = parameter.opts[-1].removeprefix("--").replace("-", "_")
        if hasattr(usual, key) and isinstance(parameter.default, (str, int)) and key not in ("provider", "threads"):
            assert str(getattr(usual, key)) == str(parameter.default), key


def test_the_last_training_takes_from_the_others_what_it_is_not_told(tmp_path):
    pytest.importorskip("torch", reason="torch is not installed")
    found = load(
        tmp_path,
        SMALL + "data: d\nseed: 7\nfinetune: {lr: 1e-3, head: a, augment: 'flip,crop', precision: 16}\n"
        "final_finetune: {epochs: 3}\n",
    )
    assert (found.finetune.options.lr, found.finetune.options.seed) == (1e-3, 7)
    assert (found.finetune.options.augment, found.finetune.options.precision) == (("flip", "crop"), "16")
    assert found.final_finetune.options == dataclasses.replace(found.finetune.options, epochs=3)
    assert found.final_finetune.heads == {"a": "a"}
    assert found.prune.seed == 7


def test_what_yaml_takes_for_no_text_is_taken_as_the_command_line_has_it(tmp_path):
    found = load(tmp_path, "prune: {flops: 0.4, align: off, freeze: head, max-group-ratio: 1}\ninput: '1,3,8,8'\n")
    assert (found.prune.align, found.prune.freeze, found.prune.max_group_ratio) == ("off", ("head",), 1.0)
    assert found.input == {"": [1, 3, 8, 8]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prun: 1", "unknown key 'prun': did you mean 'prune'?"),
        ("data: d", "the section prune is missing: say what is to go, with one of flops, params"),
        ("prune: 3", "prune: it is '3': give keys of its own"),
        ("prune:", "prune: flops: a budget says how much to remove"),
        ("prune: {flop: 1}", "prune: unknown key 'flop': did you mean 'flops'?"),
        ("prune: {flops: 44}", "prune: flops: 44.0 is out of range: a share lies between 0 and 1, did you mean 44"),
        ("prune: {flops: true}", "prune: flops is True: give a number or a text"),
        ("prune: {flops: [1]}", "prune: flops is [1]: give a number or a text"),
        ("prune: {flops: .4, flops: .5}", "the key 'flops' is there twice"),
        ("prune: {flops: .4, criterion: l3}", "prune: criterion: unknown criterion 'l3': choose from "),
        ("prune: {flops: .4, allocation: even}", "prune: allocation: unknown allocation 'even'"),
        ("prune: {flops: .4, compensate: lst}", "prune: compensate is 'lst': give one of auto, none, merge"),
        ("prune: {flops: .4, align: 999}", "prune: align: '999' is no alignment"),
        ("prune: {flops: .4, gamma: many}", "prune: gamma: gamma (='many') must be one of auto, paper"),
        ("prune: {flops: .4, provider: cup}", "prune: provider: unknown provider 'cup': did you mean 'cpu'?"),
        ("prune: {flops: .4, provider_option: [x]}", "prune: provider: provider_option: ['x'] are no options"),
        ("prune: {flops: .4, samples: 0}", "prune: samples: give at least 1"),
        ("prune: {ratio: .4}\nsteps: 2", "steps: ratio takes from every group at once"),
        ("prune: {ratio: .4, flops: .3}", "prune: flops: --ratio says by itself what every group loses"),
        (SMALL + "steps: 0", "steps: give 1 to 1,000"),
        (SMALL + "steps: 1000000000", "steps: give 1 to 1,000"),
        (SMALL + "steps: many", "steps is 'many': give a whole number"),
        (SMALL + "seed:", "seed has no value: give a whole number"),
        (SMALL + "labels: a", "labels: it says how data are read, but the key data is missing"),
        (SMALL + "data: 3", "data is 3: give a text"),
        (SMALL + "data: d\npreprocess: {resize: big}", "preprocess: resize is 'big': give a number of pixels or"),
        (SMALL + "data: d\npreprocess: {preset: imagnet}", "preprocess: preset is 'imagnet': did you mean 'imagenet'?"),
        (SMALL + "input: [1, 3, 0]", "input: '[1, 3, 0]' is no shape"),
        (SMALL + "data: d\ntest: {share: 1}", "test: share: 1.0 is out of range"),
        (SMALL + "data: d\ntest: {limit: 0}", "test: limit: limit is 0: give at least 1"),
        (SMALL + "data: d\ntest: {labels: x}", "test: labels: they belong to data, which is not given"),
        (SMALL + "gates: {max_size: 10Mo}", "gates: max_size: '10Mo' is no size"),
        (SMALL + "gates: {min_agreement: 90%}", "gates: min_agreement is measured on samples, but neither data nor"),
        (SMALL + "gates: {min_speedup: 0}", "gates: min_speedup: 0.0 is no speed-up: give a number above 0"),
        (SMALL + "gates: {min_speed: 1}", "gates: unknown key 'min_speed': did you mean 'min_speedup'"),
        (SMALL + "test: {class-output: a, class_output: b}", "test: the key 'class_output' is there twice"),
        (SMALL + "final-finetun: 1", "unknown key 'final_finetun': did you mean 'final_finetune'"),
        ("[1", "is no YAML, line 1"),
        ("- 1", "holds no keys: write lines such as 'steps: 3'"),
    ],
)
def test_wrong_recipes_are_one_line_that_names_file_and_key(tmp_path, text, message):
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, text)
    line = str(caught.value)
    assert "recipe.yaml" in line and message in line and "\n" not in line, line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("finetune:", "finetune: a model is trained on samples, but the key data is missing"),
        ("data: d\nfinetune: {lr: -1}", "finetune: lr is -1.0: give above 0"),
        ("data: d\nfinetune: {optimizer: sdg}", "finetune: optimizer is 'sdg': give one of sgd, adamw"),
        ("data: d\nfinetune: {augment: turn}", "finetune: augment is 'turn': give a list of some of flip, crop"),
        ("data: d\nfinetune: {epoch: 3}", "finetune: unknown key 'epoch': did you mean 'epochs'?"),
        ("data: d\nfinetune: {devices: 2}", "finetune: devices: a recipe trains in one process"),
        ("data: d\nfinetune: {head: 3}", "finetune: head is '3': give a list of NAME or NAME=TEACHERS"),
        (
            "data: d\nfinal-finetune: {epochs: 3}",
            "final_finetune: it says what differs from finetune, which is missing",
        ),
    ],
)
def test_wrong_trainings_too(tmp_path, text, message):
    pytest.importorskip("torch", reason="torch is not installed")
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, SMALL + text)
    assert message in str(caught.value)


def test_a_recipe_that_trains_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "srr_onnx.finetuning.options", None)
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in [name for name in sys.modules if name.startswith("srr_onnx.finetuning")]:
        monkeypatch.delitem(sys.modules, name)
    assert make_recipe({"prune": {"flops": 0.4}, "data": "d"}).finetune is None
    with pytest.raises(MissingDependencyError, match="pip install"):
        make_recipe({"prune": {"flops": 0.4}, "data": "d", "finetune": {}})


def test_no_recipe_there():
    with pytest.raises(RecipeError, match=r"the recipe 'nowhere\.yaml' cannot be read: No such file"):
        load_recipe("nowhere.yaml")
