"""The laws that every analysis and every rewrite obeys, on random models.

One random model costs a few dozen milliseconds, so the laws about one rewrite are checked on the same one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import hypothesis
import numpy as np
import onnx
import oracle
import pytest
from builders import feeds_for, run_ort
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxruntime.capi import onnxruntime_pybind11_state
from random_models import BLOCKS, Recipe, build, recipes

from srr_onnx.analysis.find import find_groups
from srr_onnx.analysis.groups import Groups
from srr_onnx.analysis.labels import FreezeReason
from srr_onnx.graph import tensors
from srr_onnx.graph.cost import count_cost
from srr_onnx.graph.load import load_model
from srr_onnx.graph.model import Model
from srr_onnx.graph.save import save_model
from srr_onnx.rewriting.apply import kept_positions, prune_units
from srr_onnx.rewriting.verify import verify_pruned

Array = np.ndarray[Any, Any]
SHARDS = 20
# What onnxruntime raises where a model cannot run at a size.
RUNTIME_ERRORS = tuple(
    getattr(onnxruntime_pybind11_state, name) for name in ("Fail", "InvalidArgument", "RuntimeException")
)


@pytest.fixture(autouse=True, scope="module")
def _small_weights_count_as_large() -> Iterator[None]:
    """Random models are small; what is done to large weights has to be done to some of theirs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensors, "INLINE_BYTES", 128)
        yield


