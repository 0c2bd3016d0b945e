"""LOAD: file to `Model`.

Reads bytes, a path or a protobuf; makes nodes, constants and static shapes. Whatever is no usable
ONNX model ends as one `ModelError`.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import helper

from srr_onnx.errors import ModelError
from srr_onnx.graph.folding import fold_constants, fold_with_reference
from srr_onnx.graph.model import Model, Node, Shape
from srr_onnx.graph.nodes import check_names, check_outside, check_scalars, inline_functions, make_nodes, sort_nodes
from srr_onnx.graph.shapes import TOO_DEEP, infer_node, infer_shapes, is_too_deep, resolve_inputs
from srr_onnx.graph.sizes import guess_inputs, is_followed, open_pictures
from srr_onnx.graph.tensors import check_external, detach_payload, is_large, read_tensor, stored_tensors
from srr_onnx.graph.wire import read_model

_SIGNATURES = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"PK\x03\x04": "a zip archive (a PyTorch .pt file is one too: export it with torch.onnx.export)",
    b"\x7fELF": "a program",
    b"%PDF": "a PDF document",
    b"TFL3": "a TensorFlow Lite model",
    b"\x89HDF": "an HDF5 file",
    b"\x1f\x8b": "a gzip archive",
}


def load_model(
    source: str | os.PathLike[str] | bytes | onnx.ModelProto, input_shapes: Mapping[str, Sequence[int]] | None = None
) -> Model:
    """Load an ONNX model with static shapes.

    Args:
        source: Path, serialized bytes, or a protobuf (which is not changed).
        input_shapes: Shape per graph input; needed for inputs with dynamic axes other than the batch
            (a dynamic first axis is taken as 1) and the height and width of pictures (a usual size is taken).

    Returns:
        The loaded model; its shapes hold for the given input shapes.

    Raises:
        UnsupportedError: Sizes are missing, but all that could be pruned lies inside subgraphs anyway.
        ModelError: Not a file, not ONNX, damaged, unsafe external data, or an input shape is missing or wrong.
        UnknownNameError: `input_shapes` names no input of the graph.
    """
    path = None if isinstance(source, (bytes, onnx.ModelProto)) else Path(source)
    proto, payload, find_sha256, size = _read(source, path)
    check_external(proto)
    functions = len(proto.functions)
    proto = inline_functions(proto)
    is_inlined = len(proto.functions) < functions
    folder = None if path is None else path.resolve().parent
    stored: dict[str, np.ndarray[Any, Any]] = {}
    detached, external = set[str](), set[str]()
    for place, (name, tensor) in enumerate(stored_tensors(proto.graph)):  # initializers come first, as in `payload`
        data = payload.pop(place, None)
        array = read_tensor(name, tensor, folder, data)
        if array is not None:
            stored[name] = array
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                size += array.nbytes
                external.add(name)
        if array is not None and is_large(tensor, array):
            detach_payload(tensor)
            detached.add(name)
        elif data is not None:
            tensor.raw_data = data.tobytes()
    # The emptied messages still hold their memory; a copy does not.
    slim = onnx.ModelProto()
    slim.CopyFrom(proto)
    del proto

    def assemble(inputs: Mapping[str, Shape]) -> Model:
        model = assemble_model(slim, stored, frozenset(detached), inputs, path, find_sha256, size)
        return dataclasses.replace(model, external=frozenset(external), is_inlined=is_inlined)

    given = input_shapes or {}
    guesses = guess_inputs(slim, given)
    for inputs in guesses:
        model = assemble(inputs)
        if is_followed(model):
            elsewhere = next(guesses, {})
            guessed = frozenset(name for name, _ in open_pictures(slim.graph) if name not in given)
            return dataclasses.replace(model, guessed=guessed, elsewhere=MappingProxyType(elsewhere))
    try:
        return assemble(resolve_inputs(slim.graph, given))
    except ModelError:
        check_outside(slim.graph)  # who is asked for sizes should know if they are of no use
        raise


def assemble_model(
    proto: onnx.ModelProto,
    stored: Mapping[str, np.ndarray[Any, Any]],
    detached: frozenset[str],
    inputs: Mapping[str, Shape],
    source: Path | None,
    find_sha256: Callable[[], str],
    size_bytes: int,
    expected: Mapping[str, Shape] = MappingProxyType({}),
) -> Model:
    """Make a model from its parts: sort the nodes, infer the shapes, fold the constants.

    Args:
        proto: Protobuf without the payload of `detached`; the model keeps it.
        stored: Content of all stored tensors, by name.
        detached: Those whose payload is not in `proto`.
        inputs: Shape of every input that is fed.
        source: File it comes from.
        find_sha256: Gives the hash of that file.
        size_bytes: Its size.
        expected: Shapes of values that inference may lose (what is taken from a sequence of unequal parts, say).

    Returns:
        The model.

    Raises:
        ModelError: The graph is damaged.
    """
    check_names(proto.graph)
    nodes = sort_nodes(make_nodes(proto))
    inferred, dtypes = infer_shapes(proto, inputs)
    shapes = {**expected, **inferred}
    for name, array in stored.items():
        shapes[name], dtypes[name] = array.shape, array.dtype
    for sparse in proto.graph.sparse_initializer:  # not a constant to be sliced, but its readers have shapes
        shapes[sparse.values.name] = tuple(sparse.dims)
        dtypes[sparse.values.name] = np.dtype(helper.tensor_dtype_to_np_dtype(sparse.values.data_type))

    sequences: dict[str, onnx.TypeProto] = {}

    def infer(node: Node, known: Mapping[str, np.ndarray[Any, Any]]) -> None:
        message = proto.graph.node[node.index]
        found = infer_node(message, proto.opset_import, proto.ir_version, shapes, dtypes, known, sequences)
        for name, (shape, dtype) in found.items():
            if shape is not None:
                shapes[name] = shape
            if dtype is not None:
                dtypes[name] = dtype

    def compute(node: Node, known: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        try:
            evaluate = fold_with_reference(proto.graph.node[node.index], proto.opset_import)
            outputs = [] if evaluate is None else evaluate({name: known[name] for name in node.inputs if name})
        except Exception:  # the reference implementation raises many kinds; then the runtime computes it
            outputs = []
        return dict(zip((name for name in node.outputs if name), outputs, strict=False))

    constants, shape_values = fold_constants(nodes, stored, shapes, dtypes, infer, compute)
    check_scalars(nodes, shapes)
    return Model(
        proto=proto,
        nodes=nodes,
        constants=MappingProxyType(constants),
        shape_values=MappingProxyType(shape_values),
        detached=detached,
        inputs=MappingProxyType(dict(inputs)),
        outputs=tuple(output.name for output in proto.graph.output),
        shapes=MappingProxyType(shapes),
        dtypes=MappingProxyType(dtypes),
        source=source,
        find_sha256=find_sha256,
        size_bytes=size_bytes,
    )


def _read(
    source: str | os.PathLike[str] | bytes | onnx.ModelProto, path: Path | None
) -> tuple[onnx.ModelProto, dict[int, np.ndarray[Any, Any]], Callable[[], str], int]:
    """Read the protobuf; give it with the payloads taken out of it, the hash and the size of its bytes."""
    where = repr(str(path)) if path else "the given bytes"
    with _open(source) as file:
        try:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            _check_kind(file, size, where)
            proto, payload, find_sha256 = read_model(file, size)
        except DecodeError as error:
            if is_too_deep(error):
                raise ModelError(f"{where} cannot be read: {TOO_DEEP}") from None
            raise ModelError(f"{where} is not an ONNX model, or is truncated: it cannot be decoded") from None
        except OSError as error:
            raise ModelError(f"{where} cannot be read: {error.strerror}") from error
    if not proto.ir_version or not proto.graph.node or not proto.opset_import:
        raise ModelError(f"{where} is not a complete ONNX model: it has no nodes, no opset or no IR version")
    if not proto.graph.output:
        raise ModelError(f"{where} has no graph outputs: the file is damaged")
    return proto, payload, find_sha256, size


def _open(source: str | os.PathLike[str] | bytes | onnx.ModelProto) -> IO[bytes]:
    if isinstance(source, onnx.ModelProto):
        return io.BytesIO(source.SerializeToString())
    if isinstance(source, bytes):
        return io.BytesIO(source)
    path = Path(source)
    if path.is_dir():
        raise ModelError(f"{str(path)!r} is a directory: give the .onnx file in it")
    if not path.exists():
        near = sorted(p.name for p in path.parent.glob("*.onnx"))[:3] if path.parent.is_dir() else []
        hint = f" (there: {', '.join(near)})" if near else ""
        raise ModelError(f"there is no file {str(path)!r}{hint}")
    if not path.is_file():
        raise ModelError(f"{str(path)!r} is not a regular file")
    try:
        return path.open("rb")
    except OSError as error:
        raise ModelError(f"{str(path)!r} cannot be read: {error.strerror}") from error


def _check_kind(file: IO[bytes], size: int, where: str) -> None:
    """Check that a file is not of another well-known kind; leaves it at its start."""
    if not size:
        raise ModelError(f"{where} is empty: give an ONNX model")
    head = file.read(8)
    for signature, kind in _SIGNATURES.items():
        if head.startswith(signature) or (signature == b"TFL3" and head[4:8] == signature):
            raise ModelError(f"{where} is {kind}, not an ONNX model")
    if _is_json(head, file):
        raise ModelError(
            f"{where} is JSON text, not an ONNX model (is it a plan? `srr-onnx apply` takes it with --plan)"
        )
    file.seek(0)


def _is_json(head: bytes, file: IO[bytes]) -> bool:
    if head[:1] not in (b"{", b"["):
        return False
    try:
        json.loads(head + file.read())
    except RecursionError:  # nested deeper than any plan, but text all the same
        return True
    except ValueError:
        return False
    return True
