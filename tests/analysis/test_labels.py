"""Union-find on label vectors against the obvious implementation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srr_onnx.analysis.labels import ChannelLabels, Freeze, FreezeReason

PAIRS = st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=40)


@given(PAIRS)
def test_classes_are_the_smallest_members(pairs: list[tuple[int, int]]) -> None:
    labels = ChannelLabels()
    ids = labels.fresh(20)
    owner = list(range(20))
    for first, second in pairs:
        labels.unify(ids[[first]], ids[[second]])
        low, high = sorted((owner[first], owner[second]))
        owner = [low if root == high else root for root in owner]
    assert labels.classes().tolist() == owner


@given(PAIRS, PAIRS)
def test_asking_between_unifications_changes_nothing(early: list[tuple[int, int]], late: list[tuple[int, int]]) -> None:
    asked, silent = ChannelLabels(), ChannelLabels()
    for labels in (asked, silent):
        ids = labels.fresh(20)
        for first, second in early:
            labels.unify(ids[[first]], ids[[second]])
        if labels is asked:
            labels.classes()
        for first, second in late:
            labels.unify(ids[[first]], ids[[second]])
    assert asked.classes().tolist() == silent.classes().tolist()


def test_the_earliest_cause_is_reported() -> None:
    labels = ChannelLabels()
    ids = labels.fresh(4)
    labels.unify(ids[:2], ids[2:])
    labels.freeze(ids[2:3], Freeze(FreezeReason.GRAPH_OUTPUT, "early"))
    labels.freeze(ids[:1], Freeze(FreezeReason.LAYOUT, "late"))
    assert {root: cause.node for root, cause in labels.frozen_classes().items()} == {0: "early"}


def test_counting_free_classes_changes_nothing() -> None:
    labels = ChannelLabels()
    ids = labels.fresh(6)
    labels.freeze(ids[:1], Freeze(FreezeReason.LAYOUT, "node"))
    assert labels.count_free(ids, ids.reshape(2, 3)) == 2
    assert labels.classes().tolist() == [0, 1, 2, 3, 4, 5]


def test_labels_of_different_shape_cannot_be_unified() -> None:
    labels = ChannelLabels()
    with pytest.raises(ValueError, match="shapes"):
        labels.unify(labels.fresh(2), labels.fresh(3))


def test_fresh_labels_are_never_given_twice() -> None:
    labels = ChannelLabels()
    assert np.intersect1d(labels.fresh(3), labels.fresh(3)).size == 0
