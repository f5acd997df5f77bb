"""TFLite's operators as operations: one read function each, by the operator's name.

Where several operators stand for one operation (a PAD in front of a convolution, a TRANSPOSE in
front of a RESHAPE), the last of them takes the others in: `TAKES` says which is the one before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from edgevit.errors import InputError
from edgevit.graph.diff import differs
from edgevit.ops import (
    Add,
    AvgPool2d,
    Clamp,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Flatten,
    FloatWeights,
    Gelu,
    HardSigmoid,
    HardSwish,
    Int8Weights,
    Linear,
    MaxPool2d,
    Mean,
    Mul,
    Node,
    Pad,
    Quantizer,
    Relu,
    Relu6,
    Resize,
    Shape,
    Sigmoid,
    Slice,
    Softmax,
)
from edgevit.targets.pixels import quantized
from edgevit.targets.tflite.file import Operator, Tensor
from edgevit.targets.tflite.schema import schema

EDGE_MARGIN_STEPS = 1e-4
"""A product nearer to a rounding edge than this may be rounded to either side of it."""
_AXES = {3: 1, 1: 2, 2: 3}
"""An axis of NHWC -> the same of NCHW."""

Pair = tuple[int, int]


class Reader(Protocol):
    """What a read function is given of the file and of the graph so far.

    quantized   whether it is an int8 file
    shapes      of the graph's tensors so far, (N, C, H, W) or (N, C)
    """

    quantized: bool
    shapes: dict[str, Shape]

    def taken(self, operator: Operator) -> list[Operator]:
        """The operators in front of one that stand for one operation with it, nearest first."""
        ...

    def maker(self, tensor: Tensor, *kinds: str) -> Operator | None:
        """The operator that makes a tensor, if it has one of these names."""
        ...

    def same_quantizer(self, tensor: Tensor, source: Tensor) -> None:
        """Raises EdgevitError where a tensor on the way has not another's quantizer."""
        ...

    def is_head(self, operator: Operator) -> bool:
        """Whether an output is the vector that an operator makes, without anything between."""
        ...

    def flattened(self, name: str) -> str:
        """The vector that a head reads of a map of one pixel; a flatten that is no operator."""
        ...


def nhwc(shape: Shape) -> Shape:
    """How the file holds (N, C, H, W) and (N, C)."""
    batch, channels, *size = shape
    return (batch, *(size or (1, 1)), channels)


def per_tensor(tensor: Tensor) -> Quantizer:
    """The one quantizer of a tensor; EdgevitError naming it where it has none or several."""
    try:
        (scale,), (zero_point,) = tensor.scale.tolist(), tensor.zero_point.tolist()
        return Quantizer(scale, zero_point)
    except (ValueError, InputError) as error:
        raise differs(tensor.name, f"it has no quantizer of int8: {error}") from error


def _numbers(tensor: Tensor) -> list[int]:
    """The values of an int32 constant."""
    if tensor.values is None or tensor.dtype != "INT32":
        raise differs(tensor.name, f"it is {tensor.dtype}, or no constant, where int32 is expected")
    return tensor.values.reshape(-1).tolist()


def _plain(kind: type[Node]) -> Callable[[Reader, Operator], Node]:
    """The read function of an operator without attributes."""

    def reader(r: Reader, operator: Operator) -> Node:
        _unfused(operator)
        names = tuple(tensor.name for tensor in operator.inputs)
        return kind(name=operator.output.name, inputs=names)

    return reader


def _unfused(operator: Operator) -> None:
    if getattr(operator.options, "fusedActivationFunction", 0):
        raise differs(operator.output.name, f"{operator.name} has an activation behind it")


# -- padding ----------------------------------------------------------------------------------


def _pad_sides(operator: Operator) -> tuple[Pair, Pair]:
    """(top, left) and (bottom, right) of a PAD or PADV2."""
    amounts = _numbers(operator.inputs[1])
    if len(amounts) != 8 or any(amounts[:2] + amounts[6:]):
        raise differs(operator.output.name, f"it pads other axes than rows and columns: {amounts}")
    top, bottom, left, right = amounts[2:6]
    return (top, left), (bottom, right)


