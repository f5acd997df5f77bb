"""Operations as TFLite operators: NHWC, batch 1, one emit function a class.

    Given   Conv2d "a" (NCHW, stride 2, padding 1) with int8 weights OIHW
    Result  PAD "a.pad", CONV_2D "a" (VALID), weights OHWI "a.weight", int32 "a.bias"

A tensor has its canonical name, and a weight its module's, so that they can be found in the file.
(1, C) is held as (1, 1, 1, C), as the head's convolution has it. TFLite's own 8-bit rules decide
the rest: biases int32 at input scale * weight scale, weights symmetric per output channel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgevit.errors import InputError
from edgevit.graph import Graph
from edgevit.ops import (
    INT8_MIN,
    Add,
    AvgPool2d,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Flatten,
    Gelu,
    HardSigmoid,
    HardSwish,
    Linear,
    MaxPool2d,
    Mean,
    Mul,
    Node,
    Pad,
    Relu,
    Relu6,
    Resize,
    Shape,
    Sigmoid,
    Slice,
    Softmax,
    Weighted,
)
from edgevit.targets.tflite.exact import hard_sigmoid
from edgevit.targets.tflite.flatbuffer import ModelWriter

INT8_VERSIONS = {
    "ADD": 2, "AVERAGE_POOL_2D": 2, "CONCATENATION": 2, "CONV_2D": 3, "DEPTHWISE_CONV_2D": 3,
    "DEQUANTIZE": 2, "GELU": 2, "HARD_SWISH": 1, "LOGISTIC": 2, "MAX_POOL_2D": 2, "MEAN": 2,
    "MUL": 2, "PAD": 2, "PADV2": 2, "QUANTIZE": 1, "RELU": 2, "RELU6": 2, "RESHAPE": 1,
    "RESIZE_NEAREST_NEIGHBOR": 2, "SOFTMAX": 2, "STRIDED_SLICE": 2, "TRANSPOSE": 2,
}  # fmt: skip
"""Operator versions that introduced int8 (per-channel int8 for convolutions); floats are all 1."""
GROUPED, BIASED, HALF_PIXEL, DILATED = 6, 3, 3, 2
"""Versions that introduced a feature: CONV_2D's groups, TRANSPOSE_CONV's bias, RESIZE_BILINEAR's
half-pixel centres, DEPTHWISE_CONV_2D's dilation."""

Sides = tuple[int, int]
"""One number for the height and one for the width."""


class Emitter:
    """A graph on its way into a ModelWriter: which tensor of the file holds which of the graph's.

    graph   quantized, or float for a float artifact
    """

    def __init__(self, graph: Graph) -> None:
        self.graph, self.quantized = graph, graph.quantized
        self.writer = ModelWriter("edgevit " + ("int8" if self.quantized else "float32"))
        self.schema = self.writer.schema
        self.tensors: dict[str, int] = {}
        self.elided = elided(graph)

    def run(self) -> None:
        """Every node of the graph, behind an input that is there already.

        Raises InputError naming the node that TFLite cannot hold, or the tensor without a
        quantizer.
        """
        for node in self.graph.nodes:
            emit = EMITTERS.get(type(node))
            if emit is None:
                raise InputError(f"{node.name}: the TFLite target does not know {node.kind!r}")
            emit(self, node)

    def sources(self, node: Node) -> list[int]:
        """The tensors that a node reads."""
        return [self.tensors[name] for name in node.inputs]

    def result(self, name: str) -> int:
        """The tensor of the graph's own of this name."""
        self.tensors[name] = self.like(name, nhwc(self.graph.shape(name)), name)
        return self.tensors[name]

    def like(self, name: str, shape: Shape, other: str) -> int:
        """A tensor on the way, of the element type and the quantizer of the graph's `other`."""
        if not self.quantized:
            return self.writer.activation(name, shape, "float32", None)
        return self.writer.activation(name, shape, "int8", self.graph.quantizer(other))

    def operator(
        self,
        name: str,
        inputs: list[int],
        result: int,
        options: Any = None,
        version: int | None = None,
    ) -> None:
        """An operator of the version that its element types need, or of a given one."""
        if version is None:
            version = INT8_VERSIONS[name] if self.quantized else 1
        self.writer.operator(name, version, inputs, result, options)

    def fused(self, node: Weighted) -> int:
        """TFLite's name of the activation behind a convolution."""
        kinds = self.schema.ActivationFunctionType
        return {None: kinds.NONE, Relu: kinds.RELU, Relu6: kinds.RELU6}[node.activation]


