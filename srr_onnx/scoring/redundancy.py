"""SCORE: from the filters of all groups to their redundancies.

Reads parameter slices and makes one `Trajectory` per group, with the order in which the group's filters go.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from srr_onnx.scoring.distances import (
    Distances,
    FilterDistances,
    Floats,
    count_pairs,
    fixed_threshold,
    lower_quantile,
    measure_distances,
    mirror,
    sample_pairs,
)
from srr_onnx.scoring.options import PAPER_GAMMA, SrrOptions
from srr_onnx.scoring.shrinking_graph import Adjacency, order_by_degree
from srr_onnx.scoring.slices import Slices
from srr_onnx.scoring.trajectory import Redundancy, Trajectory

# Distances that are looked at for a quantile, which then is the quantile of a share that is off by 0.2 %.
_SAMPLE = 50_000
# Distances that are kept from the search for the threshold to the graphs (240 MB); the rest is measured twice.
_KEPT = 60_000_000


@dataclasses.dataclass(frozen=True, eq=False)
class GroupRedundancy:
    """What SRR knows of a group.

    Attributes:
        trajectory: Redundancy by number of removed nodes.
        scores: Shape `(U,)`: the n units to drop are those with the n lowest scores, by the chosen rule.
    """

    trajectory: Trajectory
    scores: Floats

    @property
    def report(self) -> Redundancy:
        """The state before any removal."""
        return self.trajectory.report


def group_rng(seed: int, group_id: str) -> np.random.Generator:
    """Make the random generator of one group, independent of the other groups."""
    return np.random.default_rng([seed, zlib.crc32(group_id.encode())])


def find_redundancies(
    groups: Sequence[Slices],
    options: SrrOptions | None = None,
    seed: int = 0,
    on_group: Callable[[int, int], None] | None = None,
) -> dict[str, GroupRedundancy]:
    """Make the graph of every group and follow its redundancy.

    Two units are neighbors when their unit-normalized filters are close in every layer of the group. Bias and
    normalization take no part; where normalization is folded into the filters, a negative scale turns the sign of a
    filter and so counts.

    Args:
        groups: Parameters of all groups that share a pooled threshold.
        options: How redundancy is measured; None for the defaults.
        seed: For random removal.
        on_group: Told the number of groups done and of all groups, after each.

    Returns:
        By group id.

    Raises:
        DataError: A group has no filters, or they are not finite.

    Source:
        Wang et al., "Convolutional Neural Network Pruning with Structural Redundancy Reduction", CVPR 2021,
        arXiv:2104.03438. For deviations see `SrrOptions` and `Trajectory`.
    """
    options = options or SrrOptions()
    kept: dict[str, FilterDistances] = {}
    pooled: float | None = None
    if options.gamma == "auto" and options.pooled:
        pooled = _pooled_threshold(groups, options, kept)
    found = {}
    for done, slices in enumerate(groups, start=1):
        distances = kept.pop(slices.group_id, None) or _measure(slices, options)
        found[slices.group_id] = _follow(distances, 1.0 if pooled is None else pooled, options, seed)
        if on_group:
            on_group(done, len(groups))
    return found


def _pooled_threshold(groups: Sequence[Slices], options: SrrOptions, kept: dict[str, FilterDistances]) -> float:
    """Find one squared quantile over all groups, every pair of units counting alike; what fits goes into `kept`."""
    share = _SAMPLE / max(sum(count_pairs(slices.units) for slices in groups), 1)
    samples: list[Distances] = [np.zeros(0, np.float32)]
    room = _KEPT
    for slices in groups:
        distances = _measure(slices, options)
        samples.append(sample_pairs(distances.squares, share * count_pairs(slices.units)))
        room -= slices.units**2
        if room >= 0:
            kept[slices.group_id] = distances
    return lower_quantile(np.concatenate(samples), options.quantile)


def _measure(slices: Slices, options: SrrOptions) -> FilterDistances:
    """Measure the distances of one group in its own thresholds, or as they are where the threshold is pooled."""

    def threshold(squares: Distances, length: float) -> float:
        if options.gamma != "auto":
            return fixed_threshold(PAPER_GAMMA if options.gamma == "paper" else options.gamma, length) ** 2
        return 1.0 if options.pooled else lower_quantile(sample_pairs(squares, _SAMPLE), options.quantile)

    return measure_distances(
        slices, threshold, is_joined=options.coupling == "joined", is_exact=options.gamma != "auto"
    )


def _follow(distances: FilterDistances, bound: float, options: SrrOptions, seed: int) -> GroupRedundancy:
    """Make the graph of one group, whose edges are the squared distances up to a bound, its trajectory and scores."""
    adjacency: Adjacency = mirror(distances.squares <= bound)
    np.fill_diagonal(adjacency, False)
    size = len(adjacency)
    if options.node_removal == "highest_degree":
        order = order_by_degree(adjacency)
    elif options.node_removal == "smallest_l1":
        order = list(range(size))  # the vertices are numbered that way
    else:
        order = group_rng(seed, distances.group_id).permutation(size).tolist()
    trajectory = Trajectory(distances.group_id, adjacency, order, options, math.sqrt(bound) * distances.threshold)
    if options.filter_choice == "l1":
        return GroupRedundancy(trajectory, distances.l1)
    if options.filter_choice == "closest_pair":
        order = order_by_closest_pair(mirror(distances.squares))
    scores = np.empty(size)
    scores[distances.units[order]] = np.arange(size)
    return GroupRedundancy(trajectory, scores)


def order_by_closest_pair(squares: Distances) -> list[int]:
    """Order vertices by repeatedly dropping the lower one (the one with the smaller L1 norm) of the closest pair.

    Args:
        squares: Squared distances, shape `(N, N)`, symmetric; not changed.

    Returns:
        The vertices in the order they are dropped; of equally close pairs the lowest goes first.
    """
    size = len(squares)
    distances = squares.copy()
    np.fill_diagonal(distances, np.inf)
    nearest = _last_argmin(distances)  # (N,); the last of equals, since low vertices go first
    gap = distances[np.arange(size), nearest]  # (N,): distance to the nearest vertex
    order: list[int] = []
    for _ in range(size - 1):
        dropped = int(gap.argmin())  # the lower one of its pair: the first minimum
        order.append(dropped)
        distances[:, dropped] = np.inf
        gap[dropped] = np.inf
        orphans = np.flatnonzero((nearest == dropped) & (gap < np.inf))
        nearest[orphans] = _last_argmin(distances[orphans])
        gap[orphans] = distances[orphans, nearest[orphans]]
    return order + sorted(set(range(size)) - set(order))


def _last_argmin(rows: Distances) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Find the last minimum of every row; shape `(M, N)` to `(M,)`."""
    places: np.ndarray[Any, np.dtype[np.int64]] = rows.shape[1] - 1 - rows[:, ::-1].argmin(axis=1)
    return places
