"""Random models with channels that are dead, constant or duplicates of others."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from random_models import Recipe, build

from srr_onnx.analysis.find import find_groups
from srr_onnx.analysis.groups import Groups
from srr_onnx.graph.load import load_model
from srr_onnx.graph.model import Model
from srr_onnx.rewriting.exact.follow import follow
from srr_onnx.rewriting.exact.linear import Weights
from srr_onnx.rewriting.verify import make_feeds
from srr_onnx.targets.onnxruntime import Session

Array = np.ndarray[Any, Any]


@dataclasses.dataclass
class Planted:
    """A random model after planting.

    Attributes:
        proto: Its file.
        model: Loaded.
        groups: Its groups.
        sizes: The sizes that the file leaves open.
    """

    proto: onnx.ModelProto
    model: Model
    groups: Groups
    sizes: dict[str, int]


def plant(recipe: Recipe, seed: int) -> Planted:
    """Overwrite some units' filters and biases: with zeros, with zeros but for the bias, or with those of unit 0."""
    made = build(recipe)
    model = load_model(made.proto.SerializeToString(), made.inputs)
    rng = np.random.default_rng(seed)
    arrays: dict[str, Array] = {}
    for group in find_groups(model):
        kinds = rng.choice(["", "dead", "constant", "duplicate", "multiple"], group.size)
        for member in group.members:
            role, name = member.role.value, member.initializer
            if name not in model.stored or model.constants[name].dtype.kind != "f" or role == "input":
                continue
            array = arrays.setdefault(name, model.constants[name].copy())
            rows = np.moveaxis(array, member.axis, 0)
            for unit in range(1, group.size):
                place, kind = member.positions[unit], kinds[unit]
                if (kind in ("dead", "constant") and role == "filter") or (kind == "dead" and role == "shift"):
                    rows[place] = 0
                elif kind == "duplicate" or (kind == "multiple" and role not in ("filter", "shift")):
                    rows[place] = rows[member.positions[0]]
                elif kind == "multiple":
                    rows[place] = rows[member.positions[0]] * np.float32(1.7)
    proto = onnx.ModelProto()
    proto.CopyFrom(made.proto)
    for init in proto.graph.initializer:
        if init.name in arrays:
            init.CopyFrom(numpy_helper.from_array(arrays[init.name], init.name))
    model = load_model(proto.SerializeToString(), made.inputs)
    return Planted(proto, model, find_groups(model), made.sizes)


def check_facts(model: Model, groups: Groups, tolerance: float = 1e-4) -> int:
    """Check everything that is claimed of any channel against a run.

    Returns:
        Number of channels that are constant or share their base with another.
    """
    knowledge = follow(model, Weights(model), groups.rearrangements)
    names = [name for node in model.nodes for name in node.outputs if knowledge.known(name) is not None]
    if not names:
        return 0
    values = Session(model, names, is_exact=True).run(make_feeds(model))
    claims = 0
    for name in names:
        facts = knowledge.known(name)
        assert facts is not None
        rows = np.moveaxis(values[name], facts.axis, 0).reshape(len(facts.ids), -1).astype(np.float64)
        scale = max(1.0, float(np.nan_to_num(np.abs(rows), posinf=0).max(initial=0.0)))
        bases: dict[int, Array] = {}
        for channel, (base, factor) in enumerate(zip(facts.ids.tolist(), facts.factors.tolist(), strict=True)):
            claims += base == 0 or base in bases
            want = np.ones(rows.shape[1]) if base == 0 else bases.setdefault(base, rows[channel] / factor)
            assert base == 0 or factor > 0
            error = np.abs(rows[channel] - factor * want).max(initial=0.0)
            assert not error > tolerance * scale, f"channel {channel} of {name}: {error}"
    return claims