def examples(default: int) -> Any:
    """Share of the profile's number of examples; the default profile has 100."""
    return settings(max_examples=max(1, settings().max_examples * default // 100))


@functools.lru_cache(maxsize=8)
def loaded(recipe: Recipe) -> tuple[onnx.ModelProto, Model, Groups]:
    made = build(recipe)
    model = load_model(made.proto.SerializeToString(), made.inputs)
    groups = find_groups(model)
    assert FreezeReason.RULE_FAILED not in {frozen.cause.reason for frozen in groups.frozen}, groups.frozen
    return made.proto, model, groups


def other_sizes(recipe: Recipe) -> list[dict[str, int]]:
    """The sizes that a random model was made for, and others where it runs at others."""
    made = build(recipe)
    found = [made.sizes]
    for sizes in (made.sizes | {name: made.sizes[name] + 2 for name in made.free}, made.sizes | {"N": 3}):
        if made.sizes:
            with contextlib.suppress(RUNTIME_ERRORS):
                run_ort(made.proto, feeds_for(made.proto, sizes=sizes))
                found.append(sizes)
    return found


def draw_keep(groups: Groups, seed: int, inexact: bool = False) -> Array:
    """Which units stay: some, one, or all of each group, never none."""
    rng = np.random.default_rng(seed)
    is_kept = np.ones(groups.num_units, bool)
    for group in groups:
        if not (group.is_exact or inexact):
            continue
        count = int(rng.choice([1, rng.integers(1, group.size + 1), rng.integers(1, group.size + 1), group.size]))
        stays = np.zeros(group.size, bool)
        stays[rng.permutation(group.size)[:count]] = True
        is_kept[group.units] = stays
    return is_kept


def canonical(proto: onnx.ModelProto) -> bytes:
    return proto.SerializeToString(deterministic=True)


def saved(model: Model) -> onnx.ModelProto:
    """The model as a reader of its file sees it; every test has a working folder of its own."""
    return onnx.load(str(save_model(model, "model.onnx", force=True)))


@dataclasses.dataclass
class Rewrite:
    """A random model with a random keep-set, pruned through the real code, and saved."""

    recipe: Recipe
    original: onnx.ModelProto
    model: Model
    groups: Groups
    is_kept: Array
    kept: Mapping[tuple[str, int], Array]
    pruned: Model
    proto: onnx.ModelProto

    @functools.cached_property
    def measured(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all values of the pruned model, from a run."""
        return oracle.measure_shapes(self.proto, build(self.recipe).sizes)


def rewrite(recipe: Recipe, seed: int, inexact: bool = False) -> Rewrite:
    original, model, groups = loaded(recipe)
    is_kept = draw_keep(groups, seed, inexact)
    before = canonical(model.proto)
    pruned = prune_units(model, groups, is_kept)
    assert canonical(model.proto) == before, "the rewrite changed its input"
    proto = saved(pruned)
    return Rewrite(recipe, original, model, groups, is_kept, kept_positions(groups, is_kept), pruned, proto)


def check_equals_masked(case: Rewrite) -> None:
    proof = verify_pruned(case.model, case.pruned, case.kept, is_exact=True, threads=1)
    assert proof.relative_error <= oracle.TOLERANCE
    for sizes in other_sizes(case.recipe):
        error = oracle.pruned_equals_masked(case.original, case.proto, case.kept, case.model.shapes, sizes)
        assert error <= oracle.TOLERANCE, f"pruned differs from masked by {error} at sizes {sizes}"


def check_valid(case: Rewrite) -> None:
    onnx.checker.check_model(case.proto, full_check=True)
    measured = case.measured
    for value in case.proto.graph.value_info:
        if value.name in measured:
            dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim if dim.HasField("dim_value")]
            assert tuple(dims) == measured[value.name], f"stale value_info of {value.name}"


def check_shapes_and_cost(case: Rewrite) -> None:
    measured = case.measured
    shrunk: dict[str, list[int]] = {}
    for (name, axis), positions in case.kept.items():
        assert 0 < len(positions) < case.model.shapes[name][axis]
        shrunk.setdefault(name, list(case.model.shapes[name]))[axis] = len(positions)
    names = {name for node in case.proto.graph.node for name in node.output}
    for name in names & set(measured) & set(case.model.shapes) - set(case.model.constants):
        want = tuple(shrunk.get(name, case.model.shapes[name]))
        assert measured[name] == want, f"{name} has shape {measured[name]}, its groups say {want}"
    cost = count_cost(case.pruned)
    macs = oracle.recount_macs(case.proto, measured)
    if set(measured) <= set(case.pruned.shapes):
        assert cost.macs == macs
    else:  # behind a subgraph, say, sizes may be unknown: such nodes count as zero, and are not pruned
        assert cost.macs <= macs
    assert cost.params == oracle.recount_stored(case.proto)


def check_outputs_keep_shape(case: Rewrite) -> None:
    feeds = feeds_for(case.original, sizes=build(case.recipe).sizes)
    before, after = run_ort(case.original, feeds), run_ort(case.proto, feeds)
    assert [(name, value.shape) for name, value in after.items()] == [(n, v.shape) for n, v in before.items()]
    assert not {name for name, _ in case.kept} & set(case.model.outputs)
    assert case.proto.graph.output == case.original.graph.output
    assert case.proto.graph.input[0] == case.original.graph.input[0]


def check_repeatable(case: Rewrite) -> None:
    model = load_model(case.original, build(case.recipe).inputs)
    again = prune_units(model, find_groups(model), case.is_kept)
    first, second = onnx.ModelProto(), onnx.ModelProto()
    first.CopyFrom(case.pruned.proto)
    second.CopyFrom(again.proto)
    assert canonical(first) == canonical(second)
    assert case.pruned.constants.keys() == again.constants.keys()
    assert all(np.array_equal(case.pruned.constants[name], again.constants[name]) for name in again.constants)


@pytest.mark.parametrize("shard", range(SHARDS))
def test_a_rewrite_obeys_the_laws(shard: int, record_property: Callable[[str, object], None]) -> None:
    """Two thousand random models, twenty thousand in a night, in parts that several processes share."""

    tried = set()

    def check(recipe: Recipe, seed: int) -> None:
        tried.add((recipe, seed))
        case = rewrite(recipe, seed)
        check_equals_masked(case)
        check_valid(case)
        check_shapes_and_cost(case)
        check_outputs_keep_shape(case)
        check_repeatable(case)

    count = min(20 * settings().max_examples, 20_000) // SHARDS
    law = settings(max_examples=count)(given(recipe=recipes(), seed=st.integers(0, 999))(check))
    if settings().derandomize:  # else every part would try the same models
        law = hypothesis.seed(shard)(law)
    law()
    record_property("networks", len(tried))
    assert len(tried) > 0.9 * count


@examples(60)
@given(recipe=recipes(), seed=st.integers(0, 999))
def test_inexact_groups_run_and_keep_output_shapes(recipe: Recipe, seed: int) -> None:
    case = rewrite(recipe, seed, inexact=True)
    assert verify_pruned(case.model, case.pruned, case.kept, is_exact=False, threads=1).relative_error == 0
    check_valid(case)
    check_shapes_and_cost(case)
    check_outputs_keep_shape(case)


@examples(60)
@given(recipe=recipes())
def test_keeping_everything_changes_nothing(recipe: Recipe) -> None:
    original, model, groups = loaded(recipe)
    assert canonical(saved(model)) == canonical(original)
    everything = prune_units(model, groups, np.ones(groups.num_units, bool))
    assert canonical(saved(everything)) == canonical(original)
    assert count_cost(everything) == count_cost(model)


def structure(groups: Groups, rename: Mapping[str, str] | None = None) -> list[tuple[Any, ...]]:
    """What groups are, apart from names of values: sizes, exactness, nodes, positions along every constant axis."""
    rename = rename or {}
    return [
        (
            group.size,
            group.is_exact,
            tuple(rename.get(node, node) for node in group.nodes),
            sorted((member.axis, member.role.value, member.positions.tolist()) for member in group.members),
        )
        for group in groups
    ]


@examples(60)
@given(recipe=recipes())
def test_new_names_change_no_group(recipe: Recipe) -> None:
    original, _, groups = loaded(recipe)
    renamed = onnx.ModelProto()
    renamed.CopyFrom(original)
    names: dict[str, str] = {}

    def new(name: str) -> str:
        return names.setdefault(name, f"r{(len(names) * 7919) % 99991:05d}") if name else ""

    def rename(graph: onnx.GraphProto) -> None:
        for value in [*graph.input, *graph.output, *graph.initializer]:
            value.name = new(value.name)
        for node in graph.node:
            node.name = new(node.name)
            for slots in (node.input, node.output):
                slots[:] = [new(name) for name in slots]
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    rename(attribute.g)

    rename(renamed.graph)
    model = load_model(renamed, {names["x"]: build(recipe).inputs["x"]})
    assert structure(find_groups(model)) == structure(groups, names)


@examples(60)
@given(recipe=recipes(), seed=st.integers(0, 999))
def test_identities_on_edges_change_no_group(recipe: Recipe, seed: int) -> None:
    original, model, groups = loaded(recipe)
    rng = np.random.default_rng(seed)
    longer = onnx.ModelProto()
    longer.CopyFrom(original)
    nodes = []
    for node in longer.graph.node:
        for slot, name in enumerate(node.input):
            # Before version 14 Identity takes no sequences.
            if name in model.shapes and rng.random() < 0.3:
                through = f"through_{len(nodes)}_{slot}"
                nodes.append(onnx.helper.make_node("Identity", [name], [through]))
                node.input[slot] = through
        nodes.append(node)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del longer.graph.node[:]
    longer.graph.node.extend(nodes)
    assert structure(find_groups(load_model(longer, build(recipe).inputs))) == structure(groups)


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_every_block_alone(name: str) -> None:
    """Each block several times over: a failure here names the culprit."""
    since, _ = BLOCKS[name]
    for seed in range(4):
        opset = max(since, (11, 13, 18, 21)[seed])
        recipe = Recipe(opset, seed, (("conv", seed), (name, seed), ("conv", seed + 50)))
        case = rewrite(recipe, seed)
        check_equals_masked(case)
        check_valid(case)
        check_shapes_and_cost(case)
        check_outputs_keep_shape(case)


def test_the_random_models_are_worth_testing() -> None:
    """Most random models have something to prune, and masks that move the outputs."""
    rng = np.random.default_rng(0)
    names = sorted(BLOCKS)
    prunable, sizes = 0, []
    for _ in range(40):
        genes = tuple((str(rng.choice(names)), int(rng.integers(1000))) for _ in range(6))
        _, model, groups = loaded(Recipe(int(rng.integers(11, 22)), int(rng.integers(100)), genes))
        prunable += any(group.is_exact and group.size > 1 for group in groups)
        sizes.append(len(model.nodes))
    assert prunable >= 34
    assert math.fsum(sizes) / len(sizes) > 15
