"""The graph's own checks: each defect is refused, and named."""

from __future__ import annotations

import copy
import time
from dataclasses import replace

import numpy as np
import pytest

from edgevit.errors import InputError
from edgevit.graph import Graph, check_quantized, float_graph, quantize_graph
from edgevit.graph.float_run import GraphNet
from edgevit.ops import (
    Add,
    Concat,
    Conv2d,
    FloatWeights,
    Gelu,
    Int8Weights,
    MaxPool2d,
    Node,
    Quantizer,
    Sigmoid,
    Slice,
)
from tests.programs import make_program
from tests.random_graphs import random_graph

ONE = Quantizer(0.5, 0)
SHAPE = (1, 3, 8, 8)


def conv(name: str = "conv", source: str = "input", **changes: object) -> Conv2d:
    weights = {
        "weight": np.ones((4, 3, 3, 3), np.int8),
        "scale": np.full(4, 0.25, np.float32),
        "bias_q": np.zeros(4, np.int32),
        "bias": np.zeros(4, np.float32),
    }
    own = {key: changes.pop(key) for key in tuple(changes) if key in weights}
    fields = {"module": name, "padding": (1, 1), "weights": Int8Weights(**(weights | own))}
    return Conv2d(name=name, inputs=(source,), **(fields | changes))


def gelu(name: str, source: str) -> Node:
    return Gelu(name=name, inputs=(source,))


def graph(*nodes: Node, output: str = "", quantized: bool = True) -> Graph:
    made = Graph(SHAPE, nodes, (output or nodes[-1].name,))
    return replace(made, quantizers={name: ONE for name in made.owners()}) if quantized else made


def test_names_shapes_and_quantizers_can_be_asked() -> None:
    found = graph(conv(), gelu("act", "conv"))
    assert found.quantized and not graph(conv(), quantized=False).quantized
    assert found.shape("input") == SHAPE and found.shape("act") == (1, 4, 8, 8)
    assert list(found.activations()) == found.tensors() == ["input", "conv", "act"]
    assert [node.module for node in found.weighted()] == ["conv"]
    assert found.readers("conv") == [found.node("act")] and found.output_name == "act"
    assert found.makes("input") is None and found.makes("conv") is found.node("conv")
    for ask in (found.node, found.shape):
        with pytest.raises(InputError, match="nothing-such"):
            ask("nothing-such")


def test_shapes_follow_from_the_inputs() -> None:
    assert graph(conv(stride=(2, 2))).shape("conv") == (1, 4, 4, 4)
    assert graph(conv(padding=(0, 2))).shape("conv") == (1, 4, 6, 10)
    assert graph(conv(dilation=(2, 1))).shape("conv") == (1, 4, 6, 8)


def test_flatten_has_its_inputs_quantizer() -> None:
    program = make_program()
    assert program.graph().quantizer("flatten") is program.graph().quantizer("mean")
    assert "flatten" not in program.graph().activations()


def test_tensors_that_share_a_quantizer_have_the_first_made_as_owner() -> None:
    nodes = (
        gelu("a", "input"),
        gelu("b", "input"),
        MaxPool2d(name="pool", inputs=("b",), kernel=(2, 2), stride=(2, 2)),
        Concat(name="cat", inputs=("a", "b")),
        Slice(name="part", inputs=("cat",), axis=1, start=1, stop=3),
        gelu("c", "part"),
        MaxPool2d(name="last", inputs=("c",), kernel=(2, 2), stride=(2, 2)),
    )
    found = Graph(SHAPE, nodes, ("pool", "last"))
    assert {name: found.owner(name) for name in found.tensors()} == {
        "input": "input", "a": "a", "b": "a", "pool": "a", "cat": "a", "part": "a", "c": "c",
        "last": "c",
    }  # fmt: skip
    assert found.owners() == ["input", "a", "c"]
    assert found.sources("a") == ["a", "b"] and found.sources("c") == ["c"]
    with pytest.raises(InputError, match="b: it has a quantizer, but no such tensor owns one"):
        replace(found, quantizers={"b": ONE})
    with pytest.raises(InputError, match="nothing: it has a quantizer, but no such tensor"):
        replace(found, quantizers={"nothing": ONE})


def test_a_concatenation_of_a_fixed_scale_and_another_is_refused() -> None:
    gate = Sigmoid(name="gate", inputs=("input",))
    found = graph(gate, gelu("a", "input"), Concat(name="cat", inputs=("a", "gate")))
    with pytest.raises(InputError, match="gate: a concatenation .* before the sigmoid"):
        found.fixed(found.owner("cat"))
    other = Sigmoid(name="other", inputs=("input",))
    both = graph(gate, other, Concat(name="cat", inputs=("other", "gate")))
    assert both.fixed("gate") == Quantizer(1 / 256, -128, how="fixed")


