"""What accuracy.py measures, in the order of importance: a run that is stopped has the rows that matter most."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from itertools import product

from accuracy_grid import EMOJI, LEAST_SQUARES, NONE, RECALIBRATED, SEEDS
from accuracy_subjects import BUNDLED

from srr_onnx.finetuning.options import TrainingOptions

LABELS, DISTILLATION = "labels", "distillation"
TRAININGS = (LABELS, DISTILLATION)
# Criterion of the network from which nothing is removed.
UNPRUNED = "unpruned"
MAIN_CRITERIA = ("reconstruction", "l1", "srr", "srr, paper")
OTHER_CRITERIA = ("l1, global", "fpgm", "random")
CRITERIA = (*MAIN_CRITERIA, *OTHER_CRITERIA)
# Either half of srr by itself: its order within a layer, and its choice of layers.
HALVES = ("srr, uniform", "l1, redundancy", "random, redundancy")
MAIN_RIVALS = ("torch-pruning l1", "torch-pruning group norm, global")
RIVALS = (*MAIN_RIVALS, "torch-pruning group norm")
# At which all networks are pruned, as a share of the MACs.
REDUCTION = 0.44
OTHER_REDUCTIONS = (0.6, 0.3)
OTHER_NETS = ("mobilenet_v2", "resnet56", "vgg16_bn", "shufflenet_v2")
# Of these, the ones that are trained fast enough for more than one reduction.
FAST_NETS = tuple(net for net in OTHER_NETS if net != "resnet56")
PHOTO_REDUCTIONS = (0.2, 0.3, 0.44)
PHOTO_NET = "efficientnet_lite0"
# What the networks are measured on.
TEST, VALIDATION = "test", "validation"
# Highest learning rates that were tried on the validation images.
RATES = (0.003, 0.01, 0.03, 0.1)
# The one recipe of all emoji networks, and that of the photographs, which are few and large.
RECIPE = TrainingOptions(epochs=2, lr=0.03)
PHOTO_RECIPE = TrainingOptions(epochs=3, batch=16, lr=0.001, norms="keep")
SMALL_RECIPE = TrainingOptions(epochs=1, lr=0.03)

Way = tuple[str, str]

_UNTRAINED: tuple[Way, ...] = tuple(product((NONE, LEAST_SQUARES), (NONE, RECALIBRATED)))
_ALL: tuple[Way, ...] = (*_UNTRAINED, *product((NONE, LEAST_SQUARES), TRAININGS))
# Where there is time for one training only, that of the better start.
_ONCE: tuple[Way, ...] = (*_UNTRAINED, (LEAST_SQUARES, LABELS))
_SMALL: dict[str, tuple[Way, ...]] = {
    "reconstruction": ((NONE, NONE), (LEAST_SQUARES, NONE), (LEAST_SQUARES, DISTILLATION)),
    "l1": ((NONE, NONE), (NONE, RECALIBRATED), (NONE, LABELS)),
}
_CONTROL: tuple[Way, ...] = ((NONE, NONE), (NONE, LABELS))
# The rivals compensate nothing.
_RIVALS: tuple[Way, ...] = ((NONE, NONE), (NONE, RECALIBRATED), (NONE, LABELS))
_TRAINED_RIVALS: tuple[Way, ...] = (*_RIVALS, (NONE, DISTILLATION))
# The criteria that matter most, l1 also in the usual way: trained without compensation.
MAIN = {
    **dict.fromkeys(MAIN_CRITERIA, _ONCE),
    "reconstruction": (*_ONCE, (LEAST_SQUARES, DISTILLATION)),
    "l1": (*_ONCE, (NONE, LABELS)),
    **dict.fromkeys(MAIN_RIVALS, _RIVALS),
}


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


def _compare(net: str, split: str, seed: int, reduction: float, ways: Mapping[str, tuple[Way, ...]]) -> Iterator[Unit]:
    """One network by several criteria, the control first."""
    yield Unit(net, split, seed, UNPRUNED, 0.0, _CONTROL)
    for criterion, found in ways.items():
        yield Unit(net, split, seed, criterion, reduction, found)


def _list_first() -> Iterator[Unit]:
    """One network at 44 % by every criterion and three seeds."""
    for seed in SEEDS:
        ways = dict.fromkeys(MAIN_CRITERIA, _ALL) | dict.fromkeys(OTHER_CRITERIA, _ONCE if seed else _ALL)
        ways |= dict.fromkeys(RIVALS, _RIVALS) | dict.fromkeys(MAIN_RIVALS, _TRAINED_RIVALS)
        yield from _compare("resnet20", EMOJI, seed, REDUCTION, ways)


def _list_other_seeds() -> Iterator[Unit]:
    """Another training of the network on which it matters most what goes."""
    yield from _compare("mobilenet_v2", EMOJI, 1, REDUCTION, MAIN)
    yield Unit("mobilenet_v2", EMOJI, 1, "l1, redundancy", REDUCTION, _UNTRAINED)


def _list_halves() -> Iterator[Unit]:
    """The halves on one network with three seeds; on others, whether the norm is the better order within a layer."""
    for seed, criterion in product(SEEDS, HALVES):
        yield Unit("resnet20", EMOJI, seed, criterion, REDUCTION, _ONCE)
    for net in FAST_NETS:
        yield Unit(net, EMOJI, 0, "l1, redundancy", REDUCTION, _UNTRAINED)


def _list_others() -> Iterator[Unit]:
    for net in OTHER_NETS:
        yield from _compare(net, EMOJI, 0, REDUCTION, _find_ways(net))


def _find_ways(net: str) -> Mapping[str, tuple[Way, ...]]:
    if net == "shufflenet_v2":  # on its shuffles Torch-Pruning divides by zero
        return {criterion: MAIN[criterion] for criterion in MAIN_CRITERIA}
    return MAIN


def _list_reductions() -> Iterator[Unit]:
    """The first network at other reductions, by every criterion."""
    for reduction in OTHER_REDUCTIONS:
        yield from _compare("resnet20", EMOJI, 0, reduction, MAIN | dict.fromkeys(OTHER_CRITERIA, _UNTRAINED))


def _list_other_reductions() -> Iterator[Unit]:
    for net, reduction in product(FAST_NETS, OTHER_REDUCTIONS):
        yield from _compare(net, EMOJI, 0, reduction, _find_ways(net))


def _list_densenet() -> Iterator[Unit]:
    """A network whose training takes ten times as long as that of the others."""
    yield Unit("densenet40", EMOJI, 0, "reconstruction", REDUCTION, _ONCE)
    yield Unit("densenet40", EMOJI, 0, "l1", REDUCTION, _UNTRAINED)


def _list_random_split() -> Iterator[Unit]:
    yield from _compare("resnet20", "image", 0, REDUCTION, MAIN)


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
            yield Unit("resnet20", EMOJI, 0, criterion, REDUCTION, ways, recipe, VALIDATION)


def list_small() -> Iterator[Unit]:
    """The small version: the bundled network and its bundled images, in seconds."""
    for criterion, ways in _SMALL.items():
        yield Unit("resnet20", BUNDLED, 0, criterion, REDUCTION, ways, SMALL_RECIPE)


PARTS: dict[str, Callable[[], Iterator[Unit]]] = {
    "first": _list_first,
    "rates": _list_rates,
    "photos": _list_photos,
    "others": _list_others,
    "halves": _list_halves,
    "reductions": _list_reductions,
    "densenet": _list_densenet,
    "random-split": _list_random_split,
    "other-reductions": _list_other_reductions,
    "other-seeds": _list_other_seeds,
}
