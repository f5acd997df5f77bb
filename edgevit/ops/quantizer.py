"""Quantizers: how int8 numbers stand for real ones, and the rules that scales keep."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from edgevit.errors import InputError

INT8_MIN, INT8_MAX = -128, 127
WEIGHT_MAX = 127
"""Weights use -127..127: a symmetric range keeps the zero-point at 0 in every runtime."""

How = Literal["learned", "fixed", "calibrated"]
HOW: tuple[str, ...] = get_args(How)


def is_float16_exact(scale: float | np.ndarray) -> bool:
    """Whether every value is positive, finite and survives a trip through IEEE half precision.

    Core ML stores scales as float16. A scale that fails here would change there by up to 4.4e-4 of
    itself, so it could not be the same in every artifact.
    """
    values = np.asarray(scale, np.float64)
    with np.errstate(over="ignore"):  # an overflow to infinity is one of the answers
        halves = values.astype(np.float16).astype(np.float64)
    return bool(np.all(np.isfinite(values)) and np.all(values > 0) and np.all(halves == values))


@dataclass(frozen=True)
class Quantizer:
    """real = (q - zero_point) * scale, with q an int8 in quant_min..quant_max.

    Raises InputError for a scale that is not a positive finite number, a range that is not
    inside int8, or a zero-point outside the range.
    """

    scale: float
    zero_point: int
    quant_min: int = INT8_MIN
    quant_max: int = INT8_MAX
    how: How = "learned"

    def __post_init__(self) -> None:
        if not (isinstance(self.scale, float) and math.isfinite(self.scale) and self.scale > 0):
            raise InputError(f"a quantizer's scale must be a positive float, not {self.scale!r}")
        for value in (self.zero_point, self.quant_min, self.quant_max):
            if type(value) is not int:
                raise InputError(f"zero-point and range must be plain integers, not {value!r}")
        if not INT8_MIN <= self.quant_min < self.quant_max <= INT8_MAX:
            raise InputError(f"range {self.quant_min}..{self.quant_max} is not inside int8")
        if not self.quant_min <= self.zero_point <= self.quant_max:
            raise InputError(
                f"zero-point {self.zero_point} is outside {self.quant_min}..{self.quant_max}"
            )
        if self.how not in HOW:
            raise InputError(f"how must be one of {', '.join(HOW)}, not {self.how!r}")

    @property
    def low(self) -> float:
        """The smallest real value the quantizer can hold."""
        return (self.quant_min - self.zero_point) * self.scale

    @property
    def high(self) -> float:
        """The largest real value the quantizer can hold."""
        return (self.quant_max - self.zero_point) * self.scale

    def same_values(self, other: Quantizer) -> bool:
        """Equality of everything that changes numbers; `how` is provenance only."""
        return (self.scale, self.zero_point, self.quant_min, self.quant_max) == (
            other.scale,
            other.zero_point,
            other.quant_min,
            other.quant_max,
        )


@dataclass(frozen=True)
class Learned:
    """The output has a quantizer of its own, calibrated and then trained."""


@dataclass(frozen=True)
class Fixed:
    """The output's quantizer is the same in every program, because runtimes fix it."""

    quantizer: Quantizer


@dataclass(frozen=True)
class SameAs:
    """The output shares its input's quantizer.

    every_input  all inputs share it too, as a concatenation needs
    """

    every_input: bool = False


QuantizationRule = Learned | Fixed | SameAs

UNIT_INTERVAL = Fixed(Quantizer(1.0 / 256.0, INT8_MIN, how="fixed"))
"""0 to 255/256: what TFLite fixes for LOGISTIC and SOFTMAX (its 8-bit specification)."""

SYMMETRIC_UNIT_INTERVAL = Fixed(Quantizer(1.0 / 128.0, 0, how="fixed"))
"""-1 to 127/128: what TFLite fixes for TANH (its 8-bit specification)."""
