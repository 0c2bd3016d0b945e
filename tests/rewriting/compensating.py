"""Nets, pruned and watched, for the tests of compensation."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx
from builders import Graph, feeds_for, run_ort

from srr_onnx.analysis.find import find_groups
from srr_onnx.analysis.groups import Groups
from srr_onnx.calibration.layers import find_layers
from srr_onnx.calibration.observe import Observation, Samples, observe
from srr_onnx.graph.load import load_model
from srr_onnx.graph.model import Model
from srr_onnx.rewriting.apply import kept_positions, prune_units

Array = np.ndarray[Any, Any]


@dataclasses.dataclass
class Case:
    """A net, what is left of it, and its samples."""

    proto: onnx.ModelProto
    model: Model
    groups: Groups
    pruned: Model
    kept: dict[tuple[str, int], Array]
    chunks: list[dict[str, Array]]

    def watch(self, **options: Any) -> Observation:
        """What the original's layers gave."""
        layers = find_layers(self.model)
        count = sum(len(next(iter(chunk.values()))) for chunk in self.chunks)
        return observe(self.model, layers, Samples(self.chunks, count, **options), {}, {x.output for x in layers})

    def error(self, candidate: Model) -> float:
        """Mean squared error of the outputs on the samples, relative to their variance."""
        lost = power = 0.0
        for chunk in self.chunks:
            wants = run_ort(self.proto, chunk)
            gots = run_model(candidate, chunk)
            for name, want in wants.items():
                lost += float(((gots[name].astype(np.float64) - want) ** 2).sum())
                others = tuple(axis for axis in range(want.ndim) if axis != 1)
                power += float(((want - want.mean(axis=others, keepdims=True)) ** 2).sum())
        return lost / power


def run_model(model: Model, feeds: dict[str, Array]) -> dict[str, Array]:
    """Run a model as its file would."""
    return run_ort(to_proto(model), feeds)


def to_proto(model: Model) -> onnx.ModelProto:
    """The model with all its weights inside."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for tensor in proto.graph.initializer:
        if tensor.name in model.detached:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(model.constants[tensor.name]), tensor.name))
    for node in proto.graph.node:
        if node.op_type == "Constant" and node.output[0] in model.detached:
            for attribute in node.attribute:
                attribute.t.CopyFrom(onnx.numpy_helper.from_array(np.array(model.constants[node.output[0]])))
    return proto


def make_case(
    g: Graph, gone: list[int] | None = None, share: float = 0.5, chunks: int = 2, seed: int = 0, **feeding: Any
) -> Case:
    """Prune units (numbered through all groups), or a random share of every group's."""
    proto = g.model()
    model = load_model(proto.SerializeToString(), feeding.pop("inputs", None))
    groups = find_groups(model)
    is_kept = np.ones(groups.num_units, bool)
    rng = np.random.default_rng(seed)
    if gone is not None:
        is_kept[gone] = False
    else:
        for group in groups:
            count = int(group.size * share)
            is_kept[group.first_unit + rng.permutation(group.size)[:count]] = False
    pruned = prune_units(model, groups, is_kept)
    kept = kept_positions(groups, is_kept)
    return Case(proto, model, groups, pruned, kept, [feeds_for(proto, s, **feeding) for s in range(chunks)])


def norm(g: Graph, value: str, **attributes: Any) -> str:
    """A BatchNormalization with vectors of its own."""
    count = g.shapes[value][1]
    vectors = [g.weight(count, scale=0.3, offset=1.0) for _ in range(3)]
    variance = g.constant(g.rng.uniform(0.5, 2, count), dtype="f4")
    return str(g("BatchNormalization", value, *vectors, variance, **attributes))


def twins(g: Graph, *names: str, pairs: tuple[tuple[int, int], ...]) -> None:
    """Make filters (or entries) equal: of every pair the second becomes the first."""
    for name in names:
        for first, second in pairs:
            g.initializers[name][second] = g.initializers[name][first]
