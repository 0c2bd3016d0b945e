"""PLAN: the decision as data: which units stay, and enough beside it for an outsider to check and replay it."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from srr_onnx.analysis.groups import Groups, PruningGroup
from srr_onnx.errors import PlanError
from srr_onnx.graph.cost import Cost
from srr_onnx.graph.model import Model
from srr_onnx.graph.save import check_target, write_atomically
from srr_onnx.planning.kinds import check_kinds
from srr_onnx.wording import counted

SCHEMA = "srr-onnx/plan/1"
# Criterion, budget and proof of a plan whose units go without changing any output.
LOSSLESS = "lossless"

Kept = np.ndarray[Any, np.dtype[np.bool_]]
Positions = np.ndarray[Any, np.dtype[np.int64]]


@dataclasses.dataclass(frozen=True)
class PlanGroup:
    """What happens to one group.

    Attributes:
        id: Id of the group in the model that the plan was made for.
        exact: Whether pruned equals masked.
        units: Number of units before.
        keep: Units that stay, sorted.
        members: Initializer, axis and role of everything that is sliced.
    """

    id: str
    exact: bool
    units: int
    keep: tuple[int, ...]
    members: tuple[tuple[str, int, str], ...]

    def to_json(self) -> dict[str, Any]:
        """Plain form."""
        members = [{"initializer": name, "axis": axis, "role": role} for name, axis, role in self.members]
        return {"id": self.id, "exact": self.exact, "units": self.units, "keep": list(self.keep), "members": members}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PlanGroup:
        """Inverse of `to_json`."""
        members = tuple((str(m["initializer"]), int(m["axis"]), str(m["role"])) for m in data["members"])
        keep = tuple(data["keep"])
        if not all(type(unit) is int for unit in keep) or type(data["exact"]) is not bool:
            raise TypeError("keep or exact")
        return cls(str(data["id"]), data["exact"], int(data["units"]), keep, members)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A pruning decision for one model.

    Attributes:
        sha256: Hash of the model's file.
        inputs: Input shapes that the costs hold for.
        criterion: Name and settings of the criterion.
        budget: Kind, amount and how it was spread.
        before: Cost of the model.
        after: Cost of the pruned model.
        groups: One entry per group that loses units.
        values: Per activation that shrinks: axis, rank, size, and the positions that remain.
        frozen: What stays: reason, node, number of units.
        proof: What the proof run measured; empty before it has run.
        compensation: What was done to the weights that stay, after the proof; empty where nothing was.
        agreement: How the result compares with the original on samples that were held out; empty without samples.
        latency: What a run takes before and after, and how a goal was met; empty where nothing was timed.
        version: Version of srr-onnx.
        is_inlined: Whether nodes and values have the names they get when the file's functions are inlined.
        uncounted: Nodes whose MACs count as zero, since a shape is not known and could not be measured.
    """

    sha256: str
    inputs: Mapping[str, Sequence[int]]
    criterion: Mapping[str, Any]
    budget: Mapping[str, Any]
    before: Cost
    after: Cost
    groups: tuple[PlanGroup, ...]
    values: Mapping[str, Sequence[Mapping[str, Any]]]
    frozen: tuple[Mapping[str, Any], ...]
    proof: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    version: str = ""
    uncounted: tuple[str, ...] = ()
    is_inlined: bool = False
    compensation: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    agreement: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    latency: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain form, as in the file."""
        return {
            "schema": SCHEMA,
            "srr_onnx": self.version,
            "model": {"sha256": self.sha256, "inputs": {name: list(shape) for name, shape in self.inputs.items()}},
            "criterion": dict(self.criterion),
            "budget": dict(self.budget),
            "cost": {"before": self.before.to_json(), "after": self.after.to_json()},
            "groups": [group.to_json() for group in self.groups],
            "values": {name: [dict(axis) for axis in axes] for name, axes in self.values.items()},
            "frozen": [dict(entry) for entry in self.frozen],
            "proof": dict(self.proof),
            "uncounted": list(self.uncounted),
            "inlined": self.is_inlined,
            "compensation": dict(self.compensation),
            "agreement": dict(self.agreement),
            "latency": dict(self.latency),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """Inverse of `to_json`.

        Raises:
            PlanError: The data are no plan of a known form.
        """
        if not isinstance(data, Mapping) or data.get("schema") != SCHEMA:
            found = data.get("schema") if isinstance(data, Mapping) else type(data).__name__
            raise PlanError(f"not a plan file: its schema is {found!r} instead of {SCHEMA!r}")
        check_kinds(data)
        try:
            return cls(
                sha256=str(data["model"]["sha256"]),
                inputs={str(name): [int(d) for d in shape] for name, shape in data["model"]["inputs"].items()},
                criterion=data["criterion"],
                budget=data["budget"],
                before=Cost.from_json(data["cost"]["before"]),
                after=Cost.from_json(data["cost"]["after"]),
                groups=tuple(PlanGroup.from_json(group) for group in data["groups"]),
                values=data["values"],
                frozen=tuple(data.get("frozen", ())),
                proof=data.get("proof", {}),
                version=str(data.get("srr_onnx", "")),
                uncounted=tuple(data.get("uncounted", ())),
                is_inlined=bool(data.get("inlined", False)),
                compensation=data.get("compensation", {}),
                agreement=data.get("agreement", {}),
                latency=data.get("latency", {}),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"it has no {error.args[0]!r}" if isinstance(error, KeyError) else "a value is of the wrong kind"
            raise PlanError(f"the plan is incomplete or damaged ({what}): make it anew with `prune --plan`") from error

    def kept_positions(self) -> dict[tuple[str, int], Positions]:
        """Positions that remain, by `(value, axis)`, of every activation of the original that shrinks."""
        return {
            (name, int(entry["axis"])): np.array(entry["keep"], np.int64)
            for name, axes in self.values.items()
            for entry in axes
        }

    @property
    def macs_removed(self) -> float:
        """Share of the MACs that the plan removes."""
        return 1 - self.after.macs / self.before.macs if self.before.macs else 0.0

    @property
    def params_removed(self) -> float:
        """Share of the parameters that the plan removes."""
        return 1 - self.after.params / self.before.params if self.before.params else 0.0


def load_plan(path: Path) -> Plan:
    """Read a plan file.

    Args:
        path: JSON file.

    Returns:
        The plan.

    Raises:
        PlanError: It is missing, unreadable, or no plan.
    """
    try:
        return Plan.from_json(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise PlanError(f"plan {str(path)!r} cannot be read: {error.strerror}") from error
    except ValueError as error:  # also bytes that are no text
        raise PlanError(f"plan {str(path)!r} is not JSON: {error}") from error


@contextlib.contextmanager
def write_plan(plan: Plan, path: Path, *, force: bool = False) -> Iterator[None]:
    """Write a plan file, which gets its name when the block ends well.

    Args:
        plan: The plan.
        path: Target.
        force: Whether an existing file may be replaced.

    Raises:
        OutputError: It exists and `force` is not set, or cannot be written; the target is as it was.
    """
    check_target(path, force, "--plan")
    with write_atomically(path) as file:
        file.write(json.dumps(plan.to_json(), indent=1).encode() + b"\n")
        file.flush()
        yield


def describe_values(
    model: Model, kept: Mapping[tuple[str, int], np.ndarray[Any, Any]]
) -> dict[str, list[dict[str, Any]]]:
    """Put the positions that stay into the plan's form, value by value in execution order."""
    found: dict[str, list[dict[str, Any]]] = {}
    for (name, axis), positions in kept.items():
        shape = model.shapes[name]
        entry = {"axis": axis, "rank": len(shape), "size": shape[axis], "keep": positions.tolist()}
        found.setdefault(name, []).append(entry)
    return found


