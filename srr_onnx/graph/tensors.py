"""LOAD: payload of tensors, inside the file or beside it.

Reads `TensorProto` messages into read-only arrays and takes large payloads out of the protobuf, so that
each weight is in memory once. External data may only lie in the model's own folder.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import Message
from onnx import TensorProto, helper, numpy_helper

from srr_onnx.errors import ModelError
from srr_onnx.graph.model import is_sane

# Payloads up to this size stay in the protobuf: shape inference reads shape constants there.
INLINE_BYTES = 1024
INLINE_INT64_BYTES = 1 << 16
_PAYLOAD_FIELDS = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "external_data")


def stored_tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, TensorProto]]:
    """Walk over the tensors that a graph stores: initializers, then `value` attributes of Constant nodes.

    Args:
        graph: The main graph of a model.

    Yields:
        Value name and the message, which may be edited in place.
    """
    for init in graph.initializer:
        yield init.name, init
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx") and node.output:
            for attribute in node.attribute:
                if attribute.name == "value" and attribute.type == onnx.AttributeProto.TENSOR:
                    yield node.output[0], attribute.t


def check_external(proto: onnx.ModelProto) -> None:
    """Check that only tensors of `stored_tensors` are kept outside the file.

    Others (in subgraphs, functions and attributes) would be left behind, or read from anywhere by the libraries that
    find them.

    Raises:
        ModelError: Another one is.
    """
    allowed = [tensor for _, tensor in stored_tensors(proto.graph)]
    known = {id(tensor) for tensor in allowed}
    for tensor in find_tensors(proto):
        if tensor.data_location == TensorProto.EXTERNAL and id(tensor) not in known:
            raise ModelError(
                f"tensor {tensor.name!r} in a subgraph, a function or an attribute has external data: "
                "save the model as one file first, e.g. with onnx.save"
            )


def find_tensors(message: Message) -> Iterator[TensorProto]:
    """Walk over every tensor inside a message, however deep.

    Args:
        message: A model, or a part of one.

    Yields:
        The tensors, which may be edited in place.
    """
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else [value]:
                if isinstance(part, TensorProto):
                    yield part
                else:
                    yield from find_tensors(part)


def read_tensor(
    name: str, tensor: TensorProto, folder: Path | None, data: np.ndarray[Any, Any] | None = None
) -> np.ndarray | None:
    """Read one tensor's payload.

    Args:
        name: Value name, for messages.
        tensor: The message; not changed.
        folder: Where external data may lie; None for a model that was not read from a file.
        data: Bytes of its `raw_data` where they are not in the message; the result is a view of them.

    Returns:
        A read-only array of the tensor's shape; None for element types that numpy has no plain array for
        (strings, sub-byte integers).

    Raises:
        ModelError: The payload does not fit the declared shape, or lies outside the folder.
    """
    if not name:
        raise ModelError("the model has a tensor without a name: the file is damaged")
    if any(dim < 0 for dim in tensor.dims):
        raise ModelError(f"tensor {name!r} has a negative dimension {list(tensor.dims)}: the file is damaged")
    if tensor.data_type == TensorProto.UNDEFINED:
        raise ModelError(f"tensor {name!r} has no element type: the file is damaged")
    if tensor.data_type == TensorProto.STRING:
        return None
    try:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except KeyError:
        raise ModelError(f"tensor {name!r} has the unknown element type {tensor.data_type}") from None
    if not is_sane(tuple(tensor.dims)):
        raise ModelError(f"tensor {name!r} of shape {list(tensor.dims)} is larger than memory: the file is damaged")
    count = math.prod(tensor.dims)
    if _is_packed(tensor.data_type):
        return None
    if tensor.data_location == TensorProto.EXTERNAL:
        array = _read_external(name, tensor, folder, np.dtype(dtype), count)
    else:
        array = _read_inline(name, tensor, np.dtype(dtype), count, data)
    array = np.asarray(array)
    array.flags.writeable = False
    return array


def _read_inline(
    name: str, tensor: TensorProto, dtype: np.dtype[Any], count: int, payload: np.ndarray[Any, Any] | None
) -> np.ndarray[Any, Any]:
    where = f"tensor {name!r} of shape {list(tensor.dims)}"
    try:
        if payload is None and not tensor.HasField("raw_data"):
            array: np.ndarray[Any, Any] = numpy_helper.to_array(tensor)
            return array
        data = tensor.raw_data if payload is None else payload.data  # every access to a message's makes a copy
        if len(data) != count * dtype.itemsize:
            raise ModelError(
                f"{where} should have {count * dtype.itemsize} bytes but has {len(data)}: the file is damaged"
            )
        return np.frombuffer(data, dtype.newbyteorder("<")).reshape(tuple(tensor.dims))
    except (ValueError, TypeError, MemoryError) as error:
        raise ModelError(f"{where} cannot be read: {error}") from error


def detach_payload(tensor: TensorProto) -> None:
    """Empty a tensor message of its payload; name, shape and element type stay."""
    for field in _PAYLOAD_FIELDS:
        tensor.ClearField(field)
    tensor.ClearField("data_location")


def attach_payload(tensor: TensorProto, array: np.ndarray[Any, Any]) -> None:
    """Put an array into a tensor message, replacing shape and payload; element type and documentation stay.

    Args:
        tensor: The message; changed in place.
        array: New content, of the message's element type.
    """
    detach_payload(tensor)
    del tensor.dims[:]
    tensor.dims.extend(array.shape)
    tensor.raw_data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def is_large(tensor: TensorProto, array: np.ndarray[Any, Any]) -> bool:
    """Tell whether a payload is worth taking out of the protobuf."""
    if tensor.data_location == TensorProto.EXTERNAL:
        return True
    return array.nbytes > (INLINE_INT64_BYTES if array.dtype.kind in "iub" else INLINE_BYTES)


def _is_packed(data_type: int) -> bool:
    return TensorProto.DataType.Name(data_type) in {"INT4", "UINT4", "INT2", "UINT2", "FLOAT4E2M1"}


def _read_external(
    name: str, tensor: TensorProto, folder: Path | None, dtype: np.dtype[Any], count: int
) -> np.ndarray[Any, Any]:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise ModelError(f"tensor {name!r} has external data {location!r}: load the model from its file instead")
    path = _check_location(name, location, folder)
    try:
        offset = int(entries.get("offset", "0") or 0)
        length = int(entries.get("length", "0") or 0) or count * dtype.itemsize
    except ValueError:
        raise ModelError(f"tensor {name!r} has an unreadable external data offset or length") from None
    size = path.stat().st_size
    if offset < 0 or length != count * dtype.itemsize or offset + length > size:
        raise ModelError(
            f"tensor {name!r} needs bytes {offset} to {offset + count * dtype.itemsize} of external data {location!r}, "
            f"which has {size} bytes: the data file does not belong to this model or is truncated"
        )
    shape = tuple(tensor.dims)
    if count == 0:
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype=dtype.newbyteorder("<"), mode="r", offset=offset, shape=shape or (1,)).reshape(shape)


def _check_location(name: str, location: str, folder: Path) -> Path:
    root = os.path.realpath(folder)
    # Text that is no valid UTF-8 comes as bytes; the system takes no zero byte in a name.
    is_name = isinstance(location, str) and location and "\0" not in location
    real = os.path.realpath(folder / location) if is_name else ""
    if not is_name or os.path.isabs(location) or os.path.commonpath([root, real]) != root:
        raise ModelError(
            f"tensor {name!r} keeps its data in {location!r}, outside the model's folder: refused, "
            "copy the data file beside the model"
        )
    if not os.path.exists(real):
        raise ModelError(f"external data file {location!r} of tensor {name!r} is missing: put it into {str(folder)!r}")
    if not stat.S_ISREG(os.stat(real).st_mode):
        raise ModelError(f"external data {location!r} of tensor {name!r} is not a regular file")
    return Path(real)
