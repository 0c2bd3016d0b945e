"""LOAD: read and write a model file piece by piece.

protobuf's own functions hold the whole file in memory beside one or two copies of all weights. A message is a sequence
of (tag, length, bytes) records in any order, so the large payloads can go straight from the file to their arrays and
back.

Source: protobuf encoding, https://protobuf.dev/programming-guides/encoding; field numbers are read from onnx itself.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError

Array = np.ndarray[Any, Any]

_GRAPH = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_INITIALIZER = onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
_RAW_DATA = onnx.TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number
_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5
_MOST_VARINT_BYTES = 10
# Payloads up to this size stay in the protobuf.
_SMALL = 1024
# Payloads from this size on stay in the file, which is mapped into memory: dense layers, which are read in parts only.
_MAPPED = 1 << 26


def read_model(file: IO[bytes], size: int) -> tuple[onnx.ModelProto, dict[int, Array], Callable[[], str]]:
    """Read a model without the large `raw_data` of its initializers.

    Args:
        file: Binary file; read once, to its end.
        size: Its size in bytes.

    Returns:
        The model; the bytes taken out, shape `(B,)` uint8 and not aligned to anything, by place in the list of
        initializers; and a function that
        gives the SHA-256 of the file, which another thread may still be computing.

    Raises:
        DecodeError: The file is no ONNX model, or is truncated.
        OSError: It cannot be read.
    """
    payload: dict[int, Array] = {}
    place = -1

    def read_tensor(stream: _Stream, length: int) -> bytes:
        nonlocal place
        place += 1
        return _copy_fields(stream, length, {_RAW_DATA: read_payload})

    def read_payload(stream: _Stream, length: int) -> bytes | None:
        payload.pop(place, None)  # of a field that comes twice the last one counts
        if length <= _SMALL:
            return stream.read(length)
        payload[place] = stream.read_array(length)
        return None

    def read_graph(stream: _Stream, length: int) -> bytes:
        return _copy_fields(stream, length, {_INITIALIZER: read_tensor})

    stream = _Stream(file, size)
    try:
        proto = onnx.ModelProto.FromString(_copy_fields(stream, size, {_GRAPH: read_graph}))
        return proto, payload, stream.sha256()
    finally:
        stream.close()


class _Stream:
    """A file that is read from front to end, and hashed by another thread meanwhile."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._pool = ThreadPoolExecutor(1)
        self._hash = hashlib.sha256()
        self._waiting = bytearray()
        self.left = size

    def read(self, length: int) -> bytes:
        if length > self.left:  # before memory is asked for: a damaged length can be anything
            raise DecodeError("truncated")
        data = self._file.read(length)
        if len(data) < length:
            raise DecodeError("truncated")
        self.left -= length
        self._waiting += data
        return data

    def read_array(self, length: int) -> Array:
        if length > self.left:
            raise DecodeError("truncated")
        can_map = os.name == "posix" and isinstance(self._file, io.BufferedReader)
        data = self._map(length) if can_map and length >= _MAPPED else self._copy(length)
        self.left -= length
        self._flush()
        self._pool.submit(self._hash.update, data.data)
        return data

    def _map(self, length: int) -> Array:
        start = self._file.tell()
        try:
            data = np.memmap(self._file, np.uint8, "r", offset=start, shape=(length,))
        except ValueError:  # the file has become shorter since its size was asked for
            raise DecodeError("truncated") from None
        self._file.seek(start + length)  # mapping moves it
        return data

    def _copy(self, length: int) -> Array:
        data = np.empty(length, np.uint8)
        filled = 0
        while filled < length:
            count = self._file.readinto(data[filled:].data)  # type: ignore[attr-defined]
            if not count:
                raise DecodeError("truncated")
            filled += count
        return data

    def varint(self) -> int:
        value = 0
        for place in range(_MOST_VARINT_BYTES):
            byte = self.read(1)[0]
            value |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                return value
        raise DecodeError("a number of more than 64 bits")

    def sha256(self) -> Callable[[], str]:
        self._flush()
        return self._pool.submit(self._hash.hexdigest).result

    def close(self) -> None:
        self._pool.shutdown(wait=False)

    def _flush(self) -> None:
        self._pool.submit(self._hash.update, bytes(self._waiting))
        self._waiting.clear()


def _copy_fields(stream: _Stream, length: int, special: Mapping[int, Callable[[_Stream, int], bytes | None]]) -> bytes:
    """Read a message; the content of some fields is read by a function, which gives what stands there instead."""
    end = stream.left - length
    parts: list[bytes] = []
    while stream.left > end:
        tag = stream.varint()
        kind = tag & 7
        if kind == _LENGTH_DELIMITED:
            size = stream.varint()
            if size > stream.left - end:
                raise DecodeError("a field is longer than what holds it")
            content = special.get(tag >> 3, _Stream.read)(stream, size)
            if content is not None:
                parts += [_varint(tag), _varint(len(content)), content]
        elif kind == _VARINT:
            parts += [_varint(tag), _varint(stream.varint())]
        elif kind in (_FIXED32, _FIXED64):
            parts += [_varint(tag), stream.read(4 if kind == _FIXED32 else 8)]
        else:
            raise DecodeError(f"no such field type: {kind}")
    if stream.left < end:
        raise DecodeError("a field is longer than what holds it")
    return b"".join(parts)


def copy_without(
    source: IO[bytes], size: int, target: IO[bytes], number: int, is_left_out: Callable[[bytes], bool]
) -> None:
    """Copy a message byte by byte, without some of the records of one field.

    Args:
        source: Binary file; read once, to its end.
        size: Its size in bytes.
        target: Binary file.
        number: Of the field.
        is_left_out: Tells by its content whether a record is left out.

    Raises:
        DecodeError: The file is no message, or is truncated.
    """
    stream = _Stream(source, size)
    try:
        while stream.left:
            tag = stream.varint()
            kind = tag & 7
            if kind == _LENGTH_DELIMITED:
                length = stream.varint()
                head, content = _varint(tag) + _varint(length), stream.read_array(length)
                if tag >> 3 == number and is_left_out(content.tobytes()):
                    continue
                target.write(head)
                target.write(content.data)
            elif kind == _VARINT:
                target.write(_varint(tag) + _varint(stream.varint()))
            elif kind in (_FIXED32, _FIXED64):
                target.write(_varint(tag) + stream.read(4 if kind == _FIXED32 else 8))
            else:
                raise DecodeError(f"no such field type: {kind}")
    finally:
        stream.close()


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
            file.write(to_bytes(array))


def to_bytes(array: Array) -> memoryview:
    """The elements of an array one after another, lowest byte first, as files keep them; no copy where they lie so."""
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return np.ascontiguousarray(little).reshape(-1).view(np.uint8).data


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
