"""SCORE: scores, with what samples show where there are any."""

from __future__ import annotations

from collections.abc import Callable

from srr_onnx.analysis.groups import Groups
from srr_onnx.calibration.layers import find_layers
from srr_onnx.calibration.observe import Observation, observe
from srr_onnx.calibration.prepare import Calibration
from srr_onnx.errors import DataError
from srr_onnx.graph.model import Model
from srr_onnx.scoring.criterion import ScoreFunction, ScoreOptions
from srr_onnx.scoring.reconstruction import EliminationSearch, choose_columns, find_readers
from srr_onnx.scoring.score import Scores, find_criterion, score_groups


def score_with_samples(
    model: Model,
    groups: Groups,
    criterion: str | ScoreFunction,
    options: ScoreOptions,
    calibration: Calibration | None = None,
    *,
    with_targets: bool = False,
    on_stage: Callable[[str, int, int], None] = lambda stage, done, steps: None,
) -> tuple[Scores, Observation | None]:
    """Score every unit of every group, after watching the layers on samples if there are any.

    Args:
        model: Loaded model; not changed.
        groups: Result of `find_groups(model)`.
        criterion: Registered name, a function, or "auto": reconstruction where there are samples, else srr.
        options: Settings of the criterion.
        calibration: The samples.
        with_targets: Whether what the layers give is kept, for compensation by least squares.
        on_stage: Told the name of the stage, steps done and steps in all.

    Returns:
        The scores, and what was seen of the layers, to be closed; None without samples.

    Raises:
        DataError: The criterion needs samples and there are none; or an activation is not finite.
        SrrError: See `score_groups`.
    """
    if criterion == "auto":
        criterion = "srr" if calibration is None else "reconstruction"
    entry = find_criterion(criterion)
    if entry.uses_samples and calibration is None:
        raise DataError(f"criterion {entry.name!r} needs samples: give pictures or arrays with --data")
    observation = eliminations = None
    if calibration is not None and (entry.uses_samples or with_targets):
        layers = find_layers(model)
        readers = find_readers(layers, groups) if entry.uses_samples else []
        columns = choose_columns(readers, groups, options.seed)
        search = EliminationSearch(model, groups, readers)
        observation = observe(
            model,
            layers,
            calibration.samples,
            {layer.output: columns.get(layer.output) for layer in readers},
            {layer.output for layer in layers} if with_targets else set(),
            lambda done, steps: on_stage("observe", done, steps),
            search.add,
        )
        eliminations = search.finish() if entry.uses_samples else None
    on_stage("score", 0, len(groups))
    scores = score_groups(
        model, groups, entry, options, lambda done, steps: on_stage("score", done, steps), eliminations
    )
    return scores, observation
