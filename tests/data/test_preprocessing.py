"""What a preprocessing says, how it is read from YAML and metadata, and which one is taken."""

from __future__ import annotations

import numpy as np
import pytest
from data_models import picture_model
from documented import ROOT

from srr_onnx.data.metadata import read_metadata
from srr_onnx.data.preprocessing import Preprocessing, load_preprocessing, presets
from srr_onnx.data.recipe import choose_preprocessing, find_inputs, fit_preprocessing
from srr_onnx.errors import DataError
from srr_onnx.graph.load import load_model


def load(tmp_path, text):
    path = tmp_path / "how.yaml"
    path.write_text(text)
    return load_preprocessing(path)


def fit(preprocessing, shape=(1, 3, 224, 224), **extra):
    model = picture_model(shape, **extra)
    return fit_preprocessing(preprocessing, find_inputs(model)["image"])


def test_yaml_has_every_key(tmp_path):
    text = """
        resize: [40, 48]
        crop: 32
        range: -1..1
        mean: [0.1, 0.2, 0.3]
        std: 0.5
        layout: NHWC
        color: BGR
        background: "#102030"
    """
    assert load(tmp_path, text) == Preprocessing(
        "how.yaml", (40, 48), 32, "-1..1", (0.1, 0.2, 0.3), (0.5,), "NHWC", "BGR", "#102030"
    )


