"""REWRITE: what is known of every channel, whatever the input.

A channel is a factor times a base: `value[channel] = factor * base[id]`. Base 0 is one everywhere, so a channel with
id 0 is a constant; of every other base nothing is known, and factors of it are positive. Two channels with one id are
therefore equal up to a factor. What is not known has an id of its own: a missing fact never makes a result wrong.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from srr_onnx.graph.model import Model

Array = np.ndarray[Any, Any]
Ids = np.ndarray[Any, np.dtype[np.int64]]
Factors = np.ndarray[Any, np.dtype[np.float64]]

# Rows that are equal to this share of their largest element count as equal up to a factor; ten roundings of float32.
TOLERANCE = 1e-6
# Elements of a weight that are looked at together.
_BLOCK = 1 << 20


@dataclasses.dataclass(frozen=True, eq=False)
class Facts:
    """What is known of the channels of one value.

    Attributes:
        axis: The axis that the channels lie along.
        ids: Shape `(C,)`: base of every channel, 0 for a constant one.
        factors: Shape `(C,)`: factor of every channel; for a constant one its value.
    """

    axis: int
    ids: Ids
    factors: Factors

    @property
    def is_constant(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which channels are the same number everywhere."""
        return np.equal(self.ids, 0)

    def take(self, indices: Ids) -> Facts:
        """Facts of a selection of channels."""
        return Facts(self.axis, self.ids[indices], self.factors[indices])


