"""SCORE: greedy covers of a shrinking graph by balls.

Reads the graph after every removal; the chosen vertices are always those that a greedy run from scratch would choose.
"""

from __future__ import annotations

import heapq

from srr_onnx.scoring.shrinking_graph import ShrinkingGraph, members

# Repairing a cover costs up to six times as much per vertex looked at as a new greedy run does per vertex chosen
# (measured on one core with 256 to 4096 vertices).
_REPAIR_COST = 6


class GreedyCover:
    """The greedy covering of a shrinking graph by balls of radius 1 or 2.

    Greedy means: again and again choose the uncovered vertex of highest degree (number of neighbors in the remaining
    graph, covered or not; of equals the lowest) and cover its ball. The chosen vertices are thus the first maximal
    independent set in that order, and one removal changes it only near the removed vertex, which is used where the
    graph is sparse.

    Args:
        graph: The graph; every removal must be followed by `update`, or several by `restart`.
        radius: 1 or 2 edges.
    """

    def __init__(self, graph: ShrinkingGraph, radius: int) -> None:
        self._graph = graph
        self._radius = radius
        self._chosen = 0
        self.restart()

    @property
    def count(self) -> int:
        """Number of balls."""
        return self._chosen.bit_count()

    def update(self, removed: int) -> None:
        """Follow a removal.

        Args:
            removed: The vertex that the graph has just lost.
        """
        graph = self._graph
        near = graph.rows[removed] & graph.alive
        was_chosen = self._chosen >> removed & 1
        self._chosen &= graph.alive
        limit = self._chosen.bit_count() // _REPAIR_COST
        if near.bit_count() <= limit:
            doubtful = near  # they have lost a degree, and maybe the ball they lay in
            for vertex in members(near & self._chosen):
                doubtful |= graph.ball(vertex, self._radius, graph.connected)
            if was_chosen and self._radius == 2:
                for vertex in members(near):
                    doubtful |= graph.rows[vertex]
            if self._repair(doubtful & graph.alive, limit):
                return
        self.restart()

    def restart(self) -> None:
        """Choose from scratch, in order of degree: a walk down the binary digits of the degrees."""
        graph, planes = self._graph, self._graph.planes
        left, chosen = graph.connected, graph.alive & ~graph.connected  # a vertex without neighbors is its own ball
        stack = [(left, len(planes) - 1)]
        while stack:
            equals, p = stack.pop()
            equals &= left
            while equals and p >= 0:
                higher = equals & planes[p]
                p -= 1
                if higher and higher != equals:
                    stack.append((equals ^ higher, p))
                equals = higher or equals
            while equals:
                best = equals & -equals
                chosen |= best
                left &= ~(graph.ball(best.bit_length() - 1, self._radius, left) | best)
                equals &= left
        self._chosen = chosen

    def _repair(self, doubtful: int, limit: int) -> bool:
        """Decide the doubtful vertices anew, highest degree first; a change makes what it covers doubtful too.

        Gives up, returning False, when more vertices than `limit` are doubtful.
        """
        graph, radius = self._graph, self._radius
        queue = [self._rank(vertex) for vertex in members(doubtful)]
        heapq.heapify(queue)
        while queue and doubtful.bit_count() <= limit:
            rank = heapq.heappop(queue)
            vertex = rank % graph.size
            ball = graph.ball(vertex, radius, graph.connected) & graph.alive & ~(1 << vertex)
            is_covered = any(self._rank(rival) < rank for rival in members(ball & self._chosen))
            if is_covered != self._chosen >> vertex & 1:
                continue
            self._chosen ^= 1 << vertex
            for other in members(ball & ~doubtful):
                other_rank = self._rank(other)
                if other_rank > rank:
                    doubtful |= 1 << other
                    heapq.heappush(queue, other_rank)
        return not queue

    def _rank(self, vertex: int) -> int:
        """A number that is lower for a higher degree and, at equal degree, for a lower vertex."""
        return vertex - self._graph.degree(vertex) * self._graph.size
