"""What is measured, in the order of importance: an interrupted run has the rows that matter most."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

REDUCTIONS = (0.3, 0.44, 0.6)
REAL_REDUCTIONS = (0.2, 0.3, 0.44)
SEEDS = (0, 1, 2)
# What is done to the weights that stay; "+ recalibrated": the statistics of normalizations are set anew after it.
NONE, RECALIBRATED, MERGE, DATA_FREE = "none", "recalibrated", "merge", "data-free"
LEAST_SQUARES, BOTH = "least squares", "least squares, recalibrated"
# Domain of pictures that show nothing.
MADE_UP = "made-up"
MAIN = ("reconstruction", "l1", "srr")
OTHERS = ("srr+reconstruction", "srr, paper", "fpgm", "bn_scale", "random")
NUM_IMAGES = (64, 128, 256, 2048)
EMOJI = "emoji"
CLASSIC = ("resnet20", "vgg7_bn")
OTHER_EMOJI = (
    ("mobilenet_v2", EMOJI),
    ("shufflenet_v2", EMOJI),
    ("densenet40", EMOJI),
    ("resnet20", "image"),
    ("vgg7_bn", "image"),
)
# Networks trained elsewhere, and what they are measured on.
REAL = {
    "efficientnet_lite0": "super-classes of photographs",
    "ppocr_cls": "rendered text, upright or turned",
    "ppocr_rec": "rendered text, read without a mistake",
    "opennsfw": "photographs",
}
REAL_WITH_NORMS = ("ppocr_cls", "ppocr_rec")


@dataclasses.dataclass(frozen=True)
class Job:
    """One pruned network, compensated in several ways.

    Attributes:
        net: Name of the network.
        split: Which images were trained on.
        seed: Of the training, of the choice of images, and of whatever is drawn.
        criterion: Which units go.
        reduction: Share of the MACs that goes.
        ways: What is done to the weights that stay, each on the pruned network.
        domain: What the calibration images show.
        samples: How many there are; 0 for the usual number of the network.
    """

    net: str
    split: str
    seed: int
    criterion: str
    reduction: float
    ways: tuple[str, ...]
    domain: str = "own"
    samples: int = 0

    @property
    def images(self) -> tuple[str, str, int, str, int]:
        """What jobs have in common that can share what the layers gave on images."""
        return self.net, self.split, self.seed, self.domain, self.samples


def list_jobs() -> Iterator[Job]:
    """List everything that is measured."""
    for seed in SEEDS:
        for net in CLASSIC:
            yield from _compare_main(net, EMOJI, seed, is_first=seed == 0)
    for net, split in OTHER_EMOJI:
        yield from _compare_main(net, split, 0, is_first=False)
    for net in CLASSIC:
        for reduction in (0.44, 0.6):
            ways = (LEAST_SQUARES, BOTH)
            yield Job(net, EMOJI, 0, "reconstruction", reduction, ways, "photographs")
            yield Job(net, EMOJI, 0, "l1", reduction, (RECALIBRATED, LEAST_SQUARES), "photographs")
    for samples in NUM_IMAGES:
        for net in CLASSIC:
            yield Job(net, EMOJI, 0, "reconstruction", 0.44, (LEAST_SQUARES, BOTH), samples=samples)
            yield Job(net, EMOJI, 0, "l1", 0.44, (RECALIBRATED,), samples=samples)
    for net in CLASSIC:
        for criterion in OTHERS:
            yield Job(net, EMOJI, 0, criterion, 0.44, (RECALIBRATED, DATA_FREE, LEAST_SQUARES))
        yield Job(net, EMOJI, 0, "srr+reconstruction", 0.6, (LEAST_SQUARES,))
    yield from _list_made_up()
    for net in REAL:
        for reduction in REAL_REDUCTIONS:
            more = (DATA_FREE,) if net == "ppocr_cls" else ()  # the others' layers follow from no normalization
            yield Job(net, "", 0, "reconstruction", reduction, (NONE, MERGE, *more, LEAST_SQUARES))
            more = (RECALIBRATED,) if net in REAL_WITH_NORMS else ()
            yield Job(net, "", 0, "l1", reduction, (NONE, *more, LEAST_SQUARES))
    for seed in SEEDS[1:]:
        for net in CLASSIC:
            for reduction in (0.44, 0.6):
                yield Job(net, EMOJI, seed, "srr+reconstruction", reduction, (LEAST_SQUARES,))
            yield Job(net, EMOJI, seed, "reconstruction", 0.44, (RECALIBRATED, BOTH))
            yield Job(net, EMOJI, seed, "reconstruction", 0.44, (LEAST_SQUARES, BOTH), "photographs")


def _list_made_up() -> Iterator[Job]:
    """Made-up pictures in place of images: criteria that need none, and reconstruction."""
    nets = [*((net, EMOJI, 0) for net in (*CLASSIC, "mobilenet_v2")), ("ppocr_cls", "", 0)]
    nets += [("resnet20", EMOJI, seed) for seed in SEEDS[1:]]
    for net, split, seed in nets:
        for reduction in (0.3, 0.44) if net in REAL else (0.44,):
            for criterion in ("srr", "reconstruction", "l1"):
                yield Job(net, split, seed, criterion, reduction, (NONE, LEAST_SQUARES), MADE_UP, 256)


def _compare_main(net: str, split: str, seed: int, *, is_first: bool) -> Iterator[Job]:
    """The criteria that matter most, at every reduction; more ways of compensation for the first network of a kind."""
    for reduction in (0.44, 0.6, 0.3):
        more = (RECALIBRATED, BOTH) if is_first else ()
        yield Job(net, split, seed, "reconstruction", reduction, (NONE, MERGE, DATA_FREE, LEAST_SQUARES, *more))
        more = (LEAST_SQUARES,) if is_first or reduction == 0.44 else ()
        yield Job(net, split, seed, "l1", reduction, (NONE, RECALIBRATED, MERGE, DATA_FREE, *more))
        if is_first or reduction == 0.44:
            yield Job(net, split, seed, "srr", reduction, (NONE, RECALIBRATED, MERGE, DATA_FREE, LEAST_SQUARES))
