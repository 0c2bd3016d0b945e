"""A preprocessing that is stored with a model is the one that is read from it."""

from __future__ import annotations

import dataclasses
import json

import pytest
from data_models import picture_model, random_pixels
from hypothesis import given
from hypothesis import strategies as st

from srr_onnx.data.metadata import read_metadata, write_metadata
from srr_onnx.data.preprocessing import Preprocessing, presets
from srr_onnx.data.read import open_data
from srr_onnx.errors import DataError

SIZES = st.none() | st.integers(1, 500) | st.tuples(st.integers(1, 500), st.integers(1, 500))
NUMBERS = st.lists(st.floats(0.01, 300), max_size=3).map(tuple)


@given(
    st.builds(
        Preprocessing,
        name=st.just("preprocessing of the model"),
        resize=SIZES,
        crop=SIZES,
        range=st.sampled_from(["0..1", "0..255", "-1..1"]),
        mean=NUMBERS.filter(lambda numbers: not numbers or any(numbers)),
        std=NUMBERS.filter(lambda numbers: not numbers or any(number != 1 for number in numbers)),
        layout=st.sampled_from(["auto", "NCHW", "NHWC"]),
        color=st.sampled_from(["auto", "RGB", "BGR", "gray"]),
        background=st.sampled_from(["white", "#c0c0c0"]),
        is_scaled=st.booleans(),
    )
)
def test_what_is_written_is_read(preprocessing):
    model = picture_model(metadata={"preprocessing": json.loads(write_metadata(preprocessing))})
    assert read_metadata(model) == preprocessing


@pytest.mark.parametrize("stated", [{"scale": 1, "range": "0..1"}, {"size": [8, 8], "crop": 8}, {"range": "0..2"}])
def test_contradictions_are_not_guessed_at(stated):
    with pytest.raises(DataError, match="cannot be followed"):
        read_metadata(picture_model(metadata={"preprocessing": stated}))


def test_a_data_set_knows_its_preprocessing_with_layout_and_color():
    model = picture_model(shape=(1, 3, 96, 96))
    pixels = random_pixels(2, (96, 96, 3))
    found = open_data([pixels], model).preprocessing
    assert found == dataclasses.replace(presets.get("imagenet"), layout="NCHW", color="RGB")
    assert open_data([pixels.transpose(0, 3, 1, 2) / 255.0], model).preprocessing is None