def match_plan(plan: Plan, groups: Groups) -> Kept:
    """Find a plan's groups in a model.

    Groups are matched by what is sliced, not by id, so that a plan also fits a retrained model.

    Args:
        plan: The plan.
        groups: Groups of the model.

    Returns:
        Shape `(groups.num_units,)`: which units stay.

    Raises:
        PlanError: The model has no such group, or it is of another size.
    """
    by_members: dict[tuple[tuple[str, int, str], ...], list[PruningGroup]] = {}
    for known in groups:
        by_members.setdefault(_members(known), []).append(known)
    is_kept = np.ones(groups.num_units, bool)
    for entry in plan.groups:
        fitting = [group for group in by_members.get(tuple(sorted(entry.members)), []) if group.size == entry.units]
        # Parts of one axis are sliced in the same places: then the order of the groups tells them apart.
        group = next((found for found in fitting if found.id == entry.id), next(iter(fitting), None))
        if group is None:
            first = entry.members[0][0] if entry.members else entry.id
            raise PlanError(
                f"the plan does not fit the model: it has no group of {counted(entry.units, 'unit')} along {first!r}; "
                "was it made for a model with other names or shapes?"
            )
        if not entry.keep or min(entry.keep) < 0 or max(entry.keep) >= entry.units:
            raise PlanError(f"group {entry.id} of the plan keeps units outside 0 to {entry.units - 1}, or none")
        if any(first >= second for first, second in itertools.pairwise(entry.keep)):
            raise PlanError(f"group {entry.id} of the plan keeps units that are repeated or out of order")
        is_kept[group.units] = False
        is_kept[group.first_unit + np.array(entry.keep)] = True
    return is_kept


def _members(group: PruningGroup) -> tuple[tuple[str, int, str], ...]:
    return tuple(sorted({member.key for member in group.members}))


def plan_groups(groups: Groups, is_kept: Kept) -> tuple[PlanGroup, ...]:
    """Put the groups that lose units into the plan's form."""
    found = []
    for group in groups:
        stays = is_kept[group.units]
        if not stays.all():
            keep = tuple(np.flatnonzero(stays).tolist())
            found.append(PlanGroup(group.id, group.is_exact, group.size, keep, _members(group)))
    return tuple(found)
