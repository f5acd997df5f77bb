"""Graph to TFLite operators: NHWC, batch 1, one built-in operator a node.

    Given   conv2d "a" (NCHW, stride 2, padding 1) with int8 weights OIHW
    Result  PAD "a.pad", CONV_2D "a" (VALID), weights OHWI "a.weight", int32 "a.bias"

An activation has its canonical name, and a weight its module's, so that the audit can find them
in the file. TFLite's own 8-bit rules decide the rest: biases int32 at input scale * weight scale,
weights symmetric per output channel, LOGISTIC at 1/256 and -128.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgevit.errors import InputError
from edgevit.graph import Graph
from edgevit.ops import INT8_MIN, Linear, Node, Quantizer
from edgevit.targets.tflite.flatbuffer import ModelWriter
from edgevit.targets.tflite.options import IO_TYPES
from edgevit.targets.tflite.pixels import PixelInput

OUTPUT_NAME = "logits"

INT8_VERSIONS = {
    "CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "ADD": 2, "MUL": 2, "GELU": 2, "HARD_SWISH": 1,
    "RELU": 2, "LOGISTIC": 2, "MEAN": 2, "PAD": 2, "RESHAPE": 1, "QUANTIZE": 1, "DEQUANTIZE": 2,
}  # fmt: skip
"""Operator versions that introduced int8 (per-channel int8 for convolutions); floats are all 1."""

_BASE_RUNTIME = "1.14.0"
_RUNTIMES = {"gelu": "2.9.0", "hard_swish": "1.15.0"}  # newest first


@dataclass(frozen=True)
class Lowered:
    """A model ready to be finished: the writer, its input and output tensor (name, index)."""

    writer: ModelWriter
    input: tuple[str, int]
    output: tuple[str, int]


def nhwc(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(1, C, H, W) to (1, H, W, C); (1, C) to (1, 1, 1, C), as the head's convolution has it."""
    if len(shape) == 2:
        return shape[0], 1, 1, shape[1]
    return shape[0], shape[2], shape[3], shape[1]


def min_runtime_version(graph: Graph) -> str:
    """The first TFLite runtime that has every operator of the graph's model."""
    ops = {node.kind for node in graph.nodes}
    return next((since for op, since in _RUNTIMES.items() if op in ops), _BASE_RUNTIME)


def lower(graph: Graph, io: str, pixels: PixelInput | None = None) -> Lowered:
    """Every node of the graph as TFLite operators.

    graph   quantized, or float for the float32 baseline (then `io` is "float32")
    io      element type of the model's input and output; inside, a quantized graph is all int8
    pixels  how raw pixels become the input tensor; needed for "uint8", see `pixels`
    Raises InputError naming the node or tensor: an operation TFLite lowering does not know, a
    tensor without a quantizer, a shape TFLite cannot express.
    """
    if io not in IO_TYPES:
        raise InputError(f"input and output type {io!r} is not one of {', '.join(IO_TYPES)}")
    return _Lowering(graph, io, pixels).run()


