"""Options that several commands share, and the kinds of value that they take."""

from __future__ import annotations

import importlib
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import click

from srr_onnx.errors import ModelError, SrrError
from srr_onnx.planning.alignment import parse_align
from srr_onnx.planning.budget import parse_limit, parse_share
from srr_onnx.scoring.criterion import ScoreOptions
from srr_onnx.scoring.options import FilterChoice, NodeRemoval, SrrOptions
from srr_onnx.validation.gates import parse_factor, parse_gate, parse_size

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _reader(read: Callable[[click.Parameter, str], Any]) -> Callable[..., Any]:
    """Make a callback of a function that reads a value: what is wrong with it becomes wrong usage."""

    def callback(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
        if value is None:
            return None
        try:
            return read(param, value)
        except SrrError as error:
            raise click.BadParameter(str(error), ctx, param) from None

    return callback


def _check_limit(param: click.Parameter, value: str) -> str:
    parse_limit(str(param.name), value)
    return value


# A share such as 0.44 or 44%; the largest share of a group may be 1.
read_share = _reader(lambda param, value: parse_share(value, is_closed=param.name == "max_group_ratio"))
# What a gate asks for, a share from nothing to all.
read_gate = _reader(lambda param, value: parse_gate(str(param.name), value))
# A share such as 40%, or what may be left, such as 8ms or 20MB.
read_limit = _reader(_check_limit)
# How many times as fast, a number above 0.
read_factor = _reader(lambda param, value: parse_factor(value))
# 10MB, 9.5MiB, or a number of bytes.
read_size = _reader(lambda param, value: parse_size(value))
# auto, off, or a number of channels.
read_align = _reader(lambda param, value: parse_align(value))


def _read_gamma(ctx: click.Context, param: click.Parameter, value: str) -> str | float:
    if value in ("auto", "paper"):
        return value
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise click.BadParameter(f"{value!r} is neither auto nor paper nor a number of at least 0", ctx, param)
    return number


def _read_shapes(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> dict[str, list[int]]:
    """Read NAME=1,3,224,224, or the sizes alone; the name "" stands for the only input."""
    found: dict[str, list[int]] = {}
    for value in values:
        name, _, sizes = value.rpartition("=")
        try:
            shape = [int(size) for size in sizes.split(",")]
        except ValueError:
            shape = []
        if not shape or min(shape) < 1:
            raise click.BadParameter(f"{value!r} is no shape: give NAME=1,3,224,224 or the sizes alone", ctx, param)
        if name in found:
            raise click.BadParameter(f"two shapes for input {name!r}", ctx, param)
        found[name] = shape
    return found


def combine(*decorators: Decorator) -> Decorator:
    """Make one decorator of several, so that their options are listed in this order."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def _import_modules(ctx: click.Context, param: click.Parameter, modules: Sequence[str]) -> None:
    """Import modules that register criteria; those in the current folder are found too."""
    if modules and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            hint = f"; give the module's name, {Path(module).stem}" if module.endswith(".py") else ""
            what = f"there is no module {error.name!r} on the Python path or in this folder"
            raise click.BadParameter(f"{module!r} cannot be imported: {what}{hint}", ctx, param) from error
        except Exception as error:  # whatever the user's module does wrong
            text = f"{module!r} cannot be imported: {type(error).__name__}: {error}"
            raise click.BadParameter(text, ctx, param) from error


model_argument = click.argument("model", type=click.Path(path_type=Path, readable=False))


def make_output_option(kind: str) -> Decorator:
    """Make the option of the file to write, named after the model and what it becomes; see `default_output`."""
    return click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path, readable=False),
        metavar="FILE",
        help=f"File to write.  [default: MODEL.{kind}.onnx beside the model]",
    )


def make_run_options(content: str, default: str) -> Decorator:
    """Make the options of the folder that a run is kept in.

    Args:
        content: What is kept.
        default: What the folder is called where none is named.
    """
    return combine(
        click.option(
            "--run-dir",
            type=click.Path(path_type=Path, readable=False),
            metavar="FOLDER",
            help=f"For {content}.  [default: {default}]",
        ),
        click.option("--resume", is_flag=True, help="Go on with the run that is in this folder."),
        click.option("--force", is_flag=True, help="Replace a file that exists, or start a run in its folder anew."),
    )


input_option = click.option(
    "--input",
    "inputs",
    multiple=True,
    callback=_read_shapes,
    metavar="[NAME=]SIZES",
    help="Shape of an input with dynamic axes, e.g. image=1,3,224,224. The file that is written keeps them dynamic.",
)
format_option = click.option(
    "--format",
    "output_format",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="Form of the result on stdout.",
)
report_option = click.option(
    "--report",
    "report_path",
    type=click.Path(path_type=Path, readable=False),
    metavar="FILE",
    help="Write a page on the result too: HTML that needs no network.",
)
allow_inexact_option = click.option(
    "--allow-inexact",
    is_flag=True,
    help="Prune channels that are normalized over too (LayerNorm, Softmax ...); not provable then.",
)
restriction_options = combine(
    click.option(
        "--max-group-ratio",
        callback=read_share,
        default="0.6",
        show_default=True,
        metavar="SHARE",
        help="No group loses a larger share of its units unless the budget needs it.",
    ),
    click.option(
        "--freeze", multiple=True, metavar="NODE", help="Leave a node as it is (name or glob). May be repeated."
    ),
    click.option(
        "--only", multiple=True, metavar="NODE", help="Prune only filters of a node (name or glob). May be repeated."
    ),
    allow_inexact_option,
)
import_option = click.option(
    "--import",
    "modules",
    multiple=True,
    metavar="MODULE",
    expose_value=False,
    callback=_import_modules,
    help="Python module to import first: it may register criteria or readers of data. May be repeated.",
)
seed_option = click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="For everything random."
)
verify_option = click.option("--no-verify", is_flag=True, help="Write without the proof.")
criterion_options = combine(
    click.option(
        "--criterion",
        default="auto",
        show_default=True,
        help="reconstruction, srr, srr+reconstruction, l1, l2, fpgm, bn_scale, random, or your own. auto: "
        "reconstruction with --data, else srr.",
    ),
    import_option,
    click.option(
        "--gamma",
        callback=_read_gamma,
        default="auto",
        show_default=True,
        metavar="auto|paper|NUMBER",
        help="srr: filters closer than this are neighbors. paper: the paper's form in everything.",
    ),
    click.option(
        "--node-removal",
        type=click.Choice(get_args(NodeRemoval)),
        help="srr: which node of a graph goes next.  [default: highest_degree; with --gamma paper: smallest_l1]",
    ),
    click.option(
        "--filter-choice",
        type=click.Choice(get_args(FilterChoice)),
        help="srr: which filters go.  [default: removed_nodes; with --gamma paper: l1]",
    ),
    seed_option,
)


def make_score_options(
    gamma: Any, node_removal: NodeRemoval | None, filter_choice: FilterChoice | None, seed: int
) -> ScoreOptions:
    """Put the options of `criterion_options` together."""
    return ScoreOptions(seed=seed, srr=SrrOptions.choose(gamma, node_removal, filter_choice))


def default_output(model: Path, kind: str = "pruned") -> Path:
    """The file that is written where none is named: model.onnx becomes model.pruned.onnx.

    Raises:
        ModelError: The path names no file.
    """
    if not model.name:
        raise ModelError(f"{str(model)!r} is a directory: give the .onnx file in it")
    stem = model.name[: -len(".onnx")] if model.name.endswith(".onnx") else model.name
    return model.with_name(f"{stem}.{kind}.onnx")
