"""`srr-onnx apply`: replay a plan, on the same file or on a retrained one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from srr_onnx.cli import options
from srr_onnx.cli.progress import show_progress
from srr_onnx.cli.report import collect_facts, note_cost, show_facts
from srr_onnx.cli.tables import note, show_json
from srr_onnx.graph.load import load_model
from srr_onnx.planning.plan import load_plan
from srr_onnx.rewriting.output import check_outputs, save_results
from srr_onnx.rewriting.replay import apply_plan, prove
from srr_onnx.rewriting.verify import make_feeds
from srr_onnx.targets.measuring import measure_shapes


@click.command()
@options.model_argument
@click.option(
    "--plan",
    "plan_path",
    type=click.Path(path_type=Path, readable=False),
    metavar="FILE",
    required=True,
    help="Plan that `prune` wrote.",
)
@options.make_output_option("pruned")
@options.input_option
@options.verify_option
@click.option(
    "--force",
    is_flag=True,
    help="Replace a file that exists; and take a model with other weights than the plan was made for.",
)
@options.format_option
def apply(
    model: Path,
    plan_path: Path,
    output: Path | None,
    inputs: Mapping[str, Sequence[int]],
    no_verify: bool,
    force: bool,
    output_format: str,
) -> None:
    """Replay a plan that `prune` has written.

    The model is the one that the plan was made for, or with --force one with the same initializer names and shapes,
    such as a retrained checkpoint. The result is proven as in `prune`.
    """
    target = output or options.default_output(model)
    check_outputs(model, target, None, force=force, plan_read=plan_path)
    plan = load_plan(plan_path)
    done = str(plan.compensation.get("kind", ""))
    with show_progress() as tell:
        loaded = measure_shapes(load_model(model, inputs or dict(plan.inputs)), make_feeds)
        tell("rewrite", 0, 1)
        pruned, plan = apply_plan(loaded, plan, force=force)
        if not no_verify:
            tell("verify", 0, 1)
            plan = prove(loaded, pruned, plan)
        tell("save", 0, 1)
        save_results(pruned, plan, target, None, force=force)
    facts = collect_facts("apply", loaded, plan, target, None)
    if output_format == "json":
        show_json(facts)
    else:
        show_facts(facts)
    note_cost(facts)
    if done not in ("", "none"):
        note(f"note: the plan says which channels go; the weights that stay are not compensated ({done}) as by `prune`")
    if no_verify:
        note("warning: not proven, as asked by --no-verify")
