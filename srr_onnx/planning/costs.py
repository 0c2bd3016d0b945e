"""PLAN: what a model costs as a function of how many units each group keeps.

MACs of a node and elements of a tensor are products of axis sizes, and an axis shrinks by a fixed number of positions
for every unit that a group loses. So the cost at any widths follows without touching the model. What is stored once and
parts when groups shrink, and what the graph computes from constants until then, counts while it is in the file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from srr_onnx.analysis.groups import Groups, Units, Use
from srr_onnx.graph.cost import Cost, count_cost, count_macs, is_constant_node, is_parameter, mac_factors
from srr_onnx.graph.model import Model, Node
from srr_onnx.planning.presence import ALWAYS, Owners, Presence, Sizes, Variant, find_presence, find_variants
from srr_onnx.planning.widths import Widths


@dataclasses.dataclass(frozen=True)
class _Term:
    """A product of a constant and of axis sizes, and when it counts; always if nothing is said."""

    coefficient: int
    axes: tuple[int, ...]
    presence: Presence | None = None


def mac_sizes(model: Model, groups: Groups | None, node: Node) -> list[tuple[int, Units | None]]:
    """Find the axis sizes whose product is a node's MACs.

    Args:
        model: Loaded model.
        groups: Its groups, if the units along the axes are wanted.
        node: Any node.

    Returns:
        Size and units of every axis, None where no unit lies along it; empty for nodes that count as zero.
    """
    sizes: list[tuple[int, Units | None]] = []
    for factor in mac_factors(node, model.sizes):
        name = (node.outputs if factor.is_output else node.inputs)[factor.slot]
        units = None
        if groups is not None and not factor.is_output and name in model.constants:
            units = groups.uses.get((Use(node.index, factor.slot), factor.axis))
        elif groups is not None:
            units = groups.values.get((name, factor.axis))
        sizes.append((model.sizes[name][factor.axis], units))
    return sizes


class CostModel:
    """Cost of a model at any widths of its groups; a `Price`.

    Args:
        model: Loaded model.
        groups: Result of `find_groups(model)`.
        quantity: What `cost`, `saving` and `total` speak of: "macs", or "params" and "bytes" of the floating-point
            constants.
    """

    def __init__(self, model: Model, groups: Groups, quantity: str) -> None:
        self._widths = Widths(groups)
        variants = find_variants(model, groups, self._widths.owners)
        touching, needed = find_presence(model, variants)
        constants = self._constant_terms(model, variants, touching, needed)
        self._all = {
            "macs": self._mac_terms(model, groups, needed),
            "params": [term for term, _ in constants],
            "bytes": [dataclasses.replace(term, coefficient=term.coefficient * width) for term, width in constants],
        }
        self._terms = [term for term in self._all[quantity] if term.axes or term.presence]
        self._touched: list[list[int]] = [[] for _ in groups]
        for number, term in enumerate(self._terms):
            for group in self._groups_of(term):
                self._touched[group].append(number)
        self._quantity = quantity
        self.original = count_cost(model)
        self.total = self.original.of(quantity)

    def cost(self) -> int:
        """Cost at the present widths."""
        return sum(self._value(term) for term in self._all[self._quantity])

    def all_costs(self) -> Cost:
        """Cost at the present widths, in every quantity."""
        return Cost(*(sum(map(self._value, self._all[quantity])) for quantity in ("macs", "params", "bytes")))

    def saving(self, group: int, count: int = 1) -> int:
        """What removing units of a group would save at the present widths.

        Args:
            group: Number of the group.
            count: Number of units; negative for units that come back.

        Returns:
            Cost saved.
        """
        touched = [self._terms[number] for number in self._touched[group]]
        before = sum(self._value(term) for term in touched)
        self.remove(group, count)
        after = sum(self._value(term) for term in touched)
        self.remove(group, -count)
        return before - after

    def remove(self, group: int, count: int = 1) -> None:
        """Take units of a group away; negative counts give them back."""
        self._widths.remove(group, count)

    def _groups_of(self, term: _Term) -> frozenset[int]:
        return self._widths.groups_along(term.axes) | (term.presence.groups if term.presence else frozenset())

    def _value(self, term: _Term) -> int:
        if term.presence is not None and not term.presence.holds(self._widths.lost):
            return 0
        return self._widths.multiply(term.coefficient, term.axes)

    def _term(self, sizes: Sizes, presence: Presence | None = None) -> _Term:
        return _Term(*self._widths.factor(sizes), presence)

    def _mac_terms(self, model: Model, groups: Groups, needed: Mapping[str, frozenset[Owners]]) -> list[_Term]:
        terms = []
        for node in model.nodes:
            if is_constant_node(model, node):
                macs = count_macs(node, model.sizes)
                if macs:
                    wholes = frozenset[Owners]().union(*(needed[name] for name in node.outputs if name))
                    terms.append(_Term(macs, (), None if ALWAYS in wholes else Presence(wholes=wholes)))
                continue
            sizes = mac_sizes(model, groups, node)
            if sizes:
                terms.append(self._term(sizes))
        return terms

    def _constant_terms(
        self,
        model: Model,
        variants: Mapping[str, Sequence[Variant]],
        touching: Mapping[str, Owners],
        needed: Mapping[str, frozenset[Owners]],
    ) -> list[tuple[_Term, int]]:
        """The elements of every constant that is stored, or will be, with the bytes of an element.

        A constant that its readers slice differently counts once for each slice that has shrunk, and once whole while
        somebody needs it whole. A computed one counts from when its readers are given what they need of it instead.
        """
        terms = []
        for name in model.constants:
            if not is_parameter(model, name) or (name not in model.stored and not touching.get(name)):
                continue
            shrunk = None if name in model.stored else touching[name]
            found = variants.get(name, ())
            owners = [variant.owners for variant in found if variant.owners]
            wholes = needed[name] if shrunk is None else frozenset(v.owners for v in found if not v.owners)
            if len(owners) == 1 and not wholes and shrunk in (None, owners[0]):
                parts = [self._term(found[0].sizes, Presence(shrunk=shrunk) if shrunk else None)]
            else:
                wholes = wholes.union(owners)
                whole = Presence(shrunk, None if ALWAYS in wholes else wholes)
                parts = [_Term(model.constants[name].size, (), whole)] if wholes else []
                parts += [self._term(v.sizes, Presence(shrunk=v.owners)) for v in found if v.owners]
            terms += [(part, model.constants[name].itemsize) for part in parts]
        return terms
