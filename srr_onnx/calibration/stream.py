"""CALIBRATE: run a model over samples a part at a time, every operator once.

Layer by layer, all samples pass through what lies between the last layer and the next; what later parts read is kept,
on disk beyond a limit. So the weights of a layer can be settled on all samples before any of them goes further.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from srr_onnx.graph.cost import is_constant_node
from srr_onnx.graph.model import Model, Node
from srr_onnx.graph.segment import read_values
from srr_onnx.targets.onnxruntime import SegmentSession

Array = np.ndarray[Any, Any]

# Activations kept in memory; more goes to disk.
_MOST_RESIDENT = 3 << 28


class Store:
    """Arrays by name and chunk, those beyond a limit on disk. Close it, or use it as a context manager."""

    def __init__(self) -> None:
        self._resident: dict[tuple[str, int], Any] = {}
        self._bytes = 0
        self._spilled: dict[tuple[str, int], Path] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._files = 0

    def __enter__(self) -> Store:
        """Give itself."""
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Drop everything."""
        self.close()

    def close(self) -> None:
        """Drop everything."""
        self._resident.clear()
        self._spilled.clear()
        if self._folder is not None:
            self._folder.cleanup()

    def put(self, name: str, chunk: int, value: Any) -> None:
        """Keep a value; only arrays can go to disk."""
        size = value.nbytes if isinstance(value, np.ndarray) else 0
        if self._bytes + size <= _MOST_RESIDENT or not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
            self._resident[name, chunk] = value
            self._bytes += size
            return
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="srr_onnx_", ignore_cleanup_errors=True)
        path = Path(self._folder.name) / f"{self._files}.npy"
        self._files += 1
        np.save(path, value)
        self._spilled[name, chunk] = path

    def get(self, name: str, chunk: int) -> Any:
        """Give a value back."""
        if (name, chunk) in self._resident:
            return self._resident[name, chunk]
        return np.load(self._spilled[name, chunk])

    def __contains__(self, key: object) -> bool:
        """Whether there is a value under a name and chunk."""
        return key in self._resident or key in self._spilled

    def drop(self, name: str, chunk: int) -> None:
        """Forget a value."""
        value = self._resident.pop((name, chunk), None)
        if isinstance(value, np.ndarray):
            self._bytes -= value.nbytes
        path = self._spilled.pop((name, chunk), None)
        if path is not None:
            path.unlink()


class Stream:
    """A model and samples on their way through it. Close it, or use it as a context manager.

    Args:
        model: The model.
        chunks: Inputs by name; each chunk is one run.
        stops: Values wanted at each stop, in the order of the stops.
        as_float32: Whether to compute in float32 what the file computes in another floating-point type.
    """

    def __init__(
        self,
        model: Model,
        chunks: Sequence[Mapping[str, Array]],
        stops: Sequence[Collection[str]],
        *,
        as_float32: bool = False,
    ) -> None:
        self._model = model
        self._chunks = chunks
        self._stops = list(stops)[::-1]
        self._as_float32 = as_float32
        self._store = Store()
        self._at_hand = set(model.inputs)
        self._left = [node for node in model.nodes if not is_constant_node(model, node)]
        self._left = self._find_missing(set().union(*stops))  # what leads to no stop never runs

    def __enter__(self) -> Stream:
        """Give itself."""
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Drop what is kept."""
        self._store.close()

    def advance(self, contents: Mapping[str, Array] | None = None) -> Iterator[Mapping[str, Array]]:
        """Run all samples up to the next stop. The iterator has to be used up.

        Args:
            contents: New content of constants, by name.

        Yields:
            Per chunk the values wanted there.

        Raises:
            ModelError: onnxruntime cannot run the part.
        """
        wanted = self._stops.pop()
        nodes = self._find_missing(wanted)
        # A sequence cannot be fed as a tensor is: what makes one stays, and runs again in every part that reads it.
        tensors = self._model.dtypes
        ran = {node.index for node in nodes if all(name in tensors for name in node.outputs if name)}
        self._left = [node for node in self._left if node.index not in ran]
        needed = set(read_values(self._left)).union(*self._stops)
        made = [name for node in nodes for name in node.outputs if name in tensors]
        outputs = [name for name in made if name in needed or name in wanted]
        inputs = [name for name in read_values(nodes) if name in self._at_hand]
        session = None
        if outputs:
            session = SegmentSession(self._model, nodes, inputs, outputs, contents or {}, as_float32=self._as_float32)
        stale = [name for name in self._at_hand if name not in needed]
        for number in range(len(self._chunks)):
            results: dict[str, Any] = {}
            if session is not None:
                results = session.run({name: self._get(name, number) for name in inputs})
            yield {name: results[name] if name in results else self._get(name, number) for name in wanted}
            for name in stale:
                self._store.drop(name, number)
            for name, value in results.items():
                if name in needed:
                    self._store.put(name, number, value)
        self._at_hand.difference_update(stale)
        self._at_hand.update(name for name in outputs if name in needed)

    def _get(self, name: str, chunk: int) -> Any:
        return self._chunks[chunk][name] if name in self._model.inputs else self._store.get(name, chunk)

    def _find_missing(self, wanted: Collection[str]) -> list[Node]:
        """Nodes that have not run yet and without which the wanted values do not come about."""
        missing = set(wanted) - self._at_hand
        found = []
        for node in reversed(self._left):
            if missing.intersection(node.outputs):
                found.append(node)
                missing.update(name for name in read_values([node]) if name not in self._at_hand)
        return found[::-1]


def count_live_bytes(model: Model) -> int:
    """Largest number of bytes of activations that a model needs at one time, at its input shapes."""
    nodes = [node for node in model.nodes if not is_constant_node(model, node)]
    last = {name: place for place, node in enumerate(nodes) for name in read_values([node])}
    sizes = {
        name: int(np.prod(shape, dtype=np.int64)) * model.dtypes[name].itemsize
        for name, shape in model.shapes.items()
        if name in model.dtypes and name not in model.constants
    }
    live, most, alive = 0, 0, set[str]()
    for place, node in enumerate(nodes):
        for name in node.outputs:
            if name in last and name not in alive:
                alive.add(name)
                live += sizes.get(name, 0)
        most = max(most, live)
        for name in [name for name in read_values([node]) if last[name] == place and name in alive]:
            alive.discard(name)
            live -= sizes.get(name, 0)
    return most
