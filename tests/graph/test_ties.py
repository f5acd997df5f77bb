"""Snapped scales are fp16's, are near the learned ones, and leave no operator a tie."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
import torch

from edgevit.graph import Graph
from edgevit.graph.ties import tie_free, to_fp16_grid
from edgevit.ops import Add, Concat, Curve, Gelu, HardSwish, Mean, Mul, Node, Sigmoid
from tests.random_graphs import random_graph

SIGMOID = 1 / 256
INPUT = {"input": 0.02}


class WithoutTies(Gelu):
    """Whatever makes a tensor: nothing of it is to be avoided."""

    def ties(self, inputs: Sequence[Fraction], output: Fraction) -> tuple[int, int]:
        return 0, 0


def tensor(name: str) -> Node:
    """A tensor with a scale of its own."""
    return WithoutTies(name=name, inputs=("input",))


def gate(name: str = "gate") -> Node:
    return Sigmoid(name=name, inputs=("input",))


def add(*tensors: str) -> Node:
    return Add(name=tensors[-1], inputs=tensors[:-1])


def graph(*operations: Node) -> Graph:
    """The operations, each tensor that they read made before them; every tensor is given out."""
    made = {node.name for node in operations} | {"input"}
    read = dict.fromkeys(name for node in operations for name in node.inputs)
    nodes = [tensor(name) for name in read if name not in made] + list(operations)
    return Graph((1, 2, 4, 4), tuple(nodes), tuple(node.name for node in nodes))


def snapped(scales: dict[str, float], *operations: Node) -> dict[str, float]:
    found = tie_free(graph(*operations), INPUT | scales)
    assert list(found) == list(INPUT | scales)
    del found["input"]
    return found


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


def almost_mul_ties(a: float, b: float, out: float) -> int:
    """How many products of two int8 values float32 may put on either side of a tie.

    The scales' product, its quotient by the output's and the multiplication round: three times.
    """
    first, third = _integers(Fraction(a) * Fraction(b), Fraction(out))
    products = {x * y for x in range(256) for y in range(x + 1)}
    found = 0
    for product in products:
        distance = abs((2 * product * first) % (2 * third) - third)  # in halves of steps / third
        within_range = product * first <= 256 * third
        found += within_range and distance << 24 <= 3 * 2 * product * first
    return found


def mean_ties(a: float, out: float, values: int) -> int:
    return linear_ties(Fraction(a) / values, out, 255 * values)


def test_plain_fp16_scales_have_ties() -> None:
    """What is tested below is not true of just any scales."""
    assert add_ties(0.75, 0.5, 1.0) > 0
    assert mul_ties(0.125, SIGMOID, 0.125) > 0
    assert mean_ties(0.1005859375, 0.05029296875, 4) == 1020
    assert almost_mul_ties(0.09967041015625, SIGMOID, 0.0501708984375) > 0


@pytest.mark.parametrize("seed", range(40))
def test_adds_have_no_tie(seed: int) -> None:
    random = np.random.default_rng(seed)
    a, b, c, out, last = (float(s) for s in 10 ** random.uniform(-3, 0, 5))
    scales = {"a": a, "b": b, "out": out, "c": c, "last": last}
    found = snapped(scales, add("a", "b", "out"), add("out", "c", "last"))
    assert add_ties(found["a"], found["b"], found["out"]) == 0
    assert add_ties(found["out"], found["c"], found["last"]) == 0
    largest = max(scales.values())
    for name, scale in scales.items():
        assert float(np.float16(found[name])) == found[name] >= 2.0**-14
        assert abs(found[name] - scale) <= max(largest * 2.0**-10, 2.0**-14)


@pytest.mark.parametrize("seed", range(20))
def test_an_add_that_reads_a_gate_has_no_tie(seed: int) -> None:
    """The gate's scale stays what runtimes fix, a power of two that lies on any finer grid."""
    a, out = (float(s) for s in 10 ** np.random.default_rng(seed).uniform(-3, 0.5, 2))
    found = snapped({"gate": SIGMOID, "a": a, "out": out}, gate(), add("a", "gate", "out"))
    assert found["gate"] == SIGMOID
    assert add_ties(found["a"], SIGMOID, found["out"]) == 0


