"""Reads an ONNX model that may come from anywhere: bounded, whole in one file, and checked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgevit.errors import InputError, ToolMissing

if TYPE_CHECKING:
    import onnx

MAX_BYTES = 2 * 2**30
MAX_NODES = 1_000_000


def onnx_module() -> Any:
    """The onnx package with its submodules; ToolMissing without it."""
    try:
        import onnx
        import onnx.checker
        import onnx.numpy_helper
        import onnx.shape_inference
    except ImportError as error:
        raise ToolMissing(f"linting needs onnx ({error}): pip install onnx") from error
    return onnx


def read_model(model: onnx.ModelProto | bytes | str | os.PathLike[str]) -> onnx.ModelProto:
    """A model that onnx.checker accepts, with the types and shapes that ONNX infers written in.

    Raises InputError when it cannot be read, is larger than MAX_BYTES or MAX_NODES, keeps data in
    other files (which are never opened), or is no valid ONNX.
    """
    onnx = onnx_module()
    from google.protobuf.message import DecodeError, EncodeError

    name = str(model) if isinstance(model, str | os.PathLike) else "the model"
    if isinstance(model, bytes):
        data = model
    elif isinstance(model, str | os.PathLike):
        data = _read_file(Path(model))
    else:
        try:
            data = model.SerializeToString()
        except (EncodeError, ValueError) as error:
            raise InputError(f"{name} cannot be serialized: {error}") from error
    if len(data) > MAX_BYTES:
        raise InputError(f"{name} is larger than {MAX_BYTES} bytes, too large for an ONNX file")
    try:
        parsed = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise InputError(f"{name} is not an ONNX file, or a truncated one") from error
    _check_parts(parsed, name)
    try:
        onnx.checker.check_model(data)
        return onnx.shape_inference.infer_shapes(data)
    # onnx's C++ side raises its own classes beside RuntimeError, ValueError and UnicodeDecodeError.
    except Exception as error:
        raise InputError(f"{name} is not valid ONNX: {printable(str(error), 400)}") from error


def printable(text: str, most: int = 200) -> str:
    """Text out of a file, on one line, without control characters, cut after `most`."""
    text = " ".join(text.split())
    text = "".join(char if char.isprintable() else "?" for char in text)
    return text if len(text) <= most else text[:most] + "…"


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs among a node's attributes."""
    found = []
    for attribute in node.attribute:
        if attribute.HasField("g"):
            found.append(attribute.g)
        found.extend(attribute.graphs)
    return found


def _read_file(path: Path) -> bytes:
    if not path.is_file():
        raise InputError(f"{path} is no file: give an ONNX file or an artifact folder")
    try:
        with path.open("rb") as file:
            # Before anything is read: a sparse file of terabytes costs nothing to make.
            if os.fstat(file.fileno()).st_size > MAX_BYTES:
                raise InputError(
                    f"{path} is larger than {MAX_BYTES} bytes, too large for an ONNX file"
                )
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _check_parts(model: onnx.ModelProto, name: str) -> None:
    onnx = onnx_module()
    nodes = 0
    for part in _parts(model):
        nodes += len(part.node)
        if nodes > MAX_NODES:
            raise InputError(f"{name} has more than {MAX_NODES} nodes, too many to lint")
        for tensor in _tensors(part):
            if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
                raise InputError(
                    f"{name} keeps the data of {printable(tensor.name) or 'a tensor'!r} in another "
                    "file, which is not read: save it with its data inside (onnx.save_model with "
                    "save_as_external_data=False)"
                )


def _parts(model: onnx.ModelProto) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    """The model's graph, its functions, and every subgraph of either."""
    waiting: list[onnx.GraphProto | onnx.FunctionProto] = [model.graph, *model.functions]
    while waiting:
        part = waiting.pop()
        yield part
        for node in part.node:
            waiting.extend(subgraphs(node))


def _tensors(part: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.TensorProto]:
    from onnx import FunctionProto

    sparse = []
    # A function has nodes alone.
    if not isinstance(part, FunctionProto):
        yield from part.initializer
        sparse.extend(part.sparse_initializer)
    for node in part.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("sparse_tensor"):
                sparse.append(attribute.sparse_tensor)
            sparse.extend(attribute.sparse_tensors)
    for tensor in sparse:
        yield tensor.values
        yield tensor.indices
