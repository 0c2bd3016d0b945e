"""Made-up pictures: as the model takes them, always the same, and they say what they are."""

from __future__ import annotations

import numpy as np
import pytest
from data_models import picture_model, read_all, two_input_model
from onnx import TensorProto

from srr_onnx.calibration.prepare import calibrate
from srr_onnx.data.drawing import draw_picture
from srr_onnx.data.preprocessing import presets
from srr_onnx.data.read import open_data
from srr_onnx.errors import DataError


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_picture_has_its_size_edges_and_colors(index, channels):
    pixels = draw_picture(index, (12, 20), channels)
    assert (pixels.shape, pixels.dtype) == ((12, 20, channels), np.uint8)
    assert pixels.std() > 5
    assert (pixels[..., 0] != pixels[..., -1]).any() == (channels > 1)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (224, 2)])
def test_pictures_of_strange_sizes_are_drawn(size):
    assert all(draw_picture(index, size, 3).shape == (*size, 3) for index in range(20))


def test_every_picture_is_another_and_the_same_again():
    pictures = [draw_picture(index, (8, 8), 3) for index in range(20)]
    assert len({picture.tobytes() for picture in pictures}) == 20
    assert (draw_picture(7, (8, 8), 3) == pictures[7]).all()
    assert (draw_picture(7, (8, 8), 3, seed=1) != pictures[7]).any()


def test_noise_is_smooth_and_shapes_have_plain_areas():
    shapes, noise = (draw_picture(index, (64, 64), 1)[..., 0].astype(float) for index in (0, 1))
    assert (np.diff(shapes) == 0).mean() > 0.5 > (np.diff(noise) == 0).mean()
    assert abs(np.diff(noise)).mean() < 0.5 * noise.std()


@pytest.mark.parametrize(
    ("shape", "dtype", "low", "high"),
    [
        ((1, 3, 8, 8), TensorProto.FLOAT, 0, 1),
        ((1, 1, 8, 8), TensorProto.FLOAT, 0, 1),
        ((1, 8, 8, 3), TensorProto.FLOAT16, 0, 1),
        ((1, 3, 8, 8), TensorProto.UINT8, 0, 255),
        ((1, 3, 64, 64), TensorProto.FLOAT, -2.2, 2.7),  # the usual mean and spread of ImageNet
    ],
)
def test_pictures_come_as_the_model_takes_them(shape, dtype, low, high):
    model = picture_model(shape, dtype)
    (batch,) = open_data("synthetic", model).batches(16, range(16))
    found = batch.feeds["image"]
    assert (found.shape, found.dtype) == ((16, *shape[1:]), model.dtypes["image"])
    assert low <= found.min() < low + 0.2 * (high - low)
    assert high - 0.2 * (high - low) < found.max() <= high


def test_metadata_and_options_say_how_pixels_become_numbers():
    model = picture_model(metadata={"preprocessing": {"scale": 1 / 255, "mean": [0.5], "std": [0.5], "size": [8, 8]}})
    stated = read_all(open_data("synthetic", model))["image"]
    given = read_all(open_data("synthetic", model, preprocessing=presets.get("unit")))["image"]
    np.testing.assert_allclose(stated, 2 * given - 1, atol=1e-6)
    assert "stated in its metadata" in open_data("synthetic", model).describe()


def test_the_data_say_that_they_are_made_up():
    data = open_data("synthetic", picture_model())
    assert data.is_made_up
    assert data.labels is None
    assert "made-up pictures of shapes and noise, which say nothing of real ones" in data.describe()
    assert not open_data(np.zeros((2, 3, 8, 8), np.uint8), picture_model()).is_made_up
    assert data.with_labels(np.zeros(len(data), np.int64)).is_made_up


def test_there_are_enough_to_calibrate_and_to_hold_out():
    calibration = calibrate(picture_model(), open_data("synthetic", picture_model()), 512, 0)
    assert (calibration.samples.count, len(calibration.held_out)) == (256, 64)


def test_what_is_no_picture_is_not_made_up():
    with pytest.raises(DataError, match=r"input 'extra' takes \[4\], which is no picture, and nothing else is made up"):
        open_data("synthetic", two_input_model())
    with pytest.raises(DataError, match=r"input 'image' takes \[4, 8, 8\], which is no picture"):
        open_data("synthetic", picture_model((1, 4, 8, 8)))


def test_a_folder_of_that_name_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "synthetic").mkdir()
    with pytest.raises(DataError, match="synthetic"):
        open_data("synthetic", picture_model())
