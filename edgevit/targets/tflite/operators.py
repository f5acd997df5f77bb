"""TFLite's operators as operations: one read function each, by the operator's name.

Where several operators stand for one operation (a PAD in front of a convolution, a TRANSPOSE in
front of a RESHAPE), the last of them takes the others in: `TAKES` says which is the one before it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgevit.graph.diff import differs
from edgevit.ops import (
    Add,
    AvgPool2d,
    Clamp,
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
    Sigmoid,
    Slice,
    Softmax,
    Tanh,
)
from edgevit.targets.tflite.file import Operator
from edgevit.targets.tflite.operators_weighted import (
    convolution,
    take_pad,
    take_transposed,
    transposed,
)
from edgevit.targets.tflite.reader import (
    Reader,
    first_input,
    fused,
    numbers,
    pad_sides,
    padding_in_front,
    plain,
    ranges,
    unfused,
)

_AXES = {3: 1, 1: 2, 2: 3}
"""An axis of NHWC -> the same of NCHW."""


# -- one or two values ------------------------------------------------------------------------


def _clamp(kind: type[Clamp]) -> Callable[[Reader, Operator], Node]:
    alone = plain(kind)
    return lambda r, operator: (transposed if r.taken(operator) else alone)(r, operator)


def _gelu(r: Reader, operator: Operator) -> Node:
    if operator.options.approximate:
        raise differs(operator.output.name, "GELU is the approximate one")
    return plain(Gelu)(r, operator)


def _mul(r: Reader, operator: Operator) -> Node:
    """A product; or, behind an ADD of 3 with a RELU6, a float file's hard sigmoid."""
    if not r.taken(operator):
        return plain(Mul)(r, operator)
    unfused(operator)
    ((added,), (clamped, slope)) = r.taken(operator), operator.inputs
    source, offset = added.inputs
    r.same_quantizer(clamped, operator.output)
    constants = [
        None if t.values is None or r.quantized else t.values.tolist() for t in (offset, slope)
    ]
    if constants != [[3.0], [float(np.float32(1 / 6))]] or fused(added) is not Relu6:
        raise differs(operator.output.name, "a product with a constant that is no hard sigmoid")
    return HardSigmoid(name=operator.output.name, inputs=(source.name,))


# -- several positions ------------------------------------------------------------------------


def _mean(r: Reader, operator: Operator) -> Node:
    source, axes = operator.inputs
    if sorted(numbers(axes)) != [1, 2] or not operator.options.keepDims:
        raise differs(operator.output.name, f"a MEAN over the axes {numbers(axes)}")
    return Mean(name=operator.output.name, inputs=(source.name,))


def _pool(kind: type[AvgPool2d] | type[MaxPool2d]) -> Callable[[Reader, Operator], Node]:
    def reader(r: Reader, operator: Operator) -> Node:
        unfused(operator)
        options = operator.options
        kernel = (options.filterHeight, options.filterWidth)
        stride = (options.strideH, options.strideW)
        for padded in r.taken(operator):
            value = padded.inputs[2]
            least = -128 if r.quantized else float(np.finfo(np.float32).min)
            if value.values is None or value.values.tolist() != [least]:
                raise differs(padded.output.name, "it pads with another value than the least one")
        return kind(
            name=operator.output.name,
            inputs=(first_input(r, operator).name,),
            kernel=kernel,
            stride=stride,
            padding=padding_in_front(r, operator, kernel, stride),
        )

    return reader


def _softmax(r: Reader, operator: Operator) -> Node:
    if operator.options.beta != 1.0:
        raise differs(operator.output.name, f"a SOFTMAX with beta {operator.options.beta}")
    return plain(Softmax)(r, operator)


# -- moved values -----------------------------------------------------------------------------


