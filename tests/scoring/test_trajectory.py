from __future__ import annotations

import dataclasses
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srr_onnx.scoring import covering
from srr_onnx.scoring.options import SrrOptions
from srr_onnx.scoring.shrinking_graph import order_by_degree
from srr_onnx.scoring.trajectory import Trajectory

RAW = SrrOptions(normalize=False)


def reference_components(adjacency):
    left, count = set(range(len(adjacency))), 0
    while left:
        count += 1
        todo = [left.pop()]
        while todo:
            near = {v for v in left if adjacency[todo[-1], v]}
            todo.pop()
            left -= near
            todo.extend(near)
    return count


def reference_cover(adjacency, radius):
    size = len(adjacency)
    reach = adjacency | np.eye(size, dtype=bool)
    if radius == 2:
        reach = (reach.astype(int) @ reach.astype(int)) > 0
    degrees = adjacency.sum(axis=1)
    uncovered, count = np.ones(size, bool), 0
    while uncovered.any():
        best = max(np.flatnonzero(uncovered), key=lambda v: (degrees[v], -v))
        uncovered &= ~reach[best]
        count += 1
    return count


def reference_redundancy(adjacency):
    covering_number = (reference_cover(adjacency, 1) + reference_cover(adjacency, 2)) / 2
    return len(adjacency) / (0.35 * reference_components(adjacency) + 0.65 * covering_number)


def reference_order(adjacency, rule, seed):
    alive, order = list(range(len(adjacency))), []
    shuffled = np.random.default_rng(seed).permutation(len(adjacency)).tolist()
    while alive:
        if rule == "highest_degree":
            degrees = adjacency[np.ix_(alive, alive)].sum(axis=1)
            removed = alive[int(np.argmax(degrees))]
        else:
            removed = alive[0] if rule == "smallest_l1" else next(v for v in shuffled if v in alive)
        alive.remove(removed)
        order.append(removed)
    return order


@st.composite
def graphs(draw):
    """Random graphs of all densities, geometric graphs, and unions of cliques."""
    size, seed = draw(st.integers(1, 25)), draw(st.integers(0, 2**32 - 1))
    density = draw(st.floats(0, 1))
    rng = np.random.default_rng(seed)
    kind = draw(st.sampled_from(["random", "geometric", "cliques"]))
    if kind == "random":
        closeness = np.triu(rng.random((size, size)), 1)
        adjacency = (closeness + closeness.T) >= 1 - density
    elif kind == "geometric":
        points = rng.random((size, 2))
        adjacency = np.linalg.norm(points[:, None] - points, axis=2) <= density
    else:
        label = rng.integers(1 + int(density * size), size=size)
        adjacency = label[:, None] == label
    np.fill_diagonal(adjacency, False)
    return adjacency


@pytest.mark.parametrize("repair_cost", [6, 1e-9])
@pytest.mark.parametrize("rule", ["highest_degree", "smallest_l1", "random"])
@settings(max_examples=60, deadline=None)
@given(adjacency=graphs(), seed=st.integers(0, 9))
def test_agrees_with_the_slow_reference(rule, repair_cost, adjacency, seed):
    order = reference_order(adjacency, rule, seed)
    if rule == "highest_degree":
        assert order_by_degree(adjacency) == order
    with patch.object(covering, "_REPAIR_COST", repair_cost):
        trajectory = Trajectory("g0", adjacency, order, RAW)
        found = [trajectory.redundancy(t) for t in range(len(order))]
    remaining = [sorted(order[t:]) for t in range(len(order))]
    expected = [reference_redundancy(adjacency[np.ix_(alive, alive)]) for alive in remaining]
    assert found == expected


def complete(size):
    return ~np.eye(size, dtype=bool)


def star(size):
    adjacency = np.zeros((size, size), bool)
    adjacency[0, 1:] = adjacency[1:, 0] = True
    return adjacency


def path(size):
    return np.eye(size, k=1, dtype=bool) | np.eye(size, k=-1, dtype=bool)


@pytest.mark.parametrize(
    ("adjacency", "redundancy", "components", "covering_number"),
    [
        (complete(8), 8.0, 1, 1.0),
        (np.zeros((8, 8), bool), 1.0, 8, 8.0),
        (star(9), 9.0, 1, 1.0),
        (path(5), 5 / (0.35 + 1.3), 1, 2.0),
        (np.zeros((1, 1), bool), 1.0, 1, 1.0),
    ],
    ids=["complete", "empty", "star", "path", "single"],
)
def test_redundancy_of_known_graphs(adjacency, redundancy, components, covering_number):
    trajectory = Trajectory("g3", adjacency, range(len(adjacency)), RAW, gamma=0.5)
    assert trajectory.redundancy(0) == pytest.approx(redundancy)
    report = trajectory.report
    assert (report.group_id, report.units, report.gamma) == ("g3", len(adjacency), 0.5)
    assert (report.components, report.covering) == (components, covering_number)
    assert report.redundancy == pytest.approx(redundancy)
    pairs = len(adjacency) * (len(adjacency) - 1)
    assert report.edge_density == pytest.approx(adjacency.sum() / pairs if pairs else 0)


def test_path_of_five_is_3_03():
    assert Trajectory("g0", path(5), range(5), RAW).redundancy(0) == pytest.approx(3.03, abs=0.001)


def test_normalized_redundancy_is_relative_to_the_size_at_the_start():
    trajectory = Trajectory("g0", complete(5), range(5), SrrOptions(normalize=True))
    assert [trajectory.redundancy(t) for t in range(5)] == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])
    assert trajectory.report.normalized == 1.0
    assert Trajectory("g0", complete(1), range(1), SrrOptions()).redundancy(0) == 0.0


def test_weights_are_used():
    options = SrrOptions(normalize=False, component_weight=1.0, covering_weight=0.0)
    assert Trajectory("g0", path(5), range(5), options).redundancy(0) == 5.0


@pytest.mark.parametrize("removed", [-1, 5])
def test_a_group_keeps_its_last_unit(removed):
    trajectory = Trajectory("g0", path(5), range(5), RAW)
    assert len(trajectory) == 5
    with pytest.raises(IndexError, match="at least one of 5 units"):
        trajectory.redundancy(removed)


def test_values_do_not_depend_on_the_order_of_questions():
    there = Trajectory("g0", path(20), range(20), RAW)
    back = Trajectory("g0", path(20), range(20), RAW)
    assert [there.redundancy(t) for t in range(20)] == [back.redundancy(t) for t in range(19, -1, -1)][::-1]


@pytest.mark.parametrize("density", [0, 0.0005, 0.25, 1])
def test_wide_groups_end_with_one_unit_that_is_not_redundant(density):
    trajectory = Trajectory("g0", *random_graph(2048, density), SrrOptions.paper())
    assert trajectory.redundancy(2047) == 1.0


def random_graph(size, density):
    upper = np.triu(np.random.default_rng(0).random((size, size)) <= density, 1)
    adjacency = upper | upper.T if density else np.zeros((size, size), bool)
    return adjacency, order_by_degree(adjacency)


def test_wide_groups_are_measured_now_and_then_while_they_shrink():
    graph, order = random_graph(1024, 0.25)
    exact = Trajectory("g0", graph, order, dataclasses.replace(SrrOptions(), gamma=0.5))
    rough = Trajectory("g0", graph, order, SrrOptions())
    steps = range(0, 1024, 16)  # 64 measurements
    assert [rough.redundancy(t) for t in steps] == [exact.redundancy(t) for t in steps]
    assert all(rough.redundancy(t) == rough.redundancy(t - t % 16) for t in range(1024))
