"""The options that name data and what is done to them."""

from __future__ import annotations

import click
import numpy as np
import pytest
from builders import Graph
from click.testing import CliRunner

from srr_onnx.cli.data_options import data_options, make_dataset
from srr_onnx.graph.load import load_model


@click.command()
@data_options
def program(**values):
    """Read data and say which."""
    g = Graph()
    g.output(g("Identity", g.input("image", (1, 3, 8, 8))))
    data = make_dataset(load_model(g.model()), **values)
    click.echo("nothing" if data is None else f"{values['samples']} of {len(data)}: {data.describe()}")
    if data is not None:
        (batch,) = data.batches(9)
        click.echo(f"{batch.feeds['image'].max():.3f} {data.labels}")


@pytest.fixture
def run(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.full((2, 3, 8, 8), 255, np.uint8))
    np.savez(tmp_path / "large.npz", x=np.full((2, 3, 20, 30), 255, np.uint8))
    return lambda *words: CliRunner().invoke(program, words)


def test_no_data(run):
    assert run().stdout == "nothing\n"


def test_the_default(run):
    assert run("--data", "x.npz").stdout == (
        "512 of 2: 2 samples from arrays; unit (default for this input): range 0..1, NCHW, RGB; no labels\n1.000 None\n"
    )


def test_single_options_override_a_preset(run, tmp_path):
    (tmp_path / "l.txt").write_text("4\n5\n")
    done = run(
        "--data",
        "x.npz",
        "--labels",
        "l.txt",
        "--preset",
        "unit",
        "--mean",
        "0.5",
        "--std",
        "0.1,0.2,0.25",
        "--samples",
        "1",
    )
    assert done.stdout == (
        "1 of 2: 2 samples from arrays; unit with mean, std (given): "
        "range 0..1, mean 0.5, std 0.1,0.2,0.25, NCHW, RGB\n"
        "5.000 [4 5]\n"
    )


def test_single_options_override_a_file(run, tmp_path):
    (tmp_path / "how.yaml").write_text("range: 0..255\nstd: 2")
    done = run("--data", "x.npz", "--preprocess", "how.yaml", "--std", "5", "--layout", "NCHW", "--color", "BGR")
    assert "how.yaml with color, layout, std (given): range 0..255, std 5, NCHW, BGR; no labels\n51.000" in done.stdout


def test_sizes(run):
    for words, text in (
        (("--resize", "10"), "resize 10, crop 8x8"),
        (("--resize", "8x8"), "resize 8x8,"),
        (("--crop", "8"), "crop 8x8"),
        (("--resize", "10,12", "--crop", "8,8"), "resize 10x12, crop 8x8"),
    ):
        done = run("--data", "large.npz", *words, "--range=-1..1")
        assert text in done.stdout, done.output
        assert "\n1.000" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--data", "x.npz", "--preset", "unit", "--preprocess", "a.yaml"],
            "--preset and --preprocess exclude",
        ),
        (["--mean", "0.5"], "--mean says how data are read: give --data too"),
        (["--labels", "a.txt"], "--labels says how data are read: give --data too"),
        (["--data", "x.npz", "--resize", "big"], "'big' is no size"),
        (["--data", "x.npz", "--resize", "1x2x3"], "'1x2x3' is no size"),
        (["--data", "x.npz", "--crop", "0"], "'0' is no size"),
        (["--data", "x.npz", "--crop", "²"], "is no size"),
        (["--data", "x.npz", "--resize", "10", "--crop", "12"], "--crop 12 does not fit into pictures"),
        (["--data", "x.npz", "--mean", "a,b"], "'a,b' are no numbers"),
        (["--data", "x.npz", "--mean", "nan"], "'nan' are no numbers"),
        (["--data", "x.npz", "--std", "1,0"], "'1,0' are no numbers above 0"),
        (["--data", "x.npz", "--preset", "unti"], "Invalid value for '--preset'"),
        (["--data", "x.npz", "--range", "0..2"], "Invalid value for '--range'"),
        (["--data", "x.npz", "--samples", "0"], "Invalid value for '--samples'"),
    ],
)
def test_usage_errors(run, words, message):
    done = run(*words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr.replace("\n", " ")
