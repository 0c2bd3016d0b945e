"""Gates: what a result has to reach, and the exit code where it does not."""

from __future__ import annotations

from typing import Any

from srr_onnx.cli.wording import percent
from srr_onnx.errors import DataError
from srr_onnx.validation.judge import Judgement

EXIT_GATE = 3


def check_agreement(judgement: Judgement | None, least: float | None) -> list[dict[str, Any]]:
    """Check that a result agrees with the original on samples.

    Args:
        judgement: What the samples say.
        least: Smallest share of the samples on which the highest class has to be the same; None sets no gate.

    Returns:
        One entry per gate: name, value, limit, whether it was passed, and a text.

    Raises:
        DataError: There is a gate, but no output has classes.
    """
    if least is None or judgement is None:
        return []
    found = judgement.top1
    if found is None:
        raise DataError("--min-agreement compares classes, and no output of this model has any")
    text = f"top-1 agreement with the original is {percent(found)}, at least {percent(least)} was asked for"
    return [{"name": "agreement", "value": found, "limit": least, "passed": found >= least, "text": text}]
