"""Write `data/tiny.tflite`, `outputs.tflite` and `npu.tflite`, which the LiteRT tests run.

    python tests/cpp/make_tiny_tflite.py

Seven ops over an 8x8 image: CONV_2D, GELU, CONV_2D, ADD, MEAN, CONV_2D, RESHAPE. The GELU is there
because XNNPACK has no int8 GELU: the graph must come out as two delegated partitions and one op
left to the built-in kernels, which is what the test of the op counts asserts. outputs.tflite is the
same net with three more outputs, of rank 1, 4 and 5. Weights are drawn from a fixed seed, so the
files are the same each time; they are committed (3.3 and 4.0 KB), and this script only says how
they came to be.

npu.tflite has the edges of tiny.tflite and one DISPATCH_OP between them, as LiteRT's compilers
leave it: a stand-in, for its program is 64 bytes that mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers

PROGRAM_OFFSET, PROGRAM = 1024, bytes(range(64))
SIDE, CHANNELS, CLASSES = 8, 8, 4


class TinyModel:
    """Collects tensors, buffers and ops of one subgraph of the TFLite schema."""

    def __init__(self) -> None:
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.description = "edgevit test model"
        self.model.buffers = [schema.BufferT()]
        self.model.operatorCodes = []
        self.graph = schema.SubGraphT()
        self.graph.name = "main"
        self.graph.tensors, self.graph.operators = [], []
        self.model.subgraphs = [self.graph]

    def tensor(
        self,
        name: str,
        shape: list[int],
        kind: int,
        scale: list[float] | None = None,
        zero_point: int = 0,
        data: np.ndarray | None = None,
    ) -> int:
        """Add a tensor and return its index; `scale` per tensor (one) or per output channel."""
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name, shape, kind
        if scale is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = scale
            tensor.quantization.zeroPoint = [zero_point] * len(scale)
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            tensor.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def op(
        self,
        code: int,
        inputs: list[int],
        output: int,
        kind: int = 0,
        options: object | None = None,
        version: int = 1,
    ) -> int:
        """Add an op and return its output tensor."""
        operator_code = schema.OperatorCodeT()
        operator_code.builtinCode, operator_code.version = code, version
        operator_code.deprecatedBuiltinCode = min(code, 127)
        self.model.operatorCodes.append(operator_code)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs, operator.outputs = inputs, [output]
        operator.builtinOptionsType, operator.builtinOptions = kind, options
        self.graph.operators.append(operator)
        return output

    def conv(
        self,
        rng: np.random.Generator,
        name: str,
        source: int,
        shape: list[int],
        kernel: int,
        stride: int,
        scales: tuple[float, float],
    ) -> int:
        """Add a same-padded convolution with int8 weights per channel and an int32 bias."""
        out_channels, in_channels = shape[-1], self.graph.tensors[source].shape[-1]
        weight_scale = (rng.uniform(0.5, 1.5, out_channels) / 400).astype(np.float32)
        weights = rng.integers(-127, 128, (out_channels, kernel, kernel, in_channels), np.int8)
        bias = rng.integers(-500, 500, out_channels, np.int32)
        weight = self.tensor(
            name + ".weight",
            list(weights.shape),
            schema.TensorType.INT8,
            weight_scale.tolist(),
            data=weights,
        )
        bias_scale = (weight_scale * np.float32(scales[0])).tolist()
        bias_index = self.tensor(
            name + ".bias", [out_channels], schema.TensorType.INT32, bias_scale, data=bias
        )
        options = schema.Conv2DOptionsT()
        options.padding = schema.Padding.SAME
        options.strideH = options.strideW = stride
        output = self.tensor(name, shape, schema.TensorType.INT8, [scales[1]])
        return self.op(
            schema.BuiltinOperator.CONV_2D,
            [source, weight, bias_index],
            output,
            schema.BuiltinOptions.Conv2DOptions,
            options,
            version=3,
        )

    def pack(self) -> bytes:
        """Return the flatbuffer with one signature, `serving_default`."""
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = "serving_default", 0
        signature.inputs = [self._named(index) for index in self.graph.inputs]
        signature.outputs = [self._named(index) for index in self.graph.outputs]
        self.model.signatureDefs = [signature]
        builder = flatbuffers.Builder(4096)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _named(self, index: int) -> schema.TensorMapT:
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = self.graph.tensors[index].name, index
        return entry


def build(several_outputs: bool = False) -> bytes:
    """Return the model's bytes.

    With `several_outputs` the model answers, in this order, "best" int8 [1], "map" float32
    [1, 4, 4, 8], "logits" int8 [1, 4] and "grid" int8 [1, 2, 2, 4, 8]: the mean of the logits, and
    twice what the mean is taken of.
    """
    rng = np.random.default_rng(7)
    tiny, int8 = TinyModel(), schema.TensorType.INT8
    half = SIDE // 2
    image = tiny.tensor("input", [1, SIDE, SIDE, 3], int8, [0.0078125])
    stem = tiny.conv(rng, "stem", image, [1, half, half, CHANNELS], 3, 2, (0.0078125, 0.03125))
    gelu = tiny.op(
        schema.BuiltinOperator.GELU,
        [stem],
        tiny.tensor("gelu", [1, half, half, CHANNELS], int8, [0.03125]),
        schema.BuiltinOptions.GeluOptions,
        schema.GeluOptionsT(),
        version=2,
    )
    mix = tiny.conv(rng, "mix", gelu, [1, half, half, CHANNELS], 1, 1, (0.03125, 0.0625))
    add = tiny.op(
        schema.BuiltinOperator.ADD,
        [mix, gelu],
        tiny.tensor("add", [1, half, half, CHANNELS], int8, [0.0625]),
        schema.BuiltinOptions.AddOptions,
        schema.AddOptionsT(),
        version=2,
    )
    axes = tiny.tensor("axes", [2], schema.TensorType.INT32, data=np.array([1, 2], np.int32))
    keep = schema.ReducerOptionsT()
    keep.keepDims = True
    mean = tiny.op(
        schema.BuiltinOperator.MEAN,
        [add, axes],
        tiny.tensor("mean", [1, 1, 1, CHANNELS], int8, [0.03125]),
        schema.BuiltinOptions.ReducerOptions,
        keep,
        version=2,
    )
    head = tiny.conv(rng, "head", mean, [1, 1, 1, CLASSES], 1, 1, (0.03125, 0.00390625))
    sides = np.array([1, CLASSES], np.int32)
    shape = tiny.tensor("shape", [2], schema.TensorType.INT32, data=sides)
    reshape = schema.ReshapeOptionsT()
    reshape.newShape = [1, CLASSES]
    logits = tiny.op(
        schema.BuiltinOperator.RESHAPE,
        [head, shape],
        tiny.tensor("logits", [1, CLASSES], int8, [0.00390625]),
        schema.BuiltinOptions.ReshapeOptions,
        reshape,
    )
    tiny.graph.inputs, tiny.graph.outputs = [image], [logits]
    if several_outputs:
        add_outputs(tiny, logits, add)
    return tiny.pack()


@dataclass(frozen=True)
class Edge:
    """An input or output: int8 with one scale, or another type without."""

    name: str
    shape: tuple[int, ...]
    scale: float | None
    zero_point: int = 0
    kind: int = schema.TensorType.INT8


def build_for_npu(image: Edge, logits: Edge) -> bytes:
    """A model whose one operator is a program of an NPU, which lies behind the tables."""
    tiny = TinyModel()
    indices = [
        tiny.tensor(
            edge.name,
            list(edge.shape),
            edge.kind,
            None if edge.scale is None else [edge.scale],
            edge.zero_point,
        )
        for edge in (image, logits)
    ]
    tiny.op(schema.BuiltinOperator.CUSTOM, indices[:1], indices[1])
    tiny.model.operatorCodes[0].customCode = "DISPATCH_OP"
    place = flexbuffers.Builder()
    with place.Map():
        place.UInt("bytecode_offset", PROGRAM_OFFSET)
        place.UInt("bytecode_size", len(PROGRAM))
        place.String("name", "program")
    tiny.graph.operators[0].customOptions = np.frombuffer(place.Finish(), np.uint8)
    tiny.graph.inputs, tiny.graph.outputs = indices[:1], indices[1:]
    tables = tiny.pack()
    assert len(tables) <= PROGRAM_OFFSET
    return tables.ljust(PROGRAM_OFFSET, b"\0") + PROGRAM


def add_outputs(tiny: TinyModel, logits: int, features: int) -> None:
    """Give the model three outputs beside the logits."""
    int8, half = schema.TensorType.INT8, SIDE // 2
    axis = tiny.tensor("axis", [1], schema.TensorType.INT32, data=np.array([1], np.int32))
    best = tiny.op(
        schema.BuiltinOperator.MEAN,
        [logits, axis],
        tiny.tensor("best", [1], int8, [0.00390625]),
        schema.BuiltinOptions.ReducerOptions,
        schema.ReducerOptionsT(),
        version=2,
    )
    reals = tiny.op(
        schema.BuiltinOperator.DEQUANTIZE,
        [features],
        tiny.tensor("map", [1, half, half, CHANNELS], schema.TensorType.FLOAT32),
        schema.BuiltinOptions.DequantizeOptions,
        schema.DequantizeOptionsT(),
        version=2,
    )
    sides = [1, half // 2, 2, half, CHANNELS]
    shape = tiny.tensor(
        "grid.shape", [len(sides)], schema.TensorType.INT32, data=np.array(sides, np.int32)
    )
    reshape = schema.ReshapeOptionsT()
    reshape.newShape = sides
    grid = tiny.op(
        schema.BuiltinOperator.RESHAPE,
        [features, shape],
        tiny.tensor("grid", sides, int8, [0.0625]),
        schema.BuiltinOptions.ReshapeOptions,
        reshape,
    )
    tiny.graph.outputs = [best, reals, logits, grid]


if __name__ == "__main__":
    folder = Path(__file__).parent / "data"
    folder.mkdir(exist_ok=True)
    image = Edge("image", (1, SIDE, SIDE, 3), 0.0078125)
    npu = build_for_npu(image, Edge("logits", (1, CLASSES), 0.00390625))
    files = {"tiny": build(False), "outputs": build(True), "npu": npu}
    for name, data in files.items():
        path = folder / f"{name}.tflite"
        path.write_bytes(data)
        print(f"{path.name}: {path.stat().st_size} bytes")
