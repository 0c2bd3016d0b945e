"""Batches, choices, labels from files, readers of one's own, and laws."""

from __future__ import annotations

import numpy as np
import pytest
from data_models import picture_model, random_pixels, read_all, save_picture
from hypothesis import given
from hypothesis import strategies as st

from srr_onnx.data.dataset import choose, split_held_out
from srr_onnx.data.preprocessing import Preprocessing
from srr_onnx.data.read import open_data
from srr_onnx.data.reader import reader, readers
from srr_onnx.data.recipe import find_inputs, fit_preprocessing
from srr_onnx.errors import DataError

PIXELS = random_pixels(11)


@pytest.fixture
def data():
    return open_data([(PIXELS, np.arange(11))], picture_model())


@given(size=st.integers(1, 14), indices=st.lists(st.integers(0, 10), min_size=1, max_size=20))
def test_batches_of_any_size_give_the_same_samples(size, indices):
    data = open_data([(PIXELS, np.arange(11))], picture_model())
    batches = list(data.batches(size, indices))
    assert [len(batch.indices) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    assert np.concatenate([batch.indices for batch in batches]).tolist() == indices
    assert np.concatenate([batch.labels for batch in batches]).tolist() == indices
    found = np.concatenate([batch.feeds["image"] for batch in batches])
    assert (found == PIXELS[indices].astype(np.float32) / 255).all()


def test_later_samples_take_the_places_of_bad_ones(tmp_path):
    for index in range(7):
        save_picture(tmp_path / "p" / f"{index}.png")
    for index in (1, 2, 6):
        (tmp_path / "p" / f"{index}.png").write_bytes(b"bad")
    found = open_data(tmp_path / "p", picture_model())
    assert [batch.indices.tolist() for batch in found.batches(2)] == [[0, 3], [4, 5]]
    assert [bad.name for bad in found.bad] == ["1.png", "2.png", "6.png"]


def test_a_part_has_its_own_places_and_the_same_samples(tmp_path):
    for index in range(5):
        save_picture(tmp_path / f"{index}.png", color=(index, 20, 30))
    (tmp_path / "3.png").write_bytes(b"no picture")
    data = open_data(tmp_path, picture_model()).with_labels(np.arange(5), "abcde")
    part = data.select([4, 3, 1])
    assert (len(part), part.labels.tolist(), part.classes) == (3, [4, 3, 1], tuple("abcde"))
    assert part.preprocessing == data.preprocessing
    assert part.fetch(1) is None
    assert [(bad.name, len(data.bad)) for bad in part.bad] == [("3.png", 0)]
    (found,) = part.batches(5)
    assert (found.indices.tolist(), found.labels.tolist()) == ([0, 2], [4, 1])
    (name,) = found.feeds
    assert np.array_equal(found.feeds[name][1], data.fetch(1)[name])
    with pytest.raises(DataError, match="holds no samples"):
        data.select([])


def test_batches_that_cannot_be(data):
    with pytest.raises(DataError, match="a batch of 0 samples is none"):
        next(data.batches(0))
    with pytest.raises(DataError, match=r"samples 3 to 11 were asked for, .* has 11"):
        next(data.batches(2, [3, 11]))
    assert list(data.batches(2, [])) == []


def test_choose(data):
    found = choose(data, 5, seed=1)
    assert found.dtype == np.int64
    assert len(set(found.tolist())) == 5
    assert found.tolist() == sorted(found) == choose(data, 5, seed=1).tolist()
    assert found.tolist() != choose(data, 5, seed=2).tolist()
    assert choose(data, 99, seed=1).tolist() == list(range(11))
    with pytest.raises(DataError, match="0 samples were asked for"):
        choose(data, 0, seed=1)


@given(count=st.integers(2, 40), share=st.floats(0.01, 0.99), seed=st.integers(0, 5))
def test_held_out_samples_are_not_calibrated_on(count, share, seed):
    indices = np.arange(count) * 3
    kept, held_out = split_held_out(indices, share, seed)
    assert sorted([*kept, *held_out]) == indices.tolist()
    assert len(kept) > 0
    assert abs(len(held_out) - share * count) <= 1
    assert len(held_out) > 0
    assert [kept.tolist(), held_out.tolist()] == [part.tolist() for part in split_held_out(indices, share, seed)]


def test_splits_that_cannot_be():
    with pytest.raises(DataError, match="share of 1 is not between 0 and 1"):
        split_held_out([1, 2, 3], 1, 0)
    with pytest.raises(DataError, match="1 sample cannot be parted"):
        split_held_out([1], 0.5, 0)


def write_labels(tmp_path, name, values):
    path = tmp_path / name
    if name.endswith(".npy"):
        np.save(path, np.array(values))
    elif name.endswith(".npz"):
        np.savez(path, labels=np.array(values))
    else:
        path.write_text("\n".join(map(str, values)) + "\n")
    return path


@pytest.mark.parametrize("name", ["l.npy", "l.npz", "l.txt", "l.csv"])
@pytest.mark.parametrize(("values", "expected"), [([2, 0, 1], [2, 0, 1]), (["c", "a", "b"], [2, 0, 1])])
def test_labels_in_reading_order(tmp_path, name, values, expected):
    found = open_data([PIXELS[:3]], picture_model(), labels=write_labels(tmp_path, name, values))
    assert found.labels.tolist() == expected
    assert found.classes == (("a", "b", "c") if values[0] == "c" else ())


def test_labels_replace_those_of_the_data(tmp_path, data):
    path = write_labels(tmp_path, "l.npy", np.arange(11) * 2)
    assert open_data([(PIXELS, np.arange(11))], picture_model(), labels=path).labels.tolist() == list(range(0, 22, 2))


@pytest.mark.parametrize("header", ["", "filename,label\n"])
def test_labels_by_file_name(tmp_path, header):
    for name in ("a", "b", "sub/c"):
        save_picture(tmp_path / "p" / f"{name}.png")
    (tmp_path / "l.csv").write_text(header + "c.png,dog\n./b.png,ant\na.png,cat\n")
    model = picture_model(metadata={"classes": ["dog", "cat", "ant"]})
    found = open_data(tmp_path / "p", model, labels=tmp_path / "l.csv")
    assert found.labels.tolist() == [1, 2, 0]
    assert found.classes == ("dog", "cat", "ant")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.txt", "1\n2\n", "has 3 samples, but there are 2 labels"),
        ("l.csv", "a.png,1\nb.png,2\n", "has no label for 'sample 0'"),
        ("l.csv", "1\n2,3\n4\n", "rows of different lengths"),
        ("l.md", "1\n2\n3\n", "is no file of labels: give .npy"),
        ("l.npy", "1", "cannot be read as .npy"),
        ("l.txt", b"\xff\xfe\xfd", "is no text in UTF-8"),
        ("l.txt", "0\n-1\n1\n", "1 label below 0"),
    ],
)
def test_labels_out_of_step(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        open_data([PIXELS[:3]], picture_model(), labels=tmp_path / name)


def test_label_files_without_labels(tmp_path):
    with pytest.raises(DataError, match=r"gone\.txt' cannot be read: No such file"):
        open_data([PIXELS[:3]], picture_model(), labels=tmp_path / "gone.txt")
    np.savez(tmp_path / "l.npz", z=np.arange(3))
    with pytest.raises(DataError, match="has no labels: found z, looked for y, labels"):
        open_data([PIXELS[:3]], picture_model(), labels=tmp_path / "l.npz")


def test_nothing_there():
    with pytest.raises(DataError, match="there is no 'nowhere': give a folder of pictures"):
        open_data("nowhere", picture_model())


def test_an_unknown_form(tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04N.")
    with pytest.raises(DataError, match=r"a\.pkl' is no data that can be read: give a folder of pictures, \.npz"):
        open_data(tmp_path / "a.pkl", picture_model())
    with pytest.raises(DataError, match="'3' is no data"):
        open_data(3, picture_model())


def test_a_reader_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "_entries", dict(readers._entries))

    @reader("rows", lambda source: getattr(source, "suffix", "") == ".csv")
    def read_rows(source, request):
        (name,) = request.model.inputs
        rows = np.loadtxt(source, delimiter=",", dtype=np.float32, ndmin=2)
        return request.make_from_arrays({name: rows}, source.name, "rows")

    (tmp_path / "a.csv").write_text("1,2\n3,4\n5,6\n")
    found = open_data(tmp_path / "a.csv", picture_model((1, 2)))  # asked before the built-in one
    assert read_all(found)["image"].tolist() == [[1, 2], [3, 4], [5, 6]]
    with pytest.raises(ValueError, match="reader 'rows' is registered twice"):
        reader("rows", lambda source: False)(read_rows)


def test_an_input_without_an_axis_for_samples():
    with pytest.raises(DataError, match="input 'image' is a single number"):
        open_data([np.zeros(3)], picture_model(()))


@given(
    value=st.integers(0, 255),
    kind=st.sampled_from(["0..1", "0..255", "-1..1"]),
    mean=st.floats(-2, 2),
    std=st.floats(0.1, 4),
    is_first=st.booleans(),
)
def test_a_constant_picture_becomes_a_constant(value, kind, mean, std, is_first):
    model = picture_model((1, 3, 4, 5) if is_first else (1, 4, 5, 3))
    wanted = Preprocessing(range=kind, mean=(mean,), std=(std,))
    recipe = fit_preprocessing(wanted, find_inputs(model)["image"])
    found = recipe.to_numbers(np.full((4, 5, 3), value, np.uint8))
    scaled = {"0..1": value / 255, "0..255": value, "-1..1": value / 127.5 - 1}[kind]
    assert found.shape == model.inputs["image"][1:]
    assert found == pytest.approx((scaled - mean) / std, rel=1e-5, abs=1e-4)


@pytest.mark.parametrize(("color", "size"), [("RGB", (4, 5)), ("BGR", (4, 5)), ("RGB", (6, 3)), ("BGR", (6, 3))])
def test_layouts_differ_by_a_transposition(color, size):
    pixels = random_pixels(2, (3, *size))
    wanted = Preprocessing(color=color, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0))
    first = read_all(open_data([pixels], picture_model((1, 3, *size)), preprocessing=wanted))["image"]
    last = read_all(open_data([pixels], picture_model((1, *size, 3)), preprocessing=wanted))["image"]
    assert (first == last.transpose(0, 3, 1, 2)).all()
