"""A .tflite file as its tensors and operators, by the schema's own reader. No knowledge of any net.

The labels are a zip behind the model (`labels.txt`, one a line).
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgevit.errors import EdgevitError
from edgevit.targets.tflite.schema import schema

_IDENTIFIER = b"TFL3"
_LABELS_FILE = "labels.txt"
_MAX_LABELS_BYTES = 2**26
_ZIP_ERRORS = (
    zipfile.BadZipFile, zlib.error, EOFError, OSError, KeyError, NotImplementedError, RuntimeError,
)  # fmt: skip
_DTYPES = {
    name: np.dtype(code)
    for name, code in (("INT8", "i1"), ("UINT8", "u1"), ("INT32", "<i4"), ("FLOAT32", "<f4"))
}


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of the file.

    dtype       the schema's name: "INT8", "UINT8", "INT32" or "FLOAT32" of those that edgevit reads
    scale       float32, empty where there is none; zero_point int64; axis: which one they lie on
    values      of a constant, else None
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: np.ndarray
    zero_point: np.ndarray
    axis: int
    values: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Operator:
    """An operator: its name, what it reads and makes, its options object.

    A custom one goes by its own code, such as "DISPATCH_OP".
    """

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    options: Any

    @property
    def output(self) -> Tensor:
        """The one tensor that it makes, as every built-in operator of ours does."""
        if len(self.outputs) != 1:
            raise EdgevitError(f"scale audit: a {self.name} makes {len(self.outputs)} tensors")
        return self.outputs[0]


@dataclass(frozen=True, eq=False)
class File:
    """A subgraph of a file, operators in execution order, and the labels if it has any.

    output_names    of the outputs, as the signature calls them; their tensors' without one
    entries         the model's metadata: name -> contents
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    output_names: tuple[str, ...]
    operators: tuple[Operator, ...]
    labels: tuple[str, ...] | None
    entries: Mapping[str, bytes]


def open_file(data: bytes, *, first_only: bool = False) -> File:
    """The contents of a .tflite file. Raises EdgevitError for one that is not whole.

    first_only   of several subgraphs the first is read; else there must be one
    """
    try:
        return _open(data, first_only)
    except (
        struct.error, LookupError, ValueError, TypeError, AttributeError, OverflowError, MemoryError
    ) as error:  # fmt: skip
        raise EdgevitError(f"scale audit: the file is not a readable model: {error!r}") from error


def _open(data: bytes, first_only: bool) -> File:
    s = schema()
    if data[4:8] != _IDENTIFIER:
        raise ValueError(f"no {_IDENTIFIER.decode()} identifier")
    model = s.ModelT.InitFromObj(s.Model.GetRootAs(data, 0))
    if len(model.subgraphs) != 1 and not (first_only and model.subgraphs):
        raise ValueError(f"{len(model.subgraphs)} subgraphs")
    graph = model.subgraphs[0]
    types = _names(s.TensorType)
    tensors = [_tensor(tensor, model.buffers, types) for tensor in graph.tensors]
    for name, count in Counter(tensor.name for tensor in tensors).items():
        if count > 1:
            raise ValueError(f"{count} tensors are called {name}")

    def at(indices: Any) -> tuple[Tensor, ...]:
        if any(index < 0 for index in indices):  # -1: an input that is left out
            raise ValueError("an operator lacks an input")
        return tuple(tensors[index] for index in indices)

    codes, operators = _names(s.BuiltinOperator), []
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        name = codes[max(code.builtinCode, code.deprecatedBuiltinCode)]
        if name == "CUSTOM":
            name = bytes(code.customCode).decode()
        ends = at(operator.inputs), at(operator.outputs)
        operators.append(Operator(name, *ends, operator.builtinOptions))
    called = _signature(model.signatureDefs or [])
    names = [called[i] if i in called else tensors[i].name for i in graph.outputs]
    return File(
        inputs=at(graph.inputs),
        outputs=at(graph.outputs),
        output_names=tuple(names),
        operators=tuple(operators),
        labels=_labels(data),
        entries={
            entry.name.decode(): _contents(model.buffers[entry.buffer])
            for entry in model.metadata or []
        },
    )


def _contents(buffer: Any) -> bytes:
    return b"" if buffer.data is None else np.asarray(buffer.data, np.uint8).tobytes()


def _signature(definitions: list[Any]) -> dict[int, str]:
    """Index -> name of the outputs, in the one signature that a file may have."""
    if len(definitions) > 1:
        raise ValueError(f"{len(definitions)} signatures")
    return {
        output.tensorIndex: output.name.decode()
        for definition in definitions
        for output in definition.outputs
    }


def _names(enumeration: Any) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


def _tensor(tensor: Any, buffers: list[Any], types: dict[int, str]) -> Tensor:
    shape = tuple(int(size) for size in tensor.shape) if tensor.shape is not None else ()
    dtype, quantization = types[tensor.type], tensor.quantization
    scale, zero_point, axis = np.zeros(0, np.float32), np.zeros(0, np.int64), 0
    if quantization is not None and quantization.scale is not None:
        scale = np.asarray(quantization.scale, np.float32)
        zero_point = np.asarray(quantization.zeroPoint, np.int64)
        axis = int(quantization.quantizedDimension)
    data, values = _contents(buffers[tensor.buffer]), None
    if data:
        values = np.frombuffer(data, _DTYPES[dtype]).reshape(shape)
    return Tensor(tensor.name.decode(), shape, dtype, scale, zero_point, axis, values)


def _labels(data: bytes) -> tuple[str, ...] | None:
    buffer = io.BytesIO(data)
    if not zipfile.is_zipfile(buffer):
        return None
    try:
        with zipfile.ZipFile(buffer) as archive, archive.open(_LABELS_FILE) as file:
            text = file.read(_MAX_LABELS_BYTES + 1)
    except _ZIP_ERRORS as error:
        raise ValueError(f"its labels cannot be read: {error}") from error
    if len(text) > _MAX_LABELS_BYTES:
        raise ValueError(f"its labels are over {_MAX_LABELS_BYTES} bytes")
    return tuple(text.decode().split("\n")[:-1])
