"""uint8 input: raw pixels in, normalised inside the model, so that callers feed camera bytes.

Android's Task Library and ML Kit copy the bytes of an image into a uint8 input as they are: mean
and std in the metadata are for float inputs only. ImageNet's std differs by channel, so no one
scale and zero-point can stand for it; a 1x1 depthwise convolution (one weight a channel) does:

    q[c] = round((pixel - mean[c]) / std[c] / scale) = round(M[c] * (w[c] * pixel + b[c]))

All 256 results of a channel are the program's own input values (see `exact`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgevit.data.images import Preprocessing
from edgevit.errors import EdgevitError
from edgevit.ops import INT8_MIN, Quantizer
from edgevit.targets.exact import Line
from edgevit.targets.pixels import quantized_pixels

_PIXELS = np.arange(256, dtype=np.int64)


@dataclass(frozen=True)
class _Edge:
    """Scale and zero-point of a tensor that holds pixels."""

    scale: float
    zero_point: int


@dataclass(frozen=True, eq=False)
class PixelInput:
    """The convolution's int8 weights, int32 biases and float32 weight scales, one a channel.

    The pixel tensors have scale 1, so a bias's scale is its weight's.
    """

    weight: np.ndarray
    bias: np.ndarray
    weight_scale: np.ndarray

    UINT8: ClassVar[_Edge] = _Edge(1.0, 0)
    INT8: ClassVar[_Edge] = _Edge(1.0, INT8_MIN)


def pixel_input(preprocessing: Preprocessing, quantizer: Quantizer) -> PixelInput:
    """The convolution whose results for 256 values a channel are exactly `quantized_pixels`.

    Raises EdgevitError where 8-bit weights cannot give them all (no such case is known).
    """
    wanted = quantized_pixels(preprocessing, quantizer)
    found = []
    for row, mean, std in zip(wanted, preprocessing.mean, preprocessing.std, strict=True):
        # One pixel step is 1 / (255 std) in real numbers.
        line = Line(_PIXELS, 1.0, 255.0 * std, -mean * 255.0, row, quantizer).solve()
        if line is None:
            raise EdgevitError(
                f"no 8-bit convolution gives the program's input for mean {mean}, std {std}, scale "
                f"{quantizer.scale!r}; compile with --io int8 or --io float32 instead"
            )
        found.append(line)
    weight, bias, scale = zip(*found, strict=True)
    return PixelInput(
        np.array(weight, np.int8), np.array(bias, np.int32), np.array(scale, np.float32)
    )
