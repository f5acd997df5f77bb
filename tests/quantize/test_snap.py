"""Snapped scales are fp16's, are near the learned ones, and leave no operator a tie."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from edgevit.quantize.snap import tie_free, to_fp16_grid


def _integers(*scales: float) -> list[int]:
    """The scales as multiples of the largest power of two that divides them all."""
    denominator = max(Fraction(scale).denominator for scale in scales)
    return [int(Fraction(scale) * denominator) for scale in scales]


def _add_ties(a: float, b: float, out: float) -> int:
    """How many pairs of int8 values (less a zero-point) fall between two steps of the output."""
    first, second, third = _integers(a, b, out)
    values = np.arange(-255, 256, dtype=np.int64)
    doubled = 2 * (values[:, None] * first + values[None, :] * second)
    return int((doubled % (2 * third) == third).sum())


def _mul_ties(a: float, b: float, out: float) -> int:
    product, third = _integers(a * b, out)
    return sum((2 * p * product) % (2 * third) == third for p in range(-(255**2), 255**2 + 1))


def test_plain_fp16_scales_have_ties() -> None:
    """What is tested below is not true of just any scales."""
    assert _add_ties(0.75, 0.5, 1.0) > 0
    assert _mul_ties(0.125, 1 / 256, 0.125) > 0


@pytest.mark.parametrize("seed", range(40))
def test_adds_have_no_tie(seed: int) -> None:
    random = np.random.default_rng(seed)
    a, b, c, out, last = (float(s) for s in 10 ** random.uniform(-3, 0, 5))
    scales = {"a": a, "b": b, "out": out, "c": c, "last": last}
    found = tie_free(scales, [("a", "b", "out"), ("out", "c", "last")])
    assert list(found) == list(scales)
    assert _add_ties(found["a"], found["b"], found["out"]) == 0
    assert _add_ties(found["out"], found["c"], found["last"]) == 0
    largest = max(scales.values())
    for name, scale in scales.items():
        assert float(np.float16(found[name])) == found[name] >= 2.0**-14
        assert abs(found[name] - scale) <= max(largest * 2.0**-10, 2.0**-14)


@pytest.mark.parametrize("seed", range(5))
def test_a_gate_has_no_tie(seed: int) -> None:
    """x times a sigmoid, whose scale is fixed: int8 products never lie between two steps."""
    x = float(10 ** np.random.default_rng(seed).uniform(-2, 0))
    found = tie_free({"x": x, "out": x * 0.55}, [])
    assert _mul_ties(found["x"], 1 / 256, found["out"]) == 0
    for name, scale in (("x", x), ("out", x * 0.55)):
        assert float(np.float16(found[name])) == found[name]
        assert abs(found[name] - scale) <= scale * 2.0**-10


def test_adds_that_share_no_tensor_keep_grids_of_their_own() -> None:
    scales = {"a": 0.001, "b": 0.0011, "c": 0.0012, "d": 8.0, "e": 9.0, "f": 10.0}
    found = tie_free(scales, [("a", "b", "c"), ("d", "e", "f")])
    for name, scale in scales.items():
        assert abs(found[name] - scale) <= scale * 2.0**-9


@pytest.mark.parametrize("scale", [1e-9, 2.0**-14, 65504.0, 1e9])
def test_scales_stay_among_the_normal_numbers_of_fp16(scale: float) -> None:
    for adds in ([], [("x", "big", "out")]):
        for found in tie_free({"x": scale, "big": 1.0, "out": scale}, adds).values():
            assert float(np.float16(found)) == found
            assert 2.0**-14 <= found < 65536


def test_weights_go_to_the_nearest_value() -> None:
    grid = to_fp16_grid(torch.tensor([1e-9, 0.1, 2.0**-14]))
    assert grid.tolist() == [2.0**-14, float(torch.tensor(0.1).half()), 2.0**-14]
