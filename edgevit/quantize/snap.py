"""Scales that fp16 holds and that leave no operator a tie to round.

A requantized value that falls exactly between two steps is rounded to even by torch, Core ML and
ONNX, upwards by XNNPACK's ADD and by its MUL on ARM; and where a kernel multiplies by a reciprocal,
its last bit decides. One such value changes what is computed behind it, so that predictions agree
on 99.5 % of the images rather than on all. (In a trained quick-GELU net 57 sums in 3.7 million
differed between program and LiteRT: ties, all of them.) Scales are chosen so that there is none:

ADD     A tie is a·s_a + b·s_b = (n + 1/2)·s_o with integers a, b, n. If all three scales are
        multiples of one power of two g, and s_o an odd one, then the left side is a multiple of g
        and the right side is not.
MUL     A tie is p·s_a·s_b = (n + 1/2)·s_o. With an odd significand of 11 bits in s_o, and no large
        factor in common with s_a·s_b, the least such p is beyond the product of two int8.
MEAN    of N values, likewise: the least such sum is beyond N int8. (Where s_o was half of s_a,
        every other mean was a tie.)
others  Convolutions: the same odd significand makes ties rare. The rest goes by a table.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

FP16_SIGNIFICAND_BITS = 11
SMALLEST_NORMAL_FP16 = 2.0**-14
LARGEST_ODD_FP16 = 2047 * 2.0**5
INT8_RANGE = 255
"""The largest magnitude of an int8 value less its zero-point."""
_FARTHEST = 16


def to_fp16_grid(scale: Tensor) -> Tensor:
    """The nearest normal fp16 values; fp16's smallest normal, 2**-14, is the floor."""
    # Subnormals would be exact on paper, but accelerators flush them to zero.
    return scale.to(torch.float16).float().clamp_min(SMALLEST_NORMAL_FP16)


class Operation(NamedTuple):
    """kind: "add", "mul", "mean" or one that is not looked at."""

    kind: str
    inputs: tuple[str, ...]
    output: str


def tie_free(
    scales: Mapping[str, float], fixed: Collection[str], operations: Iterable[Operation]
) -> dict[str, float]:
    """fp16 scales near these, without ties for the operations (given in execution order).

    scales   by tensor
    fixed    the tensors among them whose scale must stay as it is, such as a sigmoid's

    A scale moves by 2**-10 of the largest one that an add connects it to, of itself where there is
    none; by a few times that in the rare case that an output's is a simple fraction of an input's.
    """
    operations = list(operations)
    free = {name: scale for name, scale in scales.items() if name not in fixed}
    tensors = [(*each.inputs, each.output) for each in operations if each.kind == "add"]
    adds = [each for each in tensors if free.keys() >= {*each}]
    result = {**scales, **_on_grids(free, adds)}
    movable = free.keys() - {name for each in adds for name in each}  # the grids of adds stay
    for each in operations:
        if each.kind in ("mul", "mean") and each.output in movable:
            inputs = [result[name] for name in each.inputs]
            result[each.output] = _apart(result[each.output], inputs, each.kind)
    return result


def _on_grids(scales: Mapping[str, float], adds: list[tuple[str, ...]]) -> dict[str, float]:
    """Every scale on a multiple of a power of two, which is one for all that adds connect."""
    outputs = {tensors[-1] for tensors in adds}
    result = {}
    for group in _connected(adds):
        unit = max(_unit(scales[name]) for name in group)
        result |= {name: _multiple(scales[name], unit, name in outputs) for name in group}
    for name in scales.keys() - result.keys():
        result[name] = _multiple(scales[name], _unit(scales[name]), True)
    return result


def _apart(scale: float, inputs: list[float], kind: str) -> float:
    """The nearest odd multiple of its unit that leaves the operation no tie."""
    product, unit = math.prod(map(Fraction, inputs)), _unit(scale)
    for away in range(_FARTHEST):
        for found in (scale + 2 * away * unit, scale - 2 * away * unit):
            inside = SMALLEST_NORMAL_FP16 <= found <= LARGEST_ODD_FP16
            if inside and _unit(found) == unit and not _has_ties(kind, product, Fraction(found)):
                return found
    return scale


def _has_ties(kind: str, product: Fraction, out: Fraction) -> bool:
    """Whether p·product = (n + 1/2)·out for any p that the operation can come to."""
    ratio = out / (2 * product)  # p / (2 n + 1)
    twos = ratio.denominator & -ratio.denominator
    if kind == "mul":
        return twos == 1 and ratio.numerator <= INT8_RANGE**2
    # A mean is a sum over the number of values: p may be a fraction, commonly of a power of two.
    return ratio.numerator <= INT8_RANGE * twos


def _unit(scale: float) -> float:
    """The distance of fp16's values at `scale`."""
    bounded = min(max(scale, SMALLEST_NORMAL_FP16), LARGEST_ODD_FP16)
    return 2.0 ** (math.frexp(bounded)[1] - FP16_SIGNIFICAND_BITS)


def _multiple(scale: float, unit: float, odd: bool) -> float:
    """The nearest multiple of `unit`, an odd one if need be, that is a normal fp16 value."""
    step = 2 if odd else 1
    least = math.ceil(SMALLEST_NORMAL_FP16 / unit)
    wanted = min(scale, LARGEST_ODD_FP16) / unit
    multiple = 2 * math.floor(wanted / 2) + 1 if odd else round(wanted)
    while multiple < least:
        multiple += step
    return multiple * unit


def _connected(adds: Iterable[tuple[str, ...]]) -> list[set[str]]:
    """The tensors of adds that share a tensor, directly or over others."""
    groups: list[set[str]] = []
    for tensors in adds:
        apart = [group for group in groups if group.isdisjoint(tensors)]
        joined = set(tensors).union(*(group for group in groups if group not in apart))
        groups = [*apart, joined]
    return groups
