from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srr_onnx.scoring.shrinking_graph import ShrinkingGraph, count_components, members, order_by_degree, pack_rows


def random_adjacency(size, density, seed):
    upper = np.triu(np.random.default_rng(seed).random((size, size)) < density, 1)
    return upper | upper.T


graphs = st.builds(
    random_adjacency,
    st.integers(1, 25),
    st.sampled_from([0.0, 0.05, 0.15, 0.3, 0.6, 0.9, 1.0]),
    st.integers(0, 2**32 - 1),
)


@given(st.lists(st.lists(st.booleans(), min_size=9, max_size=9), min_size=1, max_size=4))
def test_packed_rows_hold_the_columns(rows):
    packed = pack_rows(np.array(rows))
    assert [list(members(row)) for row in packed] == [list(np.flatnonzero(row)) for row in rows]


@given(graphs, st.data())
def test_degrees_follow_every_removal(adjacency, data):
    graph = ShrinkingGraph(adjacency)
    alive = list(range(len(adjacency)))
    while alive:
        degrees = adjacency[np.ix_(alive, alive)].sum(axis=1)
        assert [graph.degree(vertex) for vertex in alive] == degrees.tolist()
        counted = [sum((plane >> vertex & 1) << p for p, plane in enumerate(graph.planes)) for vertex in alive]
        assert counted == degrees.tolist()
        assert list(members(graph.alive)) == alive
        assert list(members(graph.connected)) == [v for v, degree in zip(alive, degrees, strict=True) if degree]
        removed = data.draw(st.sampled_from(alive))
        alive.remove(removed)
        graph.remove(removed)
    assert graph.alive == graph.connected == 0


@given(graphs, st.data())
def test_balls_are_those_of_graph_distance(adjacency, data):
    graph = ShrinkingGraph(adjacency)
    alive = list(range(len(adjacency)))
    while alive:
        vertex, radius = data.draw(st.sampled_from(alive)), data.draw(st.sampled_from([1, 2]))
        within = data.draw(st.sampled_from([graph.connected, graph.connected & 0b1101101101101101101101101]))
        reached = {vertex}
        for _ in range(radius):
            reached |= {other for other in alive if adjacency[other, list(reached)].any()}
        sought = set(members(within)) - {vertex}
        assert set(members(graph.ball(vertex, radius, within))) & sought == reached & sought
        removed = data.draw(st.sampled_from(alive))
        alive.remove(removed)
        graph.remove(removed)


@given(graphs, st.randoms(use_true_random=False))
def test_components_are_counted_before_every_removal(adjacency, random):
    order = list(range(len(adjacency)))
    random.shuffle(order)
    expected = []
    for t in range(len(order)):
        walks = (adjacency | np.eye(len(order), dtype=bool))[np.ix_(order[t:], order[t:])]
        for _ in range(5):  # up to 32 steps
            walks = walks @ walks
        expected.append(len(np.unique(walks, axis=0)))  # one set of reachable vertices per component
    assert count_components(pack_rows(adjacency), order) == expected


@pytest.mark.parametrize(
    ("edges", "order"),
    [([], [0, 1, 2, 3]), ([(0, 3), (1, 3), (2, 3)], [3, 0, 1, 2]), ([(0, 1), (1, 2), (2, 3)], [1, 2, 0, 3])],
)
def test_order_by_degree_counts_the_remaining_neighbors(edges, order):
    adjacency = np.zeros((4, 4), bool)
    for a, b in edges:
        adjacency[a, b] = adjacency[b, a] = True
    assert order_by_degree(adjacency) == order
