"""Convolutions and linear layers as TFLite operators.

    Given   Conv2d "a" (NCHW, stride 2, padding 1) with int8 weights OIHW
    Result  PAD "a.pad", CONV_2D "a" (VALID), weights OHWI "a.weight", int32 "a.bias"

TFLite's own 8-bit rules decide the rest: biases int32 at input scale * weight scale, weights
symmetric per output channel.
"""

from __future__ import annotations

import numpy as np

from edgevit.ops import (
    Clamp,
    Conv2d,
    ConvTranspose2d,
    Int8Weights,
    Linear,
    Node,
    Relu,
    Relu6,
    Weighted,
)
from edgevit.targets.tflite.emitter import Emit, Emitter, Sides, pad_amounts, strided_slice

GROUPED, BIASED, DILATED = 6, 3, 2
"""Versions that introduced a feature: CONV_2D's groups, TRANSPOSE_CONV's bias, DEPTHWISE_CONV_2D's
dilation."""
REAL_BY_INT8 = {"CONV_2D": 5, "DEPTHWISE_CONV_2D": 6}
"""Versions that introduced a real input with int8 weights, one scale an output channel.
TRANSPOSE_CONV has none of its own for that."""


_CLAMPS: dict[type[Clamp], str] = {Relu: "RELU", Relu6: "RELU6"}


def _convolution(e: Emitter, node: Conv2d) -> None:
    source, padding = _padded(e, node)
    # One input channel a group is a depthwise convolution, of several outputs a channel too.
    depthwise = node.groups > 1 and node.weight.shape[1] == 1
    by_int8 = not e.quantized and isinstance(node.weights, Int8Weights)
    if depthwise:
        weight, axis, name = node.weight.transpose(1, 2, 3, 0), 3, "DEPTHWISE_CONV_2D"
        multiplier = node.channels // node.groups
        options = e.schema.DepthwiseConv2DOptionsT(depthMultiplier=multiplier)
        version = DILATED if not e.quantized and node.dilation != (1, 1) else None
    else:
        weight, axis, name = node.weight.transpose(0, 2, 3, 1), 0, "CONV_2D"
        options = e.schema.Conv2DOptionsT()
        version = GROUPED if node.groups > 1 else None
    options.padding = padding
    options.strideH, options.strideW = node.stride
    if node.dilation != (1, 1):
        options.dilationHFactor, options.dilationWFactor = node.dilation
    options.fusedActivationFunction = _fused(e, node)
    if by_int8:
        version = max(version or 0, REAL_BY_INT8[name])
    inputs = [source, *_weights(e, node, weight, axis)]
    e.operator(name, inputs, e.result(node.name), options, version)


def _linear(e: Emitter, node: Linear) -> None:
    _convolution(e, node.as_convolution())


def _weights(e: Emitter, node: Weighted, weight: np.ndarray, axis: int) -> tuple[int, int]:
    """The constants of a layer: its weight in TFLite's layout, and its bias."""
    bias, bias_scale = node.bias, None
    weight_scale = node.weights.scale if isinstance(node.weights, Int8Weights) else None
    if e.quantized:
        bias = node.bias_q
        bias_scale = np.float32(e.graph.quantizer(node.inputs[0]).scale) * node.weight_scale
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
    shape, amounts = pad_amounts(e, name, node.padding, node.padding)
    padded = e.like(f"{node.module}.pad", shape, name)
    inputs = [e.tensors[name], e.writer.shared_constant(f"{node.module}.pad.amounts", amounts)]
    e.operator("PAD", inputs, padded, e.schema.PadOptionsT())
    return padded, e.schema.Padding.VALID


def _same_padding(size: int, window: int, step: int) -> Sides:
    """Pixels that TFLite's SAME adds before and after, along one axis."""
    total = max((-(-size // step) - 1) * step + window - size, 0)
    return total // 2, total - total // 2


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
        strided_slice(e, f"{node.module}.cut", results[0], results[1], begin, end, 0b0110)
    if node.activation is not None:
        e.operator(_CLAMPS[node.activation], [results[-2]], results[-1])


def _fused(e: Emitter, node: Weighted) -> int:
    """TFLite's name of the activation behind a convolution."""
    kinds = e.schema.ActivationFunctionType
    return kinds.NONE if node.activation is None else getattr(kinds, _CLAMPS[node.activation])


WEIGHTED: dict[type[Node], Emit] = {
    Conv2d: _convolution, ConvTranspose2d: _transposed, Linear: _linear
}  # fmt: skip
