"""Gates: what a result has to reach, in words, and the exit code where it does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from srr_onnx.cli.tables import note
from srr_onnx.validation.gates import Gate, at_least
from srr_onnx.validation.judge import Judgement
from srr_onnx.wording import percent, quantity

EXIT_GATE = 3

_WORDS = {
    "accuracy": lambda value: f"accuracy is {percent(value)}",
    "accuracy_drop": lambda value: (
        f"accuracy is {abs(value) * 100:.2f} points {'lower' if value >= 0 else 'higher'} than the reference's"
    ),
    "agreement": lambda value: f"top-1 agreement with the reference is {percent(value)}",
    "size": lambda value: f"the file has {quantity(value, 'B')}",
    "speedup": lambda value: f"a run is {value:.3f} times as fast as the reference's",
}
_LIMITS = {
    "accuracy": lambda limit: f"at least {percent(limit)} was asked for",
    "accuracy_drop": lambda limit: f"{limit * 100:g} points lower were allowed",
    "agreement": lambda limit: f"at least {percent(limit)} was asked for",
    "size": lambda limit: f"at most {quantity(limit, 'B')} was allowed",
    "speedup": lambda limit: f"at least {limit:g} times was asked for",
}


def describe_gates(gates: Sequence[Gate], why_missing: str = "") -> list[dict[str, Any]]:
    """Put gates into their JSON form.

    Args:
        gates: The gates.
        why_missing: Why a value could not be measured.

    Returns:
        One entry per gate: name, value, limit, whether it was passed, and a text.
    """
    found = []
    for gate in gates:
        value = why_missing or "it could not be measured" if gate.value is None else _WORDS[gate.name](gate.value)
        found.append(
            {
                "name": gate.name,
                "value": gate.value,
                "limit": gate.limit,
                "passed": gate.is_passed,
                "text": f"{value}, {_LIMITS[gate.name](gate.limit)}",
            }
        )
    return found


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
