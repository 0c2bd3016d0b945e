from __future__ import annotations

import pytest

from srr_onnx.errors import SrrError
from srr_onnx.scoring.options import SrrOptions


def test_presets():
    assert SrrOptions.auto() == SrrOptions()
    auto, paper = SrrOptions.auto(), SrrOptions.paper()
    assert (auto.gamma, auto.quantile, auto.pooled, auto.normalize) == ("auto", 0.5, False, True)
    assert (auto.node_removal, auto.filter_choice) == ("highest_degree", "removed_nodes")
    assert (paper.gamma, paper.normalize) == ("paper", False)
    assert (paper.node_removal, paper.filter_choice) == ("smallest_l1", "l1")
    assert (paper.component_weight, paper.covering_weight) == (0.35, 0.65)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gamma": "papre"}, "'papre'"),
        ({"gamma": -0.1}, "gamma"),
        ({"gamma": float("nan")}, "gamma"),
        ({"quantile": 1.5}, "quantile"),
        ({"node_removal": "oldest"}, "highest_degree, smallest_l1, random"),
        ({"filter_choice": "oldest"}, "removed_nodes, l1, closest_pair"),
        ({"component_weight": -1.0}, "weight"),
        ({"component_weight": 0.0, "covering_weight": 0.0}, "weight"),
    ],
)
def test_bad_values_are_named(settings, message):
    with pytest.raises(SrrError, match=message):
        SrrOptions(**settings)
