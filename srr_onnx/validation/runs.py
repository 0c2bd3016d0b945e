"""VALIDATE: one or several models over all samples of a data set, many runs at a time.

Every run uses one thread, and many runs go on beside each other: so the numbers do not depend on how many workers
there are, and neither does their order.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from srr_onnx.calibration.runs import find_run_size, has_fixed_batch, open_session
from srr_onnx.data.dataset import Batch, Dataset, Labels
from srr_onnx.errors import DataError
from srr_onnx.graph.model import Model, Shape, is_floating
from srr_onnx.targets.onnxruntime import Session
from srr_onnx.targets.target import Target
from srr_onnx.wording import counted

Array = np.ndarray[Any, Any]

# Runs that wait for each worker: enough that none stands idle while pictures are decoded.
_AHEAD = 2


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """What models gave for a few samples.

    Attributes:
        batch: The samples.
        outputs: Outputs by name, one entry per model.
    """

    batch: Batch
    outputs: tuple[Mapping[str, Array], ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Opened:
    """Models that take the same samples, opened in the runtime.

    Attributes:
        models: The models.
        sessions: The same, opened with one thread each; a session may be run by many threads at once.
        replaced: Places of the models that run in float32, since the runtime does not take their own type.
    """

    models: tuple[Model, ...]
    sessions: tuple[Session, ...]
    replaced: tuple[int, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """Nodes that run elsewhere than they were asked to, in words."""
        return tuple(dict.fromkeys(filter(None, (session.assignment.describe() for session in self.sessions))))


def open_models(*models: Model, target: Target | None = None) -> Opened:
    """Open models that take the same samples in the runtime.

    Args:
        models: Loaded models; the first is the reference.
        target: Where they run, with one thread each; the CPU by default.

    Returns:
        The opened models.

    Raises:
        DataError: Their inputs or outputs differ in more than the batch, or the width of floating-point numbers.
        ModelError: The runtime refuses one.
        TargetError: The target is not there, or takes no node of a model.
    """
    for model in models[1:]:
        _check_alike(
            "input",
            *({name: _Value.find(m, name, shape) for name, shape in m.inputs.items()} for m in (models[0], model)),
        )
        _check_alike(
            "output",
            *({name: _Value.find(m, name, m.shapes.get(name)) for name in m.outputs} for m in (models[0], model)),
        )
    runs_on = dataclasses.replace(target or Target(), threads=1)
    opened = [open_session(model, target=runs_on) for model in models]
    replaced = tuple(place for place, (_, as_float32) in enumerate(opened) if as_float32)
    return Opened(tuple(models), tuple(session for session, _ in opened), replaced)


def choose_batch(opened: Opened, dataset: Dataset, indices: Labels, wanted: int | None = None) -> int:
    """Choose how many samples go into one run.

    Args:
        opened: The models.
        dataset: The samples.
        indices: Which of them will be run.
        wanted: What the user asks for.

    Returns:
        Samples per run.

    Raises:
        DataError: The wanted size, or the sizes that the models state, do not go together.
        ModelError: A model does not run on the samples.
    """
    feeds = next(dataset.batches(2, indices)).feeds
    pairs = zip(opened.models, opened.sessions, strict=True)
    rows = {name: array for name, array in feeds.items() if name not in dataset.shared}
    sizes = [find_run_size(model, session, _fit(rows, model), _fit(dataset.shared, model)) for model, session in pairs]
    stated = {size for model, size in zip(opened.models, sizes, strict=True) if has_fixed_batch(model, rows)}
    if len(stated) > 1:
        listed = " and ".join(map(str, sorted(stated)))
        raise DataError(f"the models take {listed} samples in one run: export both with the same, or an open, batch")
    size = min(stated or sizes)
    is_bound = stated or (size == 1 and len(next(iter(rows.values()))) > 1)
    if wanted is not None and wanted != size and is_bound:
        raise DataError(f"batches of {wanted} are not possible: one run of the model takes {counted(size, 'sample')}")
    return size if wanted is None else wanted


def run_models(
    opened: Opened, batches: Iterable[Batch], size: int, workers: int, shared: Collection[str] = ()
) -> Iterator[Run]:
    """Run models on samples.

    Args:
        opened: The models.
        batches: The samples; where the models state how many they take, smaller batches are filled up with copies of
            their last sample, and what is computed of those is left out.
        size: Samples per run.
        workers: Runs beside each other.
        shared: Names of the inputs that all samples share, which are never filled up.

    Yields:
        What the models gave, in the order of the batches.

    Raises:
        ModelError: A model cannot run on the samples.
    """

    def run(batch: Batch) -> Run:
        count = len(batch.indices)
        rows = {name: array for name, array in batch.feeds.items() if name not in shared}
        common = {name: array for name, array in batch.feeds.items() if name in shared}
        found = []
        for model, session in zip(opened.models, opened.sessions, strict=True):
            missing = size - count if has_fixed_batch(model, rows) else 0
            outputs = session.run({**_fit(rows, model, missing), **_fit(common, model)})
            found.append({name: _cut(array, count, size) for name, array in outputs.items()} if missing else outputs)
        return Run(batch, tuple(found))

    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Run]] = deque()
        source = iter(batches)
        try:
            for batch in itertools.islice(source, _AHEAD * workers):
                waiting.append(pool.submit(run, batch))
            while waiting:
                done = waiting.popleft().result()
                waiting.extend(pool.submit(run, batch) for batch in itertools.islice(source, 1))
                yield done
        finally:
            for future in waiting:
                future.cancel()


def count_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclasses.dataclass(frozen=True)
class _Value:
    """Kind of numbers, and shape of one sample, None where it is not known."""

    kind: str
    shape: Shape | None

    @classmethod
    def find(cls, model: Model, name: str, shape: Shape | None) -> _Value:
        dtype = model.dtypes.get(name)
        kind = "numbers" if dtype is None else "float" if is_floating(dtype) else dtype.name
        return cls(kind, None if shape is None else shape[1:])

    def may_be(self, other: _Value) -> bool:
        """Whether both are the same, as far as known: the run tells the rest."""
        return self.kind == other.kind and (None in (self.shape, other.shape) or self.shape == other.shape)

    def describe(self) -> str:
        if self.shape is None:
            return f"{self.kind} of unknown shape"
        return f"{self.kind} {'x'.join(map(str, self.shape)) or 'scalar'}"


def _check_alike(what: str, wanted: Mapping[str, _Value], found: Mapping[str, _Value]) -> None:
    names = set(wanted) ^ set(found) or {name for name in wanted if not wanted[name].may_be(found[name])}
    if not names:
        return
    first, second = (
        ", ".join(f"{name!r} ({value.describe()})" for name, value in part.items() if name in names)
        or f"no such {what}"
        for part in (wanted, found)
    )
    raise DataError(
        f"the models cannot be compared, as their {what}s differ: the reference has {first}, the candidate {second}"
    )


def _fit(feeds: Mapping[str, Array], model: Model, missing: int = 0) -> dict[str, Array]:
    """Repeat the last sample so many times, and give floating-point numbers the model's own type."""
    found = {}
    for name, array in feeds.items():
        whole = np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array
        found[name] = whole.astype(model.dtypes[name], copy=False) if is_floating(whole.dtype) else whole
    return found


def _cut(array: Array, count: int, size: int) -> Array:
    """The part of an output that belongs to the first samples; all where samples do not lie along the first axis."""
    return array[: len(array) // size * count] if array.ndim and len(array) % size == 0 else array