def test_tensors_that_share_a_scale_have_no_tie_either() -> None:
    """Of a concatenation the first made owns the scale; a sum of two of its tensors is on it."""
    operations = (
        add("a", "b", "sum"), Concat(name="both", inputs=("c", "sum")), add("c", "b", "last")
    )  # fmt: skip
    scales = {"a": 0.013, "b": 0.21, "c": 0.2, "last": 0.34}
    assert graph(*operations).owner("sum") == "c"
    found = snapped(scales, *operations)
    assert add_ties(found["a"], found["b"], found["c"]) == 0
    assert add_ties(found["c"], found["b"], found["last"]) == 0


@pytest.mark.parametrize("ratio", [1.0, 0.5, 2.0, 0.75, 1.25, 0.55, 0.613])
@pytest.mark.parametrize("x", [0.0123, 0.1, 0.36])
def test_a_gate_has_no_tie(x: float, ratio: float) -> None:
    scales = {"x": x, "gate": SIGMOID, "out": x * ratio}
    found = snapped(scales, gate(), Mul(name="out", inputs=("x", "gate")))
    assert found["gate"] == SIGMOID
    assert mul_ties(found["x"], SIGMOID, found["out"]) == 0
    assert almost_mul_ties(found["x"], SIGMOID, found["out"]) == 0
    for name in ("x", "out"):
        assert float(np.float16(found[name])) == found[name]
        assert abs(found[name] / scales[name] - 1) <= 2.0**-8


@pytest.mark.parametrize("values", [4, 16, 49, 64, 196, 784])
@pytest.mark.parametrize("ratio", [1.0, 0.5, 0.8, 0.469])
def test_a_mean_has_no_tie(ratio: float, values: int) -> None:
    scales = {"x": 0.1005859375, "out": 0.1005859375 * ratio}
    found = snapped(scales, Mean(name="out", inputs=("x",)))
    assert mean_ties(found["x"], found["out"], values) == 0


def test_adds_that_share_no_tensor_keep_grids_of_their_own() -> None:
    scales = {"a": 0.001, "b": 0.0011, "c": 0.0012, "d": 8.0, "e": 9.0, "f": 10.0}
    found = snapped(scales, add("a", "b", "c"), add("d", "e", "f"))
    for name, scale in scales.items():
        assert abs(found[name] - scale) <= scale * 2.0**-9


@pytest.mark.parametrize("scale", [1e-9, 2.0**-14, 65504.0, 1e9])
@pytest.mark.parametrize("kind", [Add, Mul, Mean, Gelu])
def test_scales_stay_among_the_normal_numbers_of_fp16(scale: float, kind: type[Node]) -> None:
    inputs = ("x", "big") if kind.arity == 2 else ("x",)
    scales = {"x": scale, "big": 1.0, "out": scale}
    scales = {name: scales[name] for name in (*inputs, "out")}
    for found in snapped(scales, kind(name="out", inputs=inputs)).values():
        assert float(np.float16(found)) == found
        assert 2.0**-14 <= found < 65536


def test_a_gate_that_an_add_reads_stays_on_the_adds_grid() -> None:
    scales = {"x": 0.125, "gate": SIGMOID, "b": 0.3, "gated": 0.125, "sum": 0.4}
    operations = (gate(), Mul(name="gated", inputs=("x", "gate")), add("gated", "b", "sum"))
    found = snapped(scales, *operations)
    assert add_ties(found["gated"], found["b"], found["sum"]) == 0
    assert mul_ties(found["x"], SIGMOID, found["gated"]) == 0


@pytest.mark.parametrize("total", [0.05, 0.4, 3.0])
@pytest.mark.parametrize("x", [0.055389404296875, 0.11322021484375, 0.25])
@pytest.mark.parametrize("ratio", [0.5, 0.6, 0.89090909])
def test_a_gated_tensor_that_an_add_reads_has_no_tie(x: float, ratio: float, total: float) -> None:
    """The first two, in a trained net on the grid of their adds, had ties in their products."""
    scales = {"x": x, "gate": SIGMOID, "b": 0.3, "gated": x * ratio, "sum": total}
    operations = (gate(), Mul(name="gated", inputs=("x", "gate")), add("gated", "b", "sum"))
    found = snapped(scales, *operations)
    assert add_ties(found["gated"], found["b"], found["sum"]) == 0
    assert mul_ties(found["x"], SIGMOID, found["gated"]) == 0
    assert abs(found["gated"] - x * ratio) <= max(scales.values()) * 2.0**-8


