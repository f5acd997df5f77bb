"""Operations as TFLite operators: one emit function a class, in `EMITTERS`."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgevit.errors import InputError
from edgevit.ops import (
    INT8_MIN,
    Add,
    AvgPool2d,
    Concat,
    Flatten,
    Gelu,
    HardSigmoid,
    HardSwish,
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
    Tanh,
)
from edgevit.targets.exact import hard_sigmoid
from edgevit.targets.tflite.emit_norm import NORMS
from edgevit.targets.tflite.emit_table import activation
from edgevit.targets.tflite.emit_weighted import WEIGHTED
from edgevit.targets.tflite.emitter import Emit, Emitter, nhwc, pad_amounts, strided_slice

HALF_PIXEL = 3
"""The version of RESIZE_BILINEAR that introduced half-pixel centres."""

# -- one or two values ------------------------------------------------------------------------

_UNARY: dict[type[Node], str] = {
    Relu: "RELU", Relu6: "RELU6", Sigmoid: "LOGISTIC", Tanh: "TANH",
}  # fmt: skip


def _unary(e: Emitter, node: Node) -> None:
    e.operator(_UNARY[type(node)], e.sources(node), e.result(node.name))


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
            f"{e.graph.quantizer(name).scale!r} exactly; use a sigmoid, or one of the "
            "targets onnx, tensorrt and coreml, which have a hard sigmoid"
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
        shape, amounts = pad_amounts(e, name, node.padding, node.padding)
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
    strided_slice(e, node.name, source, e.result(node.name), begin, end, cut, steps)


def _pad(e: Emitter, node: Pad) -> None:
    (name,), (source,) = node.inputs, e.sources(node)
    _, amounts = pad_amounts(e, name, node.before, node.after)
    inputs = [source, e.writer.shared_constant(f"{node.name}.amounts", amounts)]
    e.operator("PAD", inputs, e.result(node.name), e.schema.PadOptionsT())


EMITTERS: dict[type[Node], Emit] = {
    **WEIGHTED, **NORMS, Add: _add, Mul: _mul,
    Gelu: activation, HardSwish: activation, Relu: _unary, Relu6: _unary, Sigmoid: _unary,
    Tanh: _unary,
    HardSigmoid: _hard_sigmoid, Mean: _mean, AvgPool2d: _avg_pool, MaxPool2d: _max_pool,
    Softmax: _softmax, Flatten: _flatten, Concat: _concat, Resize: _resize, Slice: _slice,
    Pad: _pad,
}  # fmt: skip
