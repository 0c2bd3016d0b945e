"""Arrays in files and from code: what is preprocessed, what is passed on, what is refused."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from data_models import picture_model, random_pixels, read_all, two_input_model
from documented import ROOT
from onnx import TensorProto
from PIL import Image

from srr_onnx.data.archives import LABEL_KEYS
from srr_onnx.data.preprocessing import Preprocessing, presets
from srr_onnx.data.read import open_data
from srr_onnx.data.readers import batches as batches_reader
from srr_onnx.data.readers import cifar
from srr_onnx.errors import DataError
from srr_onnx.graph.load import load_model

ASSETS = ROOT / "srr_onnx" / "assets"


def save(tmp_path, **arrays):
    np.savez(tmp_path / "some.npz", **arrays)
    return tmp_path / "some.npz"


@pytest.mark.parametrize("key", ["image", "x", "images", "data", "pixels"])
@pytest.mark.parametrize("label_key", LABEL_KEYS)
def test_the_array_and_its_labels_are_found(tmp_path, key, label_key):
    pixels = random_pixels(5)
    path = save(tmp_path, **{key: pixels, label_key: np.array([3, 1, 4, 1, 5], np.uint8), "vendor": np.arange(5)})
    data = open_data(path, picture_model())
    assert (read_all(data)["image"] == pixels.astype(np.float32) / 255).all()
    assert (data.labels.tolist(), data.labels.dtype) == ([3, 1, 4, 1, 5], np.int64)


def test_class_names_lie_beside_the_labels(tmp_path):
    path = save(tmp_path, x=random_pixels(2), y=np.array(["b", "a"]), classes=np.array(["b", "c", "a"]))
    data = open_data(path, picture_model())
    assert (data.classes, data.labels.tolist()) == (("b", "c", "a"), [0, 2])


def test_floating_point_arrays_are_passed_on_as_they_are(tmp_path):
    numbers = np.random.default_rng(0).standard_normal((3, 3, 8, 8)) * 50
    model = picture_model(metadata={"preprocessing": {"mean": [9.0], "std": [2.0]}})
    data = open_data(save(tmp_path, x=numbers), model)
    found = read_all(data)["image"]
    assert found.dtype == np.float32
    assert (found == numbers.astype(np.float32)).all()
    assert "arrays as they are (float64)" in data.describe()


def test_floating_point_pixels_are_preprocessed_if_that_is_asked_for(tmp_path):
    pixels = random_pixels(2)
    wanted = Preprocessing(mean=(0.5,), std=(0.25,))
    found = read_all(open_data(save(tmp_path, x=pixels.astype(np.float32)), picture_model(), preprocessing=wanted))
    assert (
        found["image"] == read_all(open_data(save(tmp_path, x=pixels), picture_model(), preprocessing=wanted))["image"]
    ).all()


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (0, 256)])
def test_numbers_that_are_no_pixels_are_not_preprocessed_again(tmp_path, low, high):
    numbers = np.linspace(low, high, 3 * 8 * 8, dtype=np.float32).reshape(1, 3, 8, 8)
    with pytest.raises(DataError, match=f"holds {low} to {high}, but a preprocessing takes pixels of 0 to 255: leave"):
        open_data(save(tmp_path, x=numbers), picture_model(), preprocessing=presets.get("unit"))


def test_whole_numbers_are_pixels_or_refused(tmp_path):
    pixels = random_pixels(2)
    found = read_all(open_data(save(tmp_path, x=pixels.astype(np.int64)), picture_model()))["image"]
    assert (found == pixels.astype(np.float32) / 255).all()
    with pytest.raises(DataError, match="holds 0 to 300, but a preprocessing takes pixels"):
        open_data(save(tmp_path, x=np.linspace(0, 300, 192, dtype=np.int32).reshape(1, 3, 8, 8)), picture_model())


def test_whole_numbers_for_a_model_that_takes_them(tmp_path):
    tokens = np.arange(12, dtype=np.int32).reshape(3, 4) * 100
    model = picture_model((1, 4), TensorProto.INT64)
    found = read_all(open_data(save(tmp_path, x=tokens), model))["image"]
    assert (found == tokens).all()
    assert found.dtype == np.int64
    with pytest.raises(DataError, match="has type float64, but the model takes int64: give whole numbers"):
        open_data(save(tmp_path, x=tokens / 2), model)
    with pytest.raises(DataError, match="holds 0 to 1100, more than the model's int8 can"):
        open_data(save(tmp_path, x=tokens), picture_model((1, 4), TensorProto.INT8))


@pytest.mark.parametrize(
    ("given", "takes"), [((4, 6, 3), (3, 4, 6)), ((3, 4, 6), (4, 6, 3)), ((4, 6), (1, 4, 6)), ((4, 6), (4, 6, 1))]
)
def test_pixels_are_turned_into_the_models_layout(tmp_path, given, takes):
    pixels = random_pixels(2, given)
    found = read_all(open_data(save(tmp_path, x=pixels), picture_model((1, *takes))))["image"]
    expected = (
        pixels.reshape(2, *takes)
        if len(given) == 2
        else pixels.transpose((0, 3, 1, 2) if given[2] == 3 else (0, 2, 3, 1))
    )
    assert (found == expected.astype(np.float32) / 255).all()


def test_an_ambiguous_layout_is_the_models(tmp_path):
    pixels = random_pixels(2, (3, 3, 3))
    assert (
        read_all(open_data(save(tmp_path, x=pixels), picture_model((1, 3, 3, 3))))["image"] * 255
    ).round().tolist() == (pixels.tolist())


def test_pixels_of_another_size_are_resized_only_if_that_is_asked_for(tmp_path):
    path = save(tmp_path, x=np.full((2, 3, 16, 12), 51, np.uint8))
    with pytest.raises(DataError, match=r"pictures of 16x12 pixels, but the model takes 8x8: say how .*--resize"):
        open_data(path, picture_model())
    with pytest.raises(DataError, match="16x12 pixels"):
        open_data(path, picture_model(), preprocessing=presets.get("unit"))
    found = read_all(open_data(path, picture_model(), preprocessing=Preprocessing(resize=8)))["image"]
    assert found.shape == (2, 3, 8, 8)
    assert found == pytest.approx(0.2)


def test_pixels_of_the_models_size_are_never_resized(tmp_path):
    pixels = random_pixels(1, (3, 64, 64))
    data = open_data(save(tmp_path, x=pixels), picture_model((1, 3, 64, 64)))
    assert "imagenet" in data.describe()
    assert "resize" not in data.describe()
    mean, std = (np.array(presets.get("imagenet").__dict__[key])[:, None, None] for key in ("mean", "std"))
    assert np.abs(read_all(data)["image"] - (pixels / 255 - mean) / std).max() < 1e-5


def test_color_arrays_become_gray_if_that_is_asked_for(tmp_path):
    pixels = np.tile(np.array([10, 20, 30], np.uint8)[:, None, None], (1, 8, 8))[None]
    path, model = save(tmp_path, x=pixels), picture_model((1, 1, 8, 8))
    with pytest.raises(DataError, match=r"shape \[3, 8, 8\], but the model takes pictures of 1 channel, 8x8 \(NCHW\)"):
        open_data(path, model)
    wanted = Preprocessing(color="gray", range="0..255")
    assert read_all(open_data(path, model, preprocessing=wanted))["image"][0, 0, 0, 0] == 18


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"x": np.zeros((2, 1, 8, 8), np.uint8)},
            r"shape \[1, 8, 8\], but the model takes pictures of 3 channels, 8x8",
        ),
        (
            {"x": np.zeros((2, 3, 8, 9), np.float32)},
            r"shape \[3, 8, 9\], but the model takes \[3, 8, 8\]: floating-point",
        ),
        ({"x": np.zeros((2, 192), np.uint8)}, r"shape \[192\], but the model takes pictures"),
        ({"x": np.array([["a", "b"]])}, "type <U1, which holds no numbers"),
        ({"x": np.zeros((2, 3, 8, 8), bool)}, "type bool, which holds no numbers"),
        ({"x": np.zeros((2, 3, 8, 8), complex)}, "type complex128, which holds no numbers"),
        ({"x": np.full((1, 3, 8, 8), np.nan)}, "'image' holds 192 numbers NaN or infinite, of 192"),
        (
            {"x": np.array([np.inf, *[0.0] * 191]).reshape(1, 3, 8, 8)},
            "'image' holds 1 number NaN or infinite",
        ),
        ({"x": np.zeros((0, 3, 8, 8))}, "holds no samples"),
        ({"x": np.float32(1)}, "holds no samples"),
        (
            {"a": np.zeros((2, 3)), "b": np.zeros((2, 3))},
            "no usable array for input 'image': found a, b; name it image, x",
        ),
        ({"a": np.zeros(3)}, "no usable array for input 'image': found a"),
        ({}, "no usable array for input 'image': found no arrays"),
        ({"x": np.zeros((2, 3, 8, 8)), "y": np.zeros(3, int)}, "has 2 samples, but there are 3 labels"),
        ({"x": np.zeros((2, 3, 8, 8)), "y": np.zeros((2, 5), int)}, r"'y': labels of shape \[2, 5\] and type int64"),
        (
            {"x": np.zeros((2, 3, 8, 8)), "y": np.zeros(2)},
            "'y': labels of shape .* type float64: give one whole number",
        ),
        ({"x": np.zeros((2, 3, 8, 8)), "y": np.array([0, -1])}, "1 label below 0"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, arrays, message):
    with pytest.raises(DataError, match=message) as caught:
        open_data(save(tmp_path, **arrays), picture_model())
    assert "\n" not in str(caught.value)


def test_strange_numbers_are_counted_across_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("srr_onnx.data.arrays._CHUNK_BYTES", 1000)
    numbers = np.zeros((50, 3, 8, 8), np.float32)
    numbers[[0, 20, 49], 0, 0, 0] = np.nan, np.inf, -np.inf
    np.save(tmp_path / "x.npy", numbers)
    with pytest.raises(DataError, match="holds 3 numbers NaN or infinite, of 9,600"):
        open_data(tmp_path / "x.npy", picture_model())


def test_numbers_too_large_for_half_precision_are_bad_samples(tmp_path):
    numbers = np.zeros((2, 3, 8, 8))
    numbers[1] = 1e6
    data = open_data(save(tmp_path, x=numbers), picture_model(dtype=TensorProto.FLOAT16))
    assert [batch.indices.tolist() for batch in data.batches(2)] == [[0]]
    assert [(bad.name, bad.reason) for bad in data.bad] == [
        ("sample 1", "numbers for 'image' are too large for float16")
    ]


def test_pickles_are_never_loaded(tmp_path):
    hostile = np.array([[print, print]], dtype=object)
    np.savez(tmp_path / "x.npz", x=hostile)
    np.save(tmp_path / "x.npy", hostile)
    for name in ("x.npz", "x.npy"):
        with pytest.raises(DataError, match=r"Python objects \(pickle\), which are never loaded"):
            open_data(tmp_path / name, picture_model())


def test_damaged_files(tmp_path):
    path = save(tmp_path, x=random_pixels(3))
    whole = path.read_bytes()
    for count in (0, 3, 100, 400, len(whole) - 30):
        path.write_bytes(whole[:count])
        with pytest.raises(DataError, match=r"some\.npz' cannot be read as \.npz"):
            open_data(path, picture_model())
    path.write_bytes(whole[:300] + b"\0\1\2\3" + whole[304:])
    with pytest.raises(DataError, match="array 'x' cannot be read: Bad CRC-32"):
        open_data(path, picture_model())
    np.save(tmp_path / "x.npy", random_pixels(3))
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:200])
    with pytest.raises(DataError, match=r"x\.npy' cannot be read as \.npy"):
        open_data(tmp_path / "x.npy", picture_model())


def test_a_damaged_header(tmp_path):
    np.save(tmp_path / "x.npy", random_pixels(3))
    whole = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(whole.replace(b")", b" "))
    with pytest.raises(DataError, match=r"x\.npy' cannot be read as \.npy: .*(EOF in multi-line|Cannot parse)"):
        open_data(tmp_path / "x.npy", picture_model())


def test_files_under_the_wrong_name(tmp_path):
    path = save(tmp_path, x=random_pixels(3))
    path.rename(tmp_path / "x.npy")
    with pytest.raises(DataError, match=r"holds an archive of arrays: name it \.npz"):
        open_data(tmp_path / "x.npy", picture_model())
    np.save(tmp_path / "y.npy", random_pixels(3))
    (tmp_path / "y.npy").rename(tmp_path / "y.npz")
    with pytest.raises(DataError, match=r"holds a single array, not an archive: name it \.npy"):
        open_data(tmp_path / "y.npz", picture_model())
    with zipfile.ZipFile(tmp_path / "z.npz", "w") as archive:
        archive.writestr("x", "text")
    with pytest.raises(DataError, match="'x' is no array"):
        open_data(tmp_path / "z.npz", picture_model())


def test_several_inputs_by_name(tmp_path):
    pixels, extra = random_pixels(3), np.arange(12.0).reshape(3, 4)
    path = save(tmp_path, image=pixels, extra=extra, y=np.arange(3))
    for wanted in (None, Preprocessing(mean=(0.1, 0.2, 0.3))):  # which is for the pictures alone
        found = read_all(open_data(path, two_input_model(), preprocessing=wanted))
        assert set(found) == {"image", "extra"}
        assert (found["extra"] == extra).all()
    with pytest.raises(DataError, match=r"no array 'extra': found image; the model has 2 inputs \(image, extra\)"):
        open_data(save(tmp_path, image=pixels), two_input_model())
    with pytest.raises(DataError, match="arrays of different lengths \\('image' 3, 'extra' 2\\)"):
        open_data(save(tmp_path, image=pixels, extra=extra[:2]), two_input_model())
    np.save(tmp_path / "x.npy", pixels)
    with pytest.raises(DataError, match=r"2 inputs \(image, extra\): give an \.npz"):
        open_data(tmp_path / "x.npy", two_input_model())


def test_one_array_is_mapped_from_its_file(tmp_path):
    pixels = random_pixels(4)
    np.save(tmp_path / "x.npy", pixels)
    data = open_data(tmp_path / "x.npy", picture_model())
    assert (len(data), data.labels) == (4, None)
    assert (read_all(data)["image"] == pixels.astype(np.float32) / 255).all()


def write_cifar(path, pixels, labels):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(
        np.concatenate([np.array(labels, np.uint8)[:, None], pixels.reshape(len(pixels), -1)], axis=1).tobytes()
    )


def test_cifar10(tmp_path):
    pixels, model = random_pixels(6, (3, 32, 32)), picture_model((1, 3, 32, 32))
    write_cifar(tmp_path / "c" / "data_batch_1.bin", pixels[:3], [1, 2, 3])
    write_cifar(tmp_path / "c" / "data_batch_2.bin", pixels[3:5], [4, 5])
    write_cifar(tmp_path / "c" / "test_batch.bin", pixels[5:], [9])
    data = open_data(tmp_path / "c", model, preprocessing=presets.get("unit"))
    assert data.labels.tolist() == [1, 2, 3, 4, 5, 9]
    assert data.classes == cifar.CLASSES
    assert (read_all(data, 4)["image"] == pixels.astype(np.float32) / 255).all()
    assert open_data(tmp_path / "c" / "test_batch.bin", model).labels.tolist() == [9]


def test_files_that_are_no_cifar10(tmp_path):
    model = picture_model((1, 3, 32, 32))
    (tmp_path / "a.bin").write_bytes(b"\0" * 3000)
    with pytest.raises(DataError, match="no CIFAR-10 file: 3000 bytes are not a multiple of 3073"):
        open_data(tmp_path / "a.bin", model)
    write_cifar(tmp_path / "a.bin", random_pixels(1, (3, 32, 32)), [10])
    with pytest.raises(DataError, match="it has class 10, but there are 0 to 9"):
        open_data(tmp_path / "a.bin", model)
    write_cifar(tmp_path / "a.bin", random_pixels(1, (3, 32, 32)), [1])
    with pytest.raises(DataError, match="2 inputs"):
        open_data(tmp_path / "a.bin", two_input_model())


def test_batches_from_code():
    pixels, model = random_pixels(5), picture_model()
    expected = pixels.astype(np.float32) / 255
    parts = [pixels[:3], pixels[3:]]
    sources = [
        parts,
        iter(parts),
        pixels,
        {"image": pixels},
        [{"image": part} for part in parts],
        [(parts[0], np.array([0, 1, 2])), [{"image": parts[1]}, [3, 4]]],
        [(part,) for part in parts],
    ]
    for source in sources:
        assert (read_all(open_data(source, model), 2)["image"] == expected).all()
    assert open_data(sources[5], model).labels.tolist() == [0, 1, 2, 3, 4]
    assert open_data(parts, model).labels is None


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "gave no batches"),
        ([np.zeros((2, 3, 8, 8)), np.zeros((2, 3, 8, 9))], r"batch 1: 'image' has samples of shape \[3, 8, 9\]"),
        ([np.zeros((2, 3, 8, 8)), np.zeros((2, 3, 8, 8), np.uint8)], "and type uint8, in the first batch"),
        ([(np.zeros((2, 3, 8, 8)), [1])], "batch 0: 'labels' has 1 sample, 'image' has 2"),
        ([(np.zeros((2, 3, 8, 8)), [1, 2]), np.zeros((2, 3, 8, 8))], "1 of 2 batches have labels; all or none may"),
        ([(1, 2, 3)], "has 3 parts: give inputs, or a pair"),
        ([{"picture": np.zeros((2, 3, 8, 8))}], "has no array 'image': found picture"),
        ([1.5], "'image' is a single number"),
        ([[[1, 2], [3]]], "batch 0"),
        (["text"], "'image' is a single number"),
        ([(np.zeros((2, 3, 8, 8)), ["a", ""])], "sample 1 has no label"),
        ((1 / 0 for _ in range(1)), "failed: ZeroDivisionError: division by zero"),
    ],
)
def test_batches_of_another_form(source, message):
    with pytest.raises(DataError, match=message):
        open_data(source, picture_model())


def test_an_endless_iterable_ends(monkeypatch):
    monkeypatch.setattr(batches_reader, "MOST_BYTES", 10_000)

    def endless():
        while True:
            yield random_pixels(10)

    with pytest.raises(DataError, match="gave more than 0 GB: limit it, or give"):
        open_data(endless(), picture_model())


def test_several_inputs_need_a_dict():
    with pytest.raises(DataError, match=r"is one array, the model has 2 inputs: give a dict \(image, extra\)"):
        open_data([np.zeros((2, 3, 8, 8))], two_input_model())


def test_a_function_in_a_module_here(tmp_path):
    (tmp_path / "my_samples.py").write_text(
        "import numpy as np\n\ndef ones():\n    yield np.ones((2, 3, 8, 8)), [1, 0]\n\n"
        "def fails():\n    raise OSError('disk\\nis gone')\n\ndef number():\n    return 3\n"
    )
    data = open_data("my_samples:ones", picture_model())
    assert (data.labels.tolist(), data.name) == ([1, 0], "my_samples:ones")
    assert (read_all(data)["image"] == 1).all()
    for source, message in (
        ("my_samples:fails", "'my_samples:fails' failed: OSError: disk$"),
        ("my_samples:number", "gave int, not batches"),
        ("my_samples:none", "has no function 'none'"),
        ("no_such_module:f", "failed: ModuleNotFoundError"),
        ("a b:c", "it is no MODULE:FUNCTION either"),
    ):
        with pytest.raises(DataError, match=message):
            open_data(source, picture_model())


def test_one_picture_gives_the_same_numbers_in_every_form(tmp_path):
    model = load_model(ASSETS / "resnet20_emoji.onnx")
    with np.load(ASSETS / "emoji_test.npz") as archive:
        pixels, labels, classes = archive["x"][::40], archive["y"][::40], archive["classes"].tolist()
    for index, (one, label) in enumerate(zip(pixels, labels, strict=True)):
        path = tmp_path / "p" / classes[label] / f"{index:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.moveaxis(one, 0, -1).copy()).save(path)
    write_cifar(tmp_path / "emoji.bin", pixels, labels)
    arrays = open_data(save(tmp_path, x=pixels, y=labels), model)
    files, records = open_data(tmp_path / "p", model), open_data(tmp_path / "emoji.bin", model)
    expected = read_all(arrays)["image"]
    assert (read_all(records)["image"] == expected).all()
    order = [int(Path(files.name_of(index)).stem) for index in range(len(files))]
    assert (read_all(files)["image"] == expected[order]).all()
    assert files.labels.tolist() == labels[order].tolist()
    assert set(files.classes) == set(classes)


def test_what_is_no_archive_is_called_so(tmp_path):
    (tmp_path / "x.npz").write_text("some words")
    with pytest.raises(DataError, match="it is no archive of arrays"):
        open_data(tmp_path / "x.npz", picture_model())
