"""What each operation computes on int8, by numpy alone and written by hand from its definition.

No code of the product is called: a node here is its name, attributes and weights. Sums are int64;
real values are float64, exact but for GELU, sigmoid, tanh and softmax; each is rounded to float32
once, multiplied by float32(1 / scale) and rounded half to even. A convolution's sum is multiplied
by float32(s_in * s_w / s_out) instead, a product by float32(s_a * s_b / s_out). Averages and
bilinear resizes are fractions of integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

Array = np.ndarray


def run(graph: Any, images: Array) -> dict[str, Array]:
    """float32 (N, C, H, W) to int8 values of every tensor by name, the input's first."""
    values = {"input": requantized(images.astype(np.float64), graph.quantizer("input"))}
    for node in graph.nodes:
        quantizers = [graph.quantizer(name) for name in node.inputs]
        inputs = [values[name] for name in node.inputs]
        values[node.name] = int8(node, inputs, quantizers, graph.quantizer(node.name))
    return values


def int8(node: Any, inputs: Sequence[Array], quantizers: Sequence[Any], output: Any) -> Array:
    """One operation: int8 inputs to its int8 result."""
    centred = [x.astype(np.int64) - q.zero_point for x, q in zip(inputs, quantizers)]
    if node.kind in WEIGHTED:
        return _weighted(node, centred[0], quantizers[0], output)
    if node.kind in MOVED:
        return (MOVED[node.kind](node, *centred) + output.zero_point).astype(np.int8)
    if node.kind == "mul":
        scales = [Fraction(q.scale) for q in (*quantizers, output)]
        factor = np.float32(float(scales[0] * scales[1] / scales[2]))
        steps = np.rint((centred[0] * centred[1]).astype(np.float32) * factor)
        return np.clip(steps + output.zero_point, -128, 127).astype(np.int8)
    if node.kind == "layer_norm":
        return requantized(_layer_norm(node, centred[0], quantizers[0].scale), output)
    real = [x * q.scale for x, q in zip(centred, quantizers)]
    return requantized(REAL[node.kind](*real), output)


def requantized(real: Array, quantizer: Any) -> Array:
    steps = np.rint(real.astype(np.float32) * np.float32(1 / quantizer.scale))
    return np.clip(steps + quantizer.zero_point, -128, 127).astype(np.int8)


# -- weights ----------------------------------------------------------------------------------


def _weighted(node: Any, x: Array, source: Any, output: Any) -> Array:
    weight = node.weight.astype(np.int64)
    sums = WEIGHTED[node.kind](node, x, weight)
    along = (1, -1, *(1,) * (sums.ndim - 2))
    sums = sums + node.bias_q.astype(np.int64).reshape(along)
    exact = [Fraction(source.scale) * Fraction(float(s)) for s in node.weight_scale]
    factor = np.array([float(each / Fraction(output.scale)) for each in exact], np.float32)
    steps = np.rint(sums.astype(np.float32) * factor.reshape(along))
    low, high = -128 - output.zero_point, 127 - output.zero_point
    if node.activation is not None:
        low = max(low, 0)
        if node.activation.kind == "relu6":
            high = min(high, np.rint(np.float32(6) * np.float32(1 / output.scale)))
    return (np.clip(steps, low, high) + output.zero_point).astype(np.int8)


