"""REWRITE: the pruned model and its plan to files, both or none."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from srr_onnx.errors import OutputError
from srr_onnx.graph.model import Model
from srr_onnx.graph.save import check_target, save_model
from srr_onnx.planning.plan import Plan, write_plan


def check_outputs(
    source: str | os.PathLike[str] | Model,
    output: str | os.PathLike[str] | None,
    plan_path: str | os.PathLike[str] | None,
    *,
    force: bool,
    plan_read: str | os.PathLike[str] | None = None,
    report: str | os.PathLike[str] | None = None,
    data: Any = None,
    labels: str | os.PathLike[str] | None = None,
) -> None:
    """Check that the results may be written, before any work is done.

    Args:
        source: The model that is read.
        output: File for the pruned model.
        plan_path: File for the plan.
        force: Whether existing files may be replaced; those that are read never are.
        plan_read: The plan that is read.
        report: File for the report page.
        data: What samples are read from; a path is guarded.
        labels: File with their labels.

    Raises:
        OutputError: A file exists and `force` is not set, cannot be written, or would replace another of these files.
    """
    origin = source.source if isinstance(source, Model) else Path(source)
    samples = data if isinstance(data, (str, os.PathLike)) else None
    read = (
        (origin, "the model that is read"),
        (plan_read, "the plan that is read"),
        (samples, "what --data reads"),
        (labels, "what --labels reads"),
    )
    taken = {os.path.realpath(path): kind for path, kind in read if path is not None}
    for target, kind, option in (
        (output, "the pruned model", "-o"),
        (plan_path, "the plan", "--plan"),
        (report, "the report", "--report"),
    ):
        if target is None:
            continue
        path = Path(target)
        place = os.path.realpath(path)
        if place in taken:
            raise OutputError(f"{str(path)!r} is {taken[place]}: choose another file for {kind}")
        check_target(path, force, option)
        taken[place] = kind


def save_results(
    pruned: Model,
    plan: Plan,
    output: str | os.PathLike[str] | None,
    plan_path: str | os.PathLike[str] | None,
    *,
    force: bool,
) -> None:
    """Write model and plan, both or none.

    Raises:
        OutputError: One of them cannot be written.
    """
    with contextlib.ExitStack() as stack:
        if plan_path is not None:  # it gets its name after the model has got its own
            stack.enter_context(write_plan(plan, Path(plan_path), force=force))
        if output is not None:
            save_model(pruned, output, force=force)