@pytest.mark.parametrize(
    ("nodes", "output", "message"),
    [
        ((conv(), gelu("conv", "conv")), "conv", "conv: two tensors have this name"),
        ((gelu("input", "input"),), "input", "input: two tensors have this name"),
        ((gelu("act", "conv"), conv()), "act", "act: reads conv, which nothing made"),
        ((gelu("a", "b"), gelu("b", "a")), "b", "a: reads b, which nothing made before it"),
        ((gelu("a", "a"),), "a", "a: reads a, which nothing made before it"),
        ((conv(),), "other", "other: the output must be made"),
        ((conv(),), "input", "input: the output must be made"),
        ((conv(), gelu("a", "conv"), gelu("b", "conv")), "b", "a: nothing reads this tensor"),
        ((conv(groups=3),), "conv", "conv: convolution"),
        ((conv(groups=2),), "conv", "conv: convolution"),
        ((conv(groups=0),), "conv", "conv: convolution"),
        ((conv(groups=-1),), "conv", "conv: convolution"),
        ((conv(stride=(0, 1)),), "conv", "conv: .* kernel does not fit"),
        ((conv(stride=(1, -1)),), "conv", "conv: .* kernel does not fit"),
        ((conv(padding=(-1, 1)),), "conv", "conv: .* kernel does not fit"),
        ((conv(dilation=(0, 1)),), "conv", "conv: .* kernel does not fit"),
        ((conv(dilation=(9, 1)),), "conv", "conv: .* kernel does not fit"),
        ((conv(), conv("twin", module="conv"), Add(name="sum", inputs=("conv", "twin"))), "sum",
         "conv: two operations have the weights of this module"),
        ((), "", "a graph has one or more outputs|the output must be made"),
    ],
)  # fmt: skip
def test_a_graph_that_does_not_hold_together_is_refused(
    nodes: tuple[Node, ...], output: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Graph(SHAPE, nodes, (output,))


@pytest.mark.parametrize("outputs", [(), ("conv", "conv")])
def test_outputs_are_there_each_once(outputs: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="one or more outputs, each once"):
        Graph(SHAPE, (conv(),), outputs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": np.full((4, 3, 3, 3), -128, np.int8)}, "-127..127"),
        ({"weight": np.zeros((4, 3, 3, 3), np.int16)}, "int8 in -127..127, not int16"),
        ({"weight": np.zeros((4, 3, 3), np.int8)}, "do not fit"),
        ({"weight": np.zeros((4, 3, 0, 3), np.int8)}, "do not fit"),
        ({"weight": np.zeros((0, 3, 3, 3), np.int8)}, "do not fit"),
        ({"bias": np.zeros(3, np.float32)}, "do not fit"),
        ({"bias": np.zeros(4, np.float64)}, "do not fit"),
        ({"scale": np.zeros(4, np.float64)}, "one float32 weight scale"),
        ({"scale": np.zeros(1, np.float32)}, "one float32 weight scale"),
        ({"bias_q": np.zeros(4, np.int64)}, "one int32 bias"),
        ({"bias_q": np.zeros((4, 1), np.int32)}, "one int32 bias"),
        ({"weights": FloatWeights(np.zeros((4, 3, 3, 3)), np.zeros(4, np.float32))}, "float32"),
    ],
)
def test_weights_of_another_kind_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        conv("stem.conv1", **changes)
    assert "stem.conv1" in str(error.value)


def test_a_float_layer_has_no_int8_weights() -> None:
    weights = FloatWeights(np.ones((4, 3, 3, 3), np.float32), np.zeros(4, np.float32))
    with pytest.raises(InputError, match="conv: its weights are not quantized"):
        assert conv(weights=weights).weight_scale
    found = graph(conv(weights=weights))
    with pytest.raises(InputError, match="conv: its weights are not int8"):
        check_quantized(found, "portable")


@pytest.mark.parametrize("kind", [Add, Gelu, Concat])
def test_wrong_arity_is_refused(kind: type[Node]) -> None:
    for count in {0, 3} if kind is not Concat else {0}:
        with pytest.raises(InputError, match=f"sum: {kind.kind} takes .* inputs, not {count}"):
            kind(name="sum", inputs=("x",) * count)


def test_a_missing_quantizer_is_named() -> None:
    name = "stages.0.blocks.0.add"
    found = make_program().graph()
    quantizers = {key: q for key, q in found.quantizers.items() if key != name}
    broken = replace(found, quantizers=quantizers)
    with pytest.raises(InputError, match=f"{name}: tensor has no quantizer"):
        broken.activations()
    with pytest.raises(InputError, match=f"{name}: tensor has no quantizer"):
        check_quantized(broken, "portable")


def test_a_float_graph_has_the_values_of_the_int8_one() -> None:
    program = make_program().graph()
    found = float_graph(program)
    assert not found.quantized and found.tensors() == program.tensors()
    for node, before in zip(found.weighted(), program.weighted(), strict=True):
        assert node.weight.dtype == np.float32
        assert np.array_equal(node.weight, before.weight * before.per_channel(before.weight_scale))
        assert np.array_equal(node.bias, before.bias)
    with pytest.raises(InputError, match="quantized already"):
        quantize_graph(program, {}, {}, "portable")


def test_a_graph_and_its_net_can_be_copied() -> None:
    found = random_graph(3)
    net = copy.deepcopy(GraphNet(found))
    assert [layer.node.name for layer in net.nodes()] == [node.name for node in found.nodes]
    assert copy.deepcopy(make_program().graph()).tensors() == make_program().graph().tensors()


def test_what_is_held_at_once_is_counted() -> None:
    """conv reads 3·8·8 values and makes 4·8·8; then the input is free."""
    assert graph(conv()).peak_values() == (3 + 4) * 64
    kept = Graph(SHAPE, (conv(), gelu("a", "conv"), gelu("b", "a")), ("conv", "b"))
    assert kept.peak_values() == (4 + 4 + 4) * 64
    assert graph(conv(), gelu("a", "conv"), gelu("b", "a")).peak_values() == (4 + 4) * 64


def test_a_graph_of_ten_thousand_operations_is_checked_in_a_second_or_two() -> None:
    """Owners are found in linear time, of chains and of concatenations that join them."""
    count = 5000
    nodes: list[Node] = [gelu(f"g{i}", "input") for i in range(count)]
    for i in range(1, count):
        first = f"c{i - 1}" if i > 1 else "g0"
        nodes.append(Concat(name=f"c{i}", inputs=(first, f"g{i}")))
    start = time.process_time()
    found = Graph(SHAPE, nodes, (f"c{count - 1}",))
    assert found.owners() == ["input", "g0"] and len(found.sources("g0")) == count
    assert time.process_time() - start < 10