def _flatten(r: Reader, operator: Operator) -> Node:
    """A RESHAPE to (1, 1, 1, all), of NCHW where the order of the values is another."""
    name, source = operator.output.name, first_input(r, operator)
    if tuple(numbers(operator.inputs[1])) != operator.output.shape:
        raise differs(name, f"a RESHAPE to {numbers(operator.inputs[1])}")
    moved = r.taken(operator)
    for turned in moved:
        if numbers(turned.inputs[1]) != [0, 3, 1, 2]:
            raise differs(name, "its values are in another order")
        r.same_quantizer(turned.output, source)
    _, height, width, channels = source.shape
    if not moved and channels > 1 and (height, width) != (1, 1):
        raise differs(name, "its values are in the order of NHWC")
    return Flatten(name=name, inputs=(source.name,))


def _concat(r: Reader, operator: Operator) -> Node:
    if operator.options.axis not in (3, -1):
        raise differs(operator.output.name, f"along the axis {operator.options.axis}, not channels")
    return plain(Concat)(r, operator)


def _resize(mode: str) -> Callable[[Reader, Operator], Node]:
    def reader(r: Reader, operator: Operator) -> Node:
        (source, size), options = operator.inputs, operator.options
        if options.alignCorners or options.halfPixelCenters != (mode == "bilinear"):
            raise differs(operator.output.name, f"{operator.name} places its samples elsewhere")
        height, width = numbers(size)
        name = operator.output.name
        return Resize(name=name, inputs=(source.name,), size=(height, width), mode=mode)

    return reader


def _slice(r: Reader, operator: Operator) -> Node:
    """A slice; or the cut of a transposed convolution."""
    if r.taken(operator):
        return transposed(r, operator)
    begin, end, steps, axes = ranges(operator)
    if len(axes) != 1:
        raise differs(operator.output.name, f"it cuts the axes {axes}, not one")
    (axis,), source = axes, operator.inputs[0]
    own = _AXES.get(axis, 0) if len(r.shapes[source.name]) == 4 else {3: 1}.get(axis, 0)
    given = {"start": begin[axis], "stop": end[axis], "step": steps[axis]}
    return Slice(name=operator.output.name, inputs=(source.name,), axis=own, **given)


def _pad(r: Reader, operator: Operator) -> Node:
    before, after = pad_sides(operator)
    source = operator.inputs[0].name
    return Pad(name=operator.output.name, inputs=(source,), before=before, after=after)


# -- tables -----------------------------------------------------------------------------------


def _take_added(r: Reader, operator: Operator) -> Operator | None:
    """The ADD in front of a product with a constant."""
    constant = operator.inputs[1].values is not None
    return r.maker(operator.inputs[0], "ADD") if constant else None


TAKES: dict[str, Callable[[Reader, Operator], Operator | None]] = {
    "CONV_2D": take_pad,
    "DEPTHWISE_CONV_2D": take_pad,
    "MAX_POOL_2D": lambda r, operator: r.maker(operator.inputs[0], "PADV2"),
    "MUL": _take_added,
    "RELU": take_transposed(".linear", "TRANSPOSE_CONV", "STRIDED_SLICE"),
    "RELU6": take_transposed(".linear", "TRANSPOSE_CONV", "STRIDED_SLICE"),
    "RESHAPE": lambda r, operator: r.maker(operator.inputs[0], "TRANSPOSE"),
    "STRIDED_SLICE": take_transposed(".whole", "TRANSPOSE_CONV"),
}

READERS: dict[str, Callable[[Reader, Operator], Node]] = {
    "ADD": plain(Add),
    "AVERAGE_POOL_2D": _pool(AvgPool2d),
    "CONCATENATION": _concat,
    "CONV_2D": convolution,
    "DEPTHWISE_CONV_2D": convolution,
    "GELU": _gelu,
    "HARD_SWISH": plain(HardSwish),
    "LOGISTIC": plain(Sigmoid),
    "MAX_POOL_2D": _pool(MaxPool2d),
    "MEAN": _mean,
    "MUL": _mul,
    "PAD": _pad,
    "RELU": _clamp(Relu),
    "RELU6": _clamp(Relu6),
    "RESHAPE": _flatten,
    "RESIZE_BILINEAR": _resize("bilinear"),
    "RESIZE_NEAREST_NEIGHBOR": _resize("nearest"),
    "SOFTMAX": _softmax,
    "STRIDED_SLICE": _slice,
    "TANH": plain(Tanh),
    "TRANSPOSE_CONV": transposed,
}
