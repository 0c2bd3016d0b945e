"""VALIDATE / REWRITE: run models in onnxruntime; its only home.

A session takes the payload of large constants from the model's arrays: nothing is serialized or copied.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from srr_onnx.errors import ModelError, TargetError, first_line
from srr_onnx.graph.model import Model, Node
from srr_onnx.graph.runtime import to_runtime_proto
from srr_onnx.graph.segment import to_segment_proto
from srr_onnx.targets.providers import open_on_target
from srr_onnx.targets.target import Target

Array = np.ndarray[Any, Any]

# They fold a factor or a summand, a mask say, into a copy of the weights before it: twice the memory, other rounding.
_FOLDING = ["ConvMulFusion", "ConvAddFusion", "ConvBNFusion", "MatMulBNFusion"]


class Session:
    """A model opened in onnxruntime.

    Attributes:
        assignment: Which nodes run where.

    Args:
        model: Loaded model.
        outputs: Values to return; the graph's outputs by default. Inner values may be named too.
        threads: Threads inside one operator; 0 lets the runtime choose.
        is_exact: Whether to switch off optimizations that change rounding.
        masks: Arrays to multiply values with, by `(node index, slot)` of their reader.
        as_float32: Whether to compute in float32 what the file computes in another floating-point type.
        is_rounded: False to leave out the rounding of quantized activations.
        target: Where it runs; the CPU by default. Its threads take the place of `threads`.

    Raises:
        ModelError: The runtime refuses the model; carries its reason.
        TargetError: The target is not there, or takes no node of the model.
    """

    def __init__(
        self,
        model: Model,
        outputs: Sequence[str] | None = None,
        threads: int = 0,
        is_exact: bool = False,
        masks: Mapping[tuple[int, int], Array] | None = None,
        as_float32: bool = False,
        is_rounded: bool = True,
        target: Target | None = None,
    ) -> None:
        proto, external = to_runtime_proto(
            model, outputs or (), masks or {}, as_float32=as_float32, is_rounded=is_rounded
        )
        self._open(proto, external, target or Target(threads=threads), is_exact=is_exact)
        self.outputs = list(outputs) if outputs else list(model.outputs)

    def _open(
        self,
        proto: onnx.ModelProto,
        external: Mapping[str, Array],
        target: Target,
        *,
        is_exact: bool = False,
        profile_prefix: str = "",
    ) -> None:
        options = ort.SessionOptions()
        if profile_prefix:
            options.enable_profiling, options.profile_file_prefix = True, profile_prefix
        if is_exact:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
            # Packed copies of weights pay off over many runs only, and double the memory.
            options.add_session_config_entry("session.disable_prepacking", "1")
        if any(array.dtype.kind not in "biuf" for array in external.values()):
            raise ModelError("onnxruntime takes no weights of this element type from memory")
        if external:
            names = list(external)
            self._kept = [ort.OrtValue.ortvalue_from_numpy(external[name]) for name in names]
            options.add_external_initializers(names, self._kept)
        try:
            self._session, self.assignment = open_on_target(
                proto.SerializeToString(), options, target, _FOLDING if is_exact else None
            )
        except TargetError:
            raise
        except Exception as error:  # onnxruntime raises several kinds without a common base
            raise ModelError(f"onnxruntime refuses the model: {first_line(error)}") from error
        self._types = {value.name: value.type for value in self._session.get_inputs()}

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once.

        Args:
            feeds: One array per graph input.

        Returns:
            The outputs by name.

        Raises:
            ModelError: The run fails; carries the runtime's reason.
        """
        try:
            results = self._session.run(self.outputs, {name: self._retype(name, a) for name, a in feeds.items()})
        except Exception as error:
            raise ModelError(f"onnxruntime cannot run the model: {first_line(error)}") from error
        return dict(zip(self.outputs, results, strict=True))

    def make_runner(self, feeds: Mapping[str, Array]) -> Callable[[], object]:
        """Make a function that runs once on these inputs and does nothing else, to be timed.

        Args:
            feeds: One array per graph input.

        Raises:
            ModelError: The model does not run on them; carries the runtime's reason.
        """
        ready = {name: self._retype(name, array) for name, array in feeds.items()}
        self.run(ready)
        return functools.partial(self._session.run, self.outputs, ready)

    def _retype(self, name: str, array: Array) -> Array:
        return array.astype(np.float32) if self._types.get(name) == "tensor(float)" else array


class SegmentSession(Session):
    """A part of a model opened in onnxruntime on the CPU.

    Args:
        model: Loaded model.
        nodes: Some of its nodes, in execution order.
        inputs: Values that are fed.
        outputs: Values that are returned.
        contents: New content of constants, by name.
        as_float32: Whether to compute in float32 what the file computes in another floating-point type.

    Raises:
        ModelError: The runtime refuses the part; carries its reason.
    """

    def __init__(
        self,
        model: Model,
        nodes: Sequence[Node],
        inputs: Sequence[str],
        outputs: Sequence[str],
        contents: Mapping[str, Array],
        *,
        as_float32: bool = False,
    ) -> None:
        proto, external = to_segment_proto(model, nodes, inputs, outputs, contents, as_float32=as_float32)
        self._open(proto, external, Target())
        self.outputs = list(outputs)


def version() -> str:
    """Version of the installed onnxruntime."""
    return str(ort.__version__)
