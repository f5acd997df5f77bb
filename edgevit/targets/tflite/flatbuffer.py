"""Writing a TFLite flatbuffer: tensors, constants and operators in, the file's bytes out.

The schema's classes are ai_edge_litert's; what they leave open (aligned buffers, one entry an
operator code, a signature) is done here. No knowledge of any model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgevit.targets.manifest import Affine
from edgevit.targets.tflite.schema import schema

BUFFER_ALIGNMENT_BYTES = 16
"""The schema's force_align of Buffer.data, which the generated Python code does not honour."""

SIGNATURE_KEY = "serving_default"


def _aligned_buffer(schema: Any) -> type:
    """A BufferT whose data starts at a multiple of 16 bytes in the file."""

    class AlignedBuffer(schema.BufferT):
        def Pack(self, builder: Any) -> int:
            size = len(self.data)
            builder.StartVector(1, size, BUFFER_ALIGNMENT_BYTES)
            builder.head -= size
            builder.Bytes[builder.head : builder.head + size] = self.data
            vector = builder.EndVector()
            schema.BufferStart(builder)
            schema.BufferAddData(builder, vector)
            return schema.BufferEnd(builder)

    return AlignedBuffer


class ModelWriter:
    """One subgraph under construction. Tensors are numbered in the order they are added."""

    def __init__(self, description: str) -> None:
        self.schema = schema()
        self.model = self.schema.ModelT(version=3, description=description)
        self._buffer = _aligned_buffer(self.schema)
        # Buffer 0 is empty by convention and means "no data".
        self.model.buffers = [self.schema.BufferT()]
        self.model.operatorCodes, self.model.metadata = [], []
        self.graph = self.schema.SubGraphT(name="main", tensors=[], operators=[])
        self.model.subgraphs = [self.graph]
        self._codes: dict[tuple[int, int], int] = {}
        self._shared: dict[tuple[str, bytes], int] = {}

    def activation(
        self, name: str, shape: tuple[int, ...], dtype: str, quantizer: Affine | None
    ) -> int:
        """A tensor computed at run time; dtype "int8", "uint8" or "float32"."""
        tensor = self._tensor(name, shape, dtype)
        if quantizer is not None:
            tensor.quantization = self._per_tensor(quantizer)
        return len(self.graph.tensors) - 1

    def constant(
        self, name: str, values: np.ndarray, scale: np.ndarray | None = None, axis: int = 0
    ) -> int:
        """A tensor with data; with `scale`, symmetric per slice of `axis`."""
        tensor = self._tensor(name, values.shape, values.dtype.name)
        self.model.buffers.append(self._buffer(data=values.tobytes()))
        tensor.buffer = len(self.model.buffers) - 1
        if scale is not None:
            zero_points = np.zeros(len(scale), np.int64)
            tensor.quantization = self._quantization(scale, zero_points, axis)
        return len(self.graph.tensors) - 1

    def shared_constant(self, name: str, values: np.ndarray) -> int:
        """A small integer constant; the same values are stored once, under the first name."""
        key = (values.dtype.name + str(values.shape), values.tobytes())
        if key not in self._shared:
            self._shared[key] = self.constant(name, values)
        return self._shared[key]

    def quantized_constant(self, name: str, values: np.ndarray, quantizer: Affine) -> int:
        """An int8 tensor with data that has an activation's quantizer."""
        index = self.constant(name, values)
        self.graph.tensors[index].quantization = self._per_tensor(quantizer)
        return index

    def operator(
        self, name: str, version: int, inputs: list[int], output: int, options: Any = None
    ) -> None:
        """Appends a built-in operator; `options` is the schema's object for it."""
        code = getattr(self.schema.BuiltinOperator, name)
        if (code, version) not in self._codes:
            self._codes[code, version] = len(self.model.operatorCodes)
            # Codes over 127 do not fit the old field; readers take the larger of the two.
            self.model.operatorCodes.append(
                self.schema.OperatorCodeT(
                    deprecatedBuiltinCode=min(code, 127), version=version, builtinCode=code
                )
            )
        operator = self.schema.OperatorT(
            opcodeIndex=self._codes[code, version], inputs=inputs, outputs=[output]
        )
        if options is not None:
            operator.builtinOptions = options
            kind = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, kind)
        self.graph.operators.append(operator)

    def versions(self) -> list[tuple[str, int]]:
        """Name and version of every kind of operator that was added."""
        names = {v: k for k, v in vars(self.schema.BuiltinOperator).items() if isinstance(v, int)}
        return [(names[code], version) for code, version in self._codes]

    def finish(
        self,
        input_: tuple[str, int],
        outputs: Sequence[tuple[str, int]],
        metadata: Mapping[str, bytes],
    ) -> bytes:
        """The flatbuffer, with a signature that names the input and the output tensors."""
        import flatbuffers

        self.graph.inputs, self.graph.outputs = [input_[1]], [index for _, index in outputs]
        self.model.signatureDefs = [
            self.schema.SignatureDefT(
                inputs=[self.schema.TensorMapT(*input_)],
                outputs=[self.schema.TensorMapT(*output) for output in outputs],
                signatureKey=SIGNATURE_KEY,
            )
        ]
        for name, data in metadata.items():
            self.model.buffers.append(self._buffer(data=data))
            buffer = len(self.model.buffers) - 1
            self.model.metadata.append(self.schema.MetadataT(name=name, buffer=buffer))
        total = sum(len(buffer.data) for buffer in self.model.buffers if buffer.data is not None)
        builder = flatbuffers.Builder(total + 2**20)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _tensor(self, name: str, shape: tuple[int, ...], dtype: str) -> Any:
        kind = getattr(self.schema.TensorType, dtype.upper())
        tensor = self.schema.TensorT(shape=[int(size) for size in shape], type=kind, name=name)
        self.graph.tensors.append(tensor)
        return tensor

    def _per_tensor(self, quantizer: Affine) -> Any:
        scale = np.array([quantizer.scale], np.float32)
        return self._quantization(scale, np.array([quantizer.zero_point], np.int64), 0)

    def _quantization(self, scale: np.ndarray, zero_point: np.ndarray, axis: int) -> Any:
        return self.schema.QuantizationParametersT(
            scale=scale.astype(np.float32),
            zeroPoint=zero_point.astype(np.int64),
            quantizedDimension=axis,
        )
