"""PLAN: when a constant is in the file whole, in parts, or not at all, as groups lose units.

A stored constant that several readers slice differently parts. One that the graph computes (a weight that is
standardized, a product of two factors) is stored sliced once a group that touches it shrinks; the nodes that computed
it, and what only they read, go then. This mirrors what `rewriting/apply.py` does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from srr_onnx.analysis.groups import Groups, Units, Use
from srr_onnx.graph.cost import is_constant_node
from srr_onnx.graph.model import Model

# Numbers of the groups that an axis, a slice or a constant depends on.
Owners = frozenset[int]
# Size of every axis and the units along it.
Sizes = Sequence[tuple[int, Units | None]]

# The set of groups that never loses a unit: what is needed while it is whole is needed always.
ALWAYS: Owners = frozenset()


@dataclasses.dataclass(frozen=True)
class Presence:
    """When something counts: both conditions have to hold where they are given.

    Attributes:
        shrunk: One of these groups has lost a unit.
        wholes: One of these sets of groups has lost none.
    """

    shrunk: Owners | None = None
    wholes: frozenset[Owners] | None = None

    @property
    def groups(self) -> Owners:
        """All groups that matter."""
        return (self.shrunk or frozenset()).union(*(self.wholes or ()))

    def holds(self, lost: Sequence[int]) -> bool:
        """Whether it counts when groups have lost so many units."""
        if self.shrunk is not None and not any(lost[group] for group in self.shrunk):
            return False
        return self.wholes is None or any(not any(lost[group] for group in owners) for owners in self.wholes)


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way in which readers slice a constant: the same units along every axis."""

    sizes: Sizes
    owners: Owners


def find_variants(
    model: Model, groups: Groups, owners_of: Callable[[Units | None], Owners]
) -> dict[str, tuple[Variant, ...]]:
    """Find the ways in which every constant is sliced.

    Args:
        model: Loaded model.
        groups: Its groups.
        owners_of: Numbers of the groups whose units lie along an axis.

    Returns:
        By name of a constant; readers that only compute other constants are left out.
    """
    found: dict[str, dict[tuple[bytes, ...], Variant]] = {}
    for node in model.nodes:
        if is_constant_node(model, node):
            continue
        for slot, name in enumerate(node.inputs):
            array = model.constants.get(name)
            if array is None:
                continue
            units = [groups.uses.get((Use(node.index, slot), axis)) for axis in range(array.ndim)]
            key = tuple(b"" if part is None else part.tobytes() for part in units)
            if key not in found.setdefault(name, {}):
                owners = frozenset[int]().union(*map(owners_of, units))
                found[name][key] = Variant(list(zip(array.shape, units, strict=True)), owners)
    return {name: tuple(variants.values()) for name, variants in found.items()}


def find_presence(
    model: Model, variants: Mapping[str, Sequence[Variant]]
) -> tuple[dict[str, Owners], dict[str, frozenset[Owners]]]:
    """Find when computed constants are stored instead, and when constants are needed whole.

    Args:
        model: Loaded model.
        variants: Result of `find_variants`.

    Returns:
        For every computed constant the groups that touch it: once one of them has lost a unit, its readers are given
        what they need of it. And for every constant the sets of groups such that it is needed whole while one of them
        has lost no unit, other than by the readers that slice it.
    """
    by_root: dict[str, Owners] = {}
    for name, found in variants.items():
        owners = frozenset[int]().union(*(variant.owners for variant in found))
        for root in model.roots.get(name, frozenset({name})):
            by_root[root] = by_root.get(root, frozenset()) | owners
    touching = {
        name: frozenset[int]().union(*(by_root.get(root, frozenset()) for root in roots))
        for name, roots in model.roots.items()
    }
    captured = {name for node in model.nodes for name in node.captured}
    needed: dict[str, frozenset[Owners]] = {}
    for name in model.constants:
        wholes = {ALWAYS} if name in model.outputs or name in captured or _is_unused(model, name) else set()
        if name in variants and name in touching:
            wholes.add(touching[name])
        elif any(not variant.owners for variant in variants.get(name, ())):
            wholes.add(ALWAYS)
        needed[name] = frozenset(wholes)
    for node in reversed(model.nodes):
        if is_constant_node(model, node):
            wholes_after = frozenset[Owners]().union(*(needed[name] for name in node.outputs if name))
            for name in filter(None, node.inputs):
                needed[name] = needed.get(name, frozenset()) | wholes_after
    return touching, needed


def _is_unused(model: Model, name: str) -> bool:
    """Whether nobody reads a constant, or anything else that its node makes: what was unused before stays."""
    producer = model.producers.get(name)
    made = {name} if producer is None else {output for output in producer.outputs if output}
    return not any(output in model.consumers or output in model.outputs for output in made)
