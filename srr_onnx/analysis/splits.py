"""ANALYZE: which axis carries the channels where one axis unfolds into several.

What is unfolded has to stay rectangular: of heads and their channels, say, either channels of all heads go or whole
heads. The axis that leaves more free units when the node is met is taken; where that turns out badly further on, the
other one is tried.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from srr_onnx.analysis.groups import Groups
from srr_onnx.analysis.labels import ChannelLabels, FreezeReason, Labels
from srr_onnx.analysis.rule import Op
from srr_onnx.graph.model import Shape

# Every trial is an analysis of its own.
_MAX_TRIALS = 24

Places = Mapping[tuple[int, int], int]


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """One choice.

    Attributes:
        key: Index of the node, and how many choices it had made before.
        free: Free units that each of the axes would have left, as far as was known then.
        place: The axis that was taken.
        labels: Its labels.
    """

    key: tuple[int, int]
    free: tuple[int, ...]
    place: int
    labels: Labels

    def others(self) -> list[int]:
        """The other axes that would have left more than one unit, the best first."""
        found = [place for place, free in enumerate(self.free) if place != self.place and free > 1]
        return sorted(found, key=lambda place: -self.free[place])


def split_labels(op: Op, flat: Labels, shape: Shape) -> tuple[int, Labels]:
    """Unfold labels of one axis into several axes: tie them so that one of the new axes carries them.

    Args:
        op: The node.
        flat: Labels in row-major order of the new axes.
        shape: Sizes of the new axes.

    Returns:
        The axis that leaves most units free, the last of several (of heads and their channels, the channels), and
        its labels.
    """
    grid = flat.reshape(shape)
    rows = [np.moveaxis(grid, place, -1).reshape(-1, size) for place, size in enumerate(shape)]
    free = [op.labels.count_free(flat, table) if len(table) > 1 else flat.size for table in rows]
    splits = op.state.splits
    key = op.node.index, sum(split.key[0] == op.node.index for split in splits)
    place = op.state.places.get(key, len(free))
    if place >= len(free):
        place = len(free) - 1 - int(np.argmax(free[::-1]))
    splits.append(Split(key, tuple(free), place, rows[place][0]))
    for row in rows[place][1:]:
        op.unify(rows[place][0], row)
    return place, rows[place][0]


def find_doubtful(splits: Iterable[Split], labels: ChannelLabels) -> list[Split]:
    """The choices behind which channels froze or became inexact, where another one might have done better."""
    open_choices = [split for split in splits if split.others()]
    if not open_choices:
        return []
    roots, frozen, inexact = labels.classes(), labels.frozen_classes(), labels.inexact_classes()
    hopeless = (FreezeReason.GRAPH_OUTPUT, FreezeReason.UNKNOWN_OPERATOR, FreezeReason.UNKNOWN_VERSION)
    bad = {root for root, cause in frozen.items() if cause.reason not in hopeless} | set(inexact)
    return [split for split in open_choices if not bad.isdisjoint(roots[split.labels].tolist())]


def choose_splits(analyze: Callable[[Places], tuple[Groups, list[Split]]]) -> Groups:
    """Analyze with the choices that leave most units to be pruned exactly.

    Args:
        analyze: Gives the groups that some choices lead to, and the choices in doubt.

    Returns:
        The best groups found; without doubts those of the first analysis.
    """
    places: Places = {}
    best, doubtful = analyze(places)
    trials = 0
    for split in doubtful:
        for place in split.others():
            trials += 1
            if trials > _MAX_TRIALS:
                return best
            trial = {**places, split.key: place}
            groups, _ = analyze(trial)
            if _exact_units(groups) > _exact_units(best):
                best, places = groups, trial
                break
    return best


def _exact_units(groups: Groups) -> int:
    return sum(group.size for group in groups if group.is_exact)
