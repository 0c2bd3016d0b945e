"""REWRITE: what is known of every channel, whatever the input.

A channel is a factor times a base: `value[channel] = factor * base[id]`. Base 0 is one everywhere, so a channel with
id 0 is a constant; of every other base nothing is known, and factors of it are positive. Two channels with one id are
therefore equal up to a factor, and up to the slack of the id: filters count as equal that differ by a few roundings.
What is not known has an id of its own: a missing fact never makes a result wrong.
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

# Rows whose elements are all equal to this share count as equal up to a factor; ten roundings of float32.
TOLERANCE = 1e-6
# Elements below this share of the largest are zeros.
_NOTHING = 1e-12
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
        self._slack: Factors = np.zeros(1)
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
        first = len(self._slack)
        self._slack = np.append(self._slack, np.zeros(count))
        return np.arange(first, first + count, dtype=np.int64)

    def slack(self, ids: Ids) -> Factors:
        """How far channels with these ids may be from multiples of one another, relative to their size."""
        return self._slack[ids]

    def renew(self, ids: Ids, slack: Factors | None = None) -> Ids:
        """New ids, equal where the old ones are; constants stay constants.

        Args:
            ids: The old ones, or any other numbers with 0 for constants.
            slack: Same shape as `ids`: the slack of the new ones; that of the old ones by default.

        Returns:
            The new ids.
        """
        old, places = np.unique(ids, return_inverse=True)
        new = self.fresh(len(old))
        new[old == 0] = 0
        np.maximum.at(self._slack, new[places], self.slack(ids) if slack is None else slack)
        self._slack[0] = 0
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
        firsts = _find_firsts(ids)
        has_twins = bool((firsts != np.arange(ids.shape[1])).any())
        buckets = np.unique(np.where(used == 0, -1, ids), axis=0, return_inverse=True)[1].reshape(-1)

        def rows(places: Ids) -> Factors:
            group = places // sums
            block = weight[group, places % sums].astype(np.float64)  # (n, I, K)
            if (used != 1).any():
                block *= used[group][:, :, None]
            if has_twins:  # they count together: large weights of opposite signs on two of them are nothing
                joined = np.zeros_like(block)
                np.add.at(joined, (np.arange(len(block))[:, None], firsts[group]), block)
                block = joined
            return np.reshape(block, (len(places), -1))

        width = weight.shape[2] * weight.shape[3]
        doubts = np.zeros(conv_groups * sums)
        slack = self.slack(ids) * np.abs(used)
        if slack.any():
            doubts = (np.abs(weight).max(axis=3).astype(np.float64) * slack[:, None]).sum(axis=2).reshape(-1)
        leaders, ratios, gaps = _gather(np.repeat(buckets, sums), rows, bias, doubts, width)
        is_sum_constant = (leaders < 0) & np.isfinite(bias)
        found = self.renew(np.where(leaders < 0, np.arange(len(leaders)), leaders) + 1, gaps)
        return np.where(is_sum_constant, 0, found), np.where(is_sum_constant, bias, ratios)

    def apply(self, ids: Ids, keys: Array, values: Factors, is_constant: Array) -> tuple[Ids, Factors]:
        """Find what is known of a function that treats every channel alike.

        Args:
            ids: Shape `(C,)`: bases of the channels.
            keys: Shape `(C, m)`: everything else that the function reads of a channel, bit by bit.
            values: Shape `(C,)`: its value where the channel is constant.
            is_constant: Shape `(C,)`.

        Returns:
            Ids and factors of the results, each of shape `(C,)`; a constant that is not finite counts as unknown.
        """
        bits = np.hstack([ids[:, None], np.ascontiguousarray(keys, np.float64).view(np.int64)])
        ids = self.renew(np.unique(bits, axis=0, return_inverse=True)[1].reshape(-1) + 1, self.slack(ids))
        is_constant = is_constant & np.isfinite(values)
        return np.where(is_constant, 0, ids), np.where(is_constant, values, 1.0)


def _find_firsts(ids: Ids) -> Ids:
    """Per channel of a group the first one with the same base, shape `(G, I)`."""
    found = np.empty_like(ids)
    for group, row in enumerate(ids):
        _, starts, places = np.unique(row, return_index=True, return_inverse=True)
        found[group] = starts[places]
    return found


def _gather(
    buckets: Ids, rows: Callable[[Ids], Factors], bias: Factors, doubts: Factors, width: int
) -> tuple[Ids, Factors, Factors]:
    """Find rows that are equal up to a positive factor, their bias included.

    Rows are compared where a random projection of them is the same; the projection only saves comparisons.

    Args:
        buckets: Shape `(count,)`: only rows of one bucket can be equal.
        rows: Gives some rows, shape `(n, width)`.
        bias: Shape `(count,)`.
        doubts: Shape `(count,)`: how far a row may be off, in the unit of its elements.
        width: Length of a row.

    Returns:
        Per row the first row that it is equal to, -1 for a row of zeros; its factor relative to that row; and how far
        it is from the multiple, as a share of the element that differs most.
    """
    count = len(bias)
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
        shares = doubts / scales
        projections = projections / scales + shifts * probe[-1]
    leaders, ratios, gaps = np.arange(count, dtype=np.int64), np.ones(count), np.zeros(count)
    leaders[(scales == 0) & (doubts == 0)] = -1
    usable = np.flatnonzero((scales > 0) & np.isfinite(projections) & np.isfinite(shifts) & (shares <= TOLERANCE))
    order = usable[np.lexsort((usable, projections[usable], buckets[usable]))]
    reach = TOLERANCE * (np.abs(probe[:-1]).sum() + np.abs(probe[-1]) * np.maximum(1, np.abs(shifts)))
    recent: list[int] = []
    for row in order.tolist():
        recent = [
            other
            for other in recent
            if buckets[other] == buckets[row] and projections[row] - projections[other] <= reach[row]
        ]
        for leader in recent:
            gap = _find_gap(rows, scales, shifts, row, leader) + max(shares[row], shares[leader])
            if gap <= TOLERANCE:
                leaders[row], ratios[row], gaps[row] = leader, scales[row] / scales[leader], gap
                break
        else:
            recent.append(row)
    return leaders, ratios, gaps


def _find_gap(rows: Callable[[Ids], Factors], scales: Factors, shifts: Factors, row: int, other: int) -> float:
    """How far two rows are from multiples of each other, as a share of the element that differs most."""
    gap = float(abs(shifts[row] - shifts[other]) / max(1.0, abs(shifts[row])))
    if gap > TOLERANCE:
        return gap
    first, second = rows(np.array([row, other])) / scales[[row, other], None]
    # Element by element, as rounding is: of a large element that cancels with another the small ones are what is left.
    sizes = np.maximum(np.maximum(np.abs(first), np.abs(second)), _NOTHING)
    return max(gap, float((np.abs(first - second) / sizes).max()))