def nhwc(shape: Shape) -> Shape:
    """(1, C, H, W) to (1, H, W, C); (1, C) to (1, 1, 1, C)."""
    if len(shape) == 2:
        return shape[0], 1, 1, shape[1]
    return shape[0], shape[2], shape[3], shape[1]


def elided(graph: Graph) -> dict[str, str]:
    """Name -> source, of every flatten that is no operator: (1, C, 1, 1) in front of the head.

    In NHWC it moves nothing, and the head is a 1x1 convolution. That its result goes straight into
    an output says what it is; in front of anything else a flatten is written out.
    """
    found: dict[str, str] = {}
    for node in graph.nodes:
        if not isinstance(node, Flatten) or node.name in graph.outputs:
            continue
        (source,) = node.inputs
        heads = [
            isinstance(n, Linear) and n.name in graph.outputs for n in graph.readers(node.name)
        ]
        pixel = graph.shape(source)[2:] == (1, 1)
        if pixel and all(heads) and source not in found.values():
            found[node.name] = source
    return found


# -- with weights -----------------------------------------------------------------------------


def _convolution(e: Emitter, node: Conv2d) -> None:
    source, padding = _padded(e, node)
    # One input channel a group is a depthwise convolution, of several outputs a channel too.
    depthwise = node.groups > 1 and node.weight.shape[1] == 1
    version = None
    if depthwise:
        weight, axis, name = node.weight.transpose(1, 2, 3, 0), 3, "DEPTHWISE_CONV_2D"
        multiplier = node.channels // node.groups
        options = e.schema.DepthwiseConv2DOptionsT(depthMultiplier=multiplier)
        if not e.quantized and node.dilation != (1, 1):
            version = DILATED
    else:
        weight, axis, name = node.weight.transpose(0, 2, 3, 1), 0, "CONV_2D"
        options = e.schema.Conv2DOptionsT()
        if node.groups > 1:
            version = GROUPED
    options.padding = padding
    options.strideH, options.strideW = node.stride
    if node.dilation != (1, 1):
        options.dilationHFactor, options.dilationWFactor = node.dilation
    options.fusedActivationFunction = e.fused(node)
    inputs = [source, *_weights(e, node, weight, axis)]
    e.operator(name, inputs, e.result(node.name), options, version)


def _linear(e: Emitter, node: Linear) -> None:
    _convolution(e, node.as_convolution())


def _weights(e: Emitter, node: Weighted, weight: np.ndarray, axis: int) -> tuple[int, int]:
    """The constants of a layer: its weight in TFLite's layout, and its bias."""
    bias, bias_scale, weight_scale = node.bias, None, None
    if e.quantized:
        bias = node.bias_q
        step = np.float32(e.graph.quantizer(node.inputs[0]).scale)
        weight_scale = node.weight_scale
        bias_scale = step * weight_scale
    return (
        e.writer.constant(f"{node.module}.weight", weight, weight_scale, axis),
        e.writer.constant(f"{node.module}.bias", bias, bias_scale),
    )


def _padded(e: Emitter, node: Conv2d) -> tuple[int, int]:
    """The convolution's input tensor and TFLite padding, through a PAD where neither fits.

    TFLite's SAME puts the odd pixel at the end: a 3x3 stride-2 convolution over an even size
    would start at pixel 0, where PyTorch's padding=1 starts at pixel -1.
    """
    (name,) = node.inputs
    if not any(node.padding):
        return e.tensors[name], e.schema.Padding.VALID
    sizes = e.graph.shape(name)[2:]
    windows = [d * (k - 1) + 1 for d, k in zip(node.dilation, node.weight.shape[2:])]
    same = [
        _same_padding(size, window, step) == (pad, pad)
        for size, window, step, pad in zip(sizes, windows, node.stride, node.padding)
    ]
    if all(same):
        return e.tensors[name], e.schema.Padding.SAME
    shape, amounts = _pad_amounts(e, name, node.padding, node.padding)
    padded = e.like(f"{node.module}.pad", shape, name)
    inputs = [e.tensors[name], e.writer.shared_constant(f"{node.module}.pad.amounts", amounts)]
    e.operator("PAD", inputs, padded, e.schema.PadOptionsT())
    return padded, e.schema.Padding.VALID


