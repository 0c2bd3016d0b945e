"""What accuracy.py measures, in the order of importance: a run that is stopped has the rows that matter most."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from itertools import product

from accuracy_grid import EMOJI, LEAST_SQUARES, NONE, RECALIBRATED, SEEDS
from accuracy_subjects import BUNDLED

from srr_onnx.finetuning.options import TrainingOptions

LABELS, DISTILLATION = "labels", "distillation"
TRAININGS = (LABELS, DISTILLATION)
# Criterion of the network from which nothing is removed.
UNPRUNED = "unpruned"
MAIN_CRITERIA = ("reconstruction", "l1", "srr", "srr, paper")
CRITERIA = (*MAIN_CRITERIA, "l1, global", "fpgm", "random")
MAIN_RIVALS = ("torch-pruning l1", "torch-pruning group norm, global")
RIVALS = (*MAIN_RIVALS, "torch-pruning group norm")
PHOTO_REDUCTIONS = (0.2, 0.3, 0.44)
PHOTO_NET = "efficientnet_lite0"
# What the networks are measured on.
TEST, VALIDATION = "test", "validation"
# Highest learning rates that were tried on the validation images.
RATES = (0.003, 0.01, 0.03, 0.1)
# The one recipe of all emoji networks, and that of the photographs, which are few and large.
RECIPE = TrainingOptions(epochs=2, lr=0.03)
PHOTO_RECIPE = TrainingOptions(epochs=3, batch=16, lr=0.003)
SMALL_RECIPE = TrainingOptions(epochs=1, lr=0.03)

Way = tuple[str, str]

_UNTRAINED: tuple[Way, ...] = tuple(product((NONE, LEAST_SQUARES), (NONE, RECALIBRATED)))
_ALL: tuple[Way, ...] = (*_UNTRAINED, *product((NONE, LEAST_SQUARES), TRAININGS))
# Where not everything can be trained: either start on labels, and without labels what suits that best.
_FEW: tuple[Way, ...] = (*_UNTRAINED, (NONE, LABELS), (LEAST_SQUARES, LABELS))
_DISTILLED: tuple[Way, ...] = (*_FEW, (LEAST_SQUARES, DISTILLATION))
_SMALL: dict[str, tuple[Way, ...]] = {
    "reconstruction": ((NONE, NONE), (LEAST_SQUARES, NONE), (LEAST_SQUARES, DISTILLATION)),
    "l1": ((NONE, NONE), (NONE, RECALIBRATED), (NONE, LABELS)),
}
_CONTROL: tuple[Way, ...] = ((NONE, NONE), (NONE, LABELS))
# The rivals compensate nothing.
_RIVALS: tuple[Way, ...] = ((NONE, NONE), (NONE, RECALIBRATED), (NONE, LABELS))


@dataclasses.dataclass(frozen=True)
class Unit:
    """One pruned network, compensated and trained in several ways.

    Attributes:
        net: Name of the network.
        split: Which images it was trained on.
        seed: Of its training, of the choice of images, of whatever is drawn, and of the fine-tuning.
        criterion: Which units go.
        reduction: Share of the MACs that goes.
        ways: Pairs of what is done to the weights that stay, and how they are trained.
        recipe: Settings of the training, less loss and seed.
        images: What is measured on.
    """

    net: str
    split: str
    seed: int
    criterion: str
    reduction: float
    ways: tuple[Way, ...]
    recipe: TrainingOptions = RECIPE
    images: str = TEST

    @property
    def subject(self) -> tuple[str, str, int, str]:
        """What units have in common that can share a network and its images."""
        return self.net, self.split, self.seed, self.images


def _list_all(net: str, split: str, seed: int, reduction: float) -> Iterator[Unit]:
    """One network at one reduction by every criterion, the control that is only trained first."""
    yield Unit(net, split, seed, UNPRUNED, 0.0, _CONTROL)
    for criterion in CRITERIA:
        ways = _ALL if reduction == 0.44 else _DISTILLED
        yield Unit(net, split, seed, criterion, reduction, ways)
    for criterion in RIVALS:
        yield Unit(net, split, seed, criterion, reduction, _RIVALS)


def _list_main(net: str, split: str, seed: int) -> Iterator[Unit]:
    """One network at 44 % by the criteria that matter most."""
    yield Unit(net, split, seed, UNPRUNED, 0.0, _CONTROL)
    for criterion in MAIN_CRITERIA:
        yield Unit(net, split, seed, criterion, 0.44, _DISTILLED if criterion == "reconstruction" else _FEW)
    for criterion in MAIN_RIVALS:
        yield Unit(net, split, seed, criterion, 0.44, _RIVALS)


def _list_first() -> Iterator[Unit]:
    for seed in SEEDS:
        yield from _list_all("resnet20", EMOJI, seed, 0.44)


def _list_reductions() -> Iterator[Unit]:
    for reduction, seed in product((0.6, 0.3), SEEDS):
        yield from _list_all("resnet20", EMOJI, seed, reduction)


def _list_others() -> Iterator[Unit]:
    for net in ("vgg7_bn", "mobilenet_v2", "resnet56", "shufflenet_v2", "vgg16_bn"):
        yield from _list_main(net, EMOJI, 0)


def _list_rest() -> Iterator[Unit]:
    yield from _list_main("resnet20", "image", 0)
    for seed in SEEDS[1:]:
        yield from _list_main("vgg7_bn", EMOJI, seed)
    yield from _list_main("densenet40", EMOJI, 0)


def _list_photos() -> Iterator[Unit]:
    ways = ((NONE, NONE), (LEAST_SQUARES, NONE), (LEAST_SQUARES, DISTILLATION))
    for reduction, criterion in product(PHOTO_REDUCTIONS, ("reconstruction", "l1")):
        yield Unit(PHOTO_NET, "", 0, criterion, reduction, ways, PHOTO_RECIPE)


def _list_rates() -> Iterator[Unit]:
    """Rates are tried on one network at one reduction: as it is without compensation, and with the best one."""
    for rate in RATES:
        recipe = dataclasses.replace(RECIPE, lr=rate)
        for criterion, compensation in (("l1", NONE), ("reconstruction", LEAST_SQUARES)):
            ways = ((compensation, LABELS),)
            yield Unit("resnet20", EMOJI, 0, criterion, 0.44, ways, recipe, VALIDATION)


def list_small() -> Iterator[Unit]:
    """The small version: the bundled network and its bundled images, in seconds."""
    for criterion, ways in _SMALL.items():
        yield Unit("resnet20", BUNDLED, 0, criterion, 0.44, ways, SMALL_RECIPE)


PARTS: dict[str, Callable[[], Iterator[Unit]]] = {
    "first": _list_first,
    "rates": _list_rates,
    "reductions": _list_reductions,
    "photos": _list_photos,
    "others": _list_others,
    "rest": _list_rest,
}
