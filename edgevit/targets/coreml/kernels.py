"""What the reference interpreter does at each MIL operation; see `interpreter`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from edgevit.errors import InputError
from edgevit.kernels.bounds import EXACT_FLOAT32
from edgevit.targets.coreml.package import Operation, Ref

if TYPE_CHECKING:
    from edgevit.targets.coreml.interpreter import Interpreter

_RANGES = {"int8": (-128, 127), "uint8": (0, 255)}


@dataclass(frozen=True)
class Grid:
    """A dequantized tensor as integers: real = centred * scale."""

    centred: Tensor
    scale: Tensor


@dataclass(frozen=True)
class Sum:
    """What a convolution sums up as integers: real = total * data_scale * weight_scale, clamped.

    weight_scale    [O]
    bounds          of the activation behind it, if there is one
    """

    total: Tensor
    data_scale: Tensor
    weight_scale: Tensor
    bounds: tuple[float, float] = (-float("inf"), float("inf"))


Arguments = dict[str, Any]
Kind = Callable[["Interpreter", Operation, Arguments], Tensor]


# -- quantization -------------------------------------------------------------------------------


def _quantize(run: Interpreter, op: Operation, a: Arguments) -> Tensor:
    x, scale = a["input"], a["scale"]
    low, high = _RANGES[op.dtype]
    total = run.sums.get(op.inputs["input"].name)
    if total is not None:
        steps = _requantized(total, scale)
    else:
        steps = x / scale if run.rounding == "division" else x * (1 / scale)
    return (steps.round() + _zero_point(a)).clamp(low, high)


def _requantized(found: Sum, scale: Tensor) -> Tensor:
    """A sum in steps of `scale`, rounded once, between bounds that are whole steps."""
    factor = found.weight_scale * found.data_scale / scale
    low, high = (float((torch.tensor(bound) * (1 / scale)).round()) for bound in found.bounds)
    steps = found.total * factor.view(1, -1, *(1,) * (found.total.ndim - 2))
    return steps.round().clamp(low, high)


def _dequantize(run: Interpreter, op: Operation, a: Arguments) -> Tensor:
    grid = Grid(a["input"] - _zero_point(a), a["scale"])
    run.grids[op.name] = grid
    return grid.centred * grid.scale


def _zero_point(a: Arguments) -> int:
    return 0 if a.get("zero_point") is None else int(np.asarray(a["zero_point"]))


def _constant_affine(run: Interpreter, op: Operation, a: Arguments) -> Tensor:
    data = np.asarray(a["quantized_data"], np.float32)
    shape = [1] * data.ndim
    shape[int(a["axis"])] = -1
    zero_point = np.asarray(a.get("zero_point", 0), np.float32)
    return _constant(run, op, data - zero_point.reshape(shape), a["scale"].reshape(shape))


def _constant_blockwise(run: Interpreter, op: Operation, a: Arguments) -> Tensor:
    data, scale = np.asarray(a["data"], np.float32), a["scale"]
    if any(blocks not in (1, size) for blocks, size in zip(scale.shape, data.shape)):
        raise InputError(f"{op.name}: scales of blocks are not supported, only of channels")
    offset = a.get("offset")
    return _constant(run, op, data - (0 if offset is None else np.asarray(offset)), scale)


def _constant(run: Interpreter, op: Operation, centred: np.ndarray, scale: Tensor) -> Tensor:
    run.grids[op.name] = Grid(torch.from_numpy(centred), scale)
    return run.grids[op.name].centred * scale


# -- convolutions -------------------------------------------------------------------------------


def _weighted(run: Interpreter, op: Operation, a: Arguments) -> Tensor:
    bias, function = a.get("bias"), _FUNCTIONS[op.kind]
    if bias is None:
        bias = torch.zeros(a["weight"].shape[_CHANNEL_AXIS.get(op.kind, 0)])
    data, weight = (_grid_of(run, op, name) for name in ("x", "weight"))
    if run.stored_float16 or data is None or weight is None:
        return function(a["x"], a["weight"], bias, a)
    axis = _CHANNEL_AXIS.get(op.kind, 0)
    total, step, on_grid = _integer_sum(function, data, weight, bias, a, axis)
    if run.rounding == "fused" and on_grid:
        run.sums[op.name] = Sum(total.float(), data.scale, weight.scale.flatten())
    return (total * step.view(1, -1, *(1,) * (total.ndim - 2))).float()


def _grid_of(run: Interpreter, op: Operation, argument: str) -> Grid | None:
    value = op.inputs.get(argument)
    return run.grids.get(value.name) if isinstance(value, Ref) else None


def _integer_sum(
    function: Callable[..., Tensor],
    data: Grid,
    weight: Grid,
    bias: Tensor,
    a: Arguments,
    channel_axis: int,
) -> tuple[Tensor, Tensor, bool]:
    """The exact sum in units of the scales' product, that product [O], and whether it is integers.

    A float32 bias that is the nearest one to a multiple of the scales' product stands for that
    multiple: so the program defines it, and so INT8 hardware adds it. Any other is taken as it is.
    """
    step = (data.scale.double() * weight.scale.double()).flatten()
    units = bias.double() / step
    rounded = units.round()
    on_grid = bool(((rounded * step).float() == bias).all())
    units = rounded if on_grid else units
    by_channel = weight.centred.transpose(0, channel_axis).abs().flatten(1)
    largest = by_channel.sum(1).double() * 256 + units.abs()
    exact = torch.float32 if on_grid and float(largest.max()) < EXACT_FLOAT32 else torch.float64
    total = function(data.centred.to(exact), weight.centred.to(exact), units.to(exact), a)
    return total, step.to(exact), on_grid


def _linear(x: Tensor, weight: Tensor, bias: Tensor, a: Arguments) -> Tensor:
    return functional.linear(x, weight, bias)


def _convolution(x: Tensor, weight: Tensor, bias: Tensor, a: Arguments) -> Tensor:
    if weight.ndim != 4:
        raise InputError(f"a {weight.ndim - 2}-d convolution is not supported")
    padding = _padding("convolution", a)
    strides, dilations = (_integers(a, name) for name in ("strides", "dilations"))
    groups = int(a.get("groups", 1))
    return functional.conv2d(x, weight, bias, strides, padding, dilations, groups)


def _transposed(x: Tensor, weight: Tensor, bias: Tensor, a: Arguments) -> Tensor:
    if weight.ndim != 4 or a.get("output_shape") is not None:
        raise InputError("this form of a transposed convolution is not supported")
    return functional.conv_transpose2d(
        x, weight, bias, _integers(a, "strides"), _padding("transposed convolution", a),
        groups=int(a.get("groups", 1)), dilation=_integers(a, "dilations"),
    )  # fmt: skip


def _integers(a: Arguments, name: str) -> tuple[int, ...]:
    return tuple(int(n) for n in a.get(name, (1, 1)))


def _padding(what: str, a: Arguments) -> tuple[int, int]:
    pad_type = a.get("pad_type", "valid")
    if pad_type not in ("custom", "valid"):
        raise InputError(f"a {what} padded {pad_type!r} is not supported")
    top, bottom, left, right = (int(n) for n in a["pad"]) if pad_type == "custom" else (0,) * 4
    if (top, left) != (bottom, right):
        raise InputError(f"a {what} padded differently on two sides is not supported")
    return top, left


_FUNCTIONS = {"conv": _convolution, "conv_transpose": _transposed, "linear": _linear}
_CHANNEL_AXIS = {"conv_transpose": 1}
"""Of the output channels in the weight, where it is not 0."""


# -- the others ---------------------------------------------------------------------------------


def _function(real: Callable[[Tensor], Tensor]) -> Kind:
    """A function of one value; of an int8 one, a table of its steps."""

    def kind(run: Interpreter, op: Operation, a: Arguments) -> Tensor:
        grid = _grid_of(run, op, "x")
        if grid is None:
            return real(a["x"].double()).float()
        steps = torch.arange(-256, 256)  # whatever the zero-point is
        values = run.store(steps * grid.scale, op.dtype)  # it reads the type that it writes
        table = real(values.double()).float()
        index = (grid.centred + 256).to(torch.int32).flatten()
        return table.index_select(0, index).view(grid.centred.shape)

    return kind


def _gelu(run: Interpreter, op: Operation, a: Arguments) -> Tensor:
    approximate = {"EXACT": "none", "TANH_APPROXIMATION": "tanh"}.get(a.get("mode", "EXACT"))
    if approximate is None:
        raise InputError(f"{op.name}: GELU in mode {a['mode']} is not supported")
    return _function(lambda x: functional.gelu(x, approximate=approximate))(run, op, a)


def _thresholded_relu(run: Interpreter, op: Operation, a: Arguments) -> Tensor:
    alpha = float(a["alpha"])
    return _function(lambda x: x.where(x >= alpha, 0))(run, op, a)


def _sigmoid_hard(run: Interpreter, op: Operation, a: Arguments) -> Tensor:
    alpha, beta = float(a["alpha"]), float(a["beta"])
    return _function(lambda x: (alpha * x + beta).clamp(0, 1))(run, op, a)


def _mean(run: Interpreter, op: Operation, a: Arguments) -> Tensor:
    axes = tuple(int(axis) for axis in a["axes"])
    return a["x"].mean(axes, keepdim=bool(a.get("keep_dims", False)), dtype=torch.float64).float()


def _average(run: Interpreter, op: Operation, a: Arguments) -> Tensor:
    if any(_padding("pooling", a)) or a.get("ceil_mode"):
        raise InputError(f"{op.name}: average pooling with padding or ceil_mode is not supported")
    kernel, strides = _integers(a, "kernel_sizes"), _integers(a, "strides")
    return functional.avg_pool2d(a["x"].double(), kernel, strides).float()


def _bilinear(run: Interpreter, op: Operation, a: Arguments) -> Tensor:
    if a.get("align_corners", True) or not a.get("half_pixel_centers", True):
        raise InputError(f"{op.name}: upsampling with align_corners is not supported")
    size = _enlarged(a["x"], a)
    return functional.interpolate(a["x"].double(), size=size, mode="bilinear").float()


def _enlarged(x: Tensor, a: Arguments) -> list[int]:
    factors = (float(a[f"scale_factor_{side}"]) for side in ("height", "width"))
    return [int(size * factor) for size, factor in zip(x.shape[2:], factors)]


def _clamped(function: Callable[[Tensor], Tensor], low: float, high: float) -> Kind:
    def kind(run: Interpreter, op: Operation, a: Arguments) -> Tensor:
        total = run.sums.get(op.inputs["x"].name)
        if total is not None:
            run.sums[op.name] = replace(total, bounds=(low, high))
        return function(a["x"])

    return kind


def _moved(function: Callable[[list[Tensor], Operation, Arguments], Tensor]) -> Kind:
    """An operation that moves or selects values: what was on a grid stays on it."""

    def kind(run: Interpreter, op: Operation, a: Arguments) -> Tensor:
        name = "values" if "values" in op.inputs else "x"
        given = op.inputs[name]
        refs = given if isinstance(given, tuple) else (given,)
        grids = [run.grids.get(ref.name) for ref in refs]
        known = [grid for grid in grids if grid is not None]
        if len(known) == len(grids) and all(bool(g.scale == known[0].scale) for g in known):
            centred = function([grid.centred for grid in known], op, a)
            run.grids[op.name] = Grid(centred, known[0].scale)
        return function(a[name] if isinstance(given, tuple) else [a["x"]], op, a)

    return kind


def _reshape(x: list[Tensor], op: Operation, a: Arguments) -> Tensor:
    # Packages are made for one image; the first dimension is the batch's throughout.
    return x[0].reshape(len(x[0]), *(int(size) for size in a["shape"][1:]))


def _concat(x: list[Tensor], op: Operation, a: Arguments) -> Tensor:
    if a.get("interleave"):
        raise InputError(f"{op.name}: an interleaved concat is not supported")
    return torch.cat(x, int(a["axis"]))


def _largest(x: list[Tensor], op: Operation, a: Arguments) -> Tensor:
    if a.get("ceil_mode"):
        raise InputError(f"{op.name}: pooling with ceil_mode is not supported")
    kernel, strides = _integers(a, "kernel_sizes"), _integers(a, "strides")
    return functional.max_pool2d(x[0], kernel, strides, _padding("pooling", a))


def _nearest(x: list[Tensor], op: Operation, a: Arguments) -> Tensor:
    return functional.interpolate(x[0], size=_enlarged(x[0], a), mode="nearest")


def _sliced(x: list[Tensor], op: Operation, a: Arguments) -> Tensor:
    """The batch is whole, whatever its size."""
    shape = x[0].shape
    none = [False] * len(shape)
    begins, ends = (a.get(f"{edge}_mask", none) for edge in ("begin", "end"))
    if any(a.get("squeeze_mask", none)):
        raise InputError(f"{op.name}: a slice that drops an axis is not supported")
    strides = a.get("stride", [1] * len(shape))
    parts = [
        slice(None if begins[i] else int(a["begin"][i]), None if ends[i] else int(a["end"][i]),
              int(strides[i]))
        for i in range(1, len(shape))
    ]  # fmt: skip
    return x[0][(slice(None), *parts)]


def _padded(x: list[Tensor], op: Operation, a: Arguments) -> Tensor:
    pad = [int(n) for n in a["pad"]]
    if a.get("mode", "constant") != "constant" or float(a.get("constant_val", 0)) or any(pad[:2]):
        raise InputError(f"{op.name}: padding with anything but zeros is not supported")
    axes = [pad[i : i + 2] for i in range(0, len(pad), 2)]
    return functional.pad(x[0], [n for axis in reversed(axes) for n in axis])


def _cropped(run: Interpreter, op: Operation, a: Arguments) -> Tensor:
    (top, bottom), (left, right) = (_integers(a, f"crop_{side}") for side in ("height", "width"))
    height, width = a["x"].shape[2:]
    rows, columns = slice(top, height - bottom), slice(left, width - right)
    total = run.sums.get(op.inputs["x"].name)
    if total is not None:
        run.sums[op.name] = replace(total, total=total.total[:, :, rows, columns])
    return a["x"][:, :, rows, columns]


def _classify(run: Interpreter, op: Operation, a: Arguments) -> Tensor:
    return a["probabilities"]


KINDS: dict[str, Kind] = {
    "quantize": _quantize,
    "dequantize": _dequantize,
    "constexpr_affine_dequantize": _constant_affine,
    "constexpr_blockwise_shift_scale": _constant_blockwise,
    "conv": _weighted,
    "conv_transpose": _weighted,
    "crop": _cropped,
    "linear": _weighted,
    "gelu": _gelu,
    "sigmoid": _function(torch.sigmoid),
    "tanh": _function(torch.tanh),
    "sigmoid_hard": _sigmoid_hard,
    "thresholded_relu": _thresholded_relu,
    "silu": _function(functional.silu),
    "relu": _clamped(torch.relu, 0.0, float("inf")),
    "relu6": _clamped(functional.relu6, 0.0, 6.0),
    "add": lambda run, op, a: a["x"] + a["y"],
    "sub": lambda run, op, a: a["x"] - a["y"],
    "real_div": lambda run, op, a: a["x"] / a["y"],
    "sqrt": lambda run, op, a: a["x"].sqrt(),
    "mul": lambda run, op, a: a["x"] * a["y"],
    "reduce_mean": _mean,
    "reshape": _moved(_reshape),
    "concat": _moved(_concat),
    "slice_by_index": _moved(_sliced),
    "pad": _moved(_padded),
    "max_pool": _moved(_largest),
    "upsample_nearest_neighbor": _moved(_nearest),
    "upsample_bilinear": _bilinear,
    "avg_pool": _average,
    "softmax": lambda run, op, a: a["x"].softmax(int(a["axis"])),
    "cast": lambda run, op, a: a["x"],
    "classify": _classify,
}
"""What packages of edgevit hold, and no more."""
