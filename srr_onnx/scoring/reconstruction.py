"""SCORE: what the layers that read a group lose when its units go, on samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from srr_onnx.analysis.groups import Groups, PruningGroup, Role
from srr_onnx.calibration.layers import LinearLayer
from srr_onnx.calibration.moments import Moments
from srr_onnx.calibration.observe import Observation, Observed
from srr_onnx.graph.model import Model
from srr_onnx.scoring.elimination import Elimination, Problem, eliminate
from srr_onnx.scoring.slices import Slices

Array = np.ndarray[Any, Any]

# Added to the covariance's diagonal, as a share of its mean.
RIDGE = 0.01
# Larger matrices take minutes to invert.
_MOST_COLUMNS = 4608


def find_readers(layers: Sequence[LinearLayer], groups: Groups) -> list[LinearLayer]:
    """Find the layers that read units.

    Args:
        layers: Result of `find_layers(model)`.
        groups: Result of `find_groups(model)`.

    Returns:
        Those of whose input channels at least one can go without the outputs that are made of it.
    """
    found = []
    for layer in layers:
        units = groups.values.get((layer.source, layer.source_axis))
        if units is not None and (units >= 0).any() and not _find_whole(layer, groups).all():
            found.append(layer)
    return found


def choose_columns(layers: Sequence[LinearLayer], groups: Groups, seed: int = 0) -> dict[str, Array]:
    """Choose some columns of layers that have more than can be inverted.

    Args:
        layers: Result of `find_readers`.
        groups: Result of `find_groups(model)`.
        seed: For the choice.

    Returns:
        Sorted columns of a block by the layer's output, the same number for every unit; layers of which all are taken
        are missing.
    """
    chosen = {}
    for layer in layers:
        if layer.columns <= _MOST_COLUMNS:
            continue
        units = _column_units(layer, groups)[0]
        per_unit = max(1, int(_MOST_COLUMNS // len(np.unique(units))))
        order = np.random.default_rng([seed, layer.node.index]).permutation(layer.columns)
        by_unit = order[np.argsort(units[order], kind="stable")]
        _, starts = np.unique(units[by_unit], return_index=True)
        rank = np.arange(layer.columns) - np.repeat(starts, np.diff(np.append(starts, layer.columns)))
        chosen[layer.output] = np.sort(by_unit[rank < per_unit])
    return chosen


class EliminationSearch:
    """Takes layers as they are observed, and settles a group as soon as all that read it are known.

    Args:
        model: Loaded model.
        groups: Result of `find_groups(model)`.
        readers: Result of `find_readers`: the layers that will come.
    """

    def __init__(self, model: Model, groups: Groups, readers: Sequence[LinearLayer]) -> None:
        self._model = model
        self._groups = groups
        self._found: dict[str, Elimination] = {}
        self._problems: dict[str, list[Problem]] = {}
        self._expected: dict[str, set[str]] = {}
        for layer in readers:
            units = groups.values[layer.source, layer.source_axis]
            for group in groups:
                if group.locate(units) is not None:
                    self._expected.setdefault(group.id, set()).add(layer.output)

    def add(self, observed: Observed) -> None:
        """Take a layer; its moments are used up."""
        if observed.moments is None:
            return
        for group_id, problem in _pose_problems(self._model, self._groups, observed, observed.moments):
            self._problems.setdefault(group_id, []).append(problem)
        observed.moments.forget()
        for group in self._groups:
            waiting = self._expected.get(group.id, set())
            if observed.layer.output in waiting:
                waiting.discard(observed.layer.output)
                if not waiting:
                    self._settle(group)

    def finish(self) -> dict[str, Elimination]:
        """Give the order of every group's units, by group id.

        Groups that no linear layer reads are ordered by the energy of their filters.
        """
        for group in self._groups:
            if group.id not in self._found:
                self._settle(group)
        return {group.id: self._found[group.id] for group in self._groups}

    def _settle(self, group: PruningGroup) -> None:
        problems = self._problems.pop(group.id, None)
        if problems is None:
            rows = Slices(self._model, group).with_role(Role.FILTER)
            self._found[group.id] = _share_energy(rows, group.size)
        else:
            self._found[group.id] = eliminate(problems, group.size)


def find_eliminations(model: Model, groups: Groups, observation: Observation) -> dict[str, Elimination]:
    """Find the order in which every group's units go, and the error at every width.

    Args:
        model: Loaded model.
        groups: Result of `find_groups(model)`.
        observation: What the layers did on the samples; their moments are used up.

    Returns:
        By group id. Groups that no linear layer reads are ordered by the energy of their filters.
    """
    watched = [observed for observed in observation.layers.values() if observed.moments is not None]
    search = EliminationSearch(model, groups, [observed.layer for observed in watched])
    for observed in watched:
        search.add(observed)
    return search.finish()


def _column_units(layer: LinearLayer, groups: Groups) -> Array:
    """The unit of every column, shape `(blocks, columns)`; -1 where it stays."""
    units = groups.values[layer.source, layer.source_axis]
    return np.repeat(units, layer.taps).reshape(layer.blocks, layer.columns)


def _pose_problems(model: Model, groups: Groups, observed: Observed, moments: Moments) -> Iterator[tuple[str, Problem]]:
    """One problem per block of a layer and group that it reads."""
    layer, variance = observed.layer, float(observed.variance.sum())
    if not variance > 0:
        return
    units, is_whole = _column_units(layer, groups), _find_whole(layer, groups)
    matrix = layer.to_matrix(model.constants[layer.weight])
    matrix = matrix * (observed.tail.scale / np.sqrt(variance)).reshape(layer.blocks, 1, -1)
    if observed.columns is not None:  # the others are taken to be as important
        matrix = matrix[:, observed.columns] * np.sqrt(layer.columns / len(observed.columns))
        units = units[:, observed.columns]
    for block, covariance in enumerate(moments.covariance()):
        owners = [(group, places) for group in groups if (places := group.locate(units[block])) is not None]
        if not owners or is_whole[block]:
            continue
        diagonal = np.einsum("ii->i", covariance)
        diagonal += RIDGE * diagonal.mean() + 1e-12
        # Single precision is enough: the ridge keeps the condition number below 100 times the number of columns.
        inverse = np.linalg.inv(covariance.astype(np.float32))
        for group, places in owners:
            columns = places.reshape(-1)
            rows = matrix[block][columns].astype(np.float32)
            yield group.id, Problem(inverse[np.ix_(columns, columns)], rows, places.shape[1])


def _find_whole(layer: LinearLayer, groups: Groups) -> Array:
    """Which blocks go as a whole, their outputs with their inputs: then nothing is left to be wrong."""
    read = groups.values[layer.source, layer.source_axis].reshape(layer.blocks, -1)
    made = groups.values.get((layer.output, layer.output_axis), np.full(layer.outputs, -1)).reshape(layer.blocks, -1)
    first = read[:, :1]
    return np.asarray((first[:, 0] >= 0) & (read == first).all(axis=1) & (made == first).all(axis=1))


def _share_energy(rows: Sequence[Array], units: int) -> Elimination:
    """Stand-in where no layer that reads the units can be watched: the share of the filters' energy that is gone."""
    energy = np.zeros(units)
    for part in rows:
        energy += (part.astype(np.float64) ** 2).sum(axis=1)
    order = np.argsort(energy, kind="stable")
    total = float(energy.sum())
    return Elimination(order, np.cumsum(energy[order]) / (total or 1.0))