class Knowledge:
    """The facts of all values of a model, as far as they have been found.

    Args:
        model: Loaded model.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._count = 1
        self._known: dict[str, Facts] = {}
        self._unknown: dict[tuple[str, int], Facts] = {}

    def known(self, name: str) -> Facts | None:
        """Facts of a value, None where nothing is known."""
        return self._known.get(name)

    def note(self, name: str, facts: Facts) -> None:
        """Enter the facts of a value, if it has such an axis."""
        shape = self.model.shapes.get(name, ())
        if facts.axis < len(shape) and shape[facts.axis] == len(facts.ids):
            self._known[name] = facts

    def about(self, name: str, axis: int) -> Facts:
        """Facts of a value along an axis; where there are none, every channel is a base of its own."""
        facts = self._known.get(name)
        if facts is not None and facts.axis == axis:
            return facts
        if (name, axis) not in self._unknown:
            size = self.model.shapes[name][axis]
            self._unknown[name, axis] = Facts(axis, self.fresh(size), np.ones(size))
        return self._unknown[name, axis]

    def fresh(self, count: int) -> Ids:
        """New ids, shape `(count,)`."""
        self._count += count
        return np.arange(self._count - count, self._count, dtype=np.int64)

    def renew(self, ids: Ids) -> Ids:
        """New ids, equal where the old ones are; constants stay constants."""
        old, places = np.unique(ids, return_inverse=True)
        new = self.fresh(len(old))
        new[old == 0] = 0
        return new[places]

    def combine(
        self,
        ids: Ids,
        factors: Factors,
        weight: Array,
        bias: Factors,
        *,
        has_border: bool = False,
    ) -> tuple[Ids, Factors]:
        """Find what is known of sums of channels: a convolution, a matrix product, an addition.

        Args:
            ids: Shape `(G, I)`: bases of the channels that each of G groups reads.
            factors: Shape `(G, I)`.
            weight: Shape `(G, O, I, K)`: O sums per group, with K weights per channel.
            bias: Shape `(G * O,)`: what is added to every sum.
            has_border: Whether a sum reads zeros beyond the border, so that constant channels other than zero make
                a sum that is not constant.

        Returns:
            Ids and factors of the sums, each of shape `(G * O,)`.
        """
        conv_groups, sums = weight.shape[:2]
        is_constant, used = ids == 0, factors
        bias = bias.astype(np.float64)
        if not has_border and (is_constant & (factors != 0)).any():
            constant = np.where(is_constant, factors, 0.0)
            columns = is_constant.any(axis=0)
            part = weight[:, :, columns].astype(np.float64).sum(axis=3)
            bias = bias + (part * constant[:, None, columns]).sum(axis=2).reshape(-1)
            used = np.where(is_constant, 0.0, used)
        buckets = np.unique(np.where(used == 0, -1, ids), axis=0, return_inverse=True)[1].reshape(-1)

        def rows(places: Ids) -> Factors:
            group = places // sums
            block = weight[group, places % sums].astype(np.float64)  # (n, I, K)
            if (used != 1).any():
                block *= used[group][:, :, None]
            return np.reshape(block, (len(places), -1))

        width = weight.shape[2] * weight.shape[3]
        leaders, ratios = _gather(np.repeat(buckets, sums), rows, bias, conv_groups * sums, width)
        is_sum_constant = (leaders < 0) & np.isfinite(bias)
        found = self.renew(np.where(leaders < 0, np.arange(len(leaders)), leaders) + 1)
        return np.where(is_sum_constant, 0, found), np.where(is_sum_constant, bias, ratios)

    def apply(self, keys: Array, values: Factors, is_constant: Array) -> tuple[Ids, Factors]:
        """Find what is known of a function that treats every channel alike.

        Args:
            keys: Shape `(C, m)`: everything that the function reads of a channel, bit by bit.
            values: Shape `(C,)`: its value where the channel is constant.
            is_constant: Shape `(C,)`.

        Returns:
            Ids and factors of the results, each of shape `(C,)`; a constant that is not finite counts as unknown.
        """
        bits = np.ascontiguousarray(keys, np.float64).view(np.int64)
        ids = self.renew(np.unique(bits, axis=0, return_inverse=True)[1].reshape(-1) + 1)
        is_constant = is_constant & np.isfinite(values)
        return np.where(is_constant, 0, ids), np.where(is_constant, values, 1.0)


def _gather(buckets: Ids, rows: Callable[[Ids], Factors], bias: Factors, count: int, width: int) -> tuple[Ids, Factors]:
    """Find rows that are equal up to a positive factor, their bias included.

    Rows are compared where a random projection of them is the same; the projection only saves comparisons.

    Args:
        buckets: Shape `(count,)`: only rows of one bucket can be equal.
        rows: Gives some rows, shape `(n, width)`.
        bias: Shape `(count,)`.
        count: Number of rows.
        width: Length of a row.

    Returns:
        Per row the first row that it is equal to, -1 for a row of zeros; and its factor relative to that row.
    """
    probe = np.random.default_rng(0).standard_normal(width + 1)
    scales, projections = np.empty(count), np.empty(count)
    step = max(1, _BLOCK // max(1, width))
    with np.errstate(all="ignore"):  # what is not finite is sorted out below
        for start in range(0, count, step):
            places = np.arange(start, min(start + step, count), dtype=np.int64)
            block = rows(places)
            scales[places] = np.abs(block).max(axis=1, initial=0.0)
            projections[places] = block @ probe[:-1]
        shifts = bias / scales
        projections = projections / scales + shifts * probe[-1]
    leaders, ratios = np.arange(count, dtype=np.int64), np.ones(count)
    leaders[scales == 0] = -1
    usable = np.flatnonzero((scales > 0) & np.isfinite(projections) & np.isfinite(shifts))
    order = usable[np.lexsort((usable, projections[usable], buckets[usable]))]
    reach = TOLERANCE * (np.abs(probe[:-1]).sum() + np.abs(probe[-1]) * np.maximum(1, np.abs(shifts)))
    recent: list[int] = []
    for row in order.tolist():
        recent = [
            other
            for other in recent
            if buckets[other] == buckets[row] and projections[row] - projections[other] <= reach[row]
        ]
        leader = next((other for other in recent if _is_multiple(rows, scales, shifts, row, other)), None)
        if leader is None:
            recent.append(row)
        else:
            leaders[row], ratios[row] = leader, scales[row] / scales[leader]
    return leaders, ratios


def _is_multiple(rows: Callable[[Ids], Factors], scales: Factors, shifts: Factors, row: int, other: int) -> bool:
    if abs(shifts[row] - shifts[other]) > TOLERANCE * max(1.0, abs(shifts[row])):
        return False
    first, second = rows(np.array([row, other])) / scales[[row, other], None]
    return bool(np.abs(first - second).max() <= TOLERANCE)
