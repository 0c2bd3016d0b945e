"""Gates: the exit code where a result does not reach what was asked of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from srr_onnx.cli.tables import note
from srr_onnx.validation.gates import at_least, describe_gates
from srr_onnx.validation.judge import Judgement

EXIT_GATE = 3


def check_agreement(judgement: Judgement | None, least: float | None) -> list[dict[str, Any]]:
    """Check that a result agrees with the original on samples.

    Args:
        judgement: What the samples say.
        least: Smallest share of the samples on which the highest class has to be the same; None sets no gate.

    Returns:
        One entry per gate, see `describe_gates`.
    """
    if least is None or judgement is None:
        return []
    main = judgement.main
    share = None if main is None or main.top1 is None else main.top1.mean
    gates = (at_least("agreement", share, least),)
    why = "no output has classes that could be compared" if judgement.outputs else judgement.note
    return describe_gates(gates, why)


def end_with_gates(gates: Sequence[Mapping[str, Any]]) -> None:
    """Say on stderr which gates failed, and end the command with exit code 3 if one did.

    Args:
        gates: Entries of `describe_gates`.
    """
    failed = [gate for gate in gates if not gate["passed"]]
    for gate in failed:
        note(f"gate failed: {gate['text']}")
    if failed:
        click.get_current_context().exit(EXIT_GATE)
