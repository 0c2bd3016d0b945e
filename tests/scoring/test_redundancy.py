from __future__ import annotations

import itertools

import numpy as np
import pytest

from srr_onnx.scoring import redundancy as module
from srr_onnx.scoring.options import SrrOptions
from srr_onnx.scoring.redundancy import find_redundancies, order_by_closest_pair


def normal(units, length, seed=0):
    return np.random.default_rng(seed).standard_normal((units, length)).astype(np.float32)


def unit_distances(rows):
    vectors = rows / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    return np.linalg.norm(vectors[:, None] - vectors, axis=2)


def density(distances, threshold):
    pairs = distances[np.triu_indices(len(distances), 1)]
    return np.mean(pairs <= threshold)


def only(found):
    (redundancy,) = found.values()
    return redundancy


@pytest.mark.parametrize(("gamma", "value"), [("paper", 0.023), (0.03, 0.03), (0.0, 0.0), (1.0, 1.0)])
@pytest.mark.parametrize("length", [9, 576, 2304])
def test_fixed_gamma_is_the_papers_rule_for_one_filter(make_slices, gamma, value, length):
    rows = normal(40, length)
    report = only(find_redundancies([make_slices(rows)], SrrOptions(gamma=gamma))).report
    assert report.gamma == pytest.approx(value * np.sqrt(length))
    assert report.edge_density == pytest.approx(density(unit_distances(rows) / np.sqrt(length), value))


def test_the_papers_gamma_joins_all_long_filters_and_no_short_ones(make_slices):
    groups = [make_slices(normal(32, 27), group_id="g0"), make_slices(normal(32, 4608), group_id="g1")]
    found = find_redundancies(groups, SrrOptions.paper())
    assert found["g0"].report.redundancy == pytest.approx(1.0)
    assert found["g1"].report.redundancy == pytest.approx(32.0)


@pytest.mark.parametrize("gamma", [0.05, "auto"])
def test_the_same_filters_twice_change_nothing(make_slices, gamma):
    rows = normal(40, 600)
    once = only(find_redundancies([make_slices(rows)], SrrOptions(gamma=gamma))).report
    twice = only(find_redundancies([make_slices(rows, rows)], SrrOptions(gamma=gamma))).report
    assert twice.gamma == pytest.approx(once.gamma, abs=1e-6)
    assert twice.edge_density == once.edge_density
    assert twice.redundancy == once.redundancy


def test_neighbors_are_neighbors_in_every_layer(make_slices):
    filters = [normal(60, 30), normal(60, 9, seed=1)]
    options = SrrOptions(quantile=0.3)
    alone = [only(find_redundancies([make_slices(rows)], options)).report for rows in filters]
    both = only(find_redundancies([make_slices(*filters)], options)).report
    assert both.edge_density == pytest.approx(0.3**2, abs=0.03)
    assert both.redundancy < min(report.redundancy for report in alone)
    assert both.gamma == pytest.approx(sum(report.gamma for report in alone) / 2)
    joined = only(find_redundancies([make_slices(*filters)], SrrOptions(quantile=0.3, coupling="joined"))).report
    assert joined.edge_density == pytest.approx(0.3, abs=0.002)


@pytest.mark.parametrize("quantile", [0.0, 0.1, 0.25, 0.5, 1.0])
def test_own_quantile_gives_every_group_its_density(make_slices, quantile):
    groups = [make_slices(normal(41, length), group_id=f"g{length}") for length in (9, 100)]
    found = find_redundancies(groups, SrrOptions(quantile=quantile, pooled=False))
    for redundancy in found.values():
        assert redundancy.report.edge_density == pytest.approx(quantile, abs=0.002)
    assert found["g9"].report.gamma != found["g100"].report.gamma


def test_pooled_quantile_is_one_threshold_over_all_pairs(make_slices):
    sizes = {"g0": (30, 9), "g1": (50, 100)}
    rows = {group_id: normal(*size) for group_id, size in sizes.items()}
    options = SrrOptions(quantile=0.25, pooled=True)
    found = find_redundancies([make_slices(rows[name], group_id=name) for name in rows], options)
    gammas = {redundancy.report.gamma for redundancy in found.values()}
    assert len(gammas) == 1
    all_pairs = np.concatenate([unit_distances(part)[np.triu_indices(len(part), 1)] for part in rows.values()])
    assert gammas.pop() == pytest.approx(np.quantile(all_pairs, 0.25, method="lower"), abs=1e-5)
    edges = sum(found[name].report.edge_density * n * (n - 1) / 2 for name, (n, _) in sizes.items())
    assert edges / len(all_pairs) == pytest.approx(0.25, abs=0.002)


