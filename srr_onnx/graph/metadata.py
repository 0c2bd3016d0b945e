"""LOAD: one entry of a file's metadata, set without touching anything else in it."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from srr_onnx.errors import ModelError
from srr_onnx.graph.save import write_atomically
from srr_onnx.graph.wire import copy_without

_METADATA = onnx.ModelProto.DESCRIPTOR.fields_by_name["metadata_props"].number


def store_metadata(path: str | os.PathLike[str], key: str, value: str) -> None:
    """Set an entry of a model's metadata in its file, whole or not at all.

    All other bytes of the file are copied as they are; data beside the file are not touched.

    Args:
        path: The file.
        key: Name of the entry; entries of that name are replaced.
        value: Its text.

    Raises:
        ModelError: The file is no ONNX model.
        OutputError: It cannot be written; it is as it was.
    """
    entry = onnx.ModelProto()
    entry.metadata_props.add(key=key, value=value)

    def has_key(content: bytes) -> bool:
        return bool(onnx.StringStringEntryProto.FromString(content).key == key)

    source = Path(path)
    try:
        with source.open("rb") as old, write_atomically(source) as new:
            copy_without(old, os.fstat(old.fileno()).st_size, new, _METADATA, has_key)
            new.write(entry.SerializeToString())
    except DecodeError as error:
        raise ModelError(f"{str(path)!r} is not an ONNX model, or is truncated: it cannot be decoded") from error
