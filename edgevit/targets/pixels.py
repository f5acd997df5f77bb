"""What a program's input holds for each pixel value: every target must reproduce it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgevit.data.images import Preprocessing
from edgevit.ops import INT8_MAX, INT8_MIN, Quantizer

REAL_PIXEL_UNITS = 8
"""In the last place of a channel's largest value, of float32: what rounding a gain, an offset, a
product and a sum may move it by, each of them up to twice as large as that value."""


def quantized_pixels(preprocessing: Preprocessing, quantizer: Quantizer) -> np.ndarray:
    """int8 (C, 256): what the program's input holds for each channel and pixel value.

    float32 as torch's quantize_per_tensor: times the reciprocal of the scale, half to even.
    """
    return quantized(preprocessing.table(), quantizer)


def quantized(values: np.ndarray, quantizer: Quantizer) -> np.ndarray:
    """int8 values of float32 ones, as torch's quantize_per_tensor."""
    shifted = np.rint(values * np.float32(1.0 / quantizer.scale)) + np.float32(quantizer.zero_point)
    return np.clip(shifted, INT8_MIN, INT8_MAX).astype(np.int8)


def same_pixels(
    found: np.ndarray, preprocessing: Preprocessing, quantizer: Quantizer | None
) -> bool:
    """Whether (C, 256) values, int8 or float32, are what a program's input holds for each pixel.

    quantizer   None where the input is real numbers: they are those of the pre-processing but for
                the last bits of float32
    """
    if quantizer is None:
        wanted = preprocessing.table()
        bound = REAL_PIXEL_UNITS * np.spacing(np.abs(wanted).max(1, keepdims=True))
        return found.dtype.kind == "f" and bool((np.abs(found - wanted) <= bound).all())
    values = quantized(found, quantizer) if found.dtype.kind == "f" else found
    return bool((values == quantized_pixels(preprocessing, quantizer)).all())


@dataclass(frozen=True)
class Uint8Quantizer:
    """A Quantizer's scale with the zero-point of the same values as uint8."""

    scale: float
    zero_point: int


def as_uint8(quantizer: Quantizer) -> Uint8Quantizer:
    """The same real values with every integer 128 higher."""
    return Uint8Quantizer(quantizer.scale, quantizer.zero_point - INT8_MIN)
