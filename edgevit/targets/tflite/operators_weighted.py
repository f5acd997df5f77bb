"""TFLite's convolutions as operations, and the lines that a 1x1 depthwise one computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgevit.graph.diff import differs
from edgevit.ops import (
    Clamp,
    Conv2d,
    ConvTranspose2d,
    FloatWeights,
    HardSigmoid,
    Int8Weights,
    Linear,
    Node,
    Relu,
    Relu6,
)
from edgevit.targets.pixels import quantized
from edgevit.targets.tflite.file import Operator, Tensor
from edgevit.targets.tflite.reader import (
    Reader,
    first_input,
    fused,
    numbers,
    padding_in_front,
    per_tensor,
    ranges,
)
from edgevit.targets.tflite.schema import schema

EDGE_MARGIN_STEPS = 1e-4
"""A product nearer to a rounding edge than this may be rounded to either side of it."""


def module_of(weight: Tensor) -> str:
    """The module that a weight is called after."""
    module, dot, last = weight.name.rpartition(".")
    if not dot or last != "weight":
        raise differs(weight.name, "no weight of a module is called so")
    return module


def convolution(r: Reader, operator: Operator) -> Node:
    """A CONV_2D or DEPTHWISE_CONV_2D: a convolution, a linear layer, or a hard sigmoid's line."""
    _, weight, bias = operator.inputs
    options, depthwise = operator.options, operator.name == "DEPTHWISE_CONV_2D"
    name, source = operator.output.name, first_input(r, operator)
    if depthwise and weight.name == f"{name}.slope":
        return _hard_sigmoid_line(r, operator)
    stride = (options.strideH, options.strideW)
    dilation = (options.dilationHFactor, options.dilationWFactor)
    height, width = (d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[1:3]))
    padding = padding_in_front(r, operator, (height, width), stride)
    channels = source.shape[3]
    if depthwise and options.depthMultiplier * channels != weight.shape[3]:
        raise differs(name, f"depth multiplier {options.depthMultiplier} of {weight.shape}")
    order = (3, 0, 1, 2) if depthwise else (0, 3, 1, 2)
    weights = _weights(r, source, weight, bias, order, axis=3 if depthwise else 0)
    given: dict[str, Any] = {"name": name, "module": module_of(weight), "weights": weights}
    given["activation"] = fused(operator)
    groups = channels if depthwise else channels // weight.shape[3]
    unmoved = (stride, padding, dilation, groups) == ((1, 1), (0, 0), (1, 1), 1)
    pixel = source.shape[1:3] == weight.shape[1:3] == (1, 1) and unmoved and not depthwise
    vector = len(r.shapes[source.name]) == 2
    if vector or (pixel and r.is_head(operator)):
        if not pixel:
            raise differs(name, f"{operator.name} of a vector is no linear layer")
        read = source.name if vector else r.flattened(source.name)
        given["weights"] = _without_pixel(weights)
        return Linear(inputs=(read,), **given)
    return Conv2d(
        inputs=(source.name,),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        **given,
    )


def _weights(
    r: Reader, source: Tensor, weight: Tensor, bias: Tensor, order: tuple[int, ...], axis: int
) -> FloatWeights | Int8Weights:
    """A layer's weights in PyTorch's layout.

    source  what the layer reads
    order   PyTorch's axes in TFLite's; axis: of TFLite's output channels
    """
    if weight.values is None or bias.values is None:
        raise differs(weight.name, "it or its bias is no constant")
    known = [("INT8", "INT32")] if r.quantized else [("FLOAT32", "FLOAT32"), ("INT8", "FLOAT32")]
    kinds = (weight.dtype, bias.dtype)
    if kinds not in known:
        raise differs(weight.name, f"it is {kinds[0]} and its bias {kinds[1]}, not {known[0]}")
    values = np.ascontiguousarray(weight.values.transpose(order))
    if kinds == ("FLOAT32", "FLOAT32"):
        if weight.scale.size or bias.scale.size:
            raise differs(weight.name, "a float constant has a scale")
        return FloatWeights(values, bias.values)
    if weight.axis != axis or weight.zero_point.any() or weight.scale.ndim != 1:
        raise differs(weight.name, "its scales lie on another axis, or have zero-points")
    if int(values.min(initial=0)) < -127:
        raise differs(weight.name, "it holds -128; weights are symmetric")
    if not r.quantized:
        if bias.scale.size:
            raise differs(bias.name, "a float bias has a scale")
        return Int8Weights(values, weight.scale, None, bias.values)
    step = np.float32(per_tensor(source).scale)
    expected = step * weight.scale
    if bias.zero_point.any() or not np.array_equal(bias.scale, expected):
        raise differs(
            bias.name,
            f"its scales are not those of {source.name}, the input, times those of {weight.name}",
        )
    grid = np.float64(step) * weight.scale.astype(np.float64)
    real = (bias.values * grid).astype(np.float32)
    return Int8Weights(values, weight.scale, bias.values.astype(np.int32), real)


def _without_pixel(weights: FloatWeights | Int8Weights) -> FloatWeights | Int8Weights:
    """A 1x1 convolution's weights as a linear layer's."""
    matrix = weights.weight[:, :, 0, 0]
    if isinstance(weights, FloatWeights):
        return FloatWeights(matrix, weights.bias)
    return Int8Weights(matrix, weights.scale, weights.bias_q, weights.bias)


