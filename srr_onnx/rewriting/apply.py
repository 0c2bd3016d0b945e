"""REWRITE: slice every constant along its labelled axes, then mend what names a size.

Reads a model, its groups and which units stay; makes the pruned model. One generic loop does the slicing; no
operator is known here. Two uses of one constant that keep different channels part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from srr_onnx.analysis.groups import Groups, Use
from srr_onnx.analysis.rule import Positions, rules
from srr_onnx.graph.edit import Edits, NewNames, NewNode, NodeEdit, apply_edits
from srr_onnx.graph.folding import fold_constants
from srr_onnx.graph.model import Model, Node, Shape

Array = np.ndarray[Any, Any]

# What is sliced at a time, so that it stays in the processor's cache.
_CACHED_BYTES = 1 << 19


def prune_units(model: Model, groups: Groups, is_kept: np.ndarray[Any, np.dtype[np.bool_]]) -> Model:
    """Remove units from a model.

    Args:
        model: Loaded model; not changed.
        groups: Result of `find_groups(model)`.
        is_kept: Shape `(groups.num_units,)`: which units stay.

    Returns:
        The pruned model. Where every unit stays, a model with the same content.
    """
    return apply_edits(model, _Rewriter(model, groups, is_kept).edits())


def kept_positions(groups: Groups, is_kept: np.ndarray[Any, np.dtype[np.bool_]]) -> dict[tuple[str, int], Positions]:
    """Positions that stay along every activation axis that shrinks.

    Args:
        groups: Result of `find_groups(model)`.
        is_kept: Shape `(groups.num_units,)`.

    Returns:
        Sorted positions by `(value, axis)`; axes that stay whole are missing.
    """
    return _positions(groups.values, is_kept)


def _positions(axes: Mapping[Any, np.ndarray], is_kept: np.ndarray) -> dict[Any, Positions]:
    table = np.append(is_kept, True)  # unit -1, a channel without unit, reads the last entry
    found = {}
    for key, units in axes.items():
        stays = table[units]
        if not stays.all():
            found[key] = np.flatnonzero(stays)
    return found


class _Rewriter:
    """Collects the edits of one pruning."""

    def __init__(self, model: Model, groups: Groups, is_kept: np.ndarray) -> None:
        self.model = model
        self.groups = groups
        self.values: dict[tuple[str, int], Positions] = _positions(groups.values, is_kept)
        self.uses: dict[tuple[Use, int], Positions] = _positions(groups.uses, is_kept)
        self.shapes = self._new_shapes()
        self.result = Edits(shapes=self.shapes)
        self._names: dict[tuple[str, bytes], str] = {}
        self.new_names = NewNames(model)
        self.after: Mapping[str, Array] = {}
        self.mended: set[Use] = set()

    def edits(self) -> Edits:
        """All edits: rearrangements, slices, repairs."""
        self._replace_rearrangements()
        self._slice_constants()
        self.after = self._measured_after()
        touched = self._touched()
        by_index = {node.index: node for node in self.model.nodes}
        for use in self.groups.pins:
            change = _Change(by_index[use.node], self)
            value = change.settled(use.slot)
            if value is not None:
                change.mend(use.slot, value)
        for node in self.model.nodes:
            if node.index not in touched:
                continue
            change = _Change(node, self)
            rule = rules.find((node.domain, node.op_type, node.since_version))
            if rule is not None and rule.repair is not None:
                rule.repair(change)
            change.hold_measured()
        return self.result

    def _new_shapes(self) -> dict[str, Shape]:
        changed: dict[str, list[int]] = {}
        for (name, axis), kept in self.values.items():
            changed.setdefault(name, list(self.model.shapes[name]))[axis] = len(kept)
        return {name: tuple(shape) for name, shape in changed.items()}

    def _touched(self) -> set[int]:
        """Nodes that read or make something that shrinks, or measure it."""
        names = set(self.shapes) | {
            name for name, value in self.after.items() if not np.array_equal(value, self.model.shape_values[name])
        }
        touched = {use.node for use, _ in self.uses}
        touched |= {n.index for n in self.model.nodes if names.intersection(n.inputs) or names.intersection(n.outputs)}
        inner = {index for found in self.groups.rearrangements.values() for index in found.inner}
        return touched - inner - set(self.groups.rearrangements)

    def _replace_rearrangements(self) -> None:
        for index, found in self.groups.rearrangements.items():
            if found.source not in self.shapes:
                continue
            output = next(node for node in self.model.nodes if node.index == index).outputs[0]
            indices, kept = found.indices, self.values.get((found.source, found.axis))
            if kept is not None:
                indices = np.searchsorted(kept, indices[self.values[output, found.axis]]).astype(np.int64)
            name = self.new_constant(indices, f"{output}_channels")
            self.result.nodes[index] = NodeEdit(
                op_type="Gather", inputs={0: found.source, 1: name}, attributes={"axis": found.axis}, clear=True
            )
            self.result.removed.update(found.inner)

    def _slice_constants(self) -> None:
        """Give every use of a constant what it keeps: in place where all readers agree, else as a new initializer."""
        slices: dict[str, dict[Use, dict[int, Positions]]] = {}
        by_index = {node.index: node for node in self.model.nodes}
        for (use, axis), kept in self.uses.items():
            name = by_index[use.node].inputs[use.slot]
            slices.setdefault(name, {}).setdefault(use, {})[axis] = kept
        roots = self.model.roots
        whole = self._needed_whole()
        sliced_roots = {root for name in slices for root in roots.get(name, {name})}
        for name in self.model.constants:
            if name in self.model.stored:
                if name in slices:
                    self._slice_stored(name, slices[name], is_whole_needed=name in whole)
            elif name in slices or roots.get(name, frozenset()) & sliced_roots:
                # Computed from constants that change: what its readers need is stored instead.
                self._store_computed(name, slices.get(name, {}))

    def _needed_whole(self) -> set[str]:
        """Constants that are a graph output or that a subgraph reads, and the stored ones they are computed from."""
        captured = {name for node in self.model.nodes for name in node.captured}
        fixed = {name for name in self.model.constants if name in self.model.outputs or name in captured}
        return fixed.union(*(self.model.roots.get(name, ()) for name in fixed))

    def _readers(self, name: str) -> list[Use]:
        """Uses of a constant by nodes that do not themselves compute a constant, and are still there."""
        return [
            Use(node.index, slot)
            for node in self.model.consumers.get(name, ())
            if node.index not in self.result.removed and not self.result.nodes.get(node.index, NodeEdit()).clear
            for slot, read in enumerate(node.inputs)
            if read == name and not all(o in self.model.constants for o in node.outputs if o)
        ]

    def _slice_stored(self, name: str, sliced: dict[Use, dict[int, Positions]], *, is_whole_needed: bool) -> None:
        variants = {use: _key(axes) for use, axes in sliced.items()}
        is_whole_needed = is_whole_needed or any(use not in sliced for use in self._readers(name))
        in_place = None if is_whole_needed else next(iter(variants.values()))
        for use, axes in sliced.items():
            array = _take(self.model.constants[name], axes)
            if variants[use] == in_place:
                self.result.tensors[name] = array
            else:
                new = self._variant(name, variants[use], array)
                self.result.node(use.node).inputs[use.slot] = new

    def _store_computed(self, name: str, sliced: dict[Use, dict[int, Positions]]) -> None:
        for use in self._readers(name):
            axes = sliced.get(use, {})
            array = _take(self.model.constants[name], axes)
            self.result.node(use.node).inputs[use.slot] = self._variant(name, _key(axes), array)

    def _variant(self, name: str, key: bytes, array: Array) -> str:
        if (name, key) not in self._names:
            self._names[name, key] = self.new_constant(array, f"{name}_pruned")
        return self._names[name, key]

    def new_constant(self, array: Array, wish: str) -> str:
        """Add an initializer under a name that nobody has."""
        name = self.new_names.take(wish)
        array = np.require(array, requirements="C")  # unlike ascontiguousarray it leaves a scalar a scalar
        array.flags.writeable = False
        self.result.added[name] = array
        return name

    def _measured_after(self) -> dict[str, Array]:
        """What shape arithmetic gives on the pruned shapes, for the values it gave on the original's."""
        model = self.model
        if not model.shape_values:
            return {}
        shapes = {**model.shapes, **self.shapes}
        for name in model.shape_values:
            shapes[name] = model.shape_values[name].shape
        stored = {name: self.result.tensors.get(name, model.constants[name]) for name in model.constants}
        _, measured = fold_constants(model.nodes, stored, shapes, dict(model.dtypes))
        return {name: measured.get(name, value) for name, value in model.shape_values.items()}


