import numpy as np
import pytest
from training_models import net, pictures, save_pictures

torch = pytest.importorskip("torch", reason="torch is not installed")

from srr_onnx.data.dataset import Dataset  # noqa: E402
from srr_onnx.data.preprocessing import Preprocessing  # noqa: E402
from srr_onnx.data.read import open_data  # noqa: E402
from srr_onnx.errors import TrainingError  # noqa: E402
from srr_onnx.finetuning.augmentation import CHANGES, make_augmenter  # noqa: E402
from srr_onnx.graph.load import load_model  # noqa: E402

ALL = ("flip", "crop", "randaugment")


@pytest.fixture
def model(tmp_path):
    import onnx

    onnx.save(net(), tmp_path / "net.onnx")
    return load_model(tmp_path / "net.onnx")


@pytest.fixture
def dataset(model, tmp_path):
    return open_data(save_pictures(tmp_path / "data.npz", 8), model)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_the_same_generator_gives_the_same_picture(model, dataset):
    augmenter = make_augmenter(model, dataset, ALL)
    picture = dataset.fetch(0)["image"]
    first, second, other = (augmenter.change(picture, rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)
    assert (first.shape, first.dtype) == (picture.shape, picture.dtype)


@pytest.mark.parametrize("change", CHANGES, ids=range(len(CHANGES)))
def test_every_change_is_nothing_at_strength_zero_and_something_else_otherwise(change):
    colors = torch.from_numpy(rng().random((3, 9, 7), dtype=np.float32))
    assert (change(colors, 0.0) - colors).abs().max() < 5e-3  # a posterized picture has 255 steps left
    changed = change(colors, 0.3)
    assert changed.shape == colors.shape
    assert (changed - colors).abs().max() > 0.01
    assert bool(torch.isfinite(change(torch.zeros(1, 5, 5), -0.3)).all())


def test_a_picture_is_mirrored_half_of_the_time(model, dataset):
    augmenter = make_augmenter(model, dataset, ("flip",))
    picture = dataset.fetch(0)["image"]
    found = [augmenter.change(picture, rng(seed)) for seed in range(60)]
    flips = sum(np.array_equal(one, picture[..., ::-1]) for one in found)
    same = sum(np.array_equal(one, picture) for one in found)
    assert flips + same == 60
    assert 15 < flips < 45


def test_a_shift_moves_whole_pixels_by_no_more_than_an_eighth(model, dataset):
    augmenter = make_augmenter(model, dataset, ("crop",))
    picture = dataset.fetch(0)["image"]
    found = augmenter.change(picture, rng(3))
    places = [
        (down, right)
        for down in (-1, 0, 1)
        for right in (-1, 0, 1)
        if np.array_equal(np.roll(picture, (down, right), (1, 2))[:, 1:-1, 1:-1], found[:, 1:-1, 1:-1])
    ]
    assert len(places) == 1


@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(range="-1..1"),
        Preprocessing(range="0..255"),
        Preprocessing(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4)),
    ],
    ids=["signed", "bytes", "normalized"],
)
def test_colors_are_changed_alike_however_they_are_preprocessed(model, tmp_path, preprocessing):
    path = save_pictures(tmp_path / "data.npz", 2)
    plain = open_data(path, model, preprocessing=Preprocessing())
    other = open_data(path, model, preprocessing=preprocessing)
    changed = [
        make_augmenter(model, dataset, ALL).change(dataset.fetch(0)["image"], rng(5)) for dataset in (plain, other)
    ]
    gain, zero = {"0..1": (1, 0), "-1..1": (2, -1), "0..255": (255, 0)}[preprocessing.range]
    mean, std = (
        np.array(part or rest)[:, None, None]
        for part, rest in ((preprocessing.mean, [0.0]), (preprocessing.std, [1.0]))
    )
    assert np.allclose((changed[0] * gain + zero - mean) / std, changed[1], rtol=1e-4, atol=1e-3 * gain)


def test_colors_of_unknown_meaning_are_left_alone(model):
    class Rows:
        def __len__(self):
            return 2

        def name_of(self, index):
            return str(index)

        def fetch(self, index):
            return {"image": np.zeros((3, 8, 8), np.float32)}

    dataset = Dataset(Rows(), "rows", "rows")
    assert make_augmenter(model, dataset, ("flip", "crop")).names == ("flip", "crop")
    assert make_augmenter(model, dataset, ()) is None
    with pytest.raises(TrainingError, match="randaugment changes colors, and 'rows' holds numbers"):
        make_augmenter(model, dataset, ALL)


def test_pictures_helper_has_all_classes():
    assert set(pictures()[1]) == {0, 1, 2, 3}
