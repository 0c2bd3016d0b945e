import dataclasses

import numpy as np
import pytest
from training_models import CLASSES, save_net, save_pictures

torch = pytest.importorskip("torch", reason="torch is not installed")

from srr_onnx.data.dataset import Dataset, UnreadableError  # noqa: E402
from srr_onnx.data.read import open_data  # noqa: E402
from srr_onnx.errors import DataError  # noqa: E402
from srr_onnx.finetuning.augmentation import make_augmenter  # noqa: E402
from srr_onnx.finetuning.datasets import (  # noqa: E402
    Course,
    Order,
    TrainingBatch,
    TrainingSamples,
    make_loader,
    make_mixing_rng,
    mix,
)
from srr_onnx.graph.load import load_model  # noqa: E402


class Rows:
    """Samples of which some cannot be read."""

    def __init__(self, bad):
        self.bad = bad

    def __len__(self):
        return 6

    def name_of(self, index):
        return f"row {index}"

    def fetch(self, index):
        if index in self.bad:
            raise UnreadableError("broken")
        return {"x": np.full(2, index, np.float32)}


def test_the_order_has_every_sample_once_and_differs_from_epoch_to_epoch():
    order = Order(10, 3, seed=1)
    assert sorted(order.shuffle(0)) == list(range(10))
    assert not np.array_equal(order.shuffle(0), order.shuffle(1))
    assert not np.array_equal(order.shuffle(0), dataclasses.replace(order, seed=2).shuffle(0))
    keys = list(order.keys(0, 6))
    assert [len(batch) for batch in keys] == [3] * 6
    assert [key for batch in keys[:3] for key in batch] == [(0, index) for index in order.shuffle(0)[:9]]
    assert {epoch for batch in keys[3:] for epoch, _ in batch} == {1}


@pytest.mark.parametrize("start", range(7))
def test_the_order_goes_on_anywhere(start):
    order = Order(10, 3, seed=1)
    assert list(order.keys(start, 7)) == list(order.keys(0, 7))[start:]


def test_processes_share_every_batch():
    whole = list(Order(20, 6, seed=0).keys(0, 5))
    parts = [list(Order(20, 6, seed=0, processes=3, rank=rank).keys(0, 5)) for rank in range(3)]
    for number, batch in enumerate(whole):
        assert [len(part[number]) for part in parts] == [2, 2, 2]
        assert sorted(key for part in parts for key in part[number]) == sorted(batch)


def test_few_samples_make_one_batch():
    assert Order(5, 5, seed=0).per_epoch == 1


@pytest.fixture
def samples(tmp_path):
    model = load_model(save_net(tmp_path / "net.onnx"))
    dataset = open_data(save_pictures(tmp_path / "data.npz", 20), model)
    return TrainingSamples(dataset, 3, make_augmenter(model, dataset, ("flip", "crop", "randaugment")))


def test_a_sample_follows_from_its_key_alone(samples):
    first = samples[1, 4].inputs["image"]
    samples[0, 4], samples[1, 5]
    assert np.array_equal(first, samples[1, 4].inputs["image"])
    assert not np.array_equal(first, samples[2, 4].inputs["image"])


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(samples, workers):
    def read(count):
        done = [2]
        course = Course(Order(20, 6, seed=0), 5, lambda: done[0])
        return [(batch.key, batch.labels, batch.inputs["image"]) for batch in make_loader(samples, course, count)]

    for here, there in zip(read(0), read(workers), strict=True):
        assert here[0] == there[0]
        assert torch.equal(here[1], there[1]) and torch.equal(here[2], there[2])


def test_what_cannot_be_read_is_replaced_and_named():
    dataset = Dataset(Rows({0, 1, 5}), "rows", "rows", labels=np.arange(6))
    samples = TrainingSamples(dataset, 0)
    batch = samples.collate([samples[0, index] for index in (5, 0, 4)])
    assert batch.labels.tolist() == [2, 2, 4]
    assert batch.inputs["x"][:, 0].tolist() == [2.0, 2.0, 4.0]
    assert [bad.name for bad in batch.bad] == ["row 5", "row 0", "row 1"]
    assert samples.collate([samples[1, 5]]).bad == ()


def test_nothing_that_can_be_read_is_an_error():
    samples = TrainingSamples(Dataset(Rows(set(range(6))), "rows", "rows"), 0)
    with pytest.raises(DataError, match="none of 6 samples of 'rows' can be read: the first, 'row 3': broken"):
        samples[0, 3]


def test_mixed_samples_lie_between_two_of_the_batch(samples):
    batch = samples.collate([samples[0, index] for index in range(8)])
    mixed = mix(batch, 0.4, make_mixing_rng(0, batch.key), CLASSES)
    again = mix(batch, 0.4, make_mixing_rng(0, batch.key), CLASSES)
    assert torch.equal(mixed.inputs["image"], again.inputs["image"])
    assert mixed.labels.sum(1).tolist() == pytest.approx([1.0] * 8)
    own = mixed.labels.gather(1, batch.labels[:, None])[:, 0]
    share = own.min().item()
    assert 0.5 <= share <= 1
    least = torch.minimum(batch.inputs["image"].amin(0), mixed.inputs["image"].amin(0))
    assert torch.equal(least, batch.inputs["image"].amin(0))


def test_pictures_of_whole_numbers_are_mixed_as_their_labels_are():
    picture = torch.arange(8 * 3 * 2 * 2, dtype=torch.uint8).reshape(8, 3, 2, 2)
    inputs = {"image": picture, "float": picture.float(), "place": torch.arange(8)}
    batch = TrainingBatch(inputs, torch.arange(8), (0, 0), ())
    mixed = mix(batch, 8.0, np.random.default_rng(1), 8)
    assert 0.5 <= mixed.labels.diagonal().min() < 0.9
    assert mixed.inputs["image"].dtype == torch.uint8
    assert torch.equal(mixed.inputs["image"].float(), mixed.inputs["float"].round())
    assert torch.equal(mixed.inputs["place"], inputs["place"])