def transposed(r: Reader, operator: Operator) -> Node:
    """A TRANSPOSE_CONV, cut by a STRIDED_SLICE, clamped by a RELU or RELU6: its last operator."""
    chain = [operator, *r.taken(operator)]
    made = {each.name: each for each in chain}
    first = made["TRANSPOSE_CONV"]
    target, weight, source, bias = first.inputs
    options, whole = first.options, first.output
    for each in chain[1:]:
        r.same_quantizer(each.output, operator.output)
    if tuple(numbers(target)) != whole.shape or fused(first) is not None:
        raise differs(operator.output.name, f"the shape of {whole.name} is another: {whole.shape}")
    stride, kernel = (options.strideH, options.strideW), weight.shape[1:3]
    full = [(n - 1) * s + k for n, s, k in zip(source.shape[1:3], stride, kernel)]
    out = operator.output.shape[1:3]
    padding = (0, 0)
    if options.padding == schema().Padding.SAME:
        over = [max(f - o, 0) // 2 for f, o in zip(full, whole.shape[1:3])]
        padding = (over[0], over[1])
    if "STRIDED_SLICE" in made:
        begin, end, steps, axes = ranges(made["STRIDED_SLICE"])
        if axes != [1, 2] or any(padding) or steps[1:3] != [1, 1]:
            raise differs(operator.output.name, f"a cut along the axes {axes}")
        padding = (begin[1], begin[2])
        out = (end[1] - begin[1], end[2] - begin[2])
    rest = [o - f + 2 * p for o, f, p in zip(out, full, padding)]
    clamps: dict[str, type[Clamp]] = {"RELU": Relu, "RELU6": Relu6}
    return ConvTranspose2d(
        name=operator.output.name,
        inputs=(source.name,),
        module=module_of(weight),
        activation=clamps.get(operator.name),
        weights=_weights(r, source, weight, bias, (3, 0, 1, 2), axis=0),
        stride=stride,
        padding=padding,
        output_padding=(rest[0], rest[1]),
    )


def _hard_sigmoid_line(r: Reader, operator: Operator) -> Node:
    """A 1x1 depthwise convolution; all 256 results of every channel are computed again."""
    source, name = operator.inputs[0], operator.output.name
    q = per_tensor(source)
    steps = np.arange(-128, 128, dtype=np.int64) - q.zero_point
    real = (steps * q.scale).astype(np.float32).astype(np.float64)
    values = (np.minimum(np.maximum(real + 3.0, 0.0), 6.0) / 6.0).astype(np.float32)
    wanted = quantized(values, per_tensor(operator.output))
    if not (line_values(operator, steps) == wanted).all():
        raise differs(name, "its convolution is no hard sigmoid")
    return HardSigmoid(name=name, inputs=(source.name,))


def line_values(operator: Operator, steps: np.ndarray) -> np.ndarray:
    """int8 (C, steps): what a 1x1 depthwise convolution makes of inputs less their zero-point.

    Raises EdgevitError where a product lies so near to a rounding edge that it may be either side.
    """
    source, weight, bias = operator.inputs
    name, output, options = operator.output.name, per_tensor(operator.output), operator.options
    if weight.values is None or bias.values is None or weight.zero_point.any():
        raise differs(name, "its convolution has no constant symmetric weights")
    unmoved = source.shape == operator.output.shape and options.depthMultiplier == 1
    if weight.shape[:3] != (1, 1, 1) or not unmoved or fused(operator):
        raise differs(name, f"a convolution of {weight.shape} is no line")
    scales = np.float32(per_tensor(source).scale) * weight.scale
    if weight.axis != 3 or bias.zero_point.any() or not np.array_equal(bias.scale, scales):
        raise differs(f"{name}.bias", f"its scales are not the input's times {weight.name}'s")
    factors = weight.scale.astype(np.float64) * per_tensor(source).scale / output.scale
    totals = weight.values.reshape(-1, 1).astype(np.int64) * steps + bias.values.reshape(-1, 1)
    products = totals * factors[:, None]
    if np.abs(products - np.floor(products) - 0.5).min() < EDGE_MARGIN_STEPS:
        raise differs(name, "its convolution makes a value on a rounding edge")
    return np.clip(np.rint(products) + output.zero_point, -128, 127).astype(np.int8)


def take_pad(r: Reader, operator: Operator) -> Operator | None:
    """The PAD of a convolution's own padding, which has its module's name."""
    source, weight, _ = operator.inputs
    found = r.maker(source, "PAD")
    return found if found and source.name == f"{weight.name.removesuffix('.weight')}.pad" else None


def take_transposed(suffix: str, *kinds: str) -> Callable[[Reader, Operator], Operator | None]:
    """The operators of a transposed convolution, which have its module's name and a suffix."""

    def take(r: Reader, operator: Operator) -> Operator | None:
        found = r.maker(operator.inputs[0], *kinds)
        if found is None:
            return None
        first = [found, *r.taken(found)][-1]
        if first.name != "TRANSPOSE_CONV":
            return None
        return found if found.output.name == module_of(first.inputs[1]) + suffix else None

    return take
