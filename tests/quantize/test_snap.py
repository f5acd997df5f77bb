"""Snapped scales are fp16's, are near the learned ones, and leave no operator a tie."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from edgevit.quantize.snap import Operation, tie_free, to_fp16_grid

SIGMOID = 1 / 256


def add(*tensors: str) -> Operation:
    return Operation("add", tensors[:-1], tensors[-1])


def _integers(*scales: Fraction) -> list[int]:
    """The scales as multiples of what divides them all."""
    denominator = max(scale.denominator for scale in scales)
    return [int(scale * denominator) for scale in scales]


def add_ties(a: float, b: float, out: float) -> int:
    """How many pairs of int8 values (less a zero-point) fall between two steps of the output."""
    first, second, third = _integers(Fraction(a), Fraction(b), Fraction(out))
    values = np.arange(-255, 256, dtype=np.int64)
    doubled = 2 * (values[:, None] * first + values[None, :] * second)
    return int((doubled % (2 * third) == third).sum())


def linear_ties(factor: Fraction, out: float, largest: int) -> int:
    """How many integers of at most `largest`, times the factor, fall between two steps."""
    first, third = _integers(factor, Fraction(out))
    return sum((2 * p * first) % (2 * third) == third for p in range(-largest, largest + 1))


def mul_ties(a: float, b: float, out: float) -> int:
    return linear_ties(Fraction(a) * Fraction(b), out, 255 * 255)


def mean_ties(a: float, out: float, values: int) -> int:
    return linear_ties(Fraction(a) / values, out, 255 * values)


def test_plain_fp16_scales_have_ties() -> None:
    """What is tested below is not true of just any scales."""
    assert add_ties(0.75, 0.5, 1.0) > 0
    assert mul_ties(0.125, SIGMOID, 0.125) > 0
    assert mean_ties(0.1005859375, 0.05029296875, 4) == 1020


@pytest.mark.parametrize("seed", range(40))
def test_adds_have_no_tie(seed: int) -> None:
    random = np.random.default_rng(seed)
    a, b, c, out, last = (float(s) for s in 10 ** random.uniform(-3, 0, 5))
    scales = {"a": a, "b": b, "out": out, "c": c, "last": last}
    found = tie_free(scales, (), [add("a", "b", "out"), add("out", "c", "last")])
    assert list(found) == list(scales)
    assert add_ties(found["a"], found["b"], found["out"]) == 0
    assert add_ties(found["out"], found["c"], found["last"]) == 0
    largest = max(scales.values())
    for name, scale in scales.items():
        assert float(np.float16(found[name])) == found[name] >= 2.0**-14
        assert abs(found[name] - scale) <= max(largest * 2.0**-10, 2.0**-14)


@pytest.mark.parametrize("ratio", [1.0, 0.5, 2.0, 0.75, 1.25, 0.55, 0.613])
@pytest.mark.parametrize("x", [0.0123, 0.1, 0.36])
def test_a_gate_has_no_tie(x: float, ratio: float) -> None:
    scales = {"x": x, "gate": SIGMOID, "out": x * ratio}
    found = tie_free(scales, ["gate"], [Operation("mul", ("x", "gate"), "out")])
    assert found["gate"] == SIGMOID
    assert mul_ties(found["x"], SIGMOID, found["out"]) == 0
    for name in ("x", "out"):
        assert float(np.float16(found[name])) == found[name]
        assert abs(found[name] / scales[name] - 1) <= 2.0**-8


@pytest.mark.parametrize("values", [4, 16, 49, 64, 196, 784])
@pytest.mark.parametrize("ratio", [1.0, 0.5, 0.8, 0.469])
def test_a_mean_has_no_tie(ratio: float, values: int) -> None:
    scales = {"x": 0.1005859375, "out": 0.1005859375 * ratio}
    found = tie_free(scales, (), [Operation("mean", ("x",), "out")])
    assert mean_ties(found["x"], found["out"], values) == 0


def test_adds_that_share_no_tensor_keep_grids_of_their_own() -> None:
    scales = {"a": 0.001, "b": 0.0011, "c": 0.0012, "d": 8.0, "e": 9.0, "f": 10.0}
    found = tie_free(scales, (), [add("a", "b", "c"), add("d", "e", "f")])
    for name, scale in scales.items():
        assert abs(found[name] - scale) <= scale * 2.0**-9


@pytest.mark.parametrize("scale", [1e-9, 2.0**-14, 65504.0, 1e9])
@pytest.mark.parametrize("kind", ["add", "mul", "mean", "gelu"])
def test_scales_stay_among_the_normal_numbers_of_fp16(scale: float, kind: str) -> None:
    scales = {"x": scale, "big": 1.0, "out": scale}
    operations = [Operation(kind, ("x", "big") if kind in ("add", "mul") else ("x",), "out")]
    for found in tie_free(scales, (), operations).values():
        assert float(np.float16(found)) == found
        assert 2.0**-14 <= found < 65536


def test_a_gate_that_an_add_reads_stays_on_the_adds_grid() -> None:
    scales = {"x": 0.125, "gate": SIGMOID, "b": 0.3, "gated": 0.125, "sum": 0.4}
    operations = [Operation("mul", ("x", "gate"), "gated"), add("gated", "b", "sum")]
    found = tie_free(scales, ["gate"], operations)
    assert add_ties(found["gated"], found["b"], found["sum"]) == 0


def test_snapping_twice_is_snapping_once() -> None:
    scales = {"a": 0.013, "b": 0.21, "sum": 0.2, "mean": 0.1, "gate": SIGMOID, "out": 0.05}
    operations = [
        add("a", "b", "sum"),
        Operation("mean", ("sum",), "mean"),
        Operation("mul", ("mean", "gate"), "out"),
    ]
    once = tie_free(scales, ["gate"], operations)
    assert once == tie_free(once, ["gate"], operations)


def test_weights_go_to_the_nearest_value() -> None:
    grid = to_fp16_grid(torch.tensor([1e-9, 0.1, 2.0**-14]))
    assert grid.tolist() == [2.0**-14, float(torch.tensor(0.1).half()), 2.0**-14]
