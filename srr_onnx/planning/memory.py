"""PLAN: what a model takes in memory, and as a file, at any widths.

Memory is the weights and, at the worst moment of a run in file order, the activations that have been made and are still
to be read. A runtime may do with less, by writing over an input, or take more, by packing weights.
"""

from __future__ import annotations

import numpy as np

from srr_onnx.analysis.groups import Groups
from srr_onnx.graph.cost import is_constant_node
from srr_onnx.graph.model import Model
from srr_onnx.planning.costs import CostModel
from srr_onnx.planning.widths import Widths


class FilePrice:
    """Bytes of the file at any widths: the weights, and the rest, which stays; a `Price`.

    Args:
        model: Loaded model.
        groups: Result of `find_groups(model)`.
    """

    def __init__(self, model: Model, groups: Groups) -> None:
        self._weights = CostModel(model, groups, "bytes")
        self.total = max(model.size_bytes, self._weights.total)

    def cost(self) -> int:
        """Bytes at the present widths."""
        return self.total - self._weights.total + self._weights.cost()

    def saving(self, group: int, count: int = 1) -> int:
        """What removing units of a group would save, in bytes; negative counts bring units back."""
        return self._weights.saving(group, count)

    def remove(self, group: int, count: int = 1) -> None:
        """Take units of a group away; negative counts give them back."""
        self._weights.remove(group, count)


class MemoryPrice:
    """Bytes of weights and of the activations alive at the worst moment, at any widths; a `Price`.

    Args:
        model: Loaded model.
        groups: Result of `find_groups(model)`.
    """

    def __init__(self, model: Model, groups: Groups) -> None:
        self._widths = Widths(groups)
        self._weights = CostModel(model, groups, "bytes")
        self._stored = self._weights.cost()
        self._values: list[tuple[int, tuple[int, ...], int, int]] = []
        self._touched: list[list[int]] = [[] for _ in groups]
        for name, (start, end) in _find_lives(model).items():
            sizes = [(size, groups.values.get((name, axis))) for axis, size in enumerate(model.sizes[name])]
            fixed, shrinking = self._widths.factor(sizes)
            for group in self._widths.groups_along(shrinking):
                self._touched[group].append(len(self._values))
            width = model.dtypes[name].itemsize if name in model.dtypes else 4
            self._values.append((width * fixed, shrinking, start, end))
        self._changes = np.zeros(len(model.nodes) + 2, np.int64)
        for number in range(len(self._values)):
            self._count(number, 1)
        self.total = self.cost()

    def cost(self) -> int:
        """Bytes at the present widths."""
        return self._stored + int(np.cumsum(self._changes).max())

    def saving(self, group: int, count: int = 1) -> int:
        """What removing units of a group would save, in bytes; negative counts bring units back."""
        before = self.cost()
        self.remove(group, count)
        after = self.cost()
        self.remove(group, -count)
        return before - after

    def remove(self, group: int, count: int = 1) -> None:
        """Take units of a group away; negative counts give them back."""
        self._stored -= self._weights.saving(group, count)
        self._weights.remove(group, count)
        for number in self._touched[group]:
            self._count(number, -1)
        self._widths.remove(group, count)
        for number in self._touched[group]:
            self._count(number, 1)

    def _count(self, number: int, sign: int) -> None:
        fixed, axes, start, end = self._values[number]
        size = sign * self._widths.multiply(fixed, axes)
        self._changes[start] += size
        self._changes[end + 1] -= size


def _find_lives(model: Model) -> dict[str, tuple[int, int]]:
    """First and last step at which every activation of known shape has to be there; inputs are there from the start."""
    lives = dict.fromkeys(model.inputs, (0, 0))
    for step, node in enumerate(model.nodes):
        if is_constant_node(model, node):
            continue
        for name in (*node.inputs, *node.captured):
            if name in lives:
                lives[name] = (lives[name][0], step)
        lives.update({name: (step, step) for name in node.outputs if name})
    last = max(len(model.nodes) - 1, 0)
    lives.update({name: (lives[name][0], last) for name in model.outputs if name in lives})
    return {name: life for name, life in lives.items() if name in model.sizes}
