"""Scales that fp16 holds and that leave no operator a tie to round.

A requantized value that falls exactly between two steps is rounded to even by torch, Core ML and
ONNX, upwards by XNNPACK's ADD and by its MUL on ARM. One such value changes what is computed
behind it, so predictions then agree on about 99.5 % of the images and not on all. Every step that
differed between the program and LiteRT was such a tie. Scales are chosen so that there is none:

ADD     A tie is a·s_a + b·s_b = (n + 1/2)·s_o with integers a, b, n. If all three scales are
        multiples of one power of two g, and s_o an odd one, then the left side is a multiple of g
        and the right side is not.
others  A tie of MUL or of a convolution is p·s_1·s_2 = (n + 1/2)·s_o. The finer the left side's
        power of two and the larger the odd part of s_o, the larger is the least p: with an odd
        significand of 11 bits in s_o it is beyond the products of two int8, and beyond most sums.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

FP16_SIGNIFICAND_BITS = 11
SMALLEST_NORMAL_FP16 = 2.0**-14
LARGEST_ODD_FP16 = 2047 * 2.0**5


def to_fp16_grid(scale: Tensor) -> Tensor:
    """The nearest normal fp16 values; fp16's smallest normal, 2**-14, is the floor."""
    # Subnormals would be exact on paper, but accelerators flush them to zero.
    return scale.to(torch.float16).float().clamp_min(SMALLEST_NORMAL_FP16)


def tie_free(scales: Mapping[str, float], adds: Iterable[tuple[str, ...]]) -> dict[str, float]:
    """fp16 scales near these: each add's scales on one grid, every output's an odd multiple of it.

    scales   by tensor; a scale that must stay as it is (a sigmoid's) is not among them
    adds     for each add its inputs and, last, its output, all of them keys of `scales`

    A scale moves by 2**-10 of the largest one that it is connected to at most: of itself, where no
    add reads or writes it.
    """
    adds = list(adds)
    outputs = {tensors[-1] for tensors in adds}
    result = {}
    for group in _connected(adds):
        unit = max(_unit(scales[name]) for name in group)
        result |= {name: _multiple(scales[name], unit, name in outputs) for name in group}
    alone = {name: _multiple(s, _unit(s), True) for name, s in scales.items() if name not in result}
    return {name: {**result, **alone}[name] for name in scales}


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
