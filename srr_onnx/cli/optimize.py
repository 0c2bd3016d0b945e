"""`srr-onnx optimize`: all stages by one recipe, from a file to a smaller one that was trained and judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

import srr_onnx.optimizing.run
from srr_onnx.cli import options
from srr_onnx.cli.gates import end_with_gates
from srr_onnx.cli.progress import show_progress
from srr_onnx.cli.report import note_guess
from srr_onnx.cli.tables import note, show_json, show_line, show_table
from srr_onnx.graph.cost import CONVENTION
from srr_onnx.optimizing.recipe import load_recipe
from srr_onnx.optimizing.run import Optimized
from srr_onnx.optimizing.stages import StageResult
from srr_onnx.validation.gates import describe_gates
from srr_onnx.wording import counted, interval, percent, quantity


@click.command()
@options.model_argument
@click.option(
    "--recipe",
    "recipe_path",
    type=click.Path(path_type=Path, readable=False),
    required=True,
    metavar="FILE",
    help="YAML file that says what is done; its keys are the options of the commands, see docs/optimize.md.",
)
@options.make_output_option("optimized")
@options.make_run_options("what every stage makes, and the report", "MODEL.optimize beside the model")
@options.input_option
@options.import_option
@options.format_option
def optimize(
    model: Path,
    recipe_path: Path,
    output: Path | None,
    run_dir: Path | None,
    resume: bool,
    inputs: Mapping[str, Sequence[int]],
    force: bool,
    output_format: str,
) -> None:
    """Prune, train and judge a model as a recipe says, step by step.

    Every stage keeps what it makes as files. A run that was stopped, whatever by, goes on with --resume where it was
    and comes to the same weights. In the end the result is compared with the original, and a gate that fails ends the
    command with exit code 3.
    """
    target = output or options.default_output(model, "optimized")
    recipe = load_recipe(recipe_path)
    with show_progress() as tell:
        result = srr_onnx.optimizing.run.optimize(
            model,
            target,
            recipe=recipe,
            run_dir=run_dir or model.with_name(f"{model.name.removesuffix('.onnx')}.optimize"),
            resume=resume,
            force=force,
            input_shapes=inputs,
            on_stage=tell,
        )
    gates = describe_gates(result.validation.gates)
    if output_format == "json":
        show_json(_describe(result, gates))
    else:
        _show(result, gates)
    for text in result.notes:
        note(f"note: {text}")
    note_guess(result.original)
    end_with_gates(gates)


def _describe(result: Optimized, gates: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "schema": "srr-onnx/optimize/1",
        "output": str(result.path),
        "run": str(result.folder),
        "report": str(result.report),
        "convention": CONVENTION,
        "stages": [stage.to_json() for stage in result.stages],
        **result.validation.to_json(),
        "gates": list(gates),
    }


def _show(result: Optimized, gates: Sequence[Mapping[str, Any]]) -> None:
    stages = result.stages
    last = stages[-1]
    columns = ["stage", "MACs", "left", "parameters", "file size"]
    columns += ["accuracy"] if last.accuracy is not None else []
    columns += ["same top-1"] if last.agreement is not None else []
    show_table(columns, [_row(stage, stages[0], last) for stage in stages])
    show_line()
    if last.samples:
        samples = counted(last.samples, "sample")
        show_line(f"{'measured':<10}in onnxruntime on {samples} that nothing learns from; 95 % intervals")
    for gate in gates:
        show_line(f"{'passed' if gate['passed'] else 'FAILED':<10}{gate['text']}")
    show_line(f"{'written':<10}{result.path}; every stage in {result.folder}, the report in {result.report}")
    show_line(f"{'counted':<10}{CONVENTION}")


def _row(stage: StageResult, first: StageResult, last: StageResult) -> tuple[str, ...]:
    cells = [
        stage.name,
        quantity(stage.macs),
        percent(stage.macs / first.macs) if first.macs else "-",
        quantity(stage.params),
        quantity(stage.size_bytes, "B"),
    ]
    for wanted, found in ((last.accuracy, stage.accuracy), (last.agreement, stage.agreement)):
        if wanted is not None:
            cells.append("-" if found is None else _write(found))
    return tuple(cells)


def _write(share: Mapping[str, float]) -> str:
    return f"{percent(share['mean'])} ({interval(share['low'], share['high'], percent)})"
