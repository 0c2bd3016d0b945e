"""Where the marks of the report's charts lie."""

from __future__ import annotations

import pytest

from srr_onnx.planning.curve import Curve, Point
from srr_onnx.validation.report.charts import draw_damage, draw_latency, draw_layers, find_ticks
from srr_onnx.validation.report.data import Damage, LayerRow, Measure, Structure


def layer(name="conv", channels=(8, 6), macs=(100, 40), measure=0.5, latency_ms=None):
    return LayerRow(name, "Conv", ("g0",), channels, measure, macs, (10, 5), latency_ms)


def structure(*layers):
    return Structure(layers, measure=Measure("redundancy", "", "number"))


def of_kind(chart, kind):
    return [mark for mark in chart.marks if mark.kind == kind]


@pytest.mark.parametrize(
    ("start", "end", "texts"),
    [
        (0, 10, ["0", "5", "10"]),
        (0, 64, ["0", "20", "40", "60"]),
        (0, 0.0123, ["0", "0.005", "0.01"]),
        (3.1, 4.9, ["3.5", "4", "4.5"]),
        (0, 2.5e9, ["0", "1e+09", "2e+09"]),
    ],
)
def test_ticks_are_round_numbers_at_their_places(start, end, texts):
    ticks = find_ticks(start, end, "{:.3g}".format)
    assert [tick.text for tick in ticks] == texts
    for tick in ticks:
        assert start + tick.at / 100 * (end - start) == pytest.approx(float(tick.text))


def test_a_layer_is_a_column_in_every_chart_as_high_as_its_share_of_the_largest():
    charts = draw_layers(structure(layer(), layer(channels=(16, 4), latency_ms=(2.0, 1.0))))
    assert [chart.name for chart in charts] == ["channels", "kept", "measure", "macs", "milliseconds"]
    before, after = of_kind(charts[0], "before"), of_kind(charts[0], "after")
    assert [mark.height for mark in before] == [50, 100]
    assert [mark.height for mark in after] == [37.5, 25]
    assert all(mark.y + mark.height == 100 for mark in (*before, *after))
    assert 0 < before[0].x < before[0].x + before[0].width < 50 < before[1].x
    assert [mark.height for mark in of_kind(charts[1], "after")] == [75, 25]
    assert [mark.title for mark in of_kind(charts[4], "hit")] == ["2. conv: 2 ms → 1 ms"]
    assert [bool(chart.x_title) for chart in charts] == [False] * 4 + [True]


def test_what_is_not_known_leaves_a_gap_and_what_nobody_knows_no_chart():
    unknown = layer(channels=None, macs=None, measure=None)
    charts = draw_layers(structure(layer(), unknown))
    assert [len(of_kind(chart, "hit")) for chart in charts] == [1, 1, 1, 1]
    assert draw_layers(structure(unknown)) == []
    assert draw_layers(Structure(())) == []


def test_zeros_draw_without_a_scale():
    charts = draw_layers(structure(layer(macs=(0, 0), measure=0.0)))
    assert [mark.height for mark in of_kind(charts[-1], "after")] == [0]
    assert [mark.height for mark in of_kind(charts[2], "measure")] == [0]


def test_histograms_count_every_run_that_is_shown():
    fast, slow = [1.0 + n / 1000 for n in range(100)], [2.0 + n / 1000 for n in range(99)] + [50.0]
    chart = draw_latency({"original": slow, "pruned": fast})
    counts = {
        kind: sum(int(mark.title.split(": ")[1].split()[0]) for mark in of_kind(chart, kind))
        for kind in ("original", "pruned")
    }
    assert counts == {"original": 99, "pruned": 100}
    assert "1 slower run not shown" in chart.x_title
    median_of_pruned = next(path for path in chart.paths if path.kind == "pruned").points[0][0]
    assert max(mark.x + mark.width for mark in of_kind(chart, "pruned")) >= median_of_pruned >= 0
    assert all(0 <= mark.x <= mark.x + mark.width <= 100.001 for mark in chart.marks)


@pytest.mark.parametrize("times", [[1.0], [1.0, 1.0, 1.0], [0.0, 0.0]])
def test_equal_times_draw_too(times):
    chart = draw_latency({"original": times, "pruned": times})
    assert sum(mark.height for mark in of_kind(chart, "pruned")) == 100


def test_the_curve_has_its_points_the_result_and_what_cannot_be_reached():
    points = tuple(Point(x, x / 10, x / 5, "g3", 0.5, False) for x in (0.2, 0.4, 0.9))
    chart = draw_damage(Damage(Curve("params", points, 0.95, 0.5), 0.3))
    assert [(mark.kind, mark.x, round(mark.x + mark.width)) for mark in chart.marks] == [
        ("beyond-cap", 50, 95),
        ("unreachable", 95, 100),
    ]
    mean = next(path for path in chart.paths if path.kind == "mean")
    assert [place[0] for place in mean.points] == pytest.approx([20, 40, 90])
    assert mean.points[1][1] == pytest.approx(100 * (1 - 0.04 / (1.1 * 0.08)))
    worst = next(path for path in chart.paths if path.kind == "worst")
    assert worst.titles[2] == "90.0 % removed: error 18.0 %, worst group, g3"
    assert next(path for path in chart.paths if path.kind == "chosen").points[0][0] == 30
    assert chart.x_title == "parameters removed"


def test_a_curve_without_points_is_empty():
    chart = draw_damage(Damage(Curve("flops", (), 0.1, 0.1), 0.05))
    assert [path.points for path in chart.paths][1:] == [(), ()]
