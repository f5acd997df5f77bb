"""The lint on graphs that break no rule, on those damaged once, and on uncommon ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import helper, numpy_helper

from edgevit.targets.tensorrt.lint import lint
from tests.lint.nets import CHANNELS, FLOAT, FLOAT16, INT8, SHAPE, Net, broken, repvit


def test_good_graphs_break_no_rule() -> None:
    net, output = repvit()
    assert lint(net.model(output)) == []
    net = Net()
    assert lint(net.model(net.add("Relu", "x"))) == []


def test_float_weights_behind_a_quantize_node_are_weights_too() -> None:
    net = Net()
    weight = net.const(np.ones([CHANNELS, CHANNELS, 1, 1], np.float32))
    pair = net.qdq(weight, np.full(CHANNELS, 0.1, np.float32), axis=0)
    assert lint(net.model(net.conv(net.qdq("x"), pair))) == []


def test_int8_inputs_and_outputs_need_no_node_of_their_own() -> None:
    net = Net()
    net.inputs = [helper.make_tensor_value_info("x", INT8, SHAPE)]
    scale, zero_point = net.const(np.float32(0.1)), net.const(np.int8(0))
    conv = net.conv(net.add("DequantizeLinear", "x", scale, zero_point))
    assert lint(net.model(net.add("QuantizeLinear", conv, scale, zero_point), INT8)) == []


def test_scales_may_be_float16_constants_behind_cast_and_identity() -> None:
    net = Net()
    value = numpy_helper.from_array(np.array(0.5, np.float32))
    scale = net.add("Identity", net.add("Cast", net.add("Constant", value=value), to=FLOAT16))
    x, zero_point = net.add("Cast", "x", to=FLOAT16), net.const(np.int8(0))
    x = net.add("QuantizeLinear", x, scale, zero_point)
    x = net.add("DequantizeLinear", x, scale, zero_point)
    assert lint(net.model(net.add("Relu", x), FLOAT16)) == []


def test_values_may_be_moved_between_a_pair_and_behind_it() -> None:
    net = Net()
    scale, zero_point = net.const(np.float32(0.1)), net.const(np.int8(0))
    x = net.add("QuantizeLinear", "x", scale, zero_point)
    x = net.add("Transpose", x, perm=[0, 1, 3, 2])
    x = net.add("DequantizeLinear", x, scale, zero_point)
    x = net.add("MaxPool", net.add("Concat", x, x, axis=2), kernel_shape=[2, 2])
    assert lint(net.model(net.conv(x))) == []


@pytest.mark.parametrize(
    ("op", "shape", "axis", "attributes"),
    [
        ("Gemm", [4, 10], 1, {}),
        ("Gemm", [10, 4], 0, {"transB": 1}),
        ("MatMul", [4, 10], 1, {}),
        ("MatMul", [4, 10], -1, {}),
        ("MatMul", [2, 4, 10], 2, {}),
    ],
)
def test_matrix_weights_lie_on_their_output_axis(
    op: str, shape: list[int], axis: int, attributes: dict[str, int]
) -> None:
    for at, expected in ((axis, []), (0 if axis else 1, ["TRT006"])):
        net = Net()
        net.inputs = [helper.make_tensor_value_info("x", FLOAT, [3, 4])]
        weight = net.weight(shape, at)
        assert broken(net.model(net.add(op, net.qdq("x"), weight, **attributes))) == expected


def test_a_transposed_weight_keeps_its_output_axis() -> None:
    for axis, expected in ((0, []), (1, ["TRT006"])):
        net = Net()
        net.inputs = [helper.make_tensor_value_info("x", FLOAT, [3, 4])]
        weight = net.add("Transpose", net.weight([10, 4], axis), perm=[1, 0])
        assert broken(net.model(net.add("MatMul", net.qdq("x"), weight))) == expected


def test_transposed_convolutions_have_their_output_channels_on_axis_1() -> None:
    for axis, expected in ((1, []), (0, ["TRT006"])):
        net = Net()
        output = net.add("ConvTranspose", net.qdq("x"), net.weight([CHANNELS, 6, 2, 2], axis))
        assert broken(net.model(output)) == expected


Change = Callable[[Net], None]


def set_value(net: Net, kind: type, value: float) -> None:
    """Give the first initializer of a type another value."""
    for tensor in net.initializers:
        array = numpy_helper.to_array(tensor)
        if array.dtype == kind and array.ndim == 0:
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(value, kind), tensor.name))
            return


def drop_pair(net: Net, op: str, index: int) -> None:
    """Let the index-th input of the last node of an operator read what its pair read."""
    producers = {node.output[0]: node for node in net.nodes}
    node = [node for node in net.nodes if node.op_type == op][-1]
    quantize = producers[producers[node.input[index]].input[0]]
    node.input[index] = quantize.input[0]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda net: set_value(net, np.float32, 0), {"TRT002"}),
        (lambda net: set_value(net, np.int8, 1), {"TRT003"}),
        (lambda net: drop_pair(net, "Gemm", 0), {"TRT008"}),
        (lambda net: drop_pair(net, "Conv", 0), {"TRT008"}),
        (lambda net: drop_pair(net, "Add", 1), {"TRT013"}),
    ],
)
def test_a_good_graph_that_is_damaged_once(change: Change, expected: set[str]) -> None:
    net, output = repvit()
    change(net)
    assert set(broken(net.model(output))) == expected


def test_weights_of_a_good_graph_in_another_order_are_found() -> None:
    net, output = repvit()
    weights = [n for n in net.nodes if n.op_type == "DequantizeLinear" and n.input[0][0] == "c"]
    for node in weights:
        node.attribute[0].i = 1
    assert broken(net.model(output)) == ["TRT006"] * len(weights)


def test_scales_that_are_not_read_are_said_to_be_so() -> None:
    net = Net()
    many = net.const(np.full(2**20 + 1, 0.1, np.float32))
    product = net.add("Mul", net.const(np.float32(0.1)), net.const(np.float32(2)))
    zero_point = net.const(np.int8(0))
    x = "x"
    for scale in (many, product):
        x = net.add("QuantizeLinear", x, scale, zero_point)
        x = net.add("DequantizeLinear", x, scale, zero_point)
    first, second = lint(net.model(x))
    assert first.rule == second.rule == "TRT018"
    assert "not read" in first.what and "computed by Mul" in second.what


def test_a_long_chain_of_nodes_is_walked_without_recursion() -> None:
    net = Net()
    x = net.qdq("x")
    for _ in range(20_000):
        x = net.add("Identity", x)
    assert lint(net.model(net.conv(x))) == []
