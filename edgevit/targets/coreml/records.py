"""What each MIL operation of a package is in a graph: one function an operation.

A function takes the reader and the operation and gives the nodes that it stands for: none for a
part of a pattern or of an edge, two for a `silu`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

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
    Relu,
    Relu6,
    Resize,
    Sigmoid,
    Slice,
    Softmax,
    Tanh,
    Weighted,
)
from edgevit.targets.coreml.package import Operation, Ref

if TYPE_CHECKING:
    from edgevit.targets.coreml.read import Reader

Record = Callable[["Reader", Operation], Sequence[Node]]

_CONV = {"x", "weight", "bias", "strides", "pad_type", "pad", "dilations", "groups"}
_POOL = {"x", "kernel_sizes", "strides", "pad_type", "pad", "ceil_mode"}


def _only(reader: Reader, op: Operation, *known: str) -> None:
    """Raises Misread for an argument that the function does not read."""
    odd = sorted(set(op.inputs) - set(known))
    if odd:
        raise reader.misread(op.name, f"{op.kind} has {odd[0]} {op.inputs[odd[0]]}")


def _pair(op: Operation, name: str) -> tuple[int, int]:
    first, second = (int(n) for n in op.inputs.get(name, (1, 1)))
    return first, second


def _padding(reader: Reader, op: Operation) -> tuple[int, int]:
    kind = op.inputs.get("pad_type", "valid")
    if kind == "valid":
        return 0, 0
    pad = [int(n) for n in op.inputs.get("pad", ())]
    if kind != "custom" or len(pad) != 4 or pad[0] != pad[1] or pad[2] != pad[3]:
        raise reader.misread(op.name, f"{op.kind} is padded {kind!r} by {pad}")
    return pad[0], pad[2]


# -- weights ------------------------------------------------------------------------------------


def weights_of(
    reader: Reader, op: Operation, kind: type[Weighted], constant: Operation | None
) -> FloatWeights | Int8Weights:
    """The weights of a convolution; `constant` dequantizes the int8 ones. Raises Misread."""
    bias, weight = op.inputs.get("bias"), op.inputs.get("weight")
    if isinstance(bias, Ref) or (constant is None and not isinstance(weight, np.ndarray)):
        raise reader.misread(op.name, "it is no constant", True)
    if constant is None:
        values, scale = np.asarray(weight, np.float32), None
    else:
        values, scale = _dequantized(reader, op, kind, constant)
    channels = values.shape[kind.channel_axis]
    real = np.zeros(channels, np.float32) if bias is None else np.asarray(bias, np.float32)
    if scale is None:
        return FloatWeights(values, real)
    return Int8Weights(values, scale, None, real)


def _dequantized(
    reader: Reader, op: Operation, kind: type[Weighted], constant: Operation
) -> tuple[np.ndarray, np.ndarray]:
    """int8 values, and a scale for each output channel."""
    given, axis = constant.inputs, kind.channel_axis
    if constant.kind == "constexpr_affine_dequantize":
        data, zero_point = np.asarray(given["quantized_data"]), given.get("zero_point", 0)
        scale, along = np.asarray(given["scale"], np.float32), int(given["axis"])
        # coremltools writes the scale of an only channel as a scalar.
        fits = along % data.ndim == axis and scale.ndim < 2 and scale.size == data.shape[axis]
    elif constant.kind == "constexpr_blockwise_shift_scale":
        data, zero_point = np.asarray(given["data"]), given.get("offset", 0)
        scale = np.asarray(given["scale"], np.float32)
        wanted = [size if place == axis else 1 for place, size in enumerate(data.shape)]
        fits = list(scale.shape) == wanted
    else:
        raise reader.misread(op.name, f"{constant.kind} makes it", True)
    if data.dtype != np.int8 or not fits:
        raise reader.misread(op.name, "is not int8 with a scale for each output channel", True)
    if np.any(np.asarray(zero_point)):
        raise reader.misread(op.name, "has a zero-point that is not 0", True)
    return data, scale.reshape(-1)


def _conv(reader: Reader, op: Operation) -> list[Node]:
    _only(reader, op, *_CONV)
    node = reader.weighted(
        op,
        Conv2d,
        stride=_pair(op, "strides"),
        padding=_padding(reader, op),
        dilation=_pair(op, "dilations"),
        groups=int(op.inputs.get("groups", 1)),
    )
    return [node]


def _conv_transpose(reader: Reader, op: Operation) -> list[Node]:
    _only(reader, op, *_CONV)
    if int(op.inputs.get("groups", 1)) != 1 or _pair(op, "dilations") != (1, 1):
        raise reader.misread(op.name, "a transposed convolution has groups or a dilation")
    stride, padding = _pair(op, "strides"), _padding(reader, op)
    return [reader.weighted(op, ConvTranspose2d, stride=stride, padding=padding)]


def _crop(reader: Reader, op: Operation) -> list[Node]:
    _only(reader, op, "x", "crop_height", "crop_width")
    sides = (*_pair(op, "crop_height"), *_pair(op, "crop_width"))
    return [reader.cropped(op, sides)]


def _linear(reader: Reader, op: Operation) -> list[Node]:
    _only(reader, op, "x", "weight", "bias")
    return [reader.weighted(op, Linear)]


# -- pointwise ----------------------------------------------------------------------------------


def _simple(kind: type[Node]) -> Record:
    def read(reader: Reader, op: Operation) -> list[Node]:
        _only(reader, op, "x", "y")
        return [kind(name=op.name, inputs=reader.inputs(op))]

    return read


def _clamp(kind: type[Clamp]) -> Record:
    def read(reader: Reader, op: Operation) -> list[Node]:
        _only(reader, op, "x")
        return [reader.clamp(op, kind)]

    return read


def _gelu(reader: Reader, op: Operation) -> list[Node]:
    _only(reader, op, "x", "mode")
    if op.inputs.get("mode") != "EXACT":
        raise reader.misread(op.name, f"GELU in mode {op.inputs.get('mode')}")
    return [Gelu(name=op.name, inputs=reader.inputs(op))]


def _silu(reader: Reader, op: Operation) -> list[Node]:
    """coremltools fuses x * sigmoid(x), where no quantizer stands between the two."""
    _only(reader, op, "x")
    (source,) = reader.inputs(op)
    gate = Sigmoid(name=f"{op.name}.gate", inputs=(source,))
    return [gate, Mul(name=op.name, inputs=(source, gate.name))]


def _thresholded_relu(reader: Reader, op: Operation) -> list[Node]:
    """MIL has no hard-swish: with w = x where x >= -3, else 0, it is w * clip(w / 6 + 1/2)."""
    _only(reader, op, "x", "alpha")
    _expect(reader, op, alpha=-3)
    _half(reader, op, reader.inputs(op)[0], reads=2)
    return []


def _sigmoid_hard(reader: Reader, op: Operation) -> list[Node]:
    _only(reader, op, "x", "alpha", "beta")
    _expect(reader, op, alpha=1 / 6, beta=1 / 2)
    value, *_ = reader.operands(op, "x")
    kind, source = reader.halves.get(value.name, ("", ""))
    if kind != "thresholded_relu":
        return [HardSigmoid(name=op.name, inputs=(reader.real(value),))]
    _half(reader, op, source, reads=1)
    return []


def _half(reader: Reader, op: Operation, source: str, reads: int) -> None:
    if reader.reads[op.name] != reads:
        raise reader.misread(op.name, f"{op.kind} is not part of a hard-swish")
    reader.halves[op.name] = (op.kind, source)


def _expect(reader: Reader, op: Operation, **expected: float) -> None:
    for name, value in expected.items():
        found = np.asarray(op.inputs.get(name))
        # Before iOS17 a constant has the element type of x, since then one of its own.
        fits = found.dtype in (np.float16, np.float32) and found.size == 1
        if not fits or found != found.dtype.type(value):
            raise reader.misread(op.name, f"{op.kind} has {name} {found}, not {value:.4g}")


def _add(reader: Reader, op: Operation) -> list[Node]:
    if all(isinstance(value, Ref) for value in reader.operands(op, "x", "y")):
        return list(_simple(Add)(reader, op))
    reader.normalise(op)
    return []


def _mul(reader: Reader, op: Operation) -> list[Node]:
    values = reader.operands(op, "x", "y")
    if not all(isinstance(value, Ref) for value in values):
        reader.normalise(op)
        return []
    halves = [reader.halves.get(value.name) for value in values]
    if halves == [None, None]:
        return list(_simple(Mul)(reader, op))
    (kept, source), (gate, same) = (half or ("", "") for half in halves)
    if (kept, gate) != ("thresholded_relu", "sigmoid_hard") or source != same:
        raise reader.misread(op.name, "mul is not part of a hard-swish")
    return [HardSwish(name=op.name, inputs=(source,))]


# -- the others ---------------------------------------------------------------------------------


def _reduce_mean(reader: Reader, op: Operation) -> list[Node]:
    _only(reader, op, "x", "axes", "keep_dims")
    axes = sorted(int(axis) % 4 for axis in op.inputs["axes"])
    if axes != [2, 3] or not op.inputs.get("keep_dims"):
        raise reader.misread(op.name, f"the mean is over axes {axes}")
    return [Mean(name=op.name, inputs=reader.inputs(op))]


def _pool(kind: type[MaxPool2d] | type[AvgPool2d], *more: str) -> Record:
    def read(reader: Reader, op: Operation) -> list[Node]:
        _only(reader, op, *_POOL, *more)
        if any(bool(op.inputs.get(name)) for name in ("ceil_mode", *more)):
            raise reader.misread(op.name, f"{op.kind} has {dict(op.inputs)}")
        node = kind(
            name=op.name,
            inputs=reader.inputs(op),
            kernel=_pair(op, "kernel_sizes"),
            stride=_pair(op, "strides"),
            padding=_padding(reader, op),
        )
        return [node]

    return read


def _upsample(mode: str) -> Record:
    def read(reader: Reader, op: Operation) -> list[Node]:
        names = ("scale_factor_height", "scale_factor_width")
        _only(reader, op, "x", *names, "align_corners")
        (source,) = reader.inputs(op)
        factors = [float(op.inputs[name]) for name in names]
        corners = bool(op.inputs.get("align_corners", mode == "bilinear"))  # MIL's default: True
        if corners or any(factor != int(factor) for factor in factors):
            raise reader.misread(op.name, f"{op.kind} by {factors}, align_corners {corners}")
        height, width = (int(f) * size for f, size in zip(factors, reader.shapes[source][2:]))
        return [Resize(name=op.name, inputs=(source,), size=(height, width), mode=mode)]

    return read


def _softmax(reader: Reader, op: Operation) -> list[Node]:
    _only(reader, op, "x", "axis")
    inputs = reader.inputs(op)
    if int(op.inputs["axis"]) not in (1, -1):
        raise reader.misread(op.name, f"softmax over axis {op.inputs['axis']}")
    if reader.is_classifiers(op):
        return []
    return [Softmax(name=op.name, inputs=inputs)]


def _classify(reader: Reader, op: Operation) -> list[Node]:
    reader.classify(op)
    return []


def _reshape(reader: Reader, op: Operation) -> list[Node]:
    _only(reader, op, "x", "shape")
    return [Flatten(name=op.name, inputs=reader.inputs(op))]


def _concat(reader: Reader, op: Operation) -> list[Node]:
    _only(reader, op, "values", "axis", "interleave")
    if int(op.inputs["axis"]) != 1 or op.inputs.get("interleave"):
        raise reader.misread(op.name, f"concat along axis {op.inputs['axis']}")
    inputs = tuple(reader.real(value) for value in op.inputs["values"])
    return [Concat(name=op.name, inputs=inputs)]


def _slice(reader: Reader, op: Operation) -> list[Node]:
    _only(reader, op, "x", "begin", "end", "stride", "begin_mask", "end_mask", "squeeze_mask")
    (source,) = reader.inputs(op)
    shape = reader.shapes[source]
    given = {
        name: [int(n) for n in op.inputs.get(name, [default] * len(shape))]
        for name, default in (
            ("begin", 0), ("end", 0), ("stride", 1), ("begin_mask", 0), ("end_mask", 0),
            ("squeeze_mask", 0),
        )
    }  # fmt: skip
    starts = [0 if m else n for n, m in zip(given["begin"], given["begin_mask"])]
    stops = [s if m else n for n, m, s in zip(given["end"], given["end_mask"], shape)]
    cuts = list(zip(starts, stops, given["stride"], strict=True))
    axes = [a for a, size in enumerate(shape) if cuts[a] != (0, size, 1)]
    if len(axes) != 1 or any(given["squeeze_mask"]):
        raise reader.misread(op.name, f"it slices along the axes {axes}")
    start, stop, step = cuts[axes[0]]
    node = Slice(name=op.name, inputs=(source,), axis=axes[0], start=start, stop=stop, step=step)
    return [node]


def _pad(reader: Reader, op: Operation) -> list[Node]:
    _only(reader, op, "x", "pad", "mode", "constant_val")
    pad = [int(n) for n in op.inputs["pad"]]
    zeros = op.inputs.get("mode", "constant") == "constant" and not op.inputs.get("constant_val", 0)
    if len(pad) != 8 or any(pad[:4]) or not zeros:
        raise reader.misread(op.name, f"it pads by {pad}, and not maps with zeros")
    before, after = (pad[4], pad[6]), (pad[5], pad[7])
    return [Pad(name=op.name, inputs=reader.inputs(op), before=before, after=after)]


RECORDS: dict[str, Record] = {
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "crop": _crop,
    "linear": _linear,
    "gelu": _gelu,
    "silu": _silu,
    "sigmoid": _simple(Sigmoid),
    "tanh": _simple(Tanh),
    "sigmoid_hard": _sigmoid_hard,
    "thresholded_relu": _thresholded_relu,
    "relu": _clamp(Relu),
    "relu6": _clamp(Relu6),
    "add": _add,
    "mul": _mul,
    "reduce_mean": _reduce_mean,
    "avg_pool": _pool(AvgPool2d, "exclude_padding_from_average"),
    "max_pool": _pool(MaxPool2d),
    "upsample_nearest_neighbor": _upsample("nearest"),
    "upsample_bilinear": _upsample("bilinear"),
    "softmax": _softmax,
    "classify": _classify,
    "reshape": _reshape,
    "concat": _concat,
    "slice_by_index": _slice,
    "pad": _pad,
}
"""What reads each operation."""
