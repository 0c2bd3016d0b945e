"""CALIBRATE: how many samples a model takes in one run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from srr_onnx.errors import ModelError
from srr_onnx.graph.cost import is_constant_node
from srr_onnx.graph.model import Model
from srr_onnx.graph.segment import read_values
from srr_onnx.targets.onnxruntime import SegmentSession, Session
from srr_onnx.targets.target import Target

Array = np.ndarray[Any, Any]

# Samples per run where the model does not say.
RUN = 16
_HALVES = frozenset({"float16", "bfloat16"})
_OTHER_FLOATS = _HALVES | {"float64"}


def open_session(model: Model, threads: int = 0, target: Target | None = None) -> tuple[Session, bool]:
    """Open a model, in float32 where onnxruntime cannot compute it in the file's element type.

    Args:
        model: Loaded model.
        threads: Threads inside one operator; 0 lets the runtime choose.
        target: Where it runs; the CPU by default. Its threads take the place of `threads`.

    Returns:
        The session, and whether it computes in float32 in place of another type.

    Raises:
        ModelError: onnxruntime refuses the model.
        TargetError: The target is not there, or takes no node of the model.
    """
    try:
        return Session(model, threads=threads, target=target), False
    except ModelError:
        if not has_other_floats(model):
            raise
        return Session(model, threads=threads, as_float32=True, target=target), True


def has_other_floats(model: Model) -> bool:
    """Whether the file computes in a floating-point type other than float32 somewhere."""
    return any(dtype.name in _OTHER_FLOATS for dtype in model.dtypes.values())


def needs_float32(model: Model, target: Target) -> bool:
    """Whether onnxruntime cannot compute a model in its own element type; one of float32 is not opened to find out."""
    return has_other_floats(model) and open_session(model, target=target)[1]


def has_halves(model: Model) -> bool:
    """Whether the file computes in half precision somewhere."""
    return any(dtype.name in _HALVES for dtype in model.dtypes.values())


def find_run_size(
    model: Model, session: Session, feeds: Mapping[str, Array], shared: Mapping[str, Array] | None = None
) -> int:
    """Find how many samples a model takes in one run.

    A file can leave the batch open and have it written into a Reshape all the same, so it is tried.

    Args:
        model: Loaded model.
        session: The same, opened.
        feeds: At least one sample, batch axis first.
        shared: The other inputs, which are the same for all samples.

    Returns:
        The batch that the file states; of an open one, as many as are efficient, or 1.

    Raises:
        ModelError: The model does not run on the samples at all.
    """
    if has_fixed_batch(model, feeds):
        return max(model.inputs[name][0] for name in feeds)
    return RUN if _takes_several(session, feeds, shared or {}) else 1


def find_chunk_size(
    model: Model, run: int, feeds: Mapping[str, Array], shared: Mapping[str, Array] | None = None, *, as_float32: bool
) -> int:
    """Find how many samples the operators take at once, when they are run a part at a time.

    A file that states a batch of one often computes others as well: only its inputs say so.

    Args:
        model: Loaded model.
        run: Result of `find_run_size`.
        feeds: At least one sample, batch axis first.
        shared: The other inputs, which are the same for all samples.
        as_float32: Whether onnxruntime has to compute the model in float32.

    Returns:
        As many as are efficient, or `run`.
    """
    if run > 1 or not has_fixed_batch(model, feeds):
        return run
    nodes = [node for node in model.nodes if not is_constant_node(model, node)]
    inputs = [name for name in read_values(nodes) if name in model.inputs]
    made = {name for node in nodes for name in node.outputs}
    outputs = [name for name in model.outputs if name in made]
    try:
        session = SegmentSession(model, nodes, inputs, outputs, {}, as_float32=as_float32)
        fed = {name: array for name, array in feeds.items() if name in inputs}
        rest = {name: array for name, array in (shared or {}).items() if name in inputs}
        return RUN if _takes_several(session, fed, rest) else run
    except ModelError:
        return run


def _takes_several(session: Session, feeds: Mapping[str, Array], shared: Mapping[str, Array]) -> bool:
    """Whether samples that are run together give what they give one by one."""
    count = min(2, min(len(array) for array in feeds.values()))
    singles = [session.run({**take(feeds, i, i + 1), **shared}) for i in range(count)]
    if count < 2:
        return False
    try:
        pair = session.run({**take(feeds, 0, 2), **shared})
    except ModelError:
        return False
    for name in session.outputs:
        parts = [np.asarray(single[name]) for single in singles]
        if any(part.ndim == 0 or part.dtype.kind not in "fiub" for part in parts):
            return False
        joined = np.concatenate(parts)
        if joined.shape != pair[name].shape or not np.allclose(joined, pair[name], rtol=1e-2, atol=1e-3):
            return False
    return True


def take(feeds: Mapping[str, Array], start: int, stop: int) -> dict[str, Array]:
    """Some samples of every input."""
    return {name: array[start:stop] for name, array in feeds.items()}


def has_fixed_batch(model: Model, names: Iterable[str]) -> bool:
    """Whether the file states how many samples one run takes of these inputs."""
    return not any(is_batch_open(model, name) for name in names)


def is_batch_open(model: Model, name: str) -> bool:
    """Whether the file leaves the size of the first axis of an input open."""
    for value in model.proto.graph.input:
        if value.name == name:
            dims = value.type.tensor_type.shape.dim
            return not dims or dims[0].dim_value <= 0
    return False
