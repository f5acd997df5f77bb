"""The graph's own checks: each defect is refused, and named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgevit.errors import InputError
from edgevit.graph import Graph
from edgevit.ops import Node, Quantizer, is_float16_exact
from tests.programs import make_program, replace_node

ONE = Quantizer(0.5, 0)


def conv(name: str = "conv", source: str = "input", **changes: object) -> Node:
    fields = {
        "module": name,
        "padding": (1, 1),
        "weight": np.ones((4, 3, 3, 3), np.int8),
        "weight_scale": np.full(4, 0.25, np.float32),
        "bias": np.zeros(4, np.float32),
        "bias_q": np.zeros(4, np.int32),
    }
    return Node("conv2d", name, (source,), (1, 4, 8, 8), ONE, **(fields | changes))


def graph(*nodes: Node, output: str = "") -> Graph:
    return Graph("input", (1, 3, 8, 8), ONE, nodes, output or nodes[-1].name)


def gelu(name: str, source: str, shape: tuple[int, ...] = (1, 4, 8, 8)) -> Node:
    return Node("gelu", name, (source,), shape, ONE)


def test_names_shapes_and_quantizers_can_be_asked() -> None:
    found = graph(conv(), gelu("act", "conv"))
    assert found.quantized
    assert found.shape("input") == (1, 3, 8, 8) and found.shape("act") == (1, 4, 8, 8)
    assert list(found.activations()) == ["input", "conv", "act"]
    assert [node.module for node in found.weighted()] == ["conv"]
    with pytest.raises(InputError, match="nothing-such"):
        found.node("nothing-such")


def test_flatten_has_its_inputs_quantizer() -> None:
    program = make_program()
    assert program.graph().quantizer("flatten") is program.graph().quantizer("mean")
    assert "flatten" not in program.graph().activations()


@pytest.mark.parametrize(
    ("nodes", "output", "message"),
    [
        ((conv(), gelu("conv", "conv")), "conv", "conv: two tensors have this name"),
        ((gelu("act", "conv"), conv()), "act", "act: reads conv, which nothing made"),
        ((conv(), gelu("act", "conv", (1, 4, 8, 7))), "act", "act: shape"),
        ((conv(),), "other", "other: the output must be made"),
        ((conv(), gelu("a", "conv"), gelu("b", "conv")), "b", "a: nothing reads this tensor"),
        ((conv(stride=(2, 2)),), "conv", "conv: shape"),
        ((conv(groups=3),), "conv", "conv: convolution"),
        ((conv(groups=2),), "conv", "conv: convolution"),
    ],
)
def test_a_graph_that_does_not_hold_together_is_refused(
    nodes: tuple[Node, ...], output: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        graph(*nodes, output=output)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": np.full((4, 3, 3, 3), -128, np.int8)}, "-127..127"),
        ({"weight": np.zeros((4, 3, 3), np.int8)}, "do not fit"),
        ({"bias": np.zeros(3, np.float32)}, "do not fit"),
        ({"weight_scale": np.zeros(4, np.float64)}, "one float32 weight scale"),
        ({"bias_q": np.zeros(4, np.int64)}, "one int32 bias"),
        ({"weight": None}, "missing"),
    ],
)
def test_weights_of_another_kind_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        conv("stem.conv1", **changes)
    assert "stem.conv1" in str(error.value)


@pytest.mark.parametrize(
    "arguments",
    [
        (0.0, 0), (-1.0, 0), (float("nan"), 0), (float("inf"), 0), (1, 0), (0.5, 0.0),
        (0.5, 200), (0.5, 0, -129, 127), (0.5, 0, 5, 5), (0.5, -128, -127, 127),
        (0.5, 0, -128, 127, "guessed"),
    ],
)  # fmt: skip
def test_a_quantizer_outside_int8_is_refused(arguments: tuple) -> None:
    with pytest.raises(InputError):
        Quantizer(*arguments)


def test_a_quantizers_range_is_in_real_numbers() -> None:
    quantizer = Quantizer(0.5, -28)
    assert (quantizer.low, quantizer.high) == (-50.0, 77.5)
    assert quantizer.same_values(replace(quantizer, how="fixed"))


def test_unknown_operations_and_wrong_arity_are_refused() -> None:
    with pytest.raises(InputError, match="act: unknown operation 'mish'"):
        Node("mish", "act", ("conv",), (1, 4, 8, 8))
    with pytest.raises(InputError, match="sum: add takes 2 inputs"):
        Node("add", "sum", ("conv",), (1, 4, 8, 8))


def test_a_missing_quantizer_is_named() -> None:
    name = "stages.0.blocks.0.add"
    broken = replace_node(make_program().graph(), name, quantizer=None)
    with pytest.raises(InputError, match=f"{name}: this tensor has no quantizer"):
        broken.activations()


@pytest.mark.parametrize(
    ("scale", "exact"),
    [
        (1 / 256, True), (0.0999755859375, True), (0.1, False), (6e-8, False), (2.0**-24, True),
        (65504.0, True), (65536.0, False), (0.0, False), (-1.0, False), (float("nan"), False),
    ],
)  # fmt: skip
def test_float16_exactness(scale: float, exact: bool) -> None:
    assert is_float16_exact(scale) is exact
    assert is_float16_exact(np.float32([1.0, scale])) is exact
