"""`srr-onnx evaluate`: a model on data: accuracy with labels, agreement with a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from srr_onnx.cli import options
from srr_onnx.cli.data_options import SOURCE_KEYS, make_dataset, source_options
from srr_onnx.cli.gates import end_with_gates
from srr_onnx.cli.progress import show_progress
from srr_onnx.cli.report import note_guess
from srr_onnx.cli.run_options import check_written, make_run_options, run_options, show_agreement
from srr_onnx.cli.tables import note, show_json, show_line, show_table
from srr_onnx.cli.target_options import make_target, provider_options
from srr_onnx.data.dataset import BadSample
from srr_onnx.data.metadata import METADATA_KEY, write_metadata
from srr_onnx.errors import DataError
from srr_onnx.graph.load import load_model
from srr_onnx.graph.metadata import store_metadata
from srr_onnx.graph.save import check_target, write_atomically
from srr_onnx.validation.accuracy import Accuracy
from srr_onnx.validation.class_names import Classes
from srr_onnx.validation.estimates import Estimate, estimate_share
from srr_onnx.validation.evaluate import Evaluation
from srr_onnx.validation.evaluate import evaluate as evaluate_model
from srr_onnx.validation.gates import describe_gates
from srr_onnx.wording import counted, interval, percent, printable

# A matrix of more classes is wider than a page.
_MOST_IN_MATRIX = 12
_MOST_LISTED = 20


@click.command()
@options.model_argument
@source_options
@click.option(
    "--reference",
    type=click.Path(path_type=Path, readable=False),
    metavar="OTHER.onnx",
    help="Compare the outputs with those of this model; needs no labels.",
)
@run_options
@provider_options
@click.option(
    "--min-accuracy",
    callback=options.read_gate,
    metavar="SHARE",
    help="End with exit code 3 where fewer samples are right.",
)
@click.option(
    "--bad-list",
    type=click.Path(path_type=Path, readable=False),
    metavar="FILE",
    help="Write name and reason of every sample that cannot be read.",
)
@click.option(
    "--store-preprocessing",
    is_flag=True,
    help="Write the preprocessing that was used into the metadata of MODEL itself, where all commands find it.",
)
@options.input_option
@options.import_option
@click.option("--force", is_flag=True, help="Replace a --bad-list that exists.")
@options.format_option
def evaluate(
    model: Path,
    reference: Path | None,
    min_accuracy: float | None,
    bad_list: Path | None,
    store_preprocessing: bool,
    inputs: Mapping[str, Sequence[int]],
    force: bool,
    output_format: str,
    **values: Any,
) -> None:
    """Measure accuracy on labelled data, or agreement with another model.

    Accuracy comes with 95 % intervals, per class too, and with what is taken for what. Without labels --reference tells
    how far the outputs of two models agree.
    """
    if values["data"] is None:
        raise click.UsageError("a model is evaluated on samples: give --data")
    if bad_list is not None:
        check_written(bad_list, "--bad-list", (model, reference, values["data"], values["labels"]), force=force)
    run, target = make_run_options(values), make_target(values)
    with show_progress() as tell:
        loaded = load_model(model, inputs)
        dataset = make_dataset(loaded, **{key: values[key] for key in SOURCE_KEYS})
        assert dataset is not None, "--data was given"
        if store_preprocessing:
            check_target(model, force=True)
            if dataset.preprocessing is None:
                raise DataError(
                    "--store-preprocessing: nothing is done to these samples, arrays of floating-point numbers pass as "
                    "they are; give pictures"
                )
        found = evaluate_model(
            loaded,
            dataset,
            reference=reference,
            options=run,
            min_accuracy=min_accuracy,
            target=target,
            input_shapes=inputs,
            on_stage=tell,
        )
    if bad_list is not None:
        with write_atomically(bad_list) as file:
            file.write("".join(map(_write_bad, found.bad)).encode())
    if store_preprocessing and found.preprocessing is not None:
        store_metadata(model, METADATA_KEY, write_metadata(found.preprocessing))
    gates = describe_gates(found.gates)
    if output_format == "json":
        paths = {"model": str(model), "reference": None if reference is None else str(reference)}
        show_json({"schema": "srr-onnx/evaluate/1", **paths, **found.to_json(), "gates": gates})
    else:
        _show(found)
    for text in found.notes:
        note(f"note: {text}")
    note_guess(loaded)
    if store_preprocessing:
        note(f"note: {str(model)!r} states this preprocessing now; nothing else in it has changed")
    end_with_gates(gates)


def _write_bad(sample: BadSample) -> str:
    return "\t".join(map(printable, (sample.name, sample.reason))) + "\n"


def _show(found: Evaluation) -> None:
    if found.accuracy is not None:
        _show_accuracy(found.accuracy, found.classes)
    else:
        show_line(f"{counted(found.samples, 'sample')} without labels")
    show_agreement(found.agreement)


def _show_accuracy(found: Accuracy, classes: Classes) -> None:
    rows = [_row("top-1", found.correct, found.samples)]
    if found.correct_top5 is not None:
        rows.append(_row("top-5", found.correct_top5, found.samples))
    show_table(("", "accuracy", "95 % interval", "right", "samples"), rows)
    show_line()
    per_class = found.estimate_classes()
    listed = list(per_class)
    if len(listed) > _MOST_LISTED:
        listed = sorted(per_class, key=lambda label: (per_class[label][2].mean, label))[:_MOST_LISTED]
    rows = [_row(classes.write(label), *per_class[label][:2]) for label in listed]
    heading = "class" if len(listed) == len(per_class) else f"class ({len(listed)} lowest of {len(per_class):,})"
    show_table((heading, "accuracy", "95 % interval", "right", "samples"), rows)
    show_line()
    counts = found.count_confusions()
    if found.classes <= _MOST_IN_MATRIX:
        every = range(found.classes)
        matrix = [(classes.write(i), *(str(counts.get((i, j), 0)) for j in every)) for i in every]
        show_table(("class, taken for", *map(str, every)), matrix)
        return
    wrong = sorted(((count, pair) for pair, count in counts.items() if pair[0] != pair[1]), key=lambda c: (-c[0], c[1]))
    pairs = [(*map(classes.write, pair), str(count)) for count, pair in wrong[:_MOST_LISTED]]
    show_table(("class", "most often taken for", "samples"), pairs, left=2)


def _row(label: str, right: int, samples: int) -> tuple[str, ...]:
    share: Estimate = estimate_share(right, samples)
    return label, percent(share.mean), interval(share.low, share.high, percent), f"{right:,}", f"{samples:,}"
