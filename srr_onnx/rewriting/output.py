"""REWRITE: the pruned model and its plan to files, both or none."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

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
) -> None:
    """Check that the results may be written, before any work is done.

    Raises:
        OutputError: A file exists and `force` is not set, cannot be written, or would replace another of these files.
    """
    origin = source.source if isinstance(source, Model) else Path(source)
    taken = {} if origin is None else {origin.resolve(): "the model that is read"}
    for target, kind in ((output, "the pruned model"), (plan_path, "the plan")):
        if target is None:
            continue
        path = Path(target)
        if path.resolve() in taken:
            raise OutputError(f"{str(path)!r} is {taken[path.resolve()]}: choose another file for {kind}")
        check_target(path, force)
        taken[path.resolve()] = kind


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
