"""SCORE: a graph that loses its vertices one by one.

Reads adjacency matrices; knows nothing of filters. A set of vertices is one Python integer (bit v = vertex v), so that
union, intersection and counting over thousands of vertices are single operations; ties always go to the lowest vertex.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

Adjacency = np.ndarray[Any, np.dtype[np.bool_]]


def pack_rows(rows: Adjacency) -> list[int]:
    """Turn every row of a boolean matrix of shape `(M, N)` into an integer with bit v = column v."""
    packed = np.packbits(rows, axis=-1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in packed]


def members(vertices: int) -> Iterator[int]:
    """Walk through the vertices of a set, lowest first."""
    while vertices:
        lowest = vertices & -vertices
        vertices ^= lowest
        yield lowest.bit_length() - 1


class ShrinkingGraph:
    """An undirected graph without loops that loses one vertex after another.

    Args:
        adjacency: Shape `(N, N)`, symmetric, false on the diagonal; not kept.

    Attributes:
        size: Number of vertices N at the start.
        alive: The vertices that remain.
        connected: Those of them that have neighbors.
        rows: Neighbors of every vertex at the start; intersect with `alive`.
        planes: The degrees in binary: bit v of `planes[p]` is bit p of the degree of vertex v, 0 for a removed vertex.
            All neighbors of a vertex are counted down, and the highest degree is found, in a dozen operations.
    """

    def __init__(self, adjacency: Adjacency) -> None:
        degrees = adjacency.sum(axis=1, dtype=np.int64)  # (N,)
        width = int(degrees.max(initial=0)).bit_length()
        self.size = len(adjacency)
        self.alive = (1 << self.size) - 1
        self.rows = pack_rows(adjacency)
        self.planes = pack_rows((degrees >> np.arange(width)[:, None] & 1).astype(bool))
        self.connected = functools.reduce(operator.or_, self.planes, 0)
        self._balls: dict[int, tuple[int, int]] = {}

    def degree(self, vertex: int) -> int:
        """Number of neighbors that remain."""
        return (self.rows[vertex] & self.alive).bit_count()

    def remove(self, vertex: int) -> None:
        """Remove a vertex and its edges."""
        self.alive ^= 1 << vertex
        borrow = self.rows[vertex] & self.alive  # subtract 1 from these degrees, all at once
        for p, plane in enumerate(self.planes):
            self.planes[p] = (plane ^ borrow) & self.alive
            borrow &= ~plane
        self.connected = functools.reduce(operator.or_, self.planes, 0)

    def ball(self, vertex: int, radius: int, within: int) -> int:
        """Find what lies within one or two edges of a vertex.

        Args:
            vertex: A vertex that remains.
            radius: 1 or 2 edges.
            within: Vertices that are looked for, all with neighbors. Any other vertex may or may not be in the result.

        Returns:
            The members of `within` that lie in the ball, and possibly others; the vertex itself does not count.
        """
        near = self.rows[vertex] & self.alive
        if radius == 1:
            return near
        known_near, known_ball = self._balls.get(vertex, (0, 0))
        if known_near == near:  # no neighbor has gone, so no path of two edges has
            return known_ball
        ball, via = near, near
        missing = within & ~ball
        count = missing.bit_count()
        while missing and via:
            hop = via & -via
            via ^= hop
            ball |= self.rows[hop.bit_length() - 1]
            missing &= ~ball
            before, count = count, missing.bit_count()
            if 8 * count > 7 * before and count < via.bit_count():  # few are left: ask each for a common neighbor
                ball |= sum(1 << other for other in members(missing) if self.rows[other] & via)
                break
        if not via or within == self.connected:  # else the ball may be incomplete outside `within`
            self._balls[vertex] = near, ball
        return ball


def order_by_degree(adjacency: Adjacency) -> list[int]:
    """Order the vertices by repeatedly removing the one with the highest degree in the remaining graph.

    Args:
        adjacency: Shape `(N, N)`, symmetric, false on the diagonal.

    Returns:
        The vertices in order of their removal; of equals the lowest goes first.
    """
    size = len(adjacency)
    edges = adjacency.view(np.int8)
    degrees = edges.sum(axis=1, dtype=np.int32)  # (N,)
    order: list[int] = []
    for _ in range(size):
        vertex = int(degrees.argmax())  # the first of equals
        order.append(vertex)
        degrees -= edges[vertex]
        degrees[vertex] = -size * 2  # below whatever remains, and stays there
    return order


def count_components(rows: Sequence[int], order: Sequence[int]) -> list[int]:
    """Count the connected components before each removal.

    The vertices are put back in reverse order, each joining the components of its neighbors.

    Args:
        rows: Neighbors of every vertex, as sets.
        order: All N vertices in order of their removal.

    Returns:
        N counts; the one at t belongs to the graph after t removals.
    """
    parent = list(range(len(rows)))
    component = [0] * len(rows)  # members, kept at the root
    counts = [0] * len(rows)
    present = count = 0
    for t in range(len(rows) - 1, -1, -1):
        vertex = order[t]
        merged = 1 << vertex
        present |= merged
        count += 1
        rest = rows[vertex] & present
        while rest:
            root = (rest & -rest).bit_length() - 1
            while parent[root] != root:
                parent[root] = parent[parent[root]]
                root = parent[root]
            parent[root] = vertex
            merged |= component[root]
            rest &= ~merged
            count -= 1
        component[vertex] = merged
        counts[t] = count
    return counts