def test_yaml_may_differ_from_a_preset(tmp_path):
    found = load(tmp_path, "preset: imagenet\nresize: 232\n")
    assert (found.resize, found.crop, found.mean, found.is_scaled) == (232, 224, (0.485, 0.456, 0.406), False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rezise: 256", "unknown key 'rezise': did you mean 'resize'"),
        ("means: 0.5", "unknown key 'means': did you mean 'mean'"),
        ("1: 2", "unknown key '1': known are preset, resize"),
        ("resize: large", r"resize is 'large': give a number of pixels or \[height, width\]"),
        ("resize: 12.5", "resize is 12.5: give a number"),
        ("resize: 0", "resize is 0: give one number of pixels"),
        ("crop: [1, 2, 3]", r"crop is \[1, 2, 3\]: give a number"),
        ("mean: [a]", r"mean is \['a'\]: give a number, or a list"),
        ("mean: true", "mean is True: give a number"),
        ("mean: .nan", "mean holds nan"),
        ("std: 0", "std holds 0.0: give finite numbers above 0"),
        ("range: 0-1", "range is '0-1': choose from 0..1, 0..255, -1..1"),
        ("layout: HCNW", "layout is 'HCNW': choose from auto, NCHW, NHWC"),
        ("color: [1]", r"color is \[1\]: give a text"),
        ("preset: imagnet", "preset is 'imagnet': did you mean 'imagenet'"),
        ("background: wite", "background is 'wite': give a color"),
        ("a: [1", "is no YAML, line 1"),
        ("resize: 256\nresize: 8", "the key 'resize' is there twice"),
        ("- 1", "holds no keys"),
        ("", "holds no keys"),
        ("[" * 5000, "is no YAML"),
        ("#" * 70_000, "has 70000 bytes, so it is no preprocessing"),
    ],
)
def test_wrong_yaml_is_one_line_that_names_the_place(tmp_path, text, message):
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path, text)
    assert "how.yaml" in str(caught.value)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_aliases_that_stand_for_gigabytes_are_not_written_out(tmp_path):
    lines = ["a: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(DataError, match="unknown key 'a'"):
        load(tmp_path, "\n".join(lines))
    with pytest.raises(DataError) as caught:
        load(tmp_path, "\n".join(["resize: &a0 [x]", "mean: &a1 [[*a0, *a0], [*a0, *a0]]"]))
    assert len(str(caught.value)) < 300


def test_no_yaml_file():
    with pytest.raises(DataError, match=r"'nowhere\.yaml' cannot be read: No such file"):
        load_preprocessing("nowhere.yaml")


def test_the_presets():
    assert set(presets) == {"imagenet", "cifar10", "unit"}
    assert presets.get("imagenet").std == (0.229, 0.224, 0.225)
    assert presets.get("cifar10").resize == (32, 32)


@pytest.mark.parametrize(
    ("shape", "resize", "crop"),
    [
        ((224, 224), 256, (224, 224)),
        ((299, 299), 342, (299, 299)),
        ((112, 112), 128, (112, 112)),
        ((96, 192), 220, (96, 192)),
    ],
)
def test_imagenet_keeps_its_ratio_at_other_sizes(shape, resize, crop):
    found = fit(presets.get("imagenet"), (1, 3, *shape))
    assert (found.resize, found.crop) == (resize, crop)


def test_without_sizes_pictures_take_the_size_of_the_model():
    found = fit(Preprocessing(), (1, 3, 20, 30))
    assert (found.resize, found.crop, found.size) == ((20, 30), None, (20, 30))


def test_a_shorter_side_alone_is_cropped_to_the_size_of_the_model():
    found = fit(Preprocessing(resize=40), (1, 32, 32, 3))
    assert (found.resize, found.crop, found.layout) == (40, (32, 32), "NHWC")


@pytest.mark.parametrize(
    ("values", "shape", "message"),
    [
        ({"crop": 200}, (1, 3, 224, 224), "224x224 pixels, but resize and crop make 200x200"),
        ({"resize": (32, 32)}, (1, 3, 28, 28), "28x28 pixels, but resize and crop make 32x32"),
        ({"resize": 20}, (1, 3, 28, 28), "resize to 20 leaves no room for the crop of 28x28"),
        ({"color": "gray"}, (1, 3, 8, 8), "3 channels as NCHW, but gray pictures have 1"),
        ({"color": "BGR"}, (1, 1, 8, 8), "1 channels as NCHW, but BGR pictures have 3"),
        ({"mean": (1.0, 2.0)}, (1, 3, 8, 8), "but mean has 2 numbers"),
        ({"std": (1.0, 2.0, 3.0)}, (1, 1, 8, 8), "but std has 3 numbers"),
        ({"mean": (1.0, 2.0, 3.0)}, (1, 7), "which is no picture: mean and std need to be one number"),
    ],
)
def test_what_does_not_fit_the_model(values, shape, message):
    with pytest.raises(DataError, match=message):
        fit(Preprocessing(**values), shape)


def test_whole_numbers_take_no_fractions():
    with pytest.raises(DataError, match=r"takes whole numbers \(uint8\), which range 0..1"):
        fit(Preprocessing(), (1, 3, 8, 8), dtype=2)
    assert fit(Preprocessing(range="0..255"), (1, 3, 8, 8), dtype=2).channels == 3


@pytest.mark.parametrize(
    ("shape", "dtype", "name"),
    [
        ((1, 3, 64, 64), 1, "imagenet"),
        ((1, 96, 64, 3), 1, "imagenet"),
        ((1, 3, 63, 224), 1, "unit"),
        ((1, 1, 224, 224), 1, "unit"),
        ((1, 10), 1, "unit"),
        ((1, 3, 224, 224), 2, "raw pixels"),
    ],
)
def test_the_default_depends_on_the_input(shape, dtype, name):
    chosen = choose_preprocessing(picture_model(shape, dtype))
    assert (chosen.preprocessing.name, chosen.is_given, chosen.origin[:7]) == (name, False, "default")


def test_the_users_choice_comes_before_the_models():
    model = picture_model(metadata={"preprocessing": {"scale": 1.0}})
    assert choose_preprocessing(model, presets.get("unit")).preprocessing.range == "0..1"
    assert choose_preprocessing(model).preprocessing.range == "0..255"


def test_the_bundled_model_states_its_preprocessing():
    found = read_metadata(load_model(ROOT / "srr_onnx" / "assets" / "resnet20_emoji.onnx"))
    assert found == Preprocessing("preprocessing of the model", (32, 32), layout="NCHW", color="RGB")


def test_another_scale_moves_into_mean_and_std():
    # (200 / 128 - 1) / 0.5 = 1.125
    model = picture_model(metadata={"preprocessing": {"scale": 1 / 128, "mean": [1.0], "std": [0.5]}})
    recipe = fit_preprocessing(read_metadata(model), find_inputs(model)["image"])
    assert recipe.to_numbers(np.full((8, 8, 3), 200, np.uint8)) == pytest.approx(1.125)


@pytest.mark.parametrize(
    "stated",
    [
        [1],
        {"flip": True},
        {"scale": 0},
        {"size": 32},
        {"mean": ["a"]},
        {"layout": "CHW"},
        {"std": [0.0]},
        {"scale": "x"},
    ],
)
def test_metadata_that_cannot_be_followed_are_not_guessed_at(stated):
    with pytest.raises(DataError, match=r"metadata 'preprocessing' cannot be followed .* say with --preset"):
        choose_preprocessing(picture_model(metadata={"preprocessing": stated}))


def test_override_names_what_changed():
    found = presets.get("imagenet").override(resize=300, crop=None, mean=(0.0,))
    assert (found.name, found.resize, found.crop) == ("imagenet with mean, resize", 300, 224)
    assert not found.is_scaled
    assert found.override(mean=None) is found
