"""PLAN: whether decoded JSON has the form of a plan, so that nobody after this has to ask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from srr_onnx.errors import PlanError
from srr_onnx.planning.budget import NAMES


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_list_of(is_entry: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(is_entry, value))


def _is_limit(value: Any) -> bool:
    if not (_is_object(value) and value.get("kind") in NAMES and {"amount", "reached"} <= set(value)):
        return False
    # What is met as the model is has no share that has to go, but says what may stay.
    is_told = bool(value["amount"]) or "most" in value
    return is_told and all(_is_number(value[key]) for key in ("amount", "reached", "most") if key in value)


def _is_alignment(value: Any) -> bool:
    if not _is_object(value):
        return value is None
    steps = value.get("steps")
    is_told = _is_text(value.get("source")) and _is_object(steps) and bool(steps)
    return is_told and all(_is_number(step) for step in steps.values())


# Keys of a plan, with a dot between levels: what their values have to be, in words, and the test for it.
_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "srr_onnx": ("text", _is_text),
    "model": ("an object", _is_object),
    "model.sha256": ("text", _is_text),
    "model.inputs": ("an object", _is_object),
    "criterion": ("an object", _is_object),
    "budget": ("an object", _is_object),
    "budget.kind": ("text", _is_text),
    "budget.cap_used": ("a number", _is_number),
    "budget.max_group_ratio": ("a number", _is_number),
    "budget.limits": ("a list of kind, amount and reached", _is_list_of(_is_limit)),
    "budget.alignment": ("null, or steps and their source", _is_alignment),
    "cost": ("an object", _is_object),
    "cost.before": ("an object", _is_object),
    "cost.after": ("an object", _is_object),
    "groups": ("a list of objects", _is_list_of(_is_object)),
    "values": ("an object", _is_object),
    "frozen": ("a list of objects", _is_list_of(_is_object)),
    "proof": ("an object", _is_object),
    "compensation": ("an object", _is_object),
    "agreement": ("an object", _is_object),
    "latency": ("an object", _is_object),
    "uncounted": ("a list of texts", _is_list_of(_is_text)),
    "inlined": ("true or false", lambda value: isinstance(value, bool)),
}


def check_kinds(data: Mapping[str, Any]) -> None:
    """Check that the keys that a plan has are of the right kind; some may be missing.

    Args:
        data: Decoded JSON.

    Raises:
        PlanError: One is not; names it.
    """
    for path, (words, is_right) in _KINDS.items():
        value: Any = data
        for key in path.split("."):
            if key not in value:
                break
            value = value[key]
        else:
            if not is_right(value):
                raise PlanError(
                    f"the plan is incomplete or damaged ({path!r} has to be {words}): make it anew with `prune --plan`"
                )
