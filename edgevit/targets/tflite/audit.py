"""The scale audit: every scale, zero-point, weight and bias read back out of the written bytes.

It shares nothing with the writer but the canonical tensor names: it walks the operators of the
file backwards from names to the program, and demands exact equality. A difference fails the
build, naming the tensor.
"""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgevit.data.images import Preprocessing
from edgevit.errors import EdgevitError
from edgevit.graph import Graph
from edgevit.ops import INT8_MIN, Conv2d, Gelu, Linear, Node
from edgevit.targets.pixels import quantized_pixels
from edgevit.targets.tflite.flatbuffer import schema
from edgevit.targets.tflite.pixels import PixelInput

_OPERATORS = {
    "linear": "CONV_2D", "add": "ADD", "mul": "MUL", "gelu": "GELU",
    "hard_swish": "HARD_SWISH", "relu": "RELU", "sigmoid": "LOGISTIC", "mean": "MEAN",
}  # fmt: skip
_PASSES_VALUES = ("PAD", "RESHAPE")
"""Operators whose result has their input's quantizer and is no tensor of the program's own."""


@dataclass(frozen=True)
class AuditResult:
    """How many tensors and channels were compared, all of them equal; operators by name."""

    activations: int
    weight_channels: int
    operators: dict[str, int]


@dataclass(frozen=True)
class _Tensor:
    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: np.ndarray  # float32, empty where there is none
    zero_point: np.ndarray  # int64
    axis: int
    data: bytes


@dataclass(frozen=True)
class _Operator:
    name: str
    inputs: tuple[_Tensor, ...]
    output: _Tensor
    options: dict[str, Any]