class _Change:
    """What a repair sees of one node; see `analysis.rule.Change`."""

    def __init__(self, node: Node, rewriter: _Rewriter) -> None:
        self.node = node
        self.model = rewriter.model
        self._rewriter = rewriter

    def kept(self, slot: int, axis: int) -> Positions | None:
        name = self.node.input(slot)
        if name in self.model.constants:
            return self._rewriter.uses.get((Use(self.node.index, slot), axis))
        return self._rewriter.values.get((name, axis))

    def kept_out(self, axis: int, slot: int = 0) -> Positions | None:
        return self._rewriter.values.get((self.node.outputs[slot], axis))

    def new_shape(self, slot: int) -> Shape:
        name = self.node.input(slot)
        if name not in self.model.constants:
            return self._rewriter.shapes.get(name, self.model.shapes[name])
        shape = list(self.model.constants[name].shape)
        for axis in range(len(shape)):
            kept = self.kept(slot, axis)
            shape[axis] = shape[axis] if kept is None else len(kept)
        return tuple(shape)

    def new_out_shape(self, slot: int = 0) -> Shape:
        name = self.node.outputs[slot]
        return self._rewriter.shapes.get(name, self.model.shapes[name])

    def settled(self, slot: int) -> Array | None:
        return self.model.known(self.node.input(slot))

    def set_attribute(self, name: str, value: Any) -> None:
        if value is not None or name in self.node.attributes:
            self._rewriter.result.node(self.node.index).attributes[name] = value

    def hold_measured(self) -> None:
        """Let measured operands that no repair has mended hold the original's numbers: labels followed those."""
        node, rewriter = self.node, self._rewriter
        is_arithmetic = any(name in self.model.shape_values for name in node.outputs)
        if is_arithmetic or rewriter.result.nodes.get(node.index, NodeEdit()).clear:
            return
        for slot, name in enumerate(node.inputs):
            if name in rewriter.after and Use(node.index, slot) not in rewriter.mended:
                self.mend(slot, self.model.shape_values[name])

    def mend(self, slot: int, value: Array) -> None:
        name = self.node.input(slot)
        self._rewriter.mended.add(Use(self.node.index, slot))
        live = self._rewriter.after.get(name)
        current = live if live is not None else self.model.constants.get(name)
        if current is not None and current.shape == value.shape and np.array_equal(current, value):
            return
        wish = f"{name or self.node.outputs[0]}_pruned"
        edit = self._rewriter.result.node(self.node.index)
        if live is None or live.shape != value.shape:
            edit.inputs[slot] = self._rewriter.new_constant(value, wish)
            return
        # Other elements are measured at run time (a dynamic batch, say), so only those that differ are overruled.
        mask = self._rewriter.new_constant(live != value, f"{wish}_where")
        fixed = self._rewriter.new_constant(value.astype(live.dtype), f"{wish}_sizes")
        output = self._rewriter.new_names.take(wish)
        self._rewriter.result.inserted.append(NewNode(self.node.index, "Where", (mask, fixed, name), output))
        edit.inputs[slot] = output

    def replace(self, op_type: str, inputs: Sequence[str | Array], attributes: dict[str, Any]) -> None:
        names = [
            value if isinstance(value, str) else self._rewriter.new_constant(value, f"{self.node.outputs[0]}_channels")
            for value in inputs
        ]
        self._rewriter.result.nodes[self.node.index] = NodeEdit(
            op_type=op_type, inputs=dict(enumerate(names)), attributes=attributes, clear=True
        )


def _key(axes: Mapping[int, Positions]) -> bytes:
    return b"".join(bytes([axis]) + kept.tobytes() for axis, kept in sorted(axes.items()))


def _take(array: Array, axes: Mapping[int, Positions]) -> Array:
    """Slice along several axes; large arrays a few rows at a time, without a whole one in between."""
    if len(axes) > 1 and 0 in axes and array.nbytes > _CACHED_BYTES:
        rows, rest = axes[0], {axis: kept for axis, kept in axes.items() if axis}
        shape = [len(axes[axis]) if axis in axes else size for axis, size in enumerate(array.shape)]
        result = np.empty(shape, array.dtype)
        height = max(1, _CACHED_BYTES * len(array) // array.nbytes)
        for start in range(0, len(rows), height):
            result[start : start + height] = _take(array[rows[start : start + height]], rest)
        return result
    for axis, kept in sorted(axes.items()):
        array = array.take(kept, axis=axis)
    return array
