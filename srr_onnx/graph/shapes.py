"""LOAD: static shapes of every value.

Dynamic input axes are replaced by sizes, then ONNX's own shape inference runs. A value whose shape
stays unknown is left out; the analysis freezes what touches it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from srr_onnx.errors import ModelError, UnknownNameError, first_line
from srr_onnx.graph.model import Shape, is_sane

_ELEMENT_TYPES = frozenset(TensorProto.DataType.values())

TOO_DEEP = "its subgraphs (If, Loop, Scan) are nested deeper than protobuf can read, about thirty levels"


def is_too_deep(error: Exception) -> bool:
    """Whether a message could not be read because it is nested too deep, not because it is damaged."""
    return "MaxDepth" in str(error)


def resolve_inputs(graph: onnx.GraphProto, given: Mapping[str, Sequence[int]]) -> dict[str, Shape]:
    """Fix the shape of every graph input that has to be fed.

    Args:
        graph: The main graph.
        given: Shapes by input name; override what the file says. The name "" stands for the only input.

    Returns:
        Shape by input name, without inputs that are initializers.

    Raises:
        ModelError: An axis other than the first is dynamic and was not given, or a given shape contradicts the file.
        UnknownNameError: `given` names no input.
    """
    initializers = {init.name for init in graph.initializer}
    declared = {value.name: value.type.tensor_type for value in graph.input if value.name not in initializers}
    if "" in given and "" not in declared:
        if len(declared) != 1:
            raise ModelError(
                f"the model has {len(declared)} inputs ({', '.join(declared)}): say which one the shape is for, "
                "e.g. --input NAME=1,3,224,224"
            )
        given = {next(iter(declared)) if name == "" else name: shape for name, shape in given.items()}
    for name in given:
        if name not in declared:
            raise UnknownNameError("input", name, declared)
    resolved: dict[str, Shape] = {}
    for name, kind in declared.items():
        if not name:
            raise ModelError("the model has an input without a name: the file is damaged")
        if kind.elem_type not in _ELEMENT_TYPES:
            raise ModelError(f"input {name!r} has the unknown element type {kind.elem_type}")
        dims = [dim.dim_value if dim.dim_value > 0 else None for dim in kind.shape.dim]
        labels = [dim.dim_param or "?" for dim in kind.shape.dim]
        if name in given:
            shape = tuple(int(size) for size in given[name])
            _check_given(name, shape, dims, kind.HasField("shape"))
        elif not kind.HasField("shape"):
            raise ModelError(f"input {name!r} has no shape in the file: give one, e.g. --input {name}=1,3,224,224")
        else:
            if dims and dims[0] is None:
                dims[0] = 1
            missing = [axis for axis, size in enumerate(dims) if size is None]
            if missing:
                axes = ", ".join(f"{axis} ({labels[axis]})" for axis in missing)
                example = ",".join(str(size or 224) for size in dims)
                raise ModelError(
                    f"input {name!r} has dynamic axes {axes}: give sizes to prune for, e.g. --input {name}={example} "
                    "(the pruned file keeps its dynamic axes)"
                )
            shape = tuple(size for size in dims if size is not None)
        if not is_sane(shape):
            raise ModelError(f"input {name!r} of shape {list(shape)} is larger than memory: give a smaller --input")
        resolved[name] = shape
    return resolved


def _check_given(name: str, shape: Shape, dims: list[int | None], is_known: bool) -> None:
    if any(size < 1 for size in shape):
        raise ModelError(f"shape {list(shape)} for input {name!r}: sizes must be positive")
    if is_known and len(shape) != len(dims):
        raise ModelError(
            f"shape {list(shape)} for input {name!r} has {len(shape)} axes, the model's input has {len(dims)}"
        )
    for axis, (size, fixed) in enumerate(zip(shape, dims, strict=False)):
        if fixed is not None and fixed != size:
            raise ModelError(f"shape {list(shape)} for input {name!r}: axis {axis} is fixed to {fixed} in the model")


def infer_shapes(
    proto: onnx.ModelProto, inputs: Mapping[str, Shape], *, is_strict: bool = False
) -> tuple[dict[str, Shape], dict[str, np.dtype[Any]]]:
    """Infer the shape and element type of every value at the given input shapes.

    Args:
        proto: Model whose large payloads may be detached; not changed.
        inputs: Shape of every input that is fed.
        is_strict: Whether a node whose shapes contradict each other is an error; else its outputs stay unknown.

    Returns:
        Shapes (only fully known ones) and element types, by value name.

    Raises:
        ModelError: Inference finds the graph inconsistent.
    """
    static = onnx.ModelProto()
    static.CopyFrom(proto)
    graph = static.graph
    # Recorded shapes may be stale or symbolic; everything is inferred anew from the inputs.
    recorded = {value.name: value for value in graph.value_info}
    del graph.value_info[:]
    for value in graph.input:
        if value.name in inputs:
            _set_shape(value, inputs[value.name])
    stored = {init.name for init in graph.initializer}
    for value in graph.output:
        if value.name not in stored:  # an initializer without shape would stop the inference of other nodes
            value.type.tensor_type.ClearField("shape")
    # Without ONNX's propagation of values, which folding does better: it makes a message for every element of a vector,
    # a hundred bytes each, and so takes any amount of memory.
    try:
        inferred = shape_inference.infer_shapes(static, check_type=False, strict_mode=is_strict, data_prop=False)
    except Exception as error:  # the C++ library raises several kinds
        reason = TOO_DEEP if is_too_deep(error) else first_line(error)
        raise ModelError(f"the shapes of the graph cannot be inferred: {reason}") from error
    shapes: dict[str, Shape] = {}
    dtypes: dict[str, np.dtype[Any]] = {}
    for value in [*recorded.values(), *inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output]:
        if not value.type.HasField("tensor_type"):
            continue
        shape, dtype = _read_type(value.type.tensor_type)
        if dtype is not None:
            dtypes[value.name] = dtype
        if shape is not None:
            shapes[value.name] = shape
    return shapes, dtypes


def infer_node(
    message: onnx.NodeProto,
    opsets: Sequence[onnx.OperatorSetIdProto],
    ir_version: int,
    shapes: Mapping[str, Shape],
    dtypes: Mapping[str, np.dtype[Any]],
    known: Mapping[str, np.ndarray[Any, Any]],
    sequences: dict[str, onnx.TypeProto],
) -> dict[str, tuple[Shape | None, np.dtype[Any] | None]]:
    """Infer one node's outputs from its inputs' shapes and the content of small inputs.

    Whole-graph inference loses track where shapes are computed; walking node by node with folded values does not.

    Args:
        message: The node.
        opsets: Operator sets of the model.
        ir_version: IR version of the model.
        shapes: Shapes known so far.
        dtypes: Element types known so far.
        known: Content of constants and shape values.
        sequences: Types of sequences known so far; those of the outputs are added.

    Returns:
        Shape and element type of the outputs that can be inferred; empty where inference fails.
    """
    first, second = (*message.input, "", "")[:2]
    if message.op_type == "GroupNormalization" and not message.domain and first in shapes and message.output:
        # ONNX has no inference for it, and refuses to try with version 18; it keeps the input's shape.
        return {message.output[0]: (shapes[first], dtypes.get(first))}
    if (
        message.op_type == "Compress"
        and first in shapes
        and message.input[1:]
        and message.input[1] in known
        and message.output
    ):
        # ONNX does not look at the condition.
        shape = _compress(shapes[first], known[second], message)
        return {message.output[0]: (shape, dtypes.get(first))}
    if message.op_type == "MaxUnpool" and message.output and message.input[2:] and message.input[2] in known:
        shape = tuple(int(size) for size in known[message.input[2]])
        return {message.output[0]: (shape, dtypes.get(first))}
    version = next((opset.version for opset in opsets if opset.domain in ("", "ai.onnx")), 0)
    try:
        schema = onnx.defs.get_schema(message.op_type, version, message.domain)
        types = {
            name: sequences[name]
            if name in sequences
            else helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(dtypes[name]), shapes[name])
            for name in message.input
            if name
        }
        data = {
            name: numpy_helper.from_array(known[name], name)
            for name in message.input
            if name in known and known[name].dtype.kind in "iuf" and known[name].size <= 1024
        }
        inferred = shape_inference.infer_node_outputs(
            schema, message, types, data, opset_imports=list(opsets), ir_version=ir_version
        )
    except Exception:  # the C++ library raises several kinds; an unknown shape is no error here
        return {}
    sequences |= {name: kind for name, kind in inferred.items() if kind.HasField("sequence_type")}
    return {name: _read_type(kind.tensor_type) for name, kind in inferred.items() if kind.HasField("tensor_type")}


def _compress(shape: Shape, condition: np.ndarray[Any, Any], message: onnx.NodeProto) -> Shape:
    count = int(np.count_nonzero(condition))
    axis = next((attribute.i for attribute in message.attribute if attribute.name == "axis"), None)
    if axis is None:
        return (count,)
    return tuple(count if place == axis % len(shape) else size for place, size in enumerate(shape))


def _read_type(kind: onnx.TypeProto.Tensor) -> tuple[Shape | None, np.dtype[Any] | None]:
    dtype = None
    if kind.elem_type:
        try:
            dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
        except (KeyError, TypeError):
            dtype = None
    is_static = kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim)
    shape = tuple(dim.dim_value for dim in kind.shape.dim)
    return shape if is_static and is_sane(shape) else None, dtype


def _set_shape(value: onnx.ValueInfoProto, shape: Shape) -> None:
    kind = value.type.tensor_type
    kind.ClearField("shape")
    kind.shape.SetInParent()
    for size in shape:
        kind.shape.dim.add().dim_value = size
