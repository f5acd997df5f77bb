"""The HTP's arithmetic in exact integers, found by probing its x86 emulator.

    reference = HtpReference(graph, "75")
    logits = reference(pixels)              # int8 (N, ...) to output name -> int8

The HTP differs from the program in how many bits of a factor it keeps, and how many of a sum:

convolution, linear   the factor has 12 bits, up to v69 11; the sum's low bits are cut off
depthwise, stride 2   the factor has 15 bits, the sum is whole
add                   both factors are integers over one power of two, and what the zero-points
                      contribute is rounded to a multiple of 256 of that
mul, mean             the factor has 15 bits; a product's offset has 16, in coarser units
functions of a value  tables of 256, rounded half away from zero; x * sigmoid(x) is one of them
moved values          unchanged

Inside it holds activations as uint8, 128 above the program's int8. Constants are computed in
float32, in the order that stands here. tests/targets/test_qnn_reference.py holds every rule to the
emulator of onnxruntime-qnn 2.7.0; no device has run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgevit.errors import InputError
from edgevit.graph import Graph
from edgevit.ops import (
    INT8_MAX,
    INT8_MIN,
    Add,
    Conv2d,
    ConvTranspose2d,
    Mean,
    Mul,
    Node,
    Pad,
    Quantizer,
    Relu,
    Resize,
    Sigmoid,
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


class HtpReference:
    """A quantized graph as the HTP computes it.

    arch   version of the HTP
    steps  every node, in order, and what computes it of its inputs
    Raises InputError naming an operation of which no rule was found.
    """

    def __init__(self, graph: Graph, arch: HtpArch = "75") -> None:
        self._graph, self._last_uses = graph, graph.last_uses()
        self._makers = {node.name: node for node in graph.nodes}
        self.steps: list[tuple[Node, Step]] = [
            (node, self._step(node, arch)) for node in graph.nodes
        ]

    def _step(self, node: Node, arch: HtpArch) -> Step:
        """The step of a node, for which it matters what made its inputs."""
        makers = [self._makers.get(name) for name in node.inputs]
        output = self._graph.quantizer(node.name)
        if isinstance(node, Mul):
            for place, gate in enumerate(makers):
                source = node.inputs[1 - place]
                if isinstance(gate, Sigmoid) and gate.inputs == (source,):
                    table = _by_table(_swish, self._graph.quantizer(source), output)
                    return lambda *values: table(values[1 - place])
        if isinstance(node, Mean) and (makers == [None] or isinstance(makers[0], Pad)):
            what = "padded values" if makers[0] else "the input itself"
            raise InputError(f"{node.name}: {_missing(f'a mean of {what}')}")
        inputs = [self._graph.quantizer(name) for name in node.inputs]
        return htp_step(node, inputs, output, arch)

    def __call__(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """Output name -> int8 values, in the graph's order; `values` are the input's, int8."""
        found = {n: v for n, v in self.tensors(values) if n in self._graph.outputs}
        return {name: found[name] for name in self._graph.outputs}

    def tensors(self, values: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """The input's and every node's values: canonical name, int8 (N, ...)."""
        held = {self._graph.input_name: values}
        yield self._graph.input_name, values
        for node, step in self.steps:
            result = held[node.name] = step(*(held[name] for name in node.inputs))
            for name in self._last_uses.get(node.name, ()):
                del held[name]
            yield node.name, result


def htp_step(node: Node, inputs: Sequence[Quantizer], output: Quantizer, arch: HtpArch) -> Step:
    """The HTP's computation of a node inside a graph, by the quantizers of its inputs and output.

    Raises InputError for an operation of which no rule was found; see `missing_rule`.
    """
    missing = missing_rule(node, inputs, output)
    if missing:
        raise InputError(f"{node.name}: {_missing(missing)}")
    rule = next(rule for kind, rule in _RULES.items() if isinstance(node, kind))
    return rule(node, inputs, output, arch)


def missing_rule(node: Node, inputs: Sequence[Quantizer], output: Quantizer) -> str:
    """What of an operation has no known rule, for a message; nothing where it has one."""
    if not isinstance(node, tuple(_RULES)):
        return repr(node.kind)
    if isinstance(node, Conv2d) and node.depthwise and max(node.stride) > 2:
        return f"a depthwise convolution of stride {max(node.stride)}"
    if isinstance(node, Weighted) and node.activation not in (None, Relu):
        return f"{node.activation.kind!r} behind {node.kind!r}"
    if isinstance(node, Mul) and inputs[0].scale * inputs[1].scale >= output.scale:
        return "a product of which one step is more than one of the result"
    if isinstance(node, Pad) and inputs[0].zero_point == INT8_MIN:
        return "a pad with the least value"
    if isinstance(node, Resize) and node.mode != "nearest":
        return f"a {node.mode} {node.kind!r}"
    return ""


def _missing(what: str) -> str:
    return f"how the HTP computes {what} is not known"


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
    zero, depthwise = _zero(output), isinstance(node, Conv2d) and node.depthwise
    least = zero if node.activation is Relu else 0
    finish: Callable[[np.ndarray], np.ndarray]
    if isinstance(node, Conv2d) and depthwise and node.stride == (2, 2):
        finish = _on_vectors(bias, real, zero)
    elif arch in _ELEVEN_BITS:
        finish = _eleven_bits(bias, real, zero)
    else:
        placed = least and not depthwise and not isinstance(node, ConvTranspose2d)
        factor = _before_relu(real, zero) if placed else _Factor.of(real, 12)
        finish = _cut_sum(bias, factor, zero)

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


def _cut_sum(bias: np.ndarray, factor: _Factor, zero: int) -> Callable[[np.ndarray], np.ndarray]:
    """From v73 on: the sum is cut to what 15 bits of fraction and the factor's bits leave.

    What was cut counts as its half. The bias is cut to an integer towards zero.
    """
    offset, cut = np.trunc(bias).astype(np.int64), factor.shift - 15

    def finish(total: np.ndarray) -> np.ndarray:
        kept = _shifted_right(total + offset, cut)
        return _rounded((2 * kept + 1) * factor.integer, 16) + zero

    return finish


def _before_relu(real: np.ndarray, zero: int) -> _Factor:
    """From v73 on, of a linear or a convolution that is neither depthwise nor transposed, before a
    ReLU: the factor has the place of one that would spread the values above zero over the whole
    range; that one has 11 bits.
    """
    spread = real.astype(np.float64) * (_TOP + 1) / max(_TOP - zero, 1)
    cut = np.maximum(-np.frexp(spread)[1] - 4, _LEAST_CUT_BITS)
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
    """A depthwise convolution of stride 2 both ways, on every version."""
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
    return _by_table(lambda real: node.compute([real]), inputs[0], output)


def _by_table(function: Callable[[Any], Any], source: Quantizer, output: Quantizer) -> Step:
    """function  of a float64 torch.Tensor of real values"""
    import torch

    held = np.arange(INT8_MIN, INT8_MAX + 1, dtype=np.int64)
    real = torch.from_numpy(_centred(held, source) * source.scale)
    steps = function(real).numpy() / output.scale
    rounded = np.trunc(steps + np.copysign(0.5, steps)).astype(np.int64)
    table = _as_int8(rounded + _zero(output))
    return lambda values: table[values.astype(np.int64) - INT8_MIN]


def _swish(real: Any) -> Any:
    return real * real.sigmoid()


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
