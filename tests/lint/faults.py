"""A graph for each way to break a rule, which it breaks alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import ModelProto, TensorProto, helper

from tests.lint.nets import CHANNELS, FLOAT, FLOAT16, INT8, SHAPE, Net


def scale_from_input() -> ModelProto:
    net = Net()
    net.inputs.append(helper.make_tensor_value_info("s", FLOAT, []))
    zero_point = net.const(np.int8(0))
    x = net.add("QuantizeLinear", "x", "s", zero_point)
    return net.model(net.add("DequantizeLinear", x, "s", zero_point))


def scale_of(value: float) -> ModelProto:
    net = Net()
    return net.model(net.qdq("x", value))


def nonzero_zero_point() -> ModelProto:
    net = Net()
    return net.model(net.qdq("x", zero_point=3))


def zero_point_from_input() -> ModelProto:
    net = Net()
    net.inputs.append(helper.make_tensor_value_info("z", INT8, []))
    scale = net.const(np.float32(0.1))
    return net.model(
        net.add("DequantizeLinear", net.add("QuantizeLinear", "x", scale, "z"), scale, "z")
    )


def unsigned() -> ModelProto:
    net = Net()
    return net.model(net.qdq("x", kind=np.uint8))


def no_zero_point() -> ModelProto:
    net = Net()
    scale = net.const(np.float32(0.1))
    return net.model(net.add("DequantizeLinear", net.add("QuantizeLinear", "x", scale), scale))


def int16_weight() -> ModelProto:
    net = Net(opset=21)
    return net.model(net.conv(net.qdq("x"), net.weight([CHANNELS, CHANNELS, 1, 1], kind=np.int16)))


def per_channel_activation() -> ModelProto:
    net = Net()
    return net.model(net.conv(net.qdq("x", np.full(CHANNELS, 0.1, np.float32), axis=1)))


def weight_on_axis_1() -> ModelProto:
    net = Net()
    return net.model(net.conv(net.qdq("x"), net.weight([6, CHANNELS, 1, 1], axis=1), channels=6))


def too_few_scales() -> ModelProto:
    net = Net()
    return net.model(net.conv(net.qdq("x"), net.weight([CHANNELS, CHANNELS, 1, 1], scales=2)))


def per_tensor_weight() -> ModelProto:
    net = Net()
    return net.model(net.conv(net.qdq("x"), net.weight([CHANNELS, CHANNELS, 1, 1], scales=1)))


def float_weight() -> ModelProto:
    net = Net()
    weight = net.const(np.ones([CHANNELS, CHANNELS, 1, 1], np.float32))
    return net.model(net.conv(net.qdq("x"), weight))


def float_activation() -> ModelProto:
    net = Net()
    return net.model(net.conv("x"))


def float_convolution() -> ModelProto:
    net = Net()
    return net.model(net.conv("x", net.const(np.ones([CHANNELS, CHANNELS, 1, 1], np.float32))))


def quantize_without_dequantize() -> ModelProto:
    net = Net()
    x = net.add("QuantizeLinear", "x", net.const(np.float32(0.1)), net.const(np.int8(0)))
    return net.model(net.add("Cast", x, to=FLOAT))


def dequantize_without_quantize() -> ModelProto:
    net = Net()
    x = net.add("Cast", "x", to=INT8)
    return net.model(
        net.add("DequantizeLinear", x, net.const(np.float32(0.1)), net.const(np.int8(0)))
    )


def activation_behind_pair(*ops: str) -> ModelProto:
    """Convolution, Q/DQ, then `ops` in a chain, the binary ones with a constant."""
    net = Net()
    x = net.qdq(net.conv(net.qdq("x")))
    for op in ops:
        x = net.add(op, x, *([net.const(np.float32(3))] if op in {"Add", "Div", "Mul"} else []))
    return net.model(x)


def matmul_bias_activation() -> ModelProto:
    net = Net()
    net.inputs = [helper.make_tensor_value_info("x", FLOAT, [3, 4])]
    x = net.add("MatMul", net.qdq("x"), net.weight([4, 10], 1))
    x = net.qdq(net.add("Add", x, net.const(np.zeros(10, np.float32))))
    return net.model(net.add("Relu", x))


def pair_on_convolution_branch() -> ModelProto:
    net = Net()
    x = net.qdq("x")
    return net.model(net.add("Add", x, net.qdq(net.conv(x))))


def pairs_on_both_convolutions() -> ModelProto:
    net = Net()
    x = net.qdq("x")
    return net.model(net.add("Add", net.qdq(net.conv(x)), net.qdq(net.conv(x, size=3))))


def float_shortcut() -> ModelProto:
    net = Net()
    return net.model(net.add("Add", "x", net.conv(net.qdq("x"))))


def two_float_branches() -> ModelProto:
    net = Net()
    x = net.qdq("x")
    return net.model(net.add("Add", net.conv(x), net.conv(x, size=3)))


def double_scale() -> ModelProto:
    net = Net(opset=23)
    return net.model(net.add("Relu", net.qdq("x", np.array(0.1, np.float64))), TensorProto.DOUBLE)


def mixed_add() -> ModelProto:
    net = Net()
    return net.model(net.add("Add", "x", net.add("Cast", "x", to=FLOAT16)))


def mixed_convolution() -> ModelProto:
    net = Net(opset=23)
    return net.model(net.conv(net.qdq("x", np.array(0.1, np.float16))))


def per_channel_before_opset_13() -> ModelProto:
    net = Net(opset=12)
    scale = net.const(np.full(CHANNELS, 0.1, np.float32))
    weight = net.const(np.ones([CHANNELS, CHANNELS, 1, 1], np.int8))
    zero_point = net.const(np.zeros(CHANNELS, np.int8))
    weight = net.add("DequantizeLinear", weight, scale, zero_point)
    return net.model(net.conv(net.qdq("x"), weight))


def int32_bias() -> ModelProto:
    net = Net()
    scale = net.const(np.full(CHANNELS, 0.1, np.float32))
    bias = net.const(np.zeros(CHANNELS, np.int32))
    bias = net.add("DequantizeLinear", bias, scale, axis=0)
    weight = net.weight([CHANNELS, CHANNELS, 1, 1])
    return net.model(net.add("Conv", net.qdq("x"), weight, bias))


def branch() -> ModelProto:
    net = Net()
    net.inputs.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, []))
    x = net.qdq("x")
    parts = {}
    for name in ("then_branch", "else_branch"):
        result = helper.make_tensor_value_info(name, FLOAT, SHAPE)
        parts[name] = helper.make_graph([helper.make_node("Relu", [x], [name])], name, [], [result])
    return net.model(net.add("If", "flag", **parts))


BROKEN: list[tuple[str, Callable[[], ModelProto]]] = [
    ("TRT001", scale_from_input),
    ("TRT002", lambda: scale_of(0.0)),
    ("TRT002", lambda: scale_of(-0.1)),
    ("TRT002", lambda: scale_of(float("inf"))),
    ("TRT002", lambda: scale_of(float("nan"))),
    ("TRT003", nonzero_zero_point),
    ("TRT003", zero_point_from_input),
    ("TRT004", unsigned),
    ("TRT004", no_zero_point),
    ("TRT004", int16_weight),
    ("TRT005", per_channel_activation),
    ("TRT006", weight_on_axis_1),
    ("TRT006", too_few_scales),
    ("TRT007", per_tensor_weight),
    ("TRT008", float_weight),
    ("TRT008", float_activation),
    ("TRT009", float_convolution),
    ("TRT010", quantize_without_dequantize),
    ("TRT010", dequantize_without_quantize),
    ("TRT011", lambda: activation_behind_pair("Relu")),
    ("TRT011", lambda: activation_behind_pair("Gelu")),
    ("TRT011", lambda: activation_behind_pair("HardSwish")),
    ("TRT011", lambda: activation_behind_pair("Sigmoid")),
    ("TRT011", lambda: activation_behind_pair("Div", "Erf", "Add", "Mul")),
    ("TRT011", lambda: activation_behind_pair("Add", "Clip")),
    ("TRT011", matmul_bias_activation),
    ("TRT012", pair_on_convolution_branch),
    ("TRT012", pairs_on_both_convolutions),
    ("TRT013", float_shortcut),
    ("TRT013", two_float_branches),
    ("TRT014", double_scale),
    ("TRT015", mixed_add),
    ("TRT015", mixed_convolution),
    ("TRT016", per_channel_before_opset_13),
    ("TRT017", int32_bias),
    ("TRT018", branch),
]
