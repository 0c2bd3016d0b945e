"""`srr-onnx prune`: the main job, from a file to a smaller one that is proven."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import srr_onnx.pipeline
from srr_onnx.cli import options
from srr_onnx.cli.progress import show_progress
from srr_onnx.cli.report import collect_facts, describe_overshoot, note_cost, note_guess, note_inlined, show_facts
from srr_onnx.cli.tables import note, show_json
from srr_onnx.errors import PlanError
from srr_onnx.planning.budget import Budget


@click.command()
@options.model_argument
@options.output_option
@click.option(
    "--flops", callback=options.read_share, metavar="SHARE", help="Share of the FLOPs to remove: 0.44 or 44%."
)
@click.option("--params", callback=options.read_share, metavar="SHARE", help="Share of the parameters to remove.")
@click.option("--ratio", callback=options.read_share, metavar="SHARE", help="Share of every group's units to remove.")
@options.criterion_options
@click.option(
    "--allocation",
    type=click.Choice(["auto", "uniform", "global", "redundancy"]),
    default="auto",
    show_default=True,
    help="How the budget is spread over the groups. auto: redundancy for srr, else uniform.",
)
@click.option(
    "--max-group-ratio",
    callback=options.read_share,
    default="0.6",
    show_default=True,
    metavar="SHARE",
    help="No group loses a larger share of its units unless the budget needs it.",
)
@click.option("--freeze", multiple=True, metavar="NODE", help="Leave a node as it is (name or glob). May be repeated.")
@click.option(
    "--only", multiple=True, metavar="NODE", help="Prune only filters of a node (name or glob). May be repeated."
)
@options.allow_inexact_option
@options.input_option
@click.option(
    "--plan", "plan_path", type=click.Path(path_type=Path, readable=False), metavar="FILE", help="Write the plan too."
)
@click.option(
    "--compensate",
    type=click.Choice(["none"]),
    default="none",
    show_default=True,
    expose_value=False,
    help="What happens to the weights that stay.",
)
@click.option("--dry-run", is_flag=True, help="Decide and count, but prove and write nothing.")
@options.verify_option
@click.option("--force", is_flag=True, help="Replace files that exist.")
@options.format_option
def prune(
    model: Path,
    output: Path | None,
    plan_path: Path | None,
    gamma: Any,
    node_removal: Any,
    filter_choice: Any,
    seed: int,
    inputs: Any,
    dry_run: bool,
    no_verify: bool,
    output_format: str,
    **settings: Any,
) -> None:
    """Make a model smaller and prove the result.

    Removes whole channels, with everything that hangs on them, until the budget is met: one of --flops, --params and
    --ratio. Before anything is written, the result is compared in onnxruntime with the original in which the same
    channels are masked.
    """
    _check_budget(settings)
    target = None if dry_run else output or options.default_output(model)
    plan_target = None if dry_run else plan_path
    with show_progress() as tell:
        result = srr_onnx.pipeline.prune(
            model,
            target,
            plan_path=plan_target,
            options=options.make_score_options(gamma, node_removal, filter_choice, seed),
            input_shapes=inputs,
            verify=not (no_verify or dry_run),
            on_stage=tell,
            **settings,
        )
    facts = collect_facts("prune", result.original, result.plan, target, plan_target)
    if output_format == "json":
        show_json(facts)
    else:
        show_facts(facts)
    note_guess(result.original)
    note_inlined(result.plan, plan_target)
    note_cost(facts)
    if coarse := describe_overshoot(facts):
        note(f"warning: {coarse}")
    if facts["groups"]["unproven"]:
        note(f"warning: pruning failed the proof at {', '.join(facts['groups']['unproven'])}: please report this model")
    if no_verify and not dry_run:
        note("warning: not proven, as asked by --no-verify")


def _check_budget(settings: dict[str, Any]) -> None:
    """A wrong combination of options is a matter of usage."""
    try:
        budget = Budget.choose(flops=settings["flops"], params=settings["params"], ratio=settings["ratio"])
    except PlanError as error:
        raise click.UsageError(str(error)) from None
    if budget.kind == "ratio" and settings["allocation"] != "auto":
        raise click.UsageError("--ratio takes the same share of every group, so --allocation does not go with it")
