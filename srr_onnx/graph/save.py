"""LOAD: `Model` to file.

A file is written beside its target under another name and moved there when it is complete: the old file or the new
one, never a torn one.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import onnx
from onnx import TensorProto

from srr_onnx.errors import OutputError
from srr_onnx.graph.model import Model
from srr_onnx.graph.tensors import attach_payload, stored_tensors
from srr_onnx.graph.wire import write_model

# protobuf cannot hold more than 2 GiB in one message; larger models keep their weights beside the file.
_PROTOBUF_LIMIT = (1 << 31) - (1 << 24)


def save_model(model: Model, path: str | os.PathLike[str], *, force: bool = False) -> Path:
    """Write a model to a file, whole or not at all.

    Args:
        model: The model.
        path: Target; its folder must exist.
        force: Whether an existing file may be replaced.

    Returns:
        The path written.

    Raises:
        OutputError: The file exists and `force` is not set, or it cannot be written.
    """
    check_target(Path(path), force)
    target = resolve_target(Path(path))
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    payload = sum(model.constants[name].nbytes for name in model.detached)
    if payload + proto.ByteSize() > _PROTOBUF_LIMIT:
        _save_external(model, proto, target)
        return Path(path)
    initializers = {init.name for init in proto.graph.initializer}
    for name, tensor in stored_tensors(proto.graph):
        if name in model.detached and name not in initializers:
            attach_payload(tensor, model.constants[name])
    with write_atomically(target) as file:
        write_model(file, proto, {name: model.constants[name] for name in model.detached & initializers})
    return Path(path)


def _save_external(model: Model, proto: onnx.ModelProto, target: Path) -> None:
    """Write large tensors to `<name>.data` beside the file, which refers to it.

    Nothing replaces two files at once. An existing data file, which may belong to the old model or to another one, is
    therefore left alone, and the new one is called `<name>.1.data`, `<name>.2.data` ...
    """
    names = (f"{target.name}{f'.{number}' if number else ''}.data" for number in itertools.count())
    data_path = next(path for path in map(target.with_name, names) if not path.exists())
    offset = 0
    with write_atomically(data_path) as file:
        for name, tensor in stored_tensors(proto.graph):
            if name not in model.detached:
                continue
            data = np.require(model.constants[name], requirements="C")
            offset += _pad(file, offset)
            point_outside(tensor, data_path.name, offset, data.nbytes, data.shape)
            file.write(data.data if data.ndim else data.tobytes())
            offset += data.nbytes
    try:
        with write_atomically(target) as file:
            file.write(proto.SerializeToString())
    except BaseException:
        data_path.unlink(missing_ok=True)
        raise


def _pad(file: IO[bytes], offset: int, alignment: int = 64) -> int:
    gap = -offset % alignment
    file.write(b"\0" * gap)
    return gap


def point_outside(tensor: TensorProto, location: str, offset: int, length: int, shape: Sequence[int]) -> None:
    """Make a tensor refer to bytes of a file beside the model."""
    del tensor.dims[:]
    tensor.dims.extend(shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value


def resolve_target(target: Path) -> Path:
    """The file that a link leads to: that is what gets replaced, and the link stays."""
    return Path(os.path.realpath(target)) if os.path.islink(target) else target


def check_target(target: Path, force: bool, option: str = "-o") -> None:
    """Check that a file may be written, before any work is done.

    Args:
        target: The file.
        force: Whether an existing one may be replaced.
        option: Option that names it, for messages.

    Raises:
        OutputError: It exists and `force` is not set, is a directory or no regular file, or its folder is missing or
            not writable; for a link the same is asked of what it leads to.
    """
    final = resolve_target(target)
    if target.is_dir():
        raise OutputError(f"{str(target)!r} is a directory: give a file name with {option}")
    # What a link leads to can exist without having that name any more (a deleted file behind /proc/self/fd).
    if (target.exists() and not (target.is_file() and final.is_file())) or os.path.islink(final):
        raise OutputError(f"{str(target)!r} is not a regular file: choose another with {option}")
    if not final.parent.is_dir():
        raise OutputError(
            f"the folder {str(final.parent)!r} does not exist: make it first or choose another with {option}"
        )
    if target.exists() and not force:
        raise OutputError(f"{str(target)!r} exists: give --force to replace it or choose another name with {option}")
    if not os.access(final.parent, os.W_OK):
        raise OutputError(f"the folder {str(final.parent)!r} is not writable: choose another with {option}")


def make_folder(folder: Path) -> None:
    """Make a folder and those it lies in, where they are missing.

    Raises:
        OutputError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {str(folder)!r} cannot be made: {error.strerror}") from error


@contextlib.contextmanager
def write_atomically(target: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside the target that takes its place when the block ends well.

    Safe against the end of the process at any moment. Against a power cut it is as safe as the file system makes a
    replacement: waiting for the disk would take longer than all the rest.

    Args:
        target: The file to be written; where it is a link, what that leads to is.

    Yields:
        A binary file.

    Raises:
        OutputError: It cannot be written; the target is as it was.
    """
    final = resolve_target(target)
    # The name is known before the file is there: a signal that comes in between leaves nothing behind.
    part = final.with_name(f".{final.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            yield file
        if final.exists():
            os.chmod(part, final.stat().st_mode & 0o777)
        os.replace(part, final)
    except OSError as error:
        raise OutputError(f"{str(target)!r} cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
