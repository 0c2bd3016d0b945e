from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest

from srr_onnx.scoring import covering
from srr_onnx.scoring.covering import GreedyCover
from srr_onnx.scoring.shrinking_graph import ShrinkingGraph


def counts(edges, size):
    adjacency = np.zeros((size, size), bool)
    for a, b in edges:
        adjacency[a, b] = adjacency[b, a] = True
    graph = ShrinkingGraph(adjacency)
    return GreedyCover(graph, 1).count, GreedyCover(graph, 2).count


def path(size):
    return [(vertex, vertex + 1) for vertex in range(size - 1)]


@pytest.mark.parametrize(
    ("edges", "size", "expected"),
    [
        ([], 7, (7, 7)),
        ([(a, b) for a in range(6) for b in range(a)], 6, (1, 1)),
        ([(0, leaf) for leaf in range(1, 9)], 9, (1, 1)),
        ([(8, leaf) for leaf in range(8)], 9, (1, 1)),
        (path(2), 2, (1, 1)),
        (path(5), 5, (2, 2)),
        ([(2, 1), (1, 0), (0, 3), (3, 4)], 5, (3, 1)),  # the same path, its middle numbered lowest
        ([*path(6), (5, 0)], 6, (3, 2)),
        ([(0, 1), (2, 3)], 5, (3, 3)),
    ],
    ids=["empty", "complete", "star", "star-last", "edge", "path", "path-middle-first", "ring", "two-edges"],
)
def test_covers_of_known_graphs(edges, size, expected):
    assert counts(edges, size) == expected


@pytest.mark.parametrize("repair_cost", [6, 1, 1e-9], ids=["as-is", "cheap", "always"])
@pytest.mark.parametrize("radius", [1, 2])
@pytest.mark.parametrize("degree", [0.5, 1, 2, 4, 8])
def test_repaired_covers_equal_new_ones(degree, radius, repair_cost):
    rng = np.random.default_rng(int(degree * 10))
    upper = np.triu(rng.random((120, 120)) < degree / 120, 1)
    graph = ShrinkingGraph(upper | upper.T)
    with patch.object(covering, "_REPAIR_COST", repair_cost):
        cover = GreedyCover(graph, radius)
        for vertex in rng.permutation(120).tolist():
            graph.remove(vertex)
            cover.update(vertex)
            assert cover._chosen == GreedyCover(graph, radius)._chosen
    assert cover.count == 0
