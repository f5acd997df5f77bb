"""What the HTP makes of one operation, as exact integers: found by probing its x86 emulator.

    step = htp_step(node, inputs, output, "75")     # quantizers of the graph
    result = step(*values)                          # int8 (N, ...) to int8

The HTP differs from the program in how many bits of a factor it keeps, and how many of a sum:

convolution, linear   the factor has 12 bits, up to v69 11; the sum's low bits are cut off
strided depthwise     the factor has 15 bits, the sum is whole
add                   both factors are integers over one power of two, and what the zero-points
                      contribute is rounded to a multiple of 256 of that
mul, mean             the factor has 15 bits; a product's offset has 16, in coarser units
functions of a value  tables of 256, rounded half away from zero
moved values          unchanged

Inside it holds activations as uint8, 128 above the program's int8. Constants are computed in
float32, in the order that stands here. tests/targets/test_qnn_reference.py holds every rule to the
emulator of onnxruntime-qnn 2.7.0; no device has run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgevit.errors import InputError
from edgevit.ops import (
    INT8_MAX,
    INT8_MIN,
    Add,
    Conv2d,
    Mean,
    Mul,
    Node,
    Quantizer,
    Relu,
    Resize,
    Unary,
    Weighted,
)
from edgevit.ops.base import Unchanged
from edgevit.targets.qnn.emulator import HtpArch

Step = Callable[..., np.ndarray]
"""int8 arrays to an int8 array."""

_ELEVEN_BITS: tuple[HtpArch, ...] = ("68", "69")
_TOP = INT8_MAX - INT8_MIN
_LEAST_CUT_BITS = 1  # of a sum before a ReLU whose zero is not the least value
_LARGEST_PRODUCT_SHIFT = 22


def htp_step(node: Node, inputs: Sequence[Quantizer], output: Quantizer, arch: HtpArch) -> Step:
    """The HTP's computation of a node, by the quantizers of its inputs and output.

    Raises InputError for an operation of which no rule was found; see `missing_rule`.
    """
    missing = missing_rule(node, inputs, output)
    if missing:
        raise InputError(f"{node.name}: how the HTP computes {missing} is not known")
    for kind, rule in _RULES.items():
        if isinstance(node, kind):
            return rule(node, inputs, output, arch)
    raise AssertionError(node.kind)


def missing_rule(node: Node, inputs: Sequence[Quantizer], output: Quantizer) -> str:
    """What of an operation has no known rule, for a message; nothing where it has one."""
    if not isinstance(node, tuple(_RULES)):
        return repr(node.kind)
    if isinstance(node, Weighted) and node.activation not in (None, Relu):
        return f"{node.activation.kind} behind {node.kind!r}"
    if isinstance(node, Mul) and inputs[0].scale * inputs[1].scale >= output.scale:
        return "a product of which one step is more than one of the result"
    if isinstance(node, Resize) and node.mode != "nearest":
        return f"a {node.mode} {node.kind!r}"
    return ""


# -- factors ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Factor:
    """integers * 2**-shift, of [O] or no axis."""

    integer: np.ndarray
    shift: np.ndarray

    @classmethod
    def of(cls, real: Any, bits: int, scale: int = 0) -> _Factor:
        """Of `bits` significant bits, rounded half up.

        scale  what a significand of 1 becomes, if not 2**bits
        """
        significand, exponent = np.frexp(np.asarray(real, np.float32))
        scaled = significand.astype(np.float64) * (scale or 1 << bits)
        integer = np.floor(scaled + 0.5).astype(np.int64)
        carried = integer == 1 << bits
        shift = bits - exponent.astype(np.int64) - carried
        return cls(np.where(carried, integer >> 1, integer), shift)


def _rounded(product: Any, shift: np.ndarray | int) -> np.ndarray:
    """product * 2**-shift, rounded half up."""
    return (product + (1 << (np.asarray(shift) - 1))) >> shift


def _as_int8(held: np.ndarray) -> np.ndarray:
    """Values 128 above int8, saturated."""
    return (np.clip(held, 0, _TOP) + INT8_MIN).astype(np.int8)


def _zero(quantizer: Quantizer) -> int:
    """The zero-point as the HTP holds it, 0..255."""
    return quantizer.zero_point - INT8_MIN


def _centred(values: np.ndarray, quantizer: Quantizer) -> np.ndarray:
    return values.astype(np.int64) - quantizer.zero_point


# -- convolutions -------------------------------------------------------------------------------


def _weighted(
    node: Weighted, inputs: Sequence[Quantizer], output: Quantizer, arch: HtpArch
) -> Step:
    (source,) = inputs
    bias, real = _bias(node, source), _factors(node, source, output)
    zero = _zero(output)
    least = zero if node.activation is Relu else 0
    finish: Callable[[np.ndarray], np.ndarray]
    if isinstance(node, Conv2d) and node.depthwise and max(node.stride) > 1:
        finish = _on_vectors(bias, real, zero)
    elif arch in _ELEVEN_BITS:
        finish = _eleven_bits(bias, real, zero)
    else:
        finish = _twelve_bits(bias, real, zero, relu=node.activation is Relu)

    def step(values: np.ndarray) -> np.ndarray:
        total = _sum(node, _centred(values, source))
        return _as_int8(np.maximum(np.moveaxis(finish(np.moveaxis(total, 1, -1)), -1, 1), least))

    return step


def _sum(node: Weighted, centred: np.ndarray) -> np.ndarray:
    """Of products, without the bias, exactly."""
    import torch

    x, weight = (torch.from_numpy(v.astype(np.float64)) for v in (centred, node.weight))
    return node.sum_products(x, weight, None).numpy().astype(np.int64)


def _factors(node: Weighted, source: Quantizer, output: Quantizer) -> np.ndarray:
    """float32 [O]: steps of the output that a unit of the sum is."""
    largest = node.weight_scale.max()
    common = np.float32(source.scale) * largest / np.float32(output.scale)
    return common * (node.weight_scale / largest)


def _bias(node: Weighted, source: Quantizer) -> np.ndarray:
    """float32 [O], in units of the sum: not quite the integers that the program has.

    The HTP makes reals of them by the largest channel's scale, integers of 29 bits of those by
    the largest bias, and reals again.
    """
    unit = np.float32(source.scale) * node.weight_scale.max()
    real = node.bias_q.astype(np.float32) * unit
    largest = np.abs(real).max()
    if not largest:
        return real
    step = largest / np.float32(1 << 28)
    held = np.rint(real * (np.float32(1) / step))
    return held * step / unit


def _twelve_bits(
    bias: np.ndarray, real: np.ndarray, zero: int, relu: bool
) -> Callable[[np.ndarray], np.ndarray]:
    """From v73 on: the sum is cut to what 15 bits of fraction and the factor's 12 leave.

    What was cut counts as its half. The bias is cut to an integer towards zero.
    """
    factor = _before_relu(real, zero) if relu and zero else _Factor.of(real, 12)
    offset, cut = np.trunc(bias).astype(np.int64), factor.shift - 15

    def finish(total: np.ndarray) -> np.ndarray:
        kept = _shifted_right(total + offset, cut)
        return _rounded((2 * kept + 1) * factor.integer, 16) + zero

    return finish


def _before_relu(real: np.ndarray, zero: int) -> _Factor:
    """The factor is placed as one that brings the values above zero to the whole range; it has
    11 bits there, fewer for its own size.
    """
    room = real.astype(np.float64) * _TOP / max(_TOP - zero, 1)
    cut = np.maximum(-np.frexp(room)[1] - 4, _LEAST_CUT_BITS)
    integer = np.floor(np.ldexp(real.astype(np.float64), 15 + cut) + 0.5).astype(np.int64)
    over = np.maximum(np.frexp(integer)[1] - 12, 0)
    return _Factor(integer >> over, 15 + cut.astype(np.int64) - over)


def _eleven_bits(
    bias: np.ndarray, real: np.ndarray, zero: int
) -> Callable[[np.ndarray], np.ndarray]:
    """Up to v69: as from v73 on, but for what was cut, and the zero-point joins the bias."""
    factor = _Factor.of(real, 11)
    offset, cut = _with_zero(bias, real, zero), factor.shift - 14

    def finish(total: np.ndarray) -> np.ndarray:
        return _rounded(_shifted_right(total + offset, cut) * factor.integer, 14)

    return finish


def _on_vectors(
    bias: np.ndarray, real: np.ndarray, zero: int
) -> Callable[[np.ndarray], np.ndarray]:
    """A strided depthwise convolution, on every version."""
    factor, offset = _Factor.of(real, 15), _with_zero(bias, real, zero)
    return lambda total: _rounded((total + offset) * factor.integer, factor.shift)


def _with_zero(bias: np.ndarray, real: np.ndarray, zero: int) -> np.ndarray:
    """The bias and the output's zero-point in units of the sum, rounded half away from zero."""
    both = bias + np.float32(zero) / real
    return np.trunc(both + np.copysign(np.float32(0.5), both)).astype(np.int64)