def _same_padding(size: int, window: int, step: int) -> Sides:
    """Pixels that TFLite's SAME adds before and after, along one axis."""
    total = max((-(-size // step) - 1) * step + window - size, 0)
    return total // 2, total - total // 2


def _pad_amounts(
    e: Emitter, name: str, before: Sides, after: Sides
) -> tuple[tuple[int, int, int, int], np.ndarray]:
    """The shape of a padded tensor, and PAD's second input."""
    _, channels, height, width = e.graph.shape(name)
    (top, left), (bottom, right) = before, after
    amounts = np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
    return (1, height + top + bottom, width + left + right, channels), amounts


def _transposed(e: Emitter, node: ConvTranspose2d) -> None:
    """TRANSPOSE_CONV, cut by a STRIDED_SLICE where its own padding is another, then the clamp.

    PyTorch cuts `padding` off both sides of the whole result. SAME does so where the result is the
    input times the stride; VALID cuts nothing.
    """
    (name,), source = node.inputs, e.sources(node)[0]
    sizes, out = e.graph.shape(name)[2:], e.graph.shape(node.name)[2:]
    kernel = node.weight.shape[2:]
    whole = [(n - 1) * step + k for n, step, k in zip(sizes, node.stride, kernel)]
    same = all(
        made == n * step and (full - made) // 2 == pad
        for made, n, step, full, pad in zip(out, sizes, node.stride, whole, node.padding)
    )
    cut = any(node.padding) and not same
    made = [max(a, p + o) for a, p, o in zip(whole, node.padding, out)] if cut else out
    shape = (1, *made, node.channels)
    options = e.schema.TransposeConvOptionsT(
        padding=e.schema.Padding.SAME if same and any(node.padding) else e.schema.Padding.VALID
    )
    options.strideH, options.strideW = node.stride
    weights = _weights(e, node, node.weight.transpose(1, 2, 3, 0), 0)
    target = e.writer.constant(f"{node.module}.shape", np.array(shape, np.int32))
    stages = [(f"{node.module}.whole", shape)] if cut else []
    if node.activation is not None:
        stages.append((f"{node.module}.linear", (1, *out, node.channels)))
    results = [e.like(name, made, node.name) for name, made in stages]
    results.append(e.result(node.name))
    e.operator(
        "TRANSPOSE_CONV", [target, weights[0], source, weights[1]], results[0], options, BIASED
    )
    if cut:
        begin, end = (0, *node.padding, 0), (1, *(p + o for p, o in zip(node.padding, out)), 0)
        _strided_slice(e, f"{node.module}.cut", results[0], results[1], begin, end, 0b0110)
    if node.activation is not None:
        e.operator(_UNARY[node.activation], [results[-2]], results[-1])


# -- one or two values ------------------------------------------------------------------------

_UNARY: dict[type[Node], str] = {
    HardSwish: "HARD_SWISH", Relu: "RELU", Relu6: "RELU6", Sigmoid: "LOGISTIC",
}  # fmt: skip


def _unary(e: Emitter, node: Node) -> None:
    e.operator(_UNARY[type(node)], e.sources(node), e.result(node.name))


def _gelu(e: Emitter, node: Gelu) -> None:
    options = e.schema.GeluOptionsT(approximate=False)
    e.operator("GELU", e.sources(node), e.result(node.name), options)


def _hard_sigmoid(e: Emitter, node: HardSigmoid) -> None:
    """int8: a 1x1 depthwise convolution with weight 1/6 and bias 1/2, clamped by int8 itself."""
    (name,), (source,) = node.inputs, e.sources(node)
    if not e.quantized:
        _float_hard_sigmoid(e, node)
        return
    line = hard_sigmoid(e.graph.quantizer(name))
    if line is None:
        raise InputError(
            f"{node.name}: no 8-bit convolution makes the hard sigmoid of scale "
            f"{e.graph.quantizer(name).scale!r} exactly; use a sigmoid"
        )
    weight, bias, weight_scale = line
    channels = e.graph.shape(node.name)[1]
    scales = np.full(channels, weight_scale, np.float32)
    step = np.float32(e.graph.quantizer(name).scale)
    slope = np.full((1, 1, 1, channels), weight, np.int8)
    inputs = [
        source,
        e.writer.constant(f"{node.name}.slope", slope, scales, axis=3),
        e.writer.constant(f"{node.name}.offset", np.full(channels, bias, np.int32), step * scales),
    ]
    options = e.schema.DepthwiseConv2DOptionsT(
        padding=e.schema.Padding.VALID, strideW=1, strideH=1, depthMultiplier=1
    )
    e.operator("DEPTHWISE_CONV_2D", inputs, e.result(node.name), options)


def _float_hard_sigmoid(e: Emitter, node: HardSigmoid) -> None:
    """relu6(x + 3) / 6, as it is defined."""
    offset = e.writer.constant(f"{node.name}.offset", np.array([3], np.float32))
    slope = e.writer.constant(f"{node.name}.slope", np.array([1 / 6], np.float32))
    clamped = e.like(f"{node.name}.clamped", nhwc(e.graph.shape(node.name)), node.name)
    relu6 = e.schema.ActivationFunctionType.RELU6
    options = e.schema.AddOptionsT(fusedActivationFunction=relu6)
    e.operator("ADD", [*e.sources(node), offset], clamped, options)
    e.operator("MUL", [clamped, slope], e.result(node.name), e.schema.MulOptionsT())


def _add(e: Emitter, node: Add) -> None:
    e.operator("ADD", e.sources(node), e.result(node.name), e.schema.AddOptionsT())


def _mul(e: Emitter, node: Mul) -> None:
    e.operator("MUL", e.sources(node), e.result(node.name), e.schema.MulOptionsT())


# -- several positions ------------------------------------------------------------------------


def _mean(e: Emitter, node: Mean) -> None:
    axes = e.writer.shared_constant("mean.axes", np.array([1, 2], np.int32))
    options = e.schema.ReducerOptionsT(keepDims=True)
    e.operator("MEAN", [*e.sources(node), axes], e.result(node.name), options)


def _pool_options(e: Emitter, node: AvgPool2d | MaxPool2d) -> Any:
    options = e.schema.Pool2DOptionsT(padding=e.schema.Padding.VALID)
    options.filterHeight, options.filterWidth = node.kernel
    options.strideH, options.strideW = node.stride
    return options


def _avg_pool(e: Emitter, node: AvgPool2d) -> None:
    e.operator("AVERAGE_POOL_2D", e.sources(node), e.result(node.name), _pool_options(e, node))


def _max_pool(e: Emitter, node: MaxPool2d) -> None:
    """Padded with the least value there is, which no window chooses: PAD would put zeros there."""
    (name,), (source,) = node.inputs, e.sources(node)
    if any(node.padding):
        shape, amounts = _pad_amounts(e, name, node.padding, node.padding)
        padded = e.like(f"{node.name}.pad", shape, name)
        inputs = [
            source,
            e.writer.shared_constant(f"{node.name}.pad.amounts", amounts),
            _least(e, f"{node.name}.pad.value", name),
        ]
        e.operator("PADV2", inputs, padded, e.schema.PadV2OptionsT())
        source = padded
    e.operator("MAX_POOL_2D", [source], e.result(node.name), _pool_options(e, node))


def _least(e: Emitter, name: str, like: str) -> int:
    if not e.quantized:
        return e.writer.constant(name, np.array([np.finfo(np.float32).min], np.float32))
    least = np.array([INT8_MIN], np.int8)
    return e.writer.quantized_constant(name, least, e.graph.quantizer(like))


def _softmax(e: Emitter, node: Softmax) -> None:
    options = e.schema.SoftmaxOptionsT(beta=1.0)
    e.operator("SOFTMAX", e.sources(node), e.result(node.name), options)


# -- moved values -----------------------------------------------------------------------------


def _flatten(e: Emitter, node: Flatten) -> None:
    """A RESHAPE, of NCHW where the order of the values is another; see `elided`."""
    (name,), (source,) = node.inputs, e.sources(node)
    if node.name in e.elided:
        e.tensors[node.name] = source
        return
    shape = e.graph.shape(name)
    if len(shape) == 4 and shape[1] > 1 and shape[2:] != (1, 1):
        order = e.writer.shared_constant("flatten.order", np.array([0, 3, 1, 2], np.int32))
        moved = e.like(f"{node.name}.nchw", shape, name)
        e.operator("TRANSPOSE", [source, order], moved, e.schema.TransposeOptionsT())
        source = moved
    shape = nhwc(e.graph.shape(node.name))
    target = shape_constant(e, f"{node.name}.shape", shape)
    reshape(e, [source, target], e.result(node.name), shape)


def shape_constant(e: Emitter, name: str, shape: Shape) -> int:
    """RESHAPE's second input."""
    return e.writer.shared_constant(name, np.array(shape, np.int32))


def reshape(e: Emitter, inputs: list[int], result: int, shape: Shape) -> None:
    """A RESHAPE of a tensor and `shape_constant`."""
    e.operator("RESHAPE", inputs, result, e.schema.ReshapeOptionsT(newShape=list(shape)))


def _concat(e: Emitter, node: Concat) -> None:
    options = e.schema.ConcatenationOptionsT(axis=3)
    e.operator("CONCATENATION", e.sources(node), e.result(node.name), options)


def _resize(e: Emitter, node: Resize) -> None:
    """Nearest as torch has it: floor(i * in / out), no half pixels."""
    size = e.writer.shared_constant(f"{node.name}.size", np.array(node.size, np.int32))
    inputs = [*e.sources(node), size]
    if node.mode == "nearest":
        options = e.schema.ResizeNearestNeighborOptionsT()
        e.operator("RESIZE_NEAREST_NEIGHBOR", inputs, e.result(node.name), options)
        return
    options = e.schema.ResizeBilinearOptionsT(halfPixelCenters=True)
    e.operator("RESIZE_BILINEAR", inputs, e.result(node.name), options, HALF_PIXEL)


def _slice(e: Emitter, node: Slice) -> None:
    """The masks say which axes are whole, so that the one that is cut can be told."""
    rank = len(e.graph.shape(node.inputs[0]))
    axis = {1: 3, 2: 1, 3: 2}[node.axis] if rank == 4 else 3
    begin, end, steps = [0] * 4, [0] * 4, [1] * 4
    begin[axis], end[axis], steps[axis] = node.start, node.stop, node.step
    (source,) = e.sources(node)
    cut = 1 << axis
    _strided_slice(e, node.name, source, e.result(node.name), begin, end, cut, steps)


def _strided_slice(
    e: Emitter,
    name: str,
    source: int,
    result: int,
    begin: Sequence[int],
    end: Sequence[int],
    cut: int,
    steps: Sequence[int] = (1, 1, 1, 1),
) -> None:
    """A STRIDED_SLICE; bit i of `cut` is set where axis i is not whole."""
    ranges = [("begin", begin), ("end", end), ("steps", steps)]
    constants = [
        e.writer.shared_constant(f"{name}.{what}", np.array(values, np.int32))
        for what, values in ranges
    ]
    whole = 0b1111 & ~cut
    options = e.schema.StridedSliceOptionsT(beginMask=whole, endMask=whole)
    e.operator("STRIDED_SLICE", [source, *constants], result, options)


def _pad(e: Emitter, node: Pad) -> None:
    (name,), (source,) = node.inputs, e.sources(node)
    _, amounts = _pad_amounts(e, name, node.before, node.after)
    inputs = [source, e.writer.shared_constant(f"{node.name}.amounts", amounts)]
    e.operator("PAD", inputs, e.result(node.name), e.schema.PadOptionsT())


EMITTERS: dict[type[Node], Callable[[Emitter, Any], None]] = {
    Conv2d: _convolution, ConvTranspose2d: _transposed, Linear: _linear, Add: _add, Mul: _mul,
    Gelu: _gelu, HardSwish: _unary, Relu: _unary, Relu6: _unary, Sigmoid: _unary,
    HardSigmoid: _hard_sigmoid, Mean: _mean, AvgPool2d: _avg_pool, MaxPool2d: _max_pool,
    Softmax: _softmax, Flatten: _flatten, Concat: _concat, Resize: _resize, Slice: _slice,
    Pad: _pad,
}  # fmt: skip