def _conv2d(node: Any, x: Array, weight: Array) -> Array:
    (top, left), (down, right), (tall, wide) = node.padding, node.stride, node.dilation
    x = np.pad(x, ((0, 0), (0, 0), (top, top), (left, left)))
    outputs, inputs, height, width = weight.shape
    rows = (x.shape[2] - tall * (height - 1) - 1) // down + 1
    columns = (x.shape[3] - wide * (width - 1) - 1) // right + 1
    result = np.zeros((len(x), outputs, rows, columns), np.int64)
    each = outputs // node.groups
    for o in range(outputs):
        first = (o // each) * inputs
        for i in range(inputs):
            for y in range(height):
                for z in range(width):
                    part = x[:, first + i, y * tall :, z * wide :]
                    part = part[:, : down * rows : down, : right * columns : right]
                    result[:, o] += weight[o, i, y, z] * part[:, :rows, :columns]
    return result


def _conv_transpose2d(node: Any, x: Array, weight: Array) -> Array:
    (top, left), (down, right), more = node.padding, node.stride, node.output_padding
    inputs, outputs, height, width = weight.shape
    rows = (x.shape[2] - 1) * down + height + more[0]
    columns = (x.shape[3] - 1) * right + width + more[1]
    result = np.zeros((len(x), outputs, rows, columns), np.int64)
    for i in range(inputs):
        for row in range(x.shape[2]):
            for column in range(x.shape[3]):
                spread = x[:, i, row, column][:, None, None, None] * weight[i][None]
                y, z = row * down, column * right
                result[:, :, y : y + height, z : z + width] += spread
    return result[:, :, top : rows - top, left : columns - left]


WEIGHTED: dict[str, Callable[[Any, Array, Array], Array]] = {
    "conv2d": _conv2d,
    "conv_transpose2d": _conv_transpose2d,
    "linear": lambda node, x, weight: x @ weight.T,
}

# -- real values ------------------------------------------------------------------------------

_erf = np.vectorize(math.erf)


def _layer_norm(node: Any, x: Array, scale: float) -> Array:
    """By the formula, in numbers of 64 bits of significand."""
    real = x.astype(np.longdouble) * np.longdouble(scale)
    away = real - real.mean(1, keepdims=True)
    deviation = np.sqrt((away * away).mean(1, keepdims=True) + np.longdouble(node.eps))
    weight, bias = (
        values.astype(np.longdouble).reshape(-1, 1, 1)
        for values in (node.weights.weight, node.weights.bias)
    )
    return away / deviation * weight + bias


def _softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


REAL: dict[str, Callable[..., Array]] = {
    "add": lambda a, b: a + b,
    "gelu": lambda x: x * 0.5 * (1 + _erf(x / math.sqrt(2))),
    "hard_swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "hard_sigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
    "mean": lambda x: x.sum((2, 3), keepdims=True) / (x.shape[2] * x.shape[3]),
    "softmax": _softmax,
}

# -- values that keep their grid --------------------------------------------------------------


def _windows(node: Any, x: Array, outside: int) -> Array:
    """(…, rows, columns, height * width) of what each window sees."""
    (top, left), (height, width), (down, right) = node.padding, node.kernel, node.stride
    edges = ((0, 0), (0, 0), (top, top), (left, left))
    x = np.pad(x, edges, constant_values=outside)
    found = np.lib.stride_tricks.sliding_window_view(x, (height, width), (2, 3))
    return found[:, :, ::down, ::right].reshape(*found[:, :, ::down, ::right].shape[:4], -1)


def _max_pool2d(node: Any, x: Array) -> Array:
    return _windows(node, x, -1000).max(-1)


def _avg_pool2d(node: Any, x: Array) -> Array:
    windows = _windows(node, x, 0)
    return _halves_to_even(windows.sum(-1), windows.shape[-1])


def _halves_to_even(sums: Array, divisor: int) -> Array:
    """sums / divisor by integers alone."""
    whole, rest = np.divmod(sums, divisor)
    up = (2 * rest > divisor) | ((2 * rest == divisor) & (whole % 2 == 1))
    return whole + up


def _resize(node: Any, x: Array) -> Array:
    if node.mode == "nearest":
        for axis, size in zip((2, 3), node.size):
            x = x.repeat(size // x.shape[axis], axis)
        return x
    parts = 1
    for axis, size in zip((2, 3), node.size):
        old = x.shape[axis]
        matrix = np.array([_bilinear_row(place, old, size // old) for place in range(size)])
        common = 2 * (size // old)
        weights = np.array([[int(weight * common) for weight in row] for row in matrix])
        x = np.moveaxis(np.moveaxis(x, axis, -1) @ weights.T, -1, axis)
        parts *= common
    return _halves_to_even(x, parts)


def _bilinear_row(place: int, old: int, factor: int) -> list[Fraction]:
    """The weights of the old pixels in one new one; pixel centres at halves."""
    source = max((Fraction(2 * place + 1, 2)) / factor - Fraction(1, 2), Fraction(0))
    low = int(source)
    row = [Fraction(0)] * old
    row[low] += 1 - (source - low)
    row[min(low + 1, old - 1)] += source - low
    return row


def _slice(node: Any, x: Array) -> Array:
    places = range(node.start, node.stop, node.step)
    return x.take(list(places), node.axis)


MOVED: dict[str, Callable[..., Array]] = {
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "flatten": lambda node, x: x.reshape(len(x), -1),
    "concat": lambda node, *parts: np.concatenate(parts, 1),
    "resize": _resize,
    "slice": _slice,
    "pad": lambda node, x: np.pad(x, ((0, 0), (0, 0), *zip(node.before, node.after))),
}
"""On q - zero_point; the result has the inputs' quantizer."""