def _shifted_right(values: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """By [O] numbers of bits; by negative ones to the left."""
    return (values >> np.maximum(bits, 0)) << np.maximum(-bits, 0)


# -- sums, products, means ----------------------------------------------------------------------


def _add(_: Add, inputs: Sequence[Quantizer], output: Quantizer, __: HtpArch) -> Step:
    scale = np.float32(output.scale)
    ratios = [float(np.float32(source.scale) / scale) for source in inputs]
    shift = min(15, 14 - int(np.frexp(sum(ratios))[1]))
    factors = [int(np.floor(np.ldexp(ratio, shift) + 0.5)) for ratio in ratios]
    zeros = sum(factor * _zero(q) for factor, q in zip(factors, inputs, strict=True))
    offset = (_zero(output) << shift) - (((zeros + 128) >> 8) << 8)

    def step(*values: np.ndarray) -> np.ndarray:
        held = [x.astype(np.int64) - INT8_MIN for x in values]
        total = sum(factor * x for factor, x in zip(factors, held, strict=True))
        return _as_int8(_rounded(total + offset, shift))

    return step


def _mul(_: Mul, inputs: Sequence[Quantizer], output: Quantizer, __: HtpArch) -> Step:
    """Products lie around the one of both ranges' middles: a multiple of 256 near it is taken off,
    and comes back with the zero-point, in units of 2**15 and in 16 bits.
    """
    first, second = inputs
    real = np.float32(first.scale) * np.float32(second.scale) / np.float32(output.scale)
    a, b = first.zero_point, second.zero_point
    middle = 256 * ((2 * a * b + a + b + 128) // 256)
    shift = min(15 - int(np.frexp(real)[1]), _LARGEST_PRODUCT_SHIFT)
    while True:
        factor = int(np.floor(np.ldexp(float(real), shift) + 0.5))
        units = shift - 15
        offset = ((middle * factor + (1 << 14)) >> 15) + (_zero(output) << units)
        offset += 1 << (units - 1)
        if abs(offset) <= np.iinfo(np.int16).max:
            break
        shift -= 1

    def step(*values: np.ndarray) -> np.ndarray:
        x, y = (_centred(v, q) for v, q in zip(values, inputs, strict=True))
        return _as_int8(((((x * y - middle) * factor) >> 15) + offset) >> units)

    return step


def _mean(_: Mean, inputs: Sequence[Quantizer], output: Quantizer, __: HtpArch) -> Step:
    (source,) = inputs
    ratio = np.float32(source.scale) / np.float32(output.scale)

    def step(values: np.ndarray) -> np.ndarray:
        count = values.shape[2] * values.shape[3]
        factor = _Factor.of(ratio / np.float32(count), 15)
        total = _centred(values, source).sum((2, 3), keepdims=True)
        return _as_int8(_rounded(total * factor.integer, factor.shift) + _zero(output))

    return step


# -- functions of one value, and moved values ---------------------------------------------------


def _table(node: Unary, inputs: Sequence[Quantizer], output: Quantizer, __: HtpArch) -> Step:
    import torch

    (source,) = inputs
    held = np.arange(INT8_MIN, INT8_MAX + 1, dtype=np.int64)
    real = torch.from_numpy(_centred(held, source) * source.scale)
    steps = node.compute([real]).numpy() / output.scale
    rounded = np.trunc(steps + np.copysign(0.5, steps)).astype(np.int64)
    table = _as_int8(rounded + _zero(output))
    return lambda values: table[values.astype(np.int64) - INT8_MIN]


def _moved(node: Node, inputs: Sequence[Quantizer], output: Quantizer, __: HtpArch) -> Step:
    import torch

    exact = node.by_definition(inputs, output)
    return lambda *values: exact(*(torch.from_numpy(x) for x in values)).numpy()


_RULES: dict[type[Node], Callable[[Any, Sequence[Quantizer], Quantizer, HtpArch], Step]] = {
    Weighted: _weighted,
    Add: _add,
    Mul: _mul,
    Mean: _mean,
    Unary: _table,
    Unchanged: _moved,
    Resize: _moved,
}
