"""`srr-onnx prune`: the main job, from a file to a smaller one that is proven."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

import srr_onnx.lossless
import srr_onnx.pipeline
from srr_onnx.cli import options
from srr_onnx.cli.data_options import DATA_KEYS, data_options, make_dataset
from srr_onnx.cli.gates import check_agreement, end_with_gates
from srr_onnx.cli.page import write_page
from srr_onnx.cli.progress import show_progress
from srr_onnx.cli.report import collect_facts, find_warnings, note_cost, note_guess, note_inlined, show_facts
from srr_onnx.cli.tables import note, show_json
from srr_onnx.cli.target_options import TARGET_KEYS, is_given, make_target, target_options
from srr_onnx.errors import DataError, PlanError
from srr_onnx.graph.load import load_model
from srr_onnx.planning.budget import NAMES, Budget
from srr_onnx.rewriting.compensate import KINDS
from srr_onnx.rewriting.output import check_outputs
from srr_onnx.validation.classes import has_classes
from srr_onnx.validation.profile import profile

# Options that go with --lossless.
_WITH_LOSSLESS = frozenset(
    {
        "dry_run",
        "force",
        "inputs",
        "lossless",
        "model",
        "output",
        "output_format",
        "plan_path",
        "report_path",
        "modules",
    }
)


@click.command()
@options.model_argument
@options.make_output_option("pruned")
@click.option(
    "--flops", callback=options.read_share, metavar="SHARE", help="Share of the FLOPs to remove: 0.44 or 44%."
)
@click.option(
    "--latency",
    callback=options.read_limit,
    metavar="SHARE|TIME",
    help="Share of the measured latency to remove, or what may be left: 0.4, 40%, 8ms. Measured on this machine.",
)
@click.option("--params", callback=options.read_share, metavar="SHARE", help="Share of the parameters to remove.")
@click.option(
    "--memory",
    callback=options.read_limit,
    metavar="SHARE|BYTES",
    help="Share of weights and activations to remove, or what may be left: 0.3, 20MB.",
)
@click.option(
    "--size",
    callback=options.read_limit,
    metavar="SHARE|BYTES",
    help="Share of the file to remove, or what may be left: 0.3, 5MB.",
)
@click.option(
    "--lossless",
    is_flag=True,
    help="Remove only what changes no output: channels that are dead, constant or duplicates. Takes no budget.",
)
@click.option("--ratio", callback=options.read_share, metavar="SHARE", help="Share of every group's units to remove.")
@options.criterion_options
@click.option(
    "--allocation",
    type=click.Choice(["auto", "uniform", "global", "redundancy", "error"]),
    default="auto",
    show_default=True,
    help="How the budget is spread over the groups. auto: redundancy for srr, error for reconstruction, else uniform.",
)
@click.option(
    "--align",
    callback=options.read_align,
    metavar="auto|off|CHANNELS",
    help="Widths to choose from: multiples of CHANNELS, or with auto what this machine computes fastest, which is "
    "measured once.  [default: auto where --latency or a target is given, else off]",
)
@target_options
@options.restriction_options
@options.input_option
@click.option(
    "--plan", "plan_path", type=click.Path(path_type=Path, readable=False), metavar="FILE", help="Write the plan too."
)
@options.report_option
@data_options
@click.option(
    "--compensate",
    type=click.Choice(KINDS),
    default="auto",
    show_default=True,
    help="What happens to the weights that stay, after the proof. auto: least-squares with --data (of 16 samples or "
    "more, if the file has BatchNormalizations), else data-free where it has them, and merge, if made-up inputs show "
    "that it helps. none writes the model as "
    "it was proven.",
)
@click.option("--keep-structure", is_flag=True, help="Compensate without creating biases that the file does not have.")
@click.option(
    "--recalibrate-norms",
    "recalibrate",
    is_flag=True,
    help="In the end set the statistics of BatchNormalizations anew from --data. Its images have to be of the model's "
    "own domain: others make the result far worse.",
)
@click.option(
    "--min-agreement",
    callback=options.read_gate,
    metavar="SHARE",
    help="End with exit code 3 where the result agrees less than this with the original on held-out samples.",
)
@click.option("--dry-run", is_flag=True, help="Decide and count, but prove and write nothing.")
@options.verify_option
@click.option("--force", is_flag=True, help="Replace files that exist.")
@options.format_option
def prune(
    model: Path,
    output: Path | None,
    plan_path: Path | None,
    report_path: Path | None,
    gamma: Any,
    node_removal: Any,
    filter_choice: Any,
    seed: int,
    inputs: Any,
    lossless: bool,
    dry_run: bool,
    no_verify: bool,
    min_agreement: float | None,
    output_format: str,
    **values: Any,
) -> None:
    """Make a model smaller and prove the result.

    Removes whole channels, with everything that hangs on them, until the budget is met: --ratio, or one or several of
    --flops, --params, --latency, --memory and --size. Before anything is written, the result is compared in onnxruntime
    with the original in which the same channels are masked. With --lossless only that goes which changes no output, and
    nothing is masked.
    """
    data_values = {key: values.pop(key) for key in DATA_KEYS}
    is_timed = values["latency"] is not None or is_given(*TARGET_KEYS)
    runs_on = make_target(values)
    if lossless:
        _check_lossless()
    else:
        _check_budget(values)
        if min_agreement is not None and data_values["data"] is None:
            raise click.UsageError("--min-agreement compares outputs on samples: give --data too")
        if values["recalibrate"] and data_values["data"] is None:
            raise click.UsageError("--recalibrate-norms reads samples: give --data too")
    target = None if dry_run else output or options.default_output(model)
    plan_target = None if dry_run else plan_path
    report_target = None if dry_run else report_path
    read = {key: data_values[key] for key in ("data", "labels")}
    check_outputs(model, target, plan_target, force=values["force"], report=report_target, **read)
    with show_progress() as tell:
        if lossless:
            result = srr_onnx.lossless.prune_lossless(
                model, target, input_shapes=inputs, force=values["force"], plan_path=plan_target, on_stage=tell
            )
        else:
            tell("load", 0, 1)
            loaded = load_model(model, inputs)
            if min_agreement is not None and not has_classes(loaded):
                raise DataError("--min-agreement compares classes, and no output of this model has any")
            dataset = make_dataset(loaded, **data_values)
            if min_agreement is not None and dataset is not None and dataset.is_made_up:
                raise click.UsageError(
                    "--min-agreement judges the result, which made-up pictures cannot: give real ones"
                )
            result = srr_onnx.pipeline.prune(
                loaded,
                target,
                plan_path=plan_target,
                options=options.make_score_options(gamma, node_removal, filter_choice, seed),
                data=dataset,
                samples=data_values["samples"],
                verify=not (no_verify or dry_run),
                target=runs_on if is_timed else None,
                on_stage=tell,
                **values,
            )
    gates = check_agreement(result.judgement, min_agreement)
    facts = collect_facts("prune", result.original, result.plan, target, plan_target, result.gains, gates)
    if output_format == "json":
        show_json(facts)
    else:
        show_facts(facts)
    if report_target is not None:
        restrictions = {key: values[key] for key in ("max_group_ratio", "freeze", "only", "allow_inexact")}
        speed = None
        if is_timed and not lossless:
            with show_progress() as tell:
                speed = profile(result.original, result.model, target=runs_on, with_footprint=False, on_stage=tell)
        write_page(report_target, result, facts, restrictions, speed, force=values["force"])
    for text in result.notes:
        note(f"note: {text}")
    note_guess(result.original)
    note_inlined(result.plan, plan_target)
    note_cost(facts)
    for warning in find_warnings(facts):
        note(f"warning: {warning}")
    if no_verify and not dry_run:
        note("warning: not proven, as asked by --no-verify")
    end_with_gates(gates)


def _check_lossless() -> None:
    """Refuse options that decide how much goes and which: with --lossless the outputs do."""
    context = click.get_current_context()
    for parameter in context.command.params:
        is_given = parameter.name and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
        if is_given and parameter.name not in _WITH_LOSSLESS:
            raise click.UsageError(
                f"--lossless decides by itself what goes, so {parameter.opts[0]} does not go with it"
            )


def _check_budget(settings: dict[str, Any]) -> None:
    """A wrong combination of options is a matter of usage."""
    try:
        budget = Budget.choose(**{kind: settings[kind] for kind in NAMES})
    except PlanError as error:
        raise click.UsageError(str(error)) from None
    if budget.kind == "ratio" and settings["allocation"] != "auto":
        raise click.UsageError("--ratio takes the same share of every group, so --allocation does not go with it")