def audit(data: bytes, graph: Graph, preprocessing: Preprocessing) -> AuditResult:
    """Compares the bytes of a .tflite file with the program they were made from.

    Raises EdgevitError naming the tensor or operator that differs, is missing or is extra.
    """
    try:
        operators = _read(data)
        return _Audit(operators, graph, preprocessing).run()
    except (struct.error, IndexError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise EdgevitError(f"scale audit: the file is not a readable model: {error!r}") from error


class _Audit:
    def __init__(
        self, operators: list[_Operator], graph: Graph, preprocessing: Preprocessing
    ) -> None:
        self.graph, self.preprocessing = graph, preprocessing
        self.operators = operators
        self.makers = {operator.output.name: operator for operator in operators}
        self.seen: set[str] = set()

    def run(self) -> AuditResult:
        for name, count in Counter(operator.output.name for operator in self.operators).items():
            if count > 1:
                raise _differs(name, f"{count} operators make it")
        for node in self.graph.nodes:
            if node.requantizes:
                self._node(node)
        self._input()
        self._output()
        for name in sorted(set(self.makers) - self.seen):
            raise _differs(name, f"{self.makers[name].name} is not part of the program")
        weighted = self.graph.weighted()
        return AuditResult(
            activations=len(self.graph.activations()),
            weight_channels=sum(len(node.weight_scale) for node in weighted),
            operators=dict(Counter(operator.name for operator in self.operators)),
        )

    def _made(self, name: str, operator: str) -> _Operator:
        found = self.makers.get(name)
        if found is None or found.name != operator:
            raise _differs(name, f"made by {found.name if found else 'nothing'}, not by {operator}")
        self.seen.add(name)
        return found

    def _node(self, node: Node) -> None:
        node = node.as_convolution() if isinstance(node, Linear) else node
        depthwise = isinstance(node, Conv2d) and node.depthwise
        name = "DEPTHWISE_CONV_2D" if depthwise else _OPERATORS.get(node.kind, "CONV_2D")
        operator = self._made(node.name, name)
        self._activation(operator.output, node.name)
        for tensor, expected in zip(operator.inputs, node.inputs, strict=False):
            self._source(tensor, expected)
        if isinstance(node, Conv2d):
            self._weights(node, operator)
            self._geometry(node, operator)
        elif isinstance(node, Gelu) and operator.options["Approximate"]:
            raise _differs(node.name, "GELU is the approximate one")

    def _source(self, tensor: _Tensor, expected: str) -> None:
        """An operator reads the tensor itself, or that tensor through one PAD."""
        if tensor.name in self.makers and self.makers[tensor.name].name == "PAD":
            self._same_quantizer(tensor)
            self.seen.add(tensor.name)
            tensor = self.makers[tensor.name].inputs[0]
        name = expected
        while name != self.graph.input_name and not self.graph.node(name).requantizes:
            name = self.graph.node(name).inputs[0]
        if tensor.name != name:
            raise _differs(tensor.name, f"read where the program reads {name}")

    def _activation(self, tensor: _Tensor, name: str) -> None:
        quantizer, shape = self.graph.quantizer(name), self.graph.shape(name)
        if tensor.dtype != "INT8" or tensor.data:
            raise _differs(name, f"it is {tensor.dtype}, or constant")
        # NHWC; (1, C) is (1, 1, 1, C), as the head's convolution makes it.
        batch, channels, *size = shape
        if tensor.shape != (batch, *(size or (1, 1)), channels):
            raise _differs(name, f"shape {tensor.shape}, program {shape}")
        if tensor.scale.tolist() != [float(np.float32(quantizer.scale))]:
            raise _differs(name, f"scale {tensor.scale.tolist()}, program {quantizer.scale!r}")
        if tensor.zero_point.tolist() != [quantizer.zero_point]:
            found = tensor.zero_point.tolist()
            raise _differs(name, f"zero-point {found}, program {quantizer.zero_point}")

    def _weights(self, node: Node, operator: _Operator) -> None:
        _, weight, bias = operator.inputs
        kernel = node.weight
        if node.depthwise:
            kernel, axis = kernel.transpose(1, 2, 3, 0), 3
        else:
            kernel, axis = kernel.transpose(0, 2, 3, 1), 0
        where = f"{node.module}.weight"
        if weight.dtype != "INT8" or weight.shape != kernel.shape:
            raise _differs(where, f"{weight.dtype} {weight.shape}, program int8 {kernel.shape}")
        if weight.data != kernel.tobytes():
            raise _differs(where, "its int8 values are not the program's")
        if weight.axis != axis or weight.zero_point.any():
            raise _differs(where, "its scales lie on another axis, or have zero-points")
        _same_scales(where, weight, node.weight_scale)
        where = f"{node.module}.bias"
        if bias.dtype != "INT32" or bias.data != node.bias_q.astype("<i4").tobytes():
            raise _differs(where, "its int32 values are not the program's")
        step = np.float32(self.graph.quantizer(node.inputs[0]).scale)
        _same_scales(where, bias, step * node.weight_scale)

    def _geometry(self, node: Node, operator: _Operator) -> None:
        options = operator.options
        stride = (options["StrideH"], options["StrideW"])
        dilation = (options["DilationHFactor"], options["DilationWFactor"])
        activation = schema().ActivationFunctionType
        relu = activation.RELU if node.activation else activation.NONE
        if stride != node.stride or dilation != (1, 1):
            raise _differs(node.name, f"stride {stride}, dilation {dilation}")
        if options["FusedActivationFunction"] != relu:
            raise _differs(node.name, "its fused activation is not the program's")
        source = operator.inputs[0]
        height, width = source.shape[1:3]
        same = options["Padding"] == schema().Padding.SAME
        kernel = node.weight.shape[2:]
        for axis, (size, window, step, pad) in enumerate(
            zip((height, width), kernel, node.stride, node.padding)
        ):
            before, made = _pad_before(source, self.makers, axis), (size - window) // step + 1
            if same:
                made = -(-size // step)
                before += max((made - 1) * step + window - size, 0) // 2
            if before != pad or made != operator.output.shape[axis + 1]:
                raise _differs(node.name, f"{before} pixels of padding, program {pad}")

    # -- edges ----------------------------------------------------------------------------------

    def _input(self) -> None:
        name = self.graph.input_name
        maker = self.makers.get(name)
        readers = [t for o in self.operators for t in o.inputs if t.name == name]
        self._activation(readers[0] if readers else maker.output, name)
        if maker is None:
            return
        self.seen.add(name)
        if maker.name == "QUANTIZE" and maker.inputs[0].dtype == "FLOAT32":
            return
        shifted, weight, bias = self._made(name, "DEPTHWISE_CONV_2D").inputs
        shift = self._made(shifted.name, "QUANTIZE")
        pixels = shift.inputs[0]
        for tensor, dtype, edge in (
            (pixels, "UINT8", PixelInput.UINT8), (shifted, "INT8", PixelInput.INT8)
        ):  # fmt: skip
            found = (tensor.dtype, tensor.scale.tolist(), tensor.zero_point.tolist())
            if found != (dtype, [edge.scale], [edge.zero_point]):
                raise _differs(tensor.name, f"{found} does not hold raw pixels")
        quantizer = self.graph.quantizer(name)
        read = PixelInput(
            np.frombuffer(weight.data, np.int8), np.frombuffer(bias.data, "<i4"), weight.scale
        )
        _same_scales(f"{name}.bias", bias, weight.scale)
        if not read.gives(quantized_pixels(self.preprocessing, quantizer), quantizer):
            raise _differs(name, "the model does not make the program's input of raw pixels")

    def _output(self) -> None:
        last = self.graph.output_name
        reshapes = [o for o in self.operators if o.name == "RESHAPE"]
        if len(reshapes) != 1:
            raise _differs(last, f"{len(reshapes)} RESHAPE operators behind the head")
        (reshape,) = reshapes
        self._source(reshape.inputs[0], last)
        self.seen.add(reshape.output.name)
        self._same_quantizer(reshape.output)
        for operator in self.operators:
            if reshape.output.name not in (tensor.name for tensor in operator.inputs):
                continue
            self.seen.add(operator.output.name)
            result, quantizer = operator.output, self.graph.quantizer(last)
            dequantized = operator.name == "DEQUANTIZE" and result.dtype == "FLOAT32"
            shifted = (
                operator.name == "QUANTIZE"
                and result.dtype == "UINT8"
                and result.scale.tolist() == [quantizer.scale]
                and result.zero_point.tolist() == [quantizer.zero_point - INT8_MIN]
            )
            if not (dequantized or shifted):
                raise _differs(result.name, "the output does not hold the head's values")

    def _same_quantizer(self, tensor: _Tensor) -> None:
        source = self.makers[tensor.name].inputs[0]
        same = (
            self.makers[tensor.name].name in _PASSES_VALUES
            and tensor.dtype == source.dtype
            and np.array_equal(tensor.scale, source.scale)
            and np.array_equal(tensor.zero_point, source.zero_point)
        )
        if not same:
            raise _differs(tensor.name, f"its quantizer is not that of {source.name}")


def _pad_before(tensor: _Tensor, makers: dict[str, _Operator], axis: int) -> int:
    """Pixels that a PAD in front of a convolution adds at the start of H (0) or W (1)."""
    maker = makers.get(tensor.name)
    if maker is None or maker.name != "PAD":
        return 0
    amounts = np.frombuffer(maker.inputs[1].data, "<i4").reshape(4, 2)
    if amounts[0].any() or amounts[3].any() or amounts[axis + 1, 0] != amounts[axis + 1, 1]:
        raise _differs(tensor.name, "it pads other axes, or one side only")
    return int(amounts[axis + 1, 0])


def _same_scales(where: str, tensor: _Tensor, expected: np.ndarray) -> None:
    if tensor.zero_point.any() or tensor.scale.shape != expected.shape:
        raise _differs(where, f"{tensor.scale.size} scales, program {expected.size}")
    if not np.array_equal(tensor.scale, expected):
        channel = int(np.argmax(tensor.scale != expected))
        raise _differs(
            where, f"scale of channel {channel} is {tensor.scale[channel]!r}, program "
            f"{expected[channel]!r}"
        )  # fmt: skip


def _differs(name: str, what: str) -> EdgevitError:
    return EdgevitError(f"scale audit: {name}: {what}; the artifact was not kept")


# -- reading the file -------------------------------------------------------------------------


def _read(data: bytes) -> list[_Operator]:
    """Every operator of the one subgraph, with its tensors' quantization and constant bytes."""
    s = schema()
    if data[4:8] != b"TFL3":
        raise ValueError("no TFL3 identifier")
    model = s.Model.GetRootAs(data, 0)
    if model.SubgraphsLength() != 1:
        raise ValueError(f"{model.SubgraphsLength()} subgraphs")
    graph = model.Subgraphs(0)
    tensors = [_tensor(s, model, graph.Tensors(i)) for i in range(graph.TensorsLength())]
    names = [tensor.name for tensor in tensors]
    if len(set(names)) != len(names):
        raise ValueError("two tensors have one name")
    codes = {value: name for name, value in vars(s.BuiltinOperator).items() if name.isupper()}
    operators = []
    for i in range(graph.OperatorsLength()):
        operator = graph.Operators(i)
        code = model.OperatorCodes(operator.OpcodeIndex())
        name = codes[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        inputs = tuple(tensors[operator.Inputs(j)] for j in range(operator.InputsLength()))
        (output,) = (tensors[operator.Outputs(j)] for j in range(operator.OutputsLength()))
        operators.append(_Operator(name, inputs, output, _options(s, operator)))
    return operators


def _tensor(s: Any, model: Any, tensor: Any) -> _Tensor:
    types = {value: name for name, value in vars(s.TensorType).items() if name.isupper()}
    shape = tuple(tensor.Shape(i) for i in range(tensor.ShapeLength()))
    quantization, scale, zero_point, axis = tensor.Quantization(), np.zeros(0), np.zeros(0), 0
    if quantization is not None and quantization.ScaleLength():
        scale, zero_point = quantization.ScaleAsNumpy(), quantization.ZeroPointAsNumpy()
        axis = quantization.QuantizedDimension()
    buffer = model.Buffers(tensor.Buffer())
    data = buffer.DataAsNumpy().tobytes() if buffer.DataLength() else b""
    name = tensor.Name().decode()
    return _Tensor(name, shape, types[tensor.Type()], scale, zero_point, axis, data)


_OPTION_FIELDS = {
    "Conv2DOptions": ("Padding", "StrideH", "StrideW", "DilationHFactor", "DilationWFactor",
                      "FusedActivationFunction"),
    "DepthwiseConv2DOptions": ("Padding", "StrideH", "StrideW", "DilationHFactor",
                               "DilationWFactor", "FusedActivationFunction", "DepthMultiplier"),
    "GeluOptions": ("Approximate",),
}  # fmt: skip


def _options(s: Any, operator: Any) -> dict[str, Any]:
    kinds = {value: name for name, value in vars(s.BuiltinOptions).items() if name[0] != "_"}
    kind = kinds[operator.BuiltinOptionsType()]
    if kind not in _OPTION_FIELDS:
        return {}
    options, table = getattr(s, kind)(), operator.BuiltinOptions()
    options.Init(table.Bytes, table.Pos)
    return {field: getattr(options, field)() for field in _OPTION_FIELDS[kind]}
