"""PLAN: the limits that a plan has to meet."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping

from srr_onnx.errors import PlanError
from srr_onnx.wording import duration, quantity

QUANTITIES = {"flops": "macs", "params": "params"}
NAMES = {
    "flops": "FLOPs",
    "params": "parameters",
    "ratio": "units per group",
    "latency": "latency",
    "memory": "memory",
    "size": "file size",
}

# A budget is met to within half a percentage point.
TOLERANCE = 0.005

_TIMES = {"ns": 1.0, "us": 1e3, "ms": 1e6, "s": 1e9}
_BYTES = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
# Kinds that may be given as what may be left: unit -> nanoseconds or bytes.
_UNITS: dict[str, dict[str, float]] = {"latency": _TIMES, "memory": _BYTES, "size": _BYTES}
_EXAMPLES = {"latency": "8ms", "memory": "20MB", "size": "5MB"}


@dataclasses.dataclass(frozen=True)
class Limit:
    """How much of one quantity has to go, or may stay.

    Attributes:
        kind: "flops", "params", "latency", "memory", "size" (share of the whole model) or "ratio" (share of every
            group's units).
        amount: Share to be removed, in (0, 1); 0 where `most` says it.
        most: What may stay, in nanoseconds or bytes.
    """

    kind: str
    amount: float
    most: float | None = None

    def share(self, total: float) -> float:
        """Find the share that has to go.

        Args:
            total: What the model has, in nanoseconds or bytes.

        Returns:
            The share, below 1; 0 or less where the model has no more than may stay.
        """
        return self.amount if self.most is None else 1 - self.most / total

    def is_met(self, total: float) -> bool:
        """Whether a model that has so much, in nanoseconds or bytes, has no more than may stay."""
        return self.most is not None and total <= self.most

    def write(self, number: float) -> str:
        """Nanoseconds or bytes in words."""
        return duration(number / 1e9) if self.kind == "latency" else quantity(number, "B")

    def to_json(self) -> dict[str, object]:
        """Plain form, as in plan files."""
        return {"kind": self.kind, "amount": self.amount, **({} if self.most is None else {"most": self.most})}


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much has to go: one limit, or several that all have to be met.

    Attributes:
        limits: The limits, one per kind.
    """

    limits: tuple[Limit, ...]

    @classmethod
    def choose(
        cls,
        flops: float | str | None = None,
        params: float | str | None = None,
        ratio: float | str | None = None,
        latency: float | str | None = None,
        memory: float | str | None = None,
        size: float | str | None = None,
    ) -> Budget:
        """Make the budget from the options that are given.

        Args:
            flops: Share of the MACs to remove, as 0.44 or "44%".
            params: Share of the parameters to remove.
            ratio: Share of every group's units to remove; not together with others.
            latency: Share of the measured latency to remove, or what may be left, as "8ms".
            memory: Share of weights and activations to remove, or what may be left, as "20MB".
            size: Share of the file to remove, or what may be left, as "5MB".

        Returns:
            The budget.

        Raises:
            PlanError: None is given, or one that does not go with others, or it is not between 0 and 1.
        """
        given = {"flops": flops, "params": params, "ratio": ratio, "latency": latency, "memory": memory, "size": size}
        chosen = {kind: value for kind, value in given.items() if value is not None}
        if not chosen or ("ratio" in chosen and len(chosen) > 1):
            options = ", ".join(f"--{kind}" for kind in given)
            raise PlanError(
                f"a budget says how much to remove: one or several of {options}; none was given"
                if not chosen
                else "--ratio says by itself what every group loses, so it goes with no other budget; given: "
                + ", ".join(f"--{kind}" for kind in chosen)
            )
        return cls(tuple(parse_limit(kind, value) for kind, value in chosen.items()))

    @property
    def kind(self) -> str:
        """Kind of the first limit."""
        return self.limits[0].kind

    @property
    def amount(self) -> float:
        """Share of the first limit."""
        return self.limits[0].amount

    def find(self, kind: str) -> Limit | None:
        """The limit of a kind, None where there is none."""
        return next((limit for limit in self.limits if limit.kind == kind), None)

    def replace(self, limit: Limit) -> Budget:
        """A budget with another limit of one kind."""
        return Budget(tuple(limit if known.kind == limit.kind else known for known in self.limits))

    def leave_met(self, totals: Mapping[str, float]) -> Budget:
        """Leave out the limits that a model meets as it is.

        Args:
            totals: What the model has, in nanoseconds or bytes, by kind of limit, as far as known.

        Returns:
            The budget of the limits that are left.

        Raises:
            PlanError: None is left, so that nothing has to go.
        """
        met = [limit for limit in self.limits if limit.kind in totals and limit.is_met(totals[limit.kind])]
        if len(met) < len(self.limits):
            return Budget(tuple(limit for limit in self.limits if limit not in met))
        told = ", ".join(
            f"--{limit.kind} {limit.write(limit.most or 0)} (the {NAMES[limit.kind]} is "
            f"{limit.write(totals[limit.kind])} already)"
            for limit in met
        )
        raise PlanError(f"nothing has to go, the model meets {told} as it is: give less, or a share such as 0.3")


def parse_limit(kind: str, value: float | str) -> Limit:
    """Read a limit: a share, or for latency, memory and size also what may be left.

    Args:
        kind: Kind of the limit.
        value: A share as `parse_share` reads it, or a number with a unit: "8ms", "20 MB".

    Returns:
        The limit.

    Raises:
        PlanError: It is nothing of the kind.
    """
    units = _UNITS.get(kind)
    text = str(value).strip()
    found = re.fullmatch(r"([0-9.eE+-]+)\s*([A-Za-z]+)", text)
    if units is None or found is None:
        try:
            return Limit(kind, parse_share(value))
        except PlanError as error:
            hint = f"; or give what may be left, as {_EXAMPLES[kind]}" if units else ""
            raise PlanError(f"{error}{hint}") from None
    try:
        number = float(found[1])
    except ValueError:
        number = math.nan
    unit = next((known for known in units if known.lower() == found[2].lower()), None)
    if unit is None or not (math.isfinite(number) and number > 0):
        raise PlanError(
            f"{text!r} is no {NAMES[kind]}: give a share such as 0.4, or what may be left, as {_EXAMPLES[kind]} "
            f"(units: {', '.join(units)})"
        )
    return Limit(kind, 0.0, number * units[unit])


def parse_share(value: float | str, *, is_closed: bool = False, has_zero: bool = False, is_large: bool = True) -> float:
    """Read a share: 0.44, "0.44" or "44%".

    Args:
        value: A number or text.
        is_closed: Whether 1 is allowed too.
        has_zero: Whether 0 is.
        is_large: Whether a percentage below 1 is taken for a slip, 0.44% for 0.44; the number 0.0044 never is.

    Returns:
        The share, between 0 and 1.

    Raises:
        PlanError: It is no such number.
    """
    text = str(value).strip()
    try:
        share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise PlanError(f"{text!r} is no share: give a number such as 0.44, or a percentage such as 44%") from None
    if not (0 < share < 1 or (is_closed and share == 1) or (has_zero and share == 0)):
        hint = f", did you mean {text}%?" if 1 < share < 100 and not text.endswith("%") else ""
        raise PlanError(f"{text} is out of range: a share lies between 0 and 1{hint}")
    if is_large and text.endswith("%") and 0 < share < 0.01:
        raise PlanError(f"{text} is less than one percent: did you mean {100 * share:g}? If not, write {share:g}")
    return share
