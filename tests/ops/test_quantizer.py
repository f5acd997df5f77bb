"""Quantizers and the fp16 rule: what is outside int8 or fp16 is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgevit.errors import InputError
from edgevit.ops import Quantizer, is_float16_exact


@pytest.mark.parametrize(
    "arguments",
    [
        (0.0, 0), (-1.0, 0), (float("nan"), 0), (float("inf"), 0), (1, 0), (0.5, 0.0),
        (0.5, 200), (0.5, 0, -129, 127), (0.5, 0, 5, 5), (0.5, -128, -127, 127), (0.5, True),
        ("0.5", 0), (np.float32(0.5), 0), (0.5, 0, -128, 127, "guessed"),
    ],
)  # fmt: skip
def test_a_quantizer_outside_int8_is_refused(arguments: tuple) -> None:
    with pytest.raises(InputError):
        Quantizer(*arguments)


def test_a_quantizers_range_is_in_real_numbers() -> None:
    quantizer = Quantizer(0.5, -28)
    assert (quantizer.low, quantizer.high) == (-50.0, 77.5)
    assert quantizer.same_values(replace(quantizer, how="fixed"))
    assert not quantizer.same_values(replace(quantizer, zero_point=-27))


@pytest.mark.parametrize(
    ("scale", "exact"),
    [
        (1 / 256, True), (0.0999755859375, True), (0.1, False), (6e-8, False), (2.0**-24, True),
        (65504.0, True), (65536.0, False), (0.0, False), (-1.0, False), (float("nan"), False),
        (float("inf"), False),
    ],
)  # fmt: skip
def test_float16_exactness(scale: float, exact: bool) -> None:
    assert is_float16_exact(scale) is exact
    assert is_float16_exact(np.float32([1.0, scale])) is exact