def test_snapping_twice_is_snapping_once() -> None:
    scales = {"a": 0.013, "b": 0.21, "sum": 0.2, "mean": 0.1, "gate": SIGMOID, "out": 0.05}
    operations = (
        add("a", "b", "sum"), Mean(name="mean", inputs=("sum",)), gate(),
        Mul(name="out", inputs=("mean", "gate")),
    )  # fmt: skip
    once = snapped(scales, *operations)
    assert once == snapped(once, *operations)


def ties_in_range(factor: Fraction, out: float, largest: int, values: int = 1) -> bool:
    """Whether an integer of at most `largest * values` falls between two steps of int8's range."""
    halves = (m * Fraction(out) / 2 / factor * values for m in range(1, 512, 2))
    return any(p.denominator == 1 and p <= largest * values for p in halves)


def fp16_unit(scale: float) -> float:
    """The distance of fp16's values at `scale`."""
    return float(np.spacing(np.float16(scale)))


@pytest.mark.parametrize("seed", range(12))
def test_no_operation_of_a_random_net_has_a_tie(seed: int) -> None:
    found = random_graph(seed, operations=12)
    random = np.random.default_rng(seed)
    scales = {
        name: fixed.scale if (fixed := found.fixed(name)) else float(10 ** random.uniform(-2.5, 0))
        for name in found.owners()
    }
    free = tie_free(found, scales)
    for node in found.nodes:
        *inputs, out = (free[found.owner(name)] for name in (*node.inputs, node.name))
        # An add's grid comes first: where it is coarse, none of its scales is without a tie.
        shared = any(isinstance(reader, Add | Concat) for reader in found.readers(node.name))
        if isinstance(node, Add):
            assert add_ties(*inputs, out) == 0, node.name
        elif isinstance(node, Mul) and not shared:
            factor = Fraction(inputs[0]) * Fraction(inputs[1])
            # Inputs on a coarse grid (two sigmoids; what an add reads) may leave no choice.
            choices = (out + 2 * n * fp16_unit(out) for n in range(-8, 9))
            if any(not ties_in_range(factor, choice, 255**2) for choice in choices):
                assert not ties_in_range(factor, out, 255**2), node.name
        elif isinstance(node, Mean) and not shared:
            _, _, height, width = found.shape(node.inputs[0])
            values = height * width
            # An odd factor that the number of values and the scale share is not looked at.
            if values & (values - 1) == 0:
                assert not ties_in_range(Fraction(inputs[0]), out, 255, values), node.name


def test_weights_go_to_the_nearest_value() -> None:
    grid = to_fp16_grid(np.array([1e-9, 0.1, 2.0**-14]))
    assert grid.tolist() == [2.0**-14, float(torch.tensor(0.1).half()), 2.0**-14]


@pytest.mark.parametrize("kind", [Gelu, HardSwish])
def test_no_value_of_an_activation_is_near_an_edge(kind: type[Curve]) -> None:
    """Which float32 kernels would round one way or the other, each by its own last bit."""
    random, moved = np.random.default_rng(0), 0
    for _ in range(200):
        source = float(np.float16(random.uniform(2, 24) / 128))
        wanted = source * random.uniform(0.3, 1.5)
        node = kind(name="act", inputs=("input",))
        alone = Graph((1, 2, 4, 4), (node,), ("act",))
        free = tie_free(alone, {"input": source, "act": wanted})
        assert node.ties([Fraction(free["input"])], Fraction(free["act"])) == (0, 0)
        assert abs(free["act"] - wanted) <= 4 * 2.0**-10 * wanted
        nearest = tie_free(alone, {"input": source, "act": free["act"]})
        assert nearest["act"] == free["act"]
        moved += abs(free["act"] - wanted) > 2.0**-10 * wanted
    assert moved


def test_the_gelu_that_litert_rounded_otherwise_gets_another_scale() -> None:
    """Its value at 83 was 108.49999956 steps: LiteRT's kernel made 109 of it, the program 108."""
    x, steps = 83, 108.49999956
    source = float(np.float16(0.0479))
    scale = float(Gelu.curve(np.array([x * source]))[0] / steps)
    assert Gelu(name="act", inputs=("input",)).ties([Fraction(source)], Fraction(scale))[1] >= 1