class _Lowering:
    def __init__(self, graph: Graph, io: str, pixels: PixelInput | None) -> None:
        self.graph, self.io, self.pixels = graph, io, pixels
        self.quantized = graph.quantized
        self.writer = ModelWriter("edgevit " + ("int8" if self.quantized else "float32"))
        self.schema = self.writer.schema
        self.tensors: dict[str, int] = {}
        self.emitters: dict[str, Callable[[Node], None]] = {
            "conv2d": self._convolution, "linear": self._convolution,
            "add": self._arithmetic, "mul": self._arithmetic, "mean": self._mean,
            "gelu": self._gelu, "hard_swish": self._unary, "relu": self._unary,
            "sigmoid": self._unary, "flatten": self._flatten,
        }  # fmt: skip

    def run(self) -> Lowered:
        source = self._input()
        for node in self.graph.nodes:
            emit = self.emitters.get(node.kind)
            if emit is None:
                raise InputError(f"{node.name}: the TFLite target does not know {node.kind!r}")
            emit(node)
        return Lowered(self.writer, source, self._output())

    # -- edges ----------------------------------------------------------------------------------

    def _input(self) -> tuple[str, int]:
        name = self.graph.input_name
        shape = nhwc(self.graph.input_shape)
        if not self.quantized or self.io == "int8":
            return name, self._activation(name, shape)
        if self.io == "float32":
            outer = self.writer.activation(f"{name}.float32", shape, "float32", None)
            inner = self._activation(name, shape)
            self._operator("QUANTIZE", [outer], inner, self.schema.QuantizeOptionsT())
            return name, outer
        return name, self._pixel_input(name, shape)

    def _pixel_input(self, name: str, shape: tuple[int, ...]) -> int:
        """Raw pixels: shifted to int8, then normalised by a 1x1 depthwise convolution."""
        if self.pixels is None:
            raise InputError("uint8 input needs the program's preprocessing")
        outer = self.writer.activation(f"{name}.uint8", shape, "uint8", PixelInput.UINT8)
        shifted = self.writer.activation(f"{name}.shifted", shape, "int8", PixelInput.INT8)
        self._operator("QUANTIZE", [outer], shifted, self.schema.QuantizeOptionsT())
        weight, scale = self.pixels.weight.reshape(1, 1, 1, -1), self.pixels.weight_scale
        inputs = [
            shifted,
            self.writer.constant(f"{name}.weight", weight, scale, axis=3),
            self.writer.constant(f"{name}.bias", self.pixels.bias, scale),
        ]
        options = self.schema.DepthwiseConv2DOptionsT(
            padding=self.schema.Padding.VALID, strideW=1, strideH=1, depthMultiplier=1
        )
        self._operator("DEPTHWISE_CONV_2D", inputs, self._activation(name, shape), options)
        return outer

    def _output(self) -> tuple[str, int]:
        last = self.graph.output_name
        shape = self.graph.shape(last)
        if len(shape) != 2:
            raise InputError(f"{last}: the output must be (1, classes), not {shape}")
        target = np.array(shape, np.int32)
        options = self.schema.ReshapeOptionsT(newShape=list(shape))
        inputs = [self.tensors[last], self.writer.shared_constant("logits.shape", target)]
        quantizer = self.graph.quantizer(last) if self.quantized else None
        kind = "int8" if self.quantized else "float32"
        inner = OUTPUT_NAME if kind == self.io else f"{OUTPUT_NAME}.int8"
        result = self.writer.activation(inner, shape, kind, quantizer)
        self._operator("RESHAPE", inputs, result, options)
        if kind == self.io:
            return OUTPUT_NAME, result
        if self.io == "float32":
            outer = self.writer.activation(OUTPUT_NAME, shape, "float32", None)
            self._operator("DEQUANTIZE", [result], outer, self.schema.DequantizeOptionsT())
            return OUTPUT_NAME, outer
        outer = self.writer.activation(OUTPUT_NAME, shape, "uint8", as_uint8(quantizer))
        self._operator("QUANTIZE", [result], outer, self.schema.QuantizeOptionsT())
        return OUTPUT_NAME, outer

    # -- operations -----------------------------------------------------------------------------

    def _convolution(self, node: Node) -> None:
        node = node.as_convolution() if isinstance(node, Linear) else node
        kernel = node.weight
        source, padding = self._padded(node, kernel.shape[2:])
        if node.depthwise:
            weight, axis, name = kernel.transpose(1, 2, 3, 0), 3, "DEPTHWISE_CONV_2D"
            options = self.schema.DepthwiseConv2DOptionsT(depthMultiplier=1)
        else:
            weight, axis, name = kernel.transpose(0, 2, 3, 1), 0, "CONV_2D"
            options = self.schema.Conv2DOptionsT()
        options.padding = padding
        options.strideH, options.strideW = node.stride
        if node.activation:
            options.fusedActivationFunction = self.schema.ActivationFunctionType.RELU
        bias, bias_scale, weight_scale = node.bias, None, None
        if self.quantized:
            bias = node.bias_q
            step = np.float32(self.graph.quantizer(node.inputs[0]).scale)
            weight_scale = node.weight_scale
            bias_scale = step * weight_scale
        inputs = [
            source,
            self.writer.constant(f"{node.module}.weight", weight, weight_scale, axis),
            self.writer.constant(f"{node.module}.bias", bias, bias_scale),
        ]
        self._operator(
            name, inputs, self._activation(node.name, nhwc(self.graph.shape(node.name))), options
        )

    def _padded(self, node: Node, kernel: tuple[int, ...]) -> tuple[int, int]:
        """The convolution's input tensor and TFLite padding, through a PAD where neither fits.

        TFLite's SAME puts the odd pixel at the end: a 3x3 stride-2 convolution over an even size
        would start at pixel 0, where PyTorch's padding=1 starts at pixel -1.
        """
        source = self.tensors[node.inputs[0]]
        if not any(node.padding):
            return source, self.schema.Padding.VALID
        sizes = self.graph.shape(node.inputs[0])[2:]
        same = [
            _same_padding(size, width, step) == (pad, pad)
            for size, width, step, pad in zip(sizes, kernel, node.stride, node.padding)
        ]
        if all(same):
            return source, self.schema.Padding.SAME
        (top, left), (_, height, width, channels) = node.padding, nhwc((1, 0, *sizes))
        channels = self.graph.shape(node.inputs[0])[1]
        shape = (1, height + 2 * top, width + 2 * left, channels)
        quantizer = self.graph.quantizer(node.inputs[0]) if self.quantized else None
        kind = "int8" if self.quantized else "float32"
        padded = self.writer.activation(f"{node.module}.pad", shape, kind, quantizer)
        amounts = np.array([[0, 0], [top, top], [left, left], [0, 0]], np.int32)
        inputs = [source, self.writer.shared_constant(f"{node.module}.pad.amounts", amounts)]
        self._operator("PAD", inputs, padded, self.schema.PadOptionsT())
        return padded, self.schema.Padding.VALID

    def _arithmetic(self, node: Node) -> None:
        options = self.schema.AddOptionsT() if node.kind == "add" else self.schema.MulOptionsT()
        inputs = [self.tensors[name] for name in node.inputs]
        result = self._activation(node.name, nhwc(self.graph.shape(node.name)))
        self._operator(node.kind.upper(), inputs, result, options)

    def _mean(self, node: Node) -> None:
        axes = self.writer.shared_constant("mean.axes", np.array([1, 2], np.int32))
        inputs = [self.tensors[node.inputs[0]], axes]
        result = self._activation(node.name, nhwc(self.graph.shape(node.name)))
        self._operator("MEAN", inputs, result, self.schema.ReducerOptionsT(keepDims=True))

    def _gelu(self, node: Node) -> None:
        inputs = [self.tensors[node.inputs[0]]]
        result = self._activation(node.name, nhwc(self.graph.shape(node.name)))
        self._operator("GELU", inputs, result, self.schema.GeluOptionsT(approximate=False))

    def _unary(self, node: Node) -> None:
        name = {"hard_swish": "HARD_SWISH", "relu": "RELU", "sigmoid": "LOGISTIC"}[node.kind]
        inputs = [self.tensors[node.inputs[0]]]
        self._operator(name, inputs, self._activation(node.name, nhwc(self.graph.shape(node.name))))

    def _flatten(self, node: Node) -> None:
        """(1, C, 1, 1) to (1, C) moves nothing in NHWC: the head is a 1x1 convolution."""
        if self.graph.shape(node.inputs[0])[2:] != (1, 1):
            raise InputError(f"{node.name}: only a (1, C, 1, 1) tensor can be flattened in NHWC")
        self.tensors[node.name] = self.tensors[node.inputs[0]]

    def _activation(self, name: str, shape: tuple[int, ...]) -> int:
        if self.quantized:
            tensor = self.writer.activation(name, shape, "int8", self.graph.quantizer(name))
        else:
            tensor = self.writer.activation(name, shape, "float32", None)
        self.tensors[name] = tensor
        return tensor

    def _operator(self, name: str, inputs: list[int], result: int, options=None) -> None:
        version = INT8_VERSIONS[name] if self.quantized else 1
        self.writer.operator(name, version, inputs, result, options)


def _same_padding(size: int, kernel: int, step: int) -> tuple[int, int]:
    """Pixels that TFLite's SAME adds before and after, along one axis."""
    total = max((-(-size // step) - 1) * step + kernel - size, 0)
    return total // 2, total - total // 2


@dataclass(frozen=True)
class Uint8Quantizer:
    """A Quantizer's scale with the zero-point of the same values as uint8."""

    scale: float
    zero_point: int


def as_uint8(quantizer: Quantizer) -> Uint8Quantizer:
    """The same real values with every integer 128 higher."""
    return Uint8Quantizer(quantizer.scale, quantizer.zero_point - INT8_MIN)
