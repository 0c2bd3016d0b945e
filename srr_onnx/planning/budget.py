"""PLAN: the limit that a plan has to meet."""

from __future__ import annotations

import dataclasses

from srr_onnx.errors import PlanError

QUANTITIES = {"flops": "macs", "params": "params"}
NAMES = {"flops": "FLOPs", "params": "parameters", "ratio": "units per group"}

# A budget is met to within half a percentage point.
TOLERANCE = 0.005


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much has to go.

    Attributes:
        kind: "flops", "params" (share of the whole model) or "ratio" (share of every group's units).
        amount: Share to be removed, in (0, 1).
    """

    kind: str
    amount: float

    @classmethod
    def choose(
        cls, flops: float | str | None = None, params: float | str | None = None, ratio: float | str | None = None
    ) -> Budget:
        """Make the budget from the one option that is given.

        Args:
            flops: Share of the MACs to remove, as 0.44 or "44%".
            params: Share of the parameters to remove.
            ratio: Share of every group's units to remove.

        Returns:
            The budget.

        Raises:
            PlanError: None or several are given, or the share is not between 0 and 1.
        """
        given = {
            kind: value for kind, value in (("flops", flops), ("params", params), ("ratio", ratio)) if value is not None
        }
        if len(given) != 1:
            what = "none was given" if not given else "given: " + ", ".join(f"--{kind}" for kind in given)
            raise PlanError(f"exactly one of --flops, --params and --ratio says how much to remove; {what}")
        kind, value = given.popitem()
        return cls(kind, parse_share(value))

    def to_json(self) -> dict[str, object]:
        """Plain form, as in plan files."""
        return {"kind": self.kind, "amount": self.amount}


def parse_share(value: float | str, *, is_closed: bool = False) -> float:
    """Read a share: 0.44, "0.44" or "44%".

    Args:
        value: A number or text.
        is_closed: Whether 1 is allowed too.

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
    if not (0 < share < 1 or (is_closed and share == 1)):
        hint = f", did you mean {text}%?" if 1 < share < 100 and not text.endswith("%") else ""
        raise PlanError(f"{text} is out of range: a share lies between 0 and 1{hint}")
    return share
