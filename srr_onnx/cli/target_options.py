"""Options that say where models run when their time is measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
from click.core import ParameterSource

from srr_onnx.cli.options import combine
from srr_onnx.targets.target import PROVIDERS, Target
from srr_onnx.wording import counted


def _read_provider_options(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    """Read KEY=VALUE; a value may hold more = signs."""
    found: dict[str, str] = {}
    for value in values:
        key, sign, rest = value.partition("=")
        if not sign or not key.strip():
            raise click.BadParameter(f"{value!r} is no option of a provider: give KEY=VALUE", ctx, param)
        if key in found:
            raise click.BadParameter(f"{key!r} is given twice", ctx, param)
        found[key] = rest
    return found


def read_batches(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...]:
    """Read 1,4,8."""
    if value is None:
        return ()
    try:
        sizes = tuple(int(size) for size in value.split(","))
    except ValueError:
        sizes = (0,)
    if min(sizes) < 1:
        raise click.BadParameter(f"{value!r} is no list of batches: give sizes such as 1,4,8", ctx, param)
    return sizes


provider_options = combine(
    click.option(
        "--provider",
        default="cpu",
        show_default=True,
        metavar="NAME",
        help=f"Execution provider of onnxruntime that runs the models: {', '.join(PROVIDERS)}, or a full name.",
    ),
    click.option(
        "--provider-option",
        "provider_options",
        multiple=True,
        callback=_read_provider_options,
        metavar="KEY=VALUE",
        help="Option of the provider, as onnxruntime's page on it lists them. May be repeated.",
    ),
)
target_options = combine(
    provider_options,
    click.option(
        "--threads",
        type=click.IntRange(0, 1024),
        default=1,
        show_default=True,
        metavar="N",
        help="Threads inside one operator; 0 lets the runtime choose.",
    ),
)
TARGET_KEYS = ("provider", "threads", "provider_options")


def make_target(values: dict[str, Any]) -> Target:
    """Take the values of `target_options`, or of `provider_options`, out of those of a command."""
    return Target(values.pop("provider"), values.pop("threads", 1), options=values.pop("provider_options"))


def is_given(*names: str) -> bool:
    """Whether one of these options is on the command line of the command that runs."""
    context = click.get_current_context()
    return any(context.get_parameter_source(name) is ParameterSource.COMMANDLINE for name in names)


def describe_target(target: Target) -> str:
    """A target in a few words."""
    threads = counted(target.threads, "thread") if target.threads else "the runtime's choice of threads"
    options = "".join(f", {key}={value}" for key, value in target.options.items())
    return f"{target.provider}, {threads}{options}"
