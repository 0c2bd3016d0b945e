"""SCORE: the redundancy of a group, and how it falls while nodes are removed from the group's graph.

Reads a graph and an order of removal. Values are computed when they are asked for, and never change.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from srr_onnx.scoring.covering import GreedyCover
from srr_onnx.scoring.options import SrrOptions
from srr_onnx.scoring.shrinking_graph import Adjacency, ShrinkingGraph, count_components

# With gamma "auto", wider groups measure their redundancy only about as often while they shrink.
_MOST_MEASURED = 64


@dataclasses.dataclass(frozen=True)
class Redundancy:
    """The redundancy of an unpruned group, and what it follows from.

    Attributes:
        group_id: Id of the group.
        units: Number of units U, the vertices of the graph.
        edge_density: Edges / pairs of units, in [0, 1]; 0 for a single unit.
        components: Number k of connected components.
        covering: Estimate N1c of the 1-covering number: mean of the greedy 1-cover and the greedy 2-cover.
        redundancy: R = U / (w1 * k + w2 * N1c); with w1 + w2 = 1 from 1 (no edges) to U (complete graph).
        normalized: (R - 1) / (U - 1); 0 for a single unit.
        gamma: Threshold of the edges: Euclidean distance between unit vectors, the mean over the layers of the group.
    """

    group_id: str
    units: int
    edge_density: float
    components: int
    covering: float
    redundancy: float
    normalized: float
    gamma: float


class Trajectory:
    """The redundancy of one group as a function of the number of nodes removed from its graph.

    It depends on no other group, so a planner can remove nodes from whichever group is most redundant and ask for the
    next value.

    Args:
        group_id: Id of the group.
        adjacency: Edges between the units, shape `(U, U)`, symmetric, false on the diagonal; not kept.
        order: All U vertices in order of their removal.
        options: Weights of R, and whether it is normalized.
        gamma: Threshold that the edges come from, for the report.

    Attributes:
        order: As given.
        report: The state before any removal.

    Source:
        Wang et al., "Convolutional Neural Network Pruning with Structural Redundancy Reduction", CVPR 2021,
        arXiv:2104.03438: R, its weights, the estimate of the covering number by greedy 1- and 2-covers, and the outer
        loop. Deviates: normalization; ties in the greedy covers go to the vertex with the smallest L1 norm.
    """

    def __init__(
        self, group_id: str, adjacency: Adjacency, order: Sequence[int], options: SrrOptions, gamma: float = 0.0
    ) -> None:
        self.order = tuple(order)
        self._options = options
        self._graph = ShrinkingGraph(adjacency)
        self._components = count_components(self._graph.rows, self.order)
        self._covers = (GreedyCover(self._graph, 1), GreedyCover(self._graph, 2))
        self._values = [self._measure(0)]
        units = len(self)
        # One removal out of many moves the redundancy by less than the calibrated threshold is sure of.
        self._step = math.ceil(units / _MOST_MEASURED) if options.gamma == "auto" else 1
        self.report = Redundancy(
            group_id,
            units,
            edge_density=int(adjacency.sum()) / (units * (units - 1)) if units > 1 else 0.0,
            components=self._components[0],
            covering=self._covering,
            redundancy=self._values[0],
            normalized=self._normalize(self._values[0]),
            gamma=gamma,
        )

    def __len__(self) -> int:
        """Number of units U at the start."""
        return len(self.order)

    def redundancy(self, removed: int) -> float:
        """Give the redundancy after some removals, by which groups are compared.

        Args:
            removed: Number t of removed nodes, from 0 to U - 1. All values up to t are computed.

        Returns:
            R of the remaining graph (of very wide groups with gamma "auto" as last measured), dimensionless, >= 1 for
            the paper's weights; with `options.normalize` it is
            (R - 1) / (U - 1), where U stays the number at the start: a group that shrinks becomes less redundant.

        Raises:
            IndexError: No node would remain, or t is negative.
        """
        if not 0 <= removed < len(self):
            raise IndexError(f"removed (={removed}) must leave at least one of {len(self)} units")
        while len(self._values) <= removed:
            self._values.append(self._follow_removal(len(self._values)))
        value = self._values[removed]
        return self._normalize(value) if self._options.normalize else value

    def _follow_removal(self, removed: int) -> float:
        vertex = self.order[removed - 1]
        self._graph.remove(vertex)
        if self._step == 1:
            for cover in self._covers:
                cover.update(vertex)
        elif removed % self._step:
            return self._values[-1]
        else:
            for cover in self._covers:
                cover.restart()
        return self._measure(removed)

    @property
    def _covering(self) -> float:
        return sum(cover.count for cover in self._covers) / 2

    def _measure(self, removed: int) -> float:
        """R = N / (w1 * k + w2 * N1c) of the graph as it is."""
        options = self._options
        cost = options.component_weight * self._components[removed] + options.covering_weight * self._covering
        return (len(self) - removed) / cost

    def _normalize(self, value: float) -> float:
        return (value - 1) / (len(self) - 1) if len(self) > 1 else 0.0
