"""LOAD: write a model file piece by piece.

`SerializeToString` builds the whole file in memory beside a copy of all weights. A protobuf message is a sequence of
(tag, length, bytes) records in any order, so the large payloads can go straight from their arrays to the file.

Source: protobuf encoding, https://protobuf.dev/programming-guides/encoding; field numbers are read from onnx itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

import numpy as np
import onnx

Array = np.ndarray[Any, Any]

_GRAPH = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_INITIALIZER = onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
_RAW_DATA = onnx.TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number
_LENGTH_DELIMITED = 2


def write_model(file: IO[bytes], proto: onnx.ModelProto, payload: Mapping[str, Array]) -> None:
    """Write a model whose large initializers are empty in the protobuf.

    Args:
        file: Binary file.
        proto: The model.
        payload: Content of the empty initializers, by name; in the initializer's element type.
    """
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    initializers = list(model.graph.initializer)
    records: list[tuple[bytes, Array | None]] = []
    for tensor in initializers:
        head, array = tensor.SerializeToString(deterministic=True), payload.get(tensor.name)
        if array is not None:
            head += _tag(_RAW_DATA) + _varint(array.nbytes)
        size = len(head) + (0 if array is None else array.nbytes)
        records.append((_tag(_INITIALIZER) + _varint(size) + head, array))
    del model.graph.initializer[:]
    graph = model.graph.SerializeToString(deterministic=True)
    model.ClearField("graph")
    size = len(graph) + sum(len(head) + (0 if array is None else array.nbytes) for head, array in records)
    file.write(model.SerializeToString(deterministic=True))
    file.write(_tag(_GRAPH) + _varint(size) + graph)
    for head, array in records:
        file.write(head)
        if array is not None:
            little = array.astype(array.dtype.newbyteorder("<"), copy=False)
            file.write(np.ascontiguousarray(little).reshape(-1).view(np.uint8).data)


def _tag(number: int) -> bytes:
    return _varint(number << 3 | _LENGTH_DELIMITED)


def _varint(value: int) -> bytes:
    """Seven bits per byte, lowest first; the top bit says that more follow."""
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
