"""Pictures in files: folders, lists of them, colors, and what is left out."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from data_models import picture_model, random_pixels, read_all, save_picture, two_input_model
from PIL import Image

from srr_onnx.data.dataset import BadSample
from srr_onnx.data.preprocessing import Preprocessing
from srr_onnx.data.read import open_data
from srr_onnx.errors import DataError


def make_class_folder(folder, names=("cat", "dog"), count=2):
    pixels = random_pixels(count * len(names))
    for index, name in enumerate(np.repeat(names, count)):
        save_picture(folder / name / f"{index}.png", pixels[index])
    return pixels


def test_a_flat_folder_has_no_labels_and_is_read_with_all_below(tmp_path):
    pixels = random_pixels(3)
    for name, one in zip(("b.png", "a/deep/c.PNG", "z.png"), pixels, strict=True):
        save_picture(tmp_path / "p" / name, one)
    (tmp_path / "p" / "notes.txt").write_text("no picture")
    data = open_data(tmp_path / "p", picture_model())
    assert (len(data), data.labels, data.classes, data.name) == (3, None, (), "p")
    assert [data.name_of(i) for i in range(3)] == ["a/deep/c.PNG", "b.png", "z.png"]
    assert (read_all(data)["image"] == pixels[[1, 0, 2]].astype(np.float32) / 255).all()
    assert data.describe().endswith("; no labels")
    assert data.describe().startswith("3 pictures; unit (default for this input): resize 8x8, range 0..1")


def test_sub_folders_are_classes_sorted_by_name(tmp_path):
    pixels = make_class_folder(tmp_path / "p")
    data = open_data(str(tmp_path / "p"), picture_model())
    assert data.classes == ("cat", "dog")
    assert data.labels.tolist() == [0, 0, 1, 1]
    assert data.labels.dtype == np.int64
    assert (read_all(data)["image"] == pixels.astype(np.float32) / 255).all()


def test_folders_called_by_numbers_are_those_classes(tmp_path):
    make_class_folder(tmp_path / "p", ("0", "3", "10"))
    data = open_data(tmp_path / "p", picture_model())
    assert (data.classes, data.labels.tolist()) == ((), [0, 0, 10, 10, 3, 3])
    assert "6 pictures of 3 classes, numbered as their folders are called" in data.describe()
    named = open_data(tmp_path / "p", picture_model(metadata={"classes": ["10", "3", "0"]}))
    assert named.labels.tolist() == [2, 2, 0, 0, 1, 1]  # the model says itself what it calls 3
    make_class_folder(tmp_path / "p", ("4b",))
    assert open_data(tmp_path / "p", picture_model()).classes == ("0", "10", "3", "4b")


def test_a_folder_called_by_a_negative_number_is_no_class(tmp_path):
    make_class_folder(tmp_path / "p", ("-1", "1"))
    with pytest.raises(DataError, match="labels below 0"):
        open_data(tmp_path / "p", picture_model())


def test_a_class_without_pictures_keeps_its_number(tmp_path):
    make_class_folder(tmp_path / "p", ("ant", "cow"))
    (tmp_path / "p" / "bee").mkdir()
    (tmp_path / "p" / ".cache").mkdir()
    data = open_data(tmp_path / "p", picture_model())
    assert (data.classes, data.labels.tolist()) == (("ant", "bee", "cow"), [0, 0, 2, 2])


def test_classes_are_numbered_as_the_model_has_them(tmp_path):
    make_class_folder(tmp_path / "p")
    data = open_data(tmp_path / "p", picture_model(metadata={"classes": ["dog", "eel", "cat"]}))
    assert (data.classes, data.labels.tolist()) == (("dog", "eel", "cat"), [2, 2, 0, 0])
    assert "numbered in the model's order" in data.describe()


def test_parts_of_a_data_set_are_no_classes(tmp_path):
    make_class_folder(tmp_path / "p", ("train", "val"))
    with pytest.raises(DataError, match=r"the parts of a data set \(train, val\), not classes"):
        open_data(tmp_path / "p", picture_model())


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_circle_of_links_ends(tmp_path):
    save_picture(tmp_path / "p" / "a.png")
    (tmp_path / "p" / "again").symlink_to(tmp_path / "p")
    assert len(open_data(tmp_path / "p", picture_model())) == 1


def test_a_bad_picture_is_named_and_the_rest_goes_on(tmp_path):
    make_class_folder(tmp_path / "p")
    (tmp_path / "p" / "cat" / "0.png").write_bytes(b"no picture at all")
    whole = (tmp_path / "p" / "dog" / "2.png").read_bytes()
    (tmp_path / "p" / "dog" / "2.png").write_bytes(whole[: len(whole) // 2])
    data = open_data(tmp_path / "p", picture_model())
    batches = list(data.batches(2))
    assert [batch.indices.tolist() for batch in batches] == [[1, 3]]
    assert batches[0].labels.tolist() == [0, 1]
    assert [bad.name for bad in data.bad] == ["cat/0.png", "dog/2.png"]
    assert data.bad[0] == BadSample("cat/0.png", "no picture that can be read")
    assert len(list(data.batches(1))) == len(data.bad) == 2  # counted once, however often they are met


def test_nothing_but_bad_pictures(tmp_path):
    (tmp_path / "p").mkdir()
    for name in "ab":
        (tmp_path / "p" / f"{name}.jpg").write_bytes(b"")
    data = open_data(tmp_path / "p", picture_model())
    with pytest.raises(DataError, match=r"none of 2 samples of 'p' can be read: the first, 'a\.jpg': no picture"):
        list(data.batches(4))


def test_a_giant_picture_is_a_bad_sample(tmp_path, monkeypatch):
    save_picture(tmp_path / "p" / "a.png", size=(40, 40))
    save_picture(tmp_path / "p" / "b.png", size=(20, 20))
    save_picture(tmp_path / "p" / "c.png", size=(31, 31))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # above twice that Pillow raises, above it warns
    data = open_data(tmp_path / "p", picture_model())
    assert [batch.indices.tolist() for batch in data.batches(4)] == [[1]]
    assert [bad.name for bad in data.bad] == ["a.png", "c.png"]
    assert all("decompression bomb" in bad.reason for bad in data.bad)


def test_a_hair_of_a_picture_does_not_become_a_giant_one(tmp_path, monkeypatch):
    save_picture(tmp_path / "p.png", size=(1, 4000))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    data = open_data(tmp_path / "p.png", picture_model(), preprocessing=Preprocessing(resize=8))
    with pytest.raises(DataError, match="1x4000 pixels would become"):
        list(data.batches(1))


def test_a_picture_smaller_than_the_crop_is_a_bad_sample(tmp_path):
    save_picture(tmp_path / "p.png", size=(7, 30))
    data = open_data(tmp_path / "p.png", picture_model(), preprocessing=Preprocessing(crop=8))
    with pytest.raises(DataError, match="7x30 pixels, smaller than the crop of 8x8"):
        list(data.batches(1))


def test_the_middle_is_cut_out(tmp_path):
    pixels = random_pixels(1, (3, 10, 14))
    save_picture(tmp_path / "p.png", pixels[0])
    found = read_all(open_data(tmp_path / "p.png", picture_model(), preprocessing=Preprocessing(crop=8)))["image"]
    assert (found == pixels[:, :, 1:9, 3:11].astype(np.float32) / 255).all()


@pytest.mark.parametrize("size", [(20, 10), (10, 20)])
def test_the_shorter_side_is_resized(tmp_path, size):
    left = Image.new("RGB", size, "white")
    left.paste("black", (0, 0, size[0] // 2, size[1]) if size[0] > size[1] else (0, 0, size[0], size[1] // 2))
    left.save(tmp_path / "p.png")
    wanted = Preprocessing(resize=8, layout="NCHW")
    found = read_all(open_data(tmp_path / "p.png", picture_model(), preprocessing=wanted))["image"][0]
    along = found[0, 0] if size[0] > size[1] else found[0, :, 0]
    # the longer side becomes 16, of which the middle 8 are kept: black in front, white behind
    assert along[:3].max() < 0.05
    assert along[-3:].min() > 0.95


def write(tmp_path, image, name="p.png"):
    image.save(tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("RGBA", (8, 8), (255, 0, 0, 0)), (255, 255, 255)),
        (Image.new("RGBA", (8, 8), (255, 0, 0, 255)), (255, 0, 0)),
        (Image.new("LA", (8, 8), (0, 0)), (255, 255, 255)),
        (Image.new("L", (8, 8), 40), (40, 40, 40)),
        (Image.new("1", (8, 8), 1), (255, 255, 255)),
        (Image.new("P", (8, 8), 0), (0, 0, 0)),
        (Image.fromarray(np.full((8, 8), 257 * 90, np.uint16)), (90, 90, 90)),
    ],
    ids=["transparent", "opaque", "gray transparent", "gray", "bits", "palette", "16 bits"],
)
def test_every_mode_becomes_rgb_on_white(tmp_path, image, expected):
    data = open_data(write(tmp_path, image), picture_model(), preprocessing=Preprocessing(range="0..255"))
    assert read_all(data)["image"][0, :, 3, 3].tolist() == list(expected)


def test_the_background_can_be_chosen(tmp_path):
    path = write(tmp_path, Image.new("RGBA", (8, 8), (255, 0, 0, 0)))
    wanted = Preprocessing(range="0..255", background="#0a141e")
    assert read_all(open_data(path, picture_model(), preprocessing=wanted))["image"][0, :, 0, 0].tolist() == [
        10,
        20,
        30,
    ]


def test_channel_orders(tmp_path):
    path = save_picture(tmp_path / "p.png", color=(10, 20, 30))
    raw = Preprocessing(range="0..255")
    last = picture_model((1, 8, 8, 3))
    bgr = read_all(open_data(path, last, preprocessing=raw.override(color="BGR", mean=(1.0, 2.0, 3.0))))["image"]
    assert bgr.shape == (1, 8, 8, 3)
    assert bgr[0, 0, 0].tolist() == [29, 18, 7]  # mean is in the model's order
    gray = read_all(open_data(path, picture_model((1, 1, 8, 8)), preprocessing=raw))["image"]
    assert gray[0, :, 0, 0].tolist() == [18]  # 0.299 R + 0.587 G + 0.114 B, ITU-R BT.601


def test_element_types(tmp_path):
    path = save_picture(tmp_path / "p.png", color=(255, 51, 0))
    for code, dtype in ((10, np.float16), (11, np.float64)):
        found = read_all(open_data(path, picture_model(dtype=code)))["image"]
        assert found.dtype == dtype
        assert found[0, :, 0, 0].tolist() == [1, dtype(0.2), 0]
    whole = read_all(open_data(path, picture_model(dtype=2)))["image"]
    assert (whole.dtype, whole[0, :, 0, 0].tolist()) == (np.uint8, [255, 51, 0])


def test_imagenet_as_torchvision_does_it(tmp_path):
    pixels = random_pixels(1, (3, 300, 280))[0]
    path = save_picture(tmp_path / "p.png", pixels)
    found = read_all(open_data(path, picture_model((1, 3, 224, 224))))["image"][0]
    image = Image.open(path).resize((256, 274), Image.Resampling.BILINEAR).crop((16, 25, 240, 249))
    unit = np.moveaxis(np.asarray(image), -1, 0) / 255
    expected = (unit - np.array([0.485, 0.456, 0.406])[:, None, None]) / np.array([0.229, 0.224, 0.225])[:, None, None]
    assert np.abs(found - expected).max() < 1e-5


@pytest.mark.parametrize("header", ["", "path,label\n"])
def test_a_list_of_paths_and_labels(tmp_path, header):
    pixels = random_pixels(2)
    for name, one in zip("ab", pixels, strict=True):
        save_picture(tmp_path / "p" / f"{name}.png", one)
    (tmp_path / "list.csv").write_text(header + "p/b.png,7\np/a.png,3\n")
    data = open_data(tmp_path / "list.csv", picture_model())
    assert data.labels.tolist() == [7, 3]
    assert (read_all(data)["image"] == pixels[[1, 0]].astype(np.float32) / 255).all()


def test_a_list_with_class_names_in_other_columns(tmp_path):
    save_picture(tmp_path / "a.png")
    (tmp_path / "list.csv").write_text("label,split,path\nfox,x,a.png\nant,x,a.png\nfox,x,gone.png\n")
    data = open_data(tmp_path / "list.csv", picture_model())
    assert (data.classes, data.labels.tolist()) == (("ant", "fox"), [1, 0, 1])
    assert [batch.labels.tolist() for batch in data.batches(9)] == [[1, 0]]
    assert data.bad == [BadSample("gone.png", "No such file or directory")]


def test_a_list_without_labels(tmp_path):
    save_picture(tmp_path / "a.png")
    (tmp_path / "list.csv").write_text("a.png\na.png\n")
    assert open_data(tmp_path / "list.csv", picture_model()).labels is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows"),
        ("path,label\n", "has no rows"),
        ("gone.png,1\n", "there is no picture .*gone.png'; paths are relative to the CSV"),
        ("a.png,1\na.png\n", "the row 'a.png' has 1 columns, 2 are needed"),
        ("a.png,1\na.png,\n", "sample 1 has no label"),
        ("a.png,-1\n", "1 label below 0"),
        ("a.png,99999999999999999999\n", "a label is no class"),
    ],
)
def test_wrong_lists(tmp_path, text, message):
    save_picture(tmp_path / "a.png")
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        open_data(tmp_path / "list.csv", picture_model())


def test_a_list_that_is_no_text(tmp_path):
    (tmp_path / "list.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(DataError, match="is no text with values between commas"):
        open_data(tmp_path / "list.csv", picture_model())


def test_folders_without_pictures(tmp_path):
    (tmp_path / "p").mkdir()
    with pytest.raises(DataError, match="p' holds no pictures: it is empty"):
        open_data(tmp_path / "p", picture_model())
    (tmp_path / "p" / "a.txt").write_text("")
    with pytest.raises(DataError, match="holds no pictures: 1 entries, none of them a picture"):
        open_data(tmp_path / "p", picture_model())


def test_models_that_take_no_pictures(tmp_path):
    save_picture(tmp_path / "p" / "a.png")
    with pytest.raises(DataError, match=r"takes \[7\] per sample, which is no picture .* \.npz"):
        open_data(tmp_path / "p", picture_model((1, 7)))
    with pytest.raises(DataError, match=r"takes \[4, 8, 8\] per sample, which is no picture"):
        open_data(tmp_path / "p", picture_model((1, 4, 8, 8)), preprocessing=Preprocessing(layout="NCHW"))
    with pytest.raises(
        DataError, match=r"the model has 2 inputs \(image, extra\), pictures fill only one: give an .npz"
    ):
        open_data(tmp_path / "p", two_input_model())


def test_what_pillow_only_warns_of_is_no_error(tmp_path):
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 1
    Image.new("RGB", (8, 8), (1, 2, 3)).save(buffer, "JPEG", exif=exif)
    damaged = (
        buffer.getvalue().replace(b"Exif\x00\x00MM", b"Exif\x00\x00XX").replace(b"Exif\x00\x00II", b"Exif\x00\x00XX")
    )
    (tmp_path / "p.jpg").write_bytes(damaged)
    assert read_all(open_data(tmp_path / "p.jpg", picture_model()))["image"].shape == (1, 3, 8, 8)


def test_an_empty_name_is_not_the_folder_that_one_is_in(tmp_path, monkeypatch):
    save_picture(tmp_path / "p.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="the name of the data is empty"):
        open_data("", picture_model())


def test_a_folder_below_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    save_picture(tmp_path / "p" / "a.png")
    (tmp_path / "p" / "closed").mkdir()
    scan = os.scandir

    def refuse(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"closed' cannot be read: Permission denied"):
        open_data(tmp_path / "p", picture_model())
