"""The study of docs/results.md in small, from the bundled network to the page, and what its conclusions rest on."""

from __future__ import annotations

import base64
import itertools

import accuracy
import numpy as np
import pytest
import results_grid as grid
import results_report
from accuracy_grid import LEAST_SQUARES, NONE
from accuracy_rows import Rows, find_chance, parse_rows
from click.testing import CliRunner
from results_measuring import KEY, Places, list_keys


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


def run(folder):
    words = ["--small", "--processes", "1", "--rows", folder / "rows.csv", "--page", folder / "page.md"]
    done = CliRunner().invoke(accuracy.main, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture(scope="module")
def rows(folder):
    run(folder)
    return parse_rows(folder / "rows.csv")


def take(rows, criterion, compensation, training):
    (row,) = rows.select(criterion=criterion, compensation=compensation, training=training)
    return row


def test_every_row_is_measured(rows):
    expected = {key for unit in grid.list_small() for key in list_keys(unit)}
    assert {tuple(str(row[field]) for field in KEY) for row in rows} == expected
    assert {row["baseline"] for row in rows} == {0.709}
    assert all(0.44 <= row["removed"] < 0.445 for row in rows)


def test_training_helps_a_network_that_is_not_compensated(rows):
    gain = take(rows, "l1", NONE, grid.LABELS)["change"] - take(rows, "l1", NONE, NONE)["change"]
    assert gain > 20


def test_least_squares_leave_little_to_train(rows):
    fitted = take(rows, "reconstruction", LEAST_SQUARES, NONE)
    assert fitted["change"] > -5
    assert fitted["change"] > take(rows, "l1", NONE, grid.LABELS)["change"]


def test_distillation_follows_the_original(rows):
    assert take(rows, "reconstruction", LEAST_SQUARES, grid.DISTILLATION)["agreement"] > 0.8


def test_the_page_is_written_and_a_second_run_measures_nothing(rows, folder):
    page, table = (folder / "page.md").read_text(), (folder / "rows.csv").read_bytes()
    assert "| resnet20, 44% removed | nothing | recalibrated | labels | least squares | " in page
    assert (
        page.count("\n| reconstruction | ") == 2
    )  # of this network, and the mean of networks, of which it is the only one
    assert "| reconstruction + least squares against l1 + labels | " in page
    again = run(folder)
    assert again.stderr == ""
    assert (folder / "rows.csv").read_bytes() == table


def test_a_run_ends_with_its_time(tmp_path):
    places = Places(tmp_path, tmp_path, tmp_path, None, tmp_path)
    assert list(accuracy.measure_all(grid.list_small(), places, set(), 1, 0.0)) == []


def test_what_is_missing_is_said_and_left_out(tmp_path):
    words = ["--zoo", tmp_path, "--trained", tmp_path, "--data", tmp_path, "--part", "photos", "--processes", "1"]
    words += ["--rows", tmp_path / "rows.csv", "--page", tmp_path / "page.md"]
    done = CliRunner().invoke(accuracy.main, [str(word) for word in words], catch_exceptions=False)
    assert done.stderr.count("efficientnet_lite0  0 is left out: there is no") == 1
    assert parse_rows(tmp_path / "rows.csv") == []


def test_rows_are_told_apart_by_their_keys():
    units = list(itertools.chain.from_iterable(part() for part in grid.PARTS.values()))
    keys = [key for unit in units if unit.criterion != grid.UNPRUNED for key in list_keys(unit)]
    assert len(keys) == len(set(keys))
    assert units[0].subject == ("resnet20", "emoji", 0, "test")


@pytest.mark.parametrize(
    ("gained", "lost", "chance"), [(0, 0, 1.0), (5, 5, 1.0), (0, 5, 0.0625), (5, 0, 0.0625), (8, 2, 0.109375)]
)
def test_chance_of_a_difference(gained, lost, chance):
    assert find_chance(gained, lost) == pytest.approx(chance)


def make_row(net, seed, criterion, way, change, hits=(True,) * 8):
    return {
        **dict.fromkeys(("split", "images"), ""),
        "images": grid.TEST,
        "net": net,
        "seed": seed,
        "criterion": criterion,
        "reduction": 0.44,
        "compensation": way[0],
        "training": way[1],
        "change": change,
        "accuracy": sum(hits) / len(hits),
        "hits": base64.b64encode(np.packbits(hits).tobytes()).decode(),
    }


def test_every_network_counts_once_whatever_its_seeds():
    way = (LEAST_SQUARES, grid.LABELS)
    rows = [
        make_row(net, seed, criterion, way, change - index)
        for net, seed, change in (("a", 0, 1.0), ("a", 1, 3.0), ("b", 0, 6.0))
        for index, criterion in enumerate(grid.MAIN_CRITERIA)
    ]
    rows.append(make_row("c", 0, "l1", way, 99.0))  # lacks the other criteria
    table = results_report._show_summary(Rows(rows))
    assert "least squares, labels (2 networks) |" in table
    assert "| reconstruction | +4.0 |" in table
    assert "| l1 | +3.0 |" in table
    assert "| torch-pruning l1 |  |" in table


def test_networks_are_compared_with_themselves():
    right, wrong = [True] * 8, [False] * 6 + [True] * 2
    ours = [("a", 0, right), ("b", 0, wrong), ("b", 1, right)]
    theirs = [("b", 0, wrong), ("a", 0, wrong)]
    first, second = (
        Rows(make_row(net, seed, "l1", (NONE, NONE), 0.0, hits) for net, seed, hits in rows) for rows in (ours, theirs)
    )
    assert results_report._compare(first, second) == "**+37.5 (6:0; 0.031)**"