def _padding(r: Reader, operator: Operator, window: Pair, stride: Pair) -> Pair:
    """Pixels in front of the maps that an operator reads: of a PAD before it, and of its own."""
    (name, source), pad = (operator.output.name, operator.inputs[0]), (0, 0)
    for padded in r.taken(operator):
        pad, after = _pad_sides(padded)
        if pad != after:
            raise differs(padded.output.name, f"it pads one side more than the other: {pad, after}")
        r.same_quantizer(padded.output, padded.inputs[0])
    if operator.options.padding == schema().Padding.VALID:
        return pad
    totals = [
        max((-(-size // step) - 1) * step + width - size, 0)
        for size, width, step in zip(source.shape[1:3], window, stride, strict=True)
    ]
    if any(total % 2 for total in totals):
        raise differs(name, "its padding SAME is more on one side than on the other")
    return pad[0] + totals[0] // 2, pad[1] + totals[1] // 2


# -- with weights -----------------------------------------------------------------------------


def _module(weight: Tensor) -> str:
    module, dot, last = weight.name.rpartition(".")
    if not dot or last != "weight":
        raise differs(weight.name, "no weight of a module is called so")
    return module


def _convolution(r: Reader, operator: Operator) -> Node:
    _, weight, bias = operator.inputs
    options, depthwise = operator.options, operator.name == "DEPTHWISE_CONV_2D"
    name, source = operator.output.name, _before(r, operator)
    if depthwise and weight.name == f"{name}.slope":
        return _hard_sigmoid_line(r, operator)
    stride = (options.strideH, options.strideW)
    dilation = (options.dilationHFactor, options.dilationWFactor)
    height, width = (d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[1:3]))
    padding = _padding(r, operator, (height, width), stride)
    channels = source.shape[3]
    if depthwise and options.depthMultiplier * channels != weight.shape[3]:
        raise differs(name, f"depth multiplier {options.depthMultiplier} of {weight.shape}")
    order = (3, 0, 1, 2) if depthwise else (0, 3, 1, 2)
    weights = _weights(r, source, weight, bias, order, axis=3 if depthwise else 0)
    given: dict[str, Any] = {"name": name, "module": _module(weight), "weights": weights}
    given["activation"] = _fused(operator)
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


def _before(r: Reader, operator: Operator) -> Tensor:
    """The graph's tensor that an operator reads, in front of the operators that it takes in."""
    first = [operator, *r.taken(operator)][-1]
    return first.inputs[2 if first.name == "TRANSPOSE_CONV" else 0]


def _fused(operator: Operator) -> type[Clamp] | None:
    kinds = schema().ActivationFunctionType
    known: Mapping[int, type[Clamp] | None] = {
        kinds.NONE: None, kinds.RELU: Relu, kinds.RELU6: Relu6
    }  # fmt: skip
    found = operator.options.fusedActivationFunction
    if found not in known:
        raise differs(operator.output.name, f"activation {found} behind it")
    return known[found]


def _weights(
    r: Reader, source: Tensor, weight: Tensor, bias: Tensor, order: tuple[int, ...], axis: int
) -> FloatWeights | Int8Weights:
    """A layer's weights in PyTorch's layout.

    source  what the layer reads
    order   PyTorch's axes in TFLite's; axis: of TFLite's output channels
    """
    if weight.values is None or bias.values is None:
        raise differs(weight.name, "it or its bias is no constant")
    kinds = ("INT8", "INT32") if r.quantized else ("FLOAT32", "FLOAT32")
    if (weight.dtype, bias.dtype) != kinds:
        raise differs(weight.name, f"it is {weight.dtype} and its bias {bias.dtype}, not {kinds}")
    values = np.ascontiguousarray(weight.values.transpose(order))
    if not r.quantized:
        return FloatWeights(values, bias.values)
    if weight.axis != axis or weight.zero_point.any() or weight.scale.ndim != 1:
        raise differs(weight.name, "its scales lie on another axis, or have zero-points")
    if int(values.min(initial=0)) < -127:
        raise differs(weight.name, "it holds -128; weights are symmetric")
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


def _transposed(r: Reader, operator: Operator) -> Node:
    """A TRANSPOSE_CONV, cut by a STRIDED_SLICE, clamped by a RELU or RELU6: its last operator."""
    chain = [operator, *r.taken(operator)]
    made = {each.name: each for each in chain}
    transposed = made["TRANSPOSE_CONV"]
    target, weight, source, bias = transposed.inputs
    options, whole = transposed.options, transposed.output
    for each in chain[1:]:
        r.same_quantizer(each.output, operator.output)
    if tuple(_numbers(target)) != whole.shape or _fused(transposed) is not None:
        raise differs(operator.output.name, f"the shape of {whole.name} is another: {whole.shape}")
    stride, kernel = (options.strideH, options.strideW), weight.shape[1:3]
    full = [(n - 1) * s + k for n, s, k in zip(source.shape[1:3], stride, kernel)]
    out = operator.output.shape[1:3]
    padding = (0, 0)
    if options.padding == schema().Padding.SAME:
        over = [max(f - o, 0) // 2 for f, o in zip(full, whole.shape[1:3])]
        padding = (over[0], over[1])
    if "STRIDED_SLICE" in made:
        begin, end, steps, axes = _ranges(made["STRIDED_SLICE"])
        if axes != [1, 2] or any(padding) or steps[1:3] != [1, 1]:
            raise differs(operator.output.name, f"a cut along the axes {axes}")
        padding = (begin[1], begin[2])
        out = (end[1] - begin[1], end[2] - begin[2])
    rest = [o - f + 2 * p for o, f, p in zip(out, full, padding)]
    clamps: dict[str, type[Clamp]] = {"RELU": Relu, "RELU6": Relu6}
    return ConvTranspose2d(
        name=operator.output.name,
        inputs=(source.name,),
        module=_module(weight),
        activation=clamps.get(operator.name),
        weights=_weights(r, source, weight, bias, (3, 0, 1, 2), axis=0),
        stride=stride,
        padding=padding,
        output_padding=(rest[0], rest[1]),
    )


def _clamp(kind: type[Clamp]) -> Callable[[Reader, Operator], Node]:
    alone = _plain(kind)
    return lambda r, operator: (_transposed if r.taken(operator) else alone)(r, operator)


# -- one or two values ------------------------------------------------------------------------


def _gelu(r: Reader, operator: Operator) -> Node:
    if operator.options.approximate:
        raise differs(operator.output.name, "GELU is the approximate one")
    return _plain(Gelu)(r, operator)


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
    if weight.shape[:3] != (1, 1, 1) or options.depthMultiplier != 1 or _fused(operator):
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


def _mul(r: Reader, operator: Operator) -> Node:
    """A product; or, behind an ADD of 3 with a RELU6, a float file's hard sigmoid."""
    if not r.taken(operator):
        return _plain(Mul)(r, operator)
    _unfused(operator)
    ((added,), (clamped, slope)) = r.taken(operator), operator.inputs
    source, offset = added.inputs
    r.same_quantizer(clamped, operator.output)
    constants = [
        None if t.values is None or r.quantized else t.values.tolist() for t in (offset, slope)
    ]
    if constants != [[3.0], [float(np.float32(1 / 6))]] or _fused(added) is not Relu6:
        raise differs(operator.output.name, "a product with a constant that is no hard sigmoid")
    return HardSigmoid(name=operator.output.name, inputs=(source.name,))


# -- several positions ------------------------------------------------------------------------


def _mean(r: Reader, operator: Operator) -> Node:
    source, axes = operator.inputs
    if sorted(_numbers(axes)) != [1, 2] or not operator.options.keepDims:
        raise differs(operator.output.name, f"a MEAN over the axes {_numbers(axes)}")
    return Mean(name=operator.output.name, inputs=(source.name,))


def _pool(kind: type[AvgPool2d] | type[MaxPool2d]) -> Callable[[Reader, Operator], Node]:
    def reader(r: Reader, operator: Operator) -> Node:
        _unfused(operator)
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
            inputs=(_before(r, operator).name,),
            kernel=kernel,
            stride=stride,
            padding=_padding(r, operator, kernel, stride),
        )

    return reader


def _softmax(r: Reader, operator: Operator) -> Node:
    if operator.options.beta != 1.0:
        raise differs(operator.output.name, f"a SOFTMAX with beta {operator.options.beta}")
    return _plain(Softmax)(r, operator)


# -- moved values -----------------------------------------------------------------------------


def _flatten(r: Reader, operator: Operator) -> Node:
    """A RESHAPE to (1, 1, 1, all), of NCHW where the order of the values is another."""
    name, source = operator.output.name, _before(r, operator)
    if tuple(_numbers(operator.inputs[1])) != operator.output.shape:
        raise differs(name, f"a RESHAPE to {_numbers(operator.inputs[1])}")
    moved = r.taken(operator)
    for transposed in moved:
        if _numbers(transposed.inputs[1]) != [0, 3, 1, 2]:
            raise differs(name, "its values are in another order")
        r.same_quantizer(transposed.output, source)
    _, height, width, channels = source.shape
    if not moved and channels > 1 and (height, width) != (1, 1):
        raise differs(name, "its values are in the order of NHWC")
    return Flatten(name=name, inputs=(source.name,))


def _concat(r: Reader, operator: Operator) -> Node:
    if operator.options.axis not in (3, -1):
        raise differs(operator.output.name, f"along the axis {operator.options.axis}, not channels")
    return _plain(Concat)(r, operator)


def _resize(mode: str) -> Callable[[Reader, Operator], Node]:
    def reader(r: Reader, operator: Operator) -> Node:
        (source, size), options = operator.inputs, operator.options
        if options.alignCorners or options.halfPixelCenters != (mode == "bilinear"):
            raise differs(operator.output.name, f"{operator.name} places its samples elsewhere")
        height, width = _numbers(size)
        name = operator.output.name
        return Resize(name=name, inputs=(source.name,), size=(height, width), mode=mode)

    return reader


def _slice(r: Reader, operator: Operator) -> Node:
    """A slice; or the cut of a transposed convolution."""
    if r.taken(operator):
        return _transposed(r, operator)
    begin, end, steps, axes = _ranges(operator)
    if len(axes) != 1:
        raise differs(operator.output.name, f"it cuts the axes {axes}, not one")
    (axis,), source = axes, operator.inputs[0]
    own = _AXES.get(axis, 0) if len(r.shapes[source.name]) == 4 else {3: 1}.get(axis, 0)
    given = {"start": begin[axis], "stop": end[axis], "step": steps[axis]}
    return Slice(name=operator.output.name, inputs=(source.name,), axis=own, **given)


def _ranges(operator: Operator) -> tuple[list[int], list[int], list[int], list[int]]:
    """Begin, end and step by axis of a STRIDED_SLICE, and the axes that are not whole."""
    options = operator.options
    others = (options.ellipsisMask, options.newAxisMask, options.shrinkAxisMask, options.offset)
    begin, end, steps = (_numbers(tensor) for tensor in operator.inputs[1:4])
    axes = [axis for axis in range(4) if not options.beginMask & 1 << axis]
    rest = [steps[axis] for axis in range(4) if axis not in axes]
    if any(others) or options.beginMask != options.endMask or any(step != 1 for step in rest):
        raise differs(operator.output.name, "its masks cut more than ranges of whole axes")
    return begin, end, steps, axes


def _pad(r: Reader, operator: Operator) -> Node:
    before, after = _pad_sides(operator)
    source = operator.inputs[0].name
    return Pad(name=operator.output.name, inputs=(source,), before=before, after=after)


# -- tables -----------------------------------------------------------------------------------


def _take_pad(r: Reader, operator: Operator) -> Operator | None:
    """The PAD of a convolution's own padding, which has its module's name."""
    source, weight, _ = operator.inputs
    found = r.maker(source, "PAD")
    return found if found and source.name == f"{weight.name.removesuffix('.weight')}.pad" else None


def _take_transposed(suffix: str, *kinds: str) -> Callable[[Reader, Operator], Operator | None]:
    """The operators of a transposed convolution, which have its module's name and a suffix."""

    def take(r: Reader, operator: Operator) -> Operator | None:
        found = r.maker(operator.inputs[0], *kinds)
        if found is None:
            return None
        first = [found, *r.taken(found)][-1]
        if first.name != "TRANSPOSE_CONV":
            return None
        return found if found.output.name == _module(first.inputs[1]) + suffix else None

    return take


def _take_added(r: Reader, operator: Operator) -> Operator | None:
    """The ADD in front of a product with a constant."""
    constant = operator.inputs[1].values is not None
    return r.maker(operator.inputs[0], "ADD") if constant else None


TAKES: dict[str, Callable[[Reader, Operator], Operator | None]] = {
    "CONV_2D": _take_pad,
    "DEPTHWISE_CONV_2D": _take_pad,
    "MAX_POOL_2D": lambda r, operator: r.maker(operator.inputs[0], "PADV2"),
    "MUL": _take_added,
    "RELU": _take_transposed(".linear", "TRANSPOSE_CONV", "STRIDED_SLICE"),
    "RELU6": _take_transposed(".linear", "TRANSPOSE_CONV", "STRIDED_SLICE"),
    "RESHAPE": lambda r, operator: r.maker(operator.inputs[0], "TRANSPOSE"),
    "STRIDED_SLICE": _take_transposed(".whole", "TRANSPOSE_CONV"),
}

READERS: dict[str, Callable[[Reader, Operator], Node]] = {
    "ADD": _plain(Add),
    "AVERAGE_POOL_2D": _pool(AvgPool2d),
    "CONCATENATION": _concat,
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _convolution,
    "GELU": _gelu,
    "HARD_SWISH": _plain(HardSwish),
    "LOGISTIC": _plain(Sigmoid),
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
    "TRANSPOSE_CONV": _transposed,
}
