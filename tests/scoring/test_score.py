from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from srr_onnx.analysis.groups import Member, Role, Use
from srr_onnx.errors import DataError, SrrError, UnknownNameError
from srr_onnx.scoring.criteria import criteria
from srr_onnx.scoring.criterion import Criterion, ScoreOptions
from srr_onnx.scoring.options import SrrOptions
from srr_onnx.scoring.score import score_groups

SIZES = {"g0": 16, "g1": 24, "g2": 8}


@pytest.fixture
def model():
    """Three Convs whose filters are the units of one group each."""
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal((size, 4, 3, 3)).astype(np.float32) for name, size in SIZES.items()}
    return SimpleNamespace(constants=weights, dequantizers={})


@pytest.fixture
def groups():
    found = []
    for node, (name, size) in enumerate(SIZES.items()):
        member = Member(name, Use(node, 1), 0, Role.FILTER, np.arange(size)[:, None])
        found.append(SimpleNamespace(id=name, size=size, members=(member,)))
    return found


def test_scores_every_unit_of_every_group(model, groups):
    scores = score_groups(model, groups, "l1")
    assert scores.criterion == "l1"
    assert list(scores.units) == list(SIZES)
    for name, weights in model.constants.items():
        assert scores.units[name] == pytest.approx(np.abs(weights).sum(axis=(1, 2, 3)), rel=1e-6)
        assert scores.units[name].dtype == np.float64
        assert not scores.units[name].flags.writeable
    assert scores.redundancy is None
    assert scores.reports == ()


def test_srr_is_the_default_and_brings_redundancies(model, groups):
    scores = score_groups(model, groups)
    assert scores.criterion == "srr"
    assert {name: len(trajectory) for name, trajectory in scores.redundancy.items()} == SIZES
    assert [report.group_id for report in scores.reports] == list(SIZES)
    assert all(report.edge_density == pytest.approx(0.5, abs=0.02) for report in scores.reports)
    for name, trajectory in scores.redundancy.items():
        assert 0 <= trajectory.redundancy(0) <= 1
        assert sorted(scores.units[name]) == list(range(SIZES[name]))


def test_options_reach_the_criterion(model, groups):
    paper = score_groups(model, groups, "srr", ScoreOptions(srr=SrrOptions.paper()))
    assert np.array_equal(paper.units["g1"], score_groups(model, groups, "l1").units["g1"])
    assert paper.reports[0].gamma == pytest.approx(0.023 * 6)
    first, second = (score_groups(model, groups, "random", ScoreOptions(seed=seed)) for seed in (1, 2))
    assert not np.array_equal(first.units["g0"], second.units["g0"])


def test_units_go_by_ascending_score_and_equals_by_index(model, groups):
    scores = score_groups(model, groups, lambda slices, options: np.arange(slices.units) % 3)
    assert scores.order("g2").tolist() == [0, 3, 6, 1, 4, 7, 2, 5]
    with pytest.raises(UnknownNameError, match="unknown group 'g9'"):
        scores.order("g9")


def test_a_function_is_a_criterion(model, groups):
    def norm(slices, options):
        return [options.seed] * slices.units

    scores = score_groups(model, groups, norm, ScoreOptions(seed=3))
    assert scores.criterion == "norm"
    assert scores.units["g2"].tolist() == [3.0] * 8


def test_a_criterion_can_use_the_redundancy(model, groups):
    def cover(slices, options):
        assert options.redundancy.report.group_id == slices.group_id
        return -options.redundancy.scores

    scores = score_groups(model, groups, Criterion("cover", cover, uses_redundancy=True))
    assert list(scores.redundancy) == list(SIZES)
    assert np.array_equal(scores.units["g0"], -score_groups(model, groups).units["g0"])


def test_unknown_criteria_have_close_matches(model, groups):
    with pytest.raises(UnknownNameError, match="'fpgm'"):
        score_groups(model, groups, "fgpm")


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda units: np.zeros(units + 1), r"criterion 'bad' on group g0: scores of shape \(17,\) instead of \(16,\)"),
        (lambda units: 0.0, r"shape \(\) instead of \(16,\)"),
        (lambda units: np.full(units, np.nan), "16 scores NaN or infinite"),
        (lambda units: np.array([np.inf] + [0.0] * (units - 1)), "1 score NaN or infinite"),
        (lambda units: ["high"] * units, "instead of numbers"),
        (lambda units: None, "instead of numbers"),
    ],
)
def test_bad_scores_name_criterion_and_group(model, groups, result, message):
    with pytest.raises(SrrError, match=message):
        score_groups(model, groups, Criterion("bad", lambda slices, options: result(slices.units)))


@pytest.mark.parametrize("name", [name for name in criteria if name not in ("random", "reconstruction")])
def test_broken_weights_are_an_error(model, groups, name):
    model.constants["g1"][0, 0, 0, 0] = np.nan
    with pytest.raises(DataError, match="group g1"):
        score_groups(model, groups, name)


@pytest.mark.parametrize("name", ["l1", "srr"])
def test_progress_is_told_after_every_group(model, groups, name):
    told = []
    score_groups(model, groups, name, on_group=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_no_groups_no_scores(model):
    assert dict(score_groups(model, []).units) == {}


def test_a_criterion_that_raises_is_named_with_its_group(model, groups):
    def broken(slices, options):
        return 1 / 0

    with pytest.raises(SrrError, match=r"criterion 'broken' failed on group \S+: ZeroDivisionError: division by zero"):
        score_groups(model, groups, broken)