@pytest.mark.parametrize("is_pooled", [True, False])
def test_a_sampled_threshold_is_near_and_measuring_twice_changes_nothing(make_slices, monkeypatch, is_pooled):
    groups = [make_slices(normal(units, 50, units), group_id=f"g{units}") for units in (1, 60, 200)]
    options = SrrOptions(pooled=is_pooled)
    full = find_redundancies(groups, options)
    monkeypatch.setattr(module, "_KEPT", 0)
    again = find_redundancies(groups, options)
    assert [part.report for part in again.values()] == [part.report for part in full.values()]
    monkeypatch.setattr(module, "_SAMPLE", 2000)
    sampled = find_redundancies(groups, options)
    assert sampled["g200"].report.gamma == pytest.approx(full["g200"].report.gamma, abs=0.02)
    assert sampled["g200"].report == find_redundancies(groups, options)["g200"].report


def test_degenerate_groups(make_slices):
    groups = [
        make_slices(normal(1, 9), group_id="single"),
        make_slices(np.zeros((6, 9), np.float32), group_id="zero"),
        make_slices(np.ones((6, 9), np.float32), group_id="equal"),
    ]
    found = find_redundancies(groups, SrrOptions(gamma=0.0, normalize=False))
    assert found["single"].trajectory.redundancy(0) == pytest.approx(1.0)
    for name in ("zero", "equal"):
        assert found[name].report.redundancy == pytest.approx(6.0)
        assert found[name].report.edge_density == 1.0
        assert sorted(found[name].scores) == list(range(6))
    assert only(find_redundancies([groups[0]])).report.gamma == 0.0
    assert find_redundancies([]) == {}


def test_negated_filters_are_far_apart(make_slices):
    rows = normal(1, 20)
    report = only(find_redundancies([make_slices(np.concatenate([rows, -rows]))], SrrOptions(gamma=0.4))).report
    assert report.edge_density == 0.0  # distance 2 against 0.4 * sqrt(20) = 1.79


def test_smallest_l1_removes_the_least_important_first(make_slices):
    rows = normal(20, 30)
    found = only(find_redundancies([make_slices(rows)], SrrOptions(node_removal="smallest_l1")))
    assert np.array_equal(np.argsort(found.scores), np.argsort(np.abs(rows).sum(axis=1)))


def test_highest_degree_removes_the_center_of_a_cluster_first(make_slices):
    center = np.eye(1, 8, dtype=np.float32)
    near = center + 0.4 * np.eye(8, dtype=np.float32)[1:5]
    apart = np.eye(8, dtype=np.float32)[6:8]
    rows = np.concatenate([near, center * 50, apart])  # the center is the 5th unit and has by far the largest norm
    found = only(find_redundancies([make_slices(rows)], SrrOptions(gamma=0.4 / np.sqrt(8))))
    assert found.report.edge_density == pytest.approx(4 / 21)  # all near units touch the center, not each other
    assert found.scores.argmin() == 4


def test_random_removal_depends_on_seed_and_group(make_slices):
    options = SrrOptions(node_removal="random")

    def scores(group_id, seed):
        return only(find_redundancies([make_slices(normal(30, 9), group_id=group_id)], options, seed)).scores.tolist()

    assert scores("g0", 1) == scores("g0", 1)
    assert scores("g0", 1) != scores("g0", 2)
    assert scores("g0", 1) != scores("g1", 1)
    assert sorted(scores("g0", 1)) == list(range(30))


def test_filters_are_chosen_by_l1_norm(make_slices):
    rows = normal(20, 30)
    found = only(find_redundancies([make_slices(rows)], SrrOptions(filter_choice="l1")))
    assert np.allclose(found.scores, np.abs(rows).sum(axis=1))


def reference_closest_pair(distances):
    alive, order = list(range(len(distances))), []
    while len(alive) > 1:
        order.append(min(itertools.combinations(alive, 2), key=lambda pair: (distances[pair], pair))[0])
        alive.remove(order[-1])
    return order + alive


@pytest.mark.parametrize("units", [1, 2, 3, 17, 40])
@pytest.mark.parametrize("decimals", [0, 1, 7], ids=["many-ties", "ties", "no-ties"])
def test_closest_pair_agrees_with_the_slow_reference(units, decimals):
    distances = np.round(unit_distances(normal(units, 10)), decimals).astype(np.float32)
    before = distances.copy()
    assert order_by_closest_pair(distances) == reference_closest_pair(distances)
    assert np.array_equal(distances, before)


def test_closest_pair_drops_the_weaker_of_two_twins(make_slices):
    rows = normal(10, 30)
    rows[7] = 2 * rows[3]
    found = only(find_redundancies([make_slices(rows)], SrrOptions(filter_choice="closest_pair")))
    assert found.scores.argmin() == 3


def test_progress_is_told_after_every_group(make_slices):
    told = []
    groups = [make_slices(normal(5, 9), group_id=f"g{number}") for number in range(3)]
    find_redundancies(groups, on_group=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]
