"""uint8 input: raw pixels in, normalised inside the model, so that callers feed camera bytes.

Android's Task Library and ML Kit copy the bytes of an image into a uint8 input as they are: mean
and std in the metadata are for float inputs only. ImageNet's std differs by channel, so no one
scale and zero-point can stand for it; a 1x1 depthwise convolution (three weights) does:

    q[c] = round((pixel - mean[c]) / std[c] / scale) = round(M[c] * (w[c] * pixel + b[c]))

Its integers are chosen so that all 3 x 256 results, rounded once, are the program's own input
values, with a margin that covers XNNPACK's float32 multiplier; the audit repeats that check on
the written file. TFLite's reference kernels round twice in fixed point: where some choice is right
for them too it is taken, else a pixel value on a rounding edge is one step off under them alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgevit.data.images import Preprocessing
from edgevit.errors import EdgevitError
from edgevit.ops import INT8_MAX, INT8_MIN, Quantizer
from edgevit.targets.pixels import quantized_pixels

EDGE_MARGIN_STEPS = 1e-4
"""Least distance of every product from a rounding edge, in output steps. A float32 multiplication
of an 8-bit result is off by 1e-5 of a step at most."""

_PIXELS = np.arange(256, dtype=np.int64)
# What is tried: weights this far down, and biases and slopes this far around the nearest. A slope
# off by 1e-4 moves the largest product by a fiftieth of a step, and past an edge it lies close to.
_LEAST_WEIGHT = 64
_BIASES = np.arange(-2, 3)
_SLOPES = 1.0 + np.linspace(-1e-4, 1e-4, 21)


@dataclass(frozen=True)
class _Edge:
    """Scale and zero-point of a tensor that holds pixels."""

    scale: float
    zero_point: int


@dataclass(frozen=True, eq=False)
class PixelInput:
    """The convolution's int8 weights [3], int32 biases [3] and float32 weight scales [3].

    The pixel tensors have scale 1, so a bias's scale is its weight's.
    """

    weight: np.ndarray
    bias: np.ndarray
    weight_scale: np.ndarray

    UINT8: ClassVar[_Edge] = _Edge(1.0, 0)
    INT8: ClassVar[_Edge] = _Edge(1.0, INT8_MIN)

    def gives(self, wanted: np.ndarray, quantizer: Quantizer) -> bool:
        """Whether all 3 x 256 results, rounded once, are `wanted`, int8 (3, 256)."""
        return all(
            _margins(wanted[c], int(weight), self.bias[[c]], self.weight_scale[[c]], quantizer)
            >= EDGE_MARGIN_STEPS
            for c, weight in enumerate(self.weight)
        )


def pixel_input(preprocessing: Preprocessing, quantizer: Quantizer) -> PixelInput:
    """The convolution whose 768 results are exactly `quantized_pixels`.

    Raises EdgevitError where 8-bit weights cannot give them all (no such case is known).
    """
    wanted = quantized_pixels(preprocessing, quantizer)
    found = [
        _channel(wanted[channel], mean, std, quantizer)
        for channel, (mean, std) in enumerate(
            zip(preprocessing.mean, preprocessing.std, strict=True)
        )
    ]
    weight, bias, scale = zip(*found, strict=True)
    return PixelInput(np.int8(weight), np.int32(bias), np.float32(scale))


def _channel(
    wanted: np.ndarray, mean: float, std: float, quantizer: Quantizer
) -> tuple[int, int, float]:
    """(weight, bias, weight scale) of one channel with the widest margin; see `pixel_input`."""
    best, best_fit = None, (False, 0.0)
    for weight in range(INT8_MAX, _LEAST_WEIGHT - 1, -1):
        # One pixel step is 1 / (255 std) in real numbers; float32 is what the file holds.
        scales = np.float32(1.0 / (255.0 * std * weight) * _SLOPES)
        biases = round(-mean * 255.0 * weight) + _BIASES
        margins = _margins(wanted, weight, biases, scales, quantizer)
        for i, j in zip(*np.nonzero(margins >= EDGE_MARGIN_STEPS), strict=True):
            totals = weight * _PIXELS + biases[j]
            steps = _fixed_point(totals, float(scales[i]) / quantizer.scale)
            fit = (np.array_equal(_clamped(steps, quantizer), wanted), float(margins[i, j]))
            if fit > best_fit:
                best, best_fit = (weight, int(biases[j]), float(scales[i])), fit
    if best is None:
        raise EdgevitError(
            f"no 8-bit convolution gives the program's input for mean {mean}, std {std}, scale "
            f"{quantizer.scale!r}; compile with --io int8 or --io float32 instead"
        )
    return best


def _margins(
    wanted: np.ndarray, weight: int, biases: np.ndarray, scales: np.ndarray, quantizer: Quantizer
) -> np.ndarray:
    """(scales, biases): least distance of one channel's 256 products from a rounding edge, in
    steps; 0 where a rounded product is not `wanted`."""
    totals = weight * _PIXELS + biases.astype(np.int64)[:, None]
    products = totals * (scales.astype(np.float64) / quantizer.scale)[:, None, None]
    right = (_clamped(np.rint(products), quantizer) == wanted).all(-1)
    return np.where(right, np.abs(products - np.floor(products) - 0.5).min(-1), 0.0)


def _clamped(steps: np.ndarray, quantizer: Quantizer) -> np.ndarray:
    return np.clip(steps + quantizer.zero_point, INT8_MIN, INT8_MAX)


def _fixed_point(totals: np.ndarray, factor: float) -> np.ndarray:
    """totals * factor (below 1) as TFLite's reference kernels round it, twice.

    First to an integer after a 31-bit multiplication, half away from zero, then after the shift
    (MultiplyByQuantizedMultiplier in TFLite's kernels/internal/common.h).
    """
    fraction, exponent = math.frexp(factor)
    multiplier, shift = round(fraction * 2**31), -exponent
    product = totals * multiplier
    high = (np.abs(product) + 2**30) // 2**31 * np.sign(product)
    return (np.abs(high) + (1 << shift >> 1)) // (1 << shift) * np.sign(high)
