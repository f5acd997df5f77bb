"""safetensors bytes, written so that the same tensors are the same bytes, and read strictly."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from edgevit.errors import InputError
from edgevit.schema import parse_json

_DTYPES = {
    "bool": "BOOL", "int8": "I8", "uint8": "U8", "int32": "I32", "int64": "I64", "float16": "F16",
    "float32": "F32", "float64": "F64",
}  # fmt: skip
_ENTRY_KEYS = {"dtype", "shape", "data_offsets"}


def tensor_bytes(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """The safetensors file of these arrays, in this order."""
    buffer = io.BytesIO()
    write_tensors(buffer, tensors, metadata)
    return buffer.getvalue()


def write_tensors(
    file: BinaryIO, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Write what `tensor_bytes` gives, one array after the other.

    The safetensors package is not used: it orders metadata by chance, and makes hidden files of
    its own that a kill leaves behind.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    offset = 0
    for name, values in tensors.items():
        end = offset + values.nbytes
        kind, shape = _DTYPES[values.dtype.name], list(values.shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    file.write(len(head).to_bytes(8, "little") + head)
    for values in tensors.values():
        file.write(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())


def read_tensors(data: bytes, what: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata of a safetensors file; InputError, naming `what`, for any other file."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(data)  # checks every size and offset of the header
        header = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")], what)
        metadata = header.pop("__metadata__", {})
        for name, entry in header.items():
            if entry.keys() != _ENTRY_KEYS:
                raise ValueError(f"{name} is described by {sorted(entry)}")
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{what} is damaged: {error}") from error
    return tensors, metadata
