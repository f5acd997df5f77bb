"""Lines a * x + b that a 1x1 depthwise convolution computes exactly, rounding once.

    q = round(M * (w * step + b)),  M = input scale * weight scale / output scale

Its integers are chosen so that the results of all 256 inputs are the wanted ones, with a margin
that covers XNNPACK's float32 multiplier; `read` computes them again from the written file. TFLite's
reference kernels round twice in fixed point: where some choice is right for them too it is taken,
else a value on a rounding edge is one step off under them alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgevit.ops import INT8_MAX, INT8_MIN, Quantizer
from edgevit.ops.quantizer import UNIT_INTERVAL
from edgevit.targets.pixels import quantized

EDGE_MARGIN_STEPS = 1e-4
"""Least distance of every product from a rounding edge, in output steps. A float32 multiplication
of an 8-bit result is off by 1e-5 of a step at most."""

# What is tried: weights this far down, and biases and slopes this far around the nearest. A slope
# off by 1e-4 moves the largest product by a fiftieth of a step, and past an edge it lies close to.
_LEAST_WEIGHT = 64
_BIASES = np.arange(-2, 3)
_SLOPES = 1.0 + np.linspace(-1e-4, 1e-4, 21)


@dataclass(frozen=True)
class Line:
    """Inputs and what a line makes of them.

    steps           int64 [256]: every input less its zero-point
    scale           of the input
    inverse_slope   1 / a, in the input's real units
    bias_of_weight  the int32 bias that stands for b, over the weight
    wanted          int8 [256]; quantizer: theirs
    """

    steps: np.ndarray
    scale: float
    inverse_slope: float
    bias_of_weight: float
    wanted: np.ndarray
    quantizer: Quantizer

    def solve(self) -> tuple[int, int, float] | None:
        """(weight, bias, weight scale) with the widest margin; None where no int8 weight has it."""
        best, best_fit = None, (False, 0.0)
        for weight in range(INT8_MAX, _LEAST_WEIGHT - 1, -1):
            # float32 is what the file holds.
            scales = (1.0 / (self.inverse_slope * weight) * _SLOPES).astype(np.float32)
            biases = round(self.bias_of_weight * weight) + _BIASES
            margins = self._margins(weight, biases, scales)
            for i, j in zip(*np.nonzero(margins >= EDGE_MARGIN_STEPS), strict=True):
                totals = weight * self.steps + biases[j]
                factor = float(scales[i]) * self.scale / self.quantizer.scale
                held = _clamped(_fixed_point(totals, factor), self.quantizer)
                fit = (np.array_equal(held, self.wanted), float(margins[i, j]))
                if fit > best_fit:
                    best, best_fit = (weight, int(biases[j]), float(scales[i])), fit
        return best

    def _margins(self, weight: int, biases: np.ndarray, scales: np.ndarray) -> np.ndarray:
        """(scales, biases): least distance of the 256 products from a rounding edge, in steps; 0
        where a rounded product is not the wanted one."""
        totals = weight * self.steps + biases.astype(np.int64)[:, None]
        factors = scales.astype(np.float64) * self.scale / self.quantizer.scale
        products = totals * factors[:, None, None]
        right = (_clamped(np.rint(products), self.quantizer) == self.wanted).all(-1)
        return np.where(right, np.abs(products - np.floor(products) - 0.5).min(-1), 0.0)


def hard_sigmoid(source: Quantizer) -> tuple[int, int, float] | None:
    """The line x / 6 + 1/2 whose clamp is int8's own at the sigmoid's scale; see `Line.solve`."""
    steps = np.arange(INT8_MIN, INT8_MAX + 1, dtype=np.int64) - source.zero_point
    real = (steps * source.scale).astype(np.float32).astype(np.float64)
    values = (np.clip(real + 3.0, 0.0, 6.0) / 6.0).astype(np.float32)
    quantizer = UNIT_INTERVAL.quantizer
    wanted = quantized(values, quantizer)
    return Line(steps, source.scale, 6.0, 3.0 / source.scale, wanted, quantizer).solve()


def _clamped(steps: np.ndarray, quantizer: Quantizer) -> np.ndarray:
    return np.clip(steps + quantizer.zero_point, INT8_MIN, INT8_MAX)


def _fixed_point(totals: np.ndarray, factor: float) -> np.ndarray:
    """totals * factor as TFLite's reference kernels round it, twice.

    First to an integer after a 31-bit multiplication, half away from zero, then after the shift
    (MultiplyByQuantizedMultiplier in TFLite's kernels/internal/common.h).
    """
    fraction, exponent = math.frexp(factor)
    multiplier, left, right = round(fraction * 2**31), max(exponent, 0), max(-exponent, 0)
    product = (totals << left) * multiplier
    high = (np.abs(product) + 2**30) // 2**31 * np.sign(product)
    return (np.abs(high) + (1 << right >> 1)) // (1 << right) * np.sign(high)
