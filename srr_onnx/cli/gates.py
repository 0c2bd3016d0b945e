"""Gates: what a result has to reach, and the exit code where it does not."""

from __future__ import annotations

from typing import Any

from srr_onnx.validation.judge import Judgement
from srr_onnx.wording import percent

EXIT_GATE = 3


def check_agreement(judgement: Judgement | None, least: float | None) -> list[dict[str, Any]]:
    """Check that a result agrees with the original on samples.

    Args:
        judgement: What the samples say.
        least: Smallest share of the samples on which the highest class has to be the same; None sets no gate.

    Returns:
        One entry per gate: name, value, limit, whether it was passed, and a text.

    """
    if least is None or judgement is None:
        return []
    main = judgement.main
    if main is None or main.top1 is None:
        text = judgement.note or "no output has classes that could be compared"
        return [{"name": "agreement", "value": None, "limit": least, "passed": False, "text": text}]
    found = main.top1.mean
    text = f"top-1 agreement of {main.output!r} with the original is {percent(found)}, at least {percent(least)} was "
    return [{"name": "agreement", "value": found, "limit": least, "passed": found >= least, "text": f"{text}asked for"}]
