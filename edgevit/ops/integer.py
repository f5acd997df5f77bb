"""Integer steps of the operations with weights: sums of int8 products in int32, requantized."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from edgevit.kernels.bounds import EXACT_INT32
from edgevit.kernels.exact import Requantizer, TorchKernels, Window, maps_of, rows_of
from edgevit.ops.arithmetic import INT8_RANGE
from edgevit.ops.base import Step
from edgevit.ops.quantizer import Quantizer

if TYPE_CHECKING:
    from torch import Tensor

    from edgevit.ops.convolution import Conv2d
    from edgevit.ops.weighted import Weighted

MOST_COLUMNS = 16
"""Bytes that the rows of a convolution's windows may take for each byte of its input."""


def linear_step(
    node: Weighted, source: Quantizer, output: Quantizer, kernels: TorchKernels
) -> Step | None:
    """int8 rows (M, K) to int8 (M, O); None where int32 may not hold a sum.

    The weight is a matrix (O, K), K in its channels-last order. The input's zero-point times the
    weights goes into the bias.
    """
    matrix = np.moveaxis(node.weight, 1, -1).reshape(node.channels, -1)
    moved = source.zero_point * matrix.astype(np.int64).sum(1)
    to = _requantizer(node, source, output, node.bias_q - moved)
    if to is None:
        return None
    sums, finish = kernels.products(matrix), kernels.requantized(to)
    return lambda x: finish(sums(x.contiguous()))


def convolution_step(
    node: Conv2d, source: Quantizer, output: Quantizer, kernels: TorchKernels
) -> Step | None:
    """int8 maps to int8 maps: depthwise, or a matrix product of what the kernel covers.

    None for groups of other sizes, for a kernel whose windows would take too much memory, and where
    int32 may not hold a sum.
    """
    kernel: tuple[int, int] = node.weight.shape[2:]
    window = Window(kernel, node.stride, node.padding, node.dilation)
    if node.depthwise:
        to = _requantizer(node, source, output, node.bias_q.astype(np.int64))
        if to is None:
            return None
        return kernels.depthwise(node.weight[:, 0], window, source.zero_point, to)
    if node.groups != 1 or math.prod(kernel) > MOST_COLUMNS * math.prod(node.stride):
        return None
    by_rows = linear_step(node, source, output, kernels)
    if by_rows is None:
        return None
    columns = kernels.columns(window, source.zero_point)

    def step(x: Tensor) -> Tensor:
        rows = rows_of(x).flatten(0, 2) if window.is_point else columns(x)
        return maps_of(by_rows(rows), len(x), *window.output(*x.shape[2:]))

    return step


def _requantizer(
    node: Weighted, source: Quantizer, output: Quantizer, bias: np.ndarray
) -> Requantizer | None:
    """With this bias, int64 [O]; None where int32 may not hold the sum."""
    largest = np.abs(node.by_channel(node.weight).astype(np.int64)).sum(1) * INT8_RANGE
    if int((largest + np.abs(bias)).max()) >= EXACT_INT32:
        return None
    low, high = node.bounds(output)
    return Requantizer(bias, node.factor(source, output), low, high, output.zero_point)
