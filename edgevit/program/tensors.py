"""safetensors bytes, written so that the same tensors are the same bytes, and read strictly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgevit.errors import InputError
from edgevit.schema import parse_json

_DTYPES = {"int8": "I8", "uint8": "U8", "int32": "I32", "float16": "F16", "float32": "F32"}
_ENTRY_KEYS = {"dtype", "shape", "data_offsets"}


def tensor_bytes(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """The safetensors file of these arrays, in this order.

    The safetensors package is not used: it orders metadata by chance.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    body: list[bytes] = []
    offset = 0
    for name, values in tensors.items():
        data = values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
        end = offset + len(data)
        kind, shape = _DTYPES[values.dtype.name], list(values.shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [offset, end]}
        body.append(data)
        offset = end
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head + b"".join(body)


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
