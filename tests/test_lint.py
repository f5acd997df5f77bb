"""The lint for TensorRT: each rule on a graph that breaks it alone, and graphs that break none."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

from edgevit.commands.lint import lint_command
from edgevit.errors import EdgevitError, InputError
from edgevit.lint import RULES, lint, reading
from tests.test_harness import edit_manifest, write_artifact

CHANNELS = 4
SHAPE = [1, CHANNELS, 8, 8]
FLOAT, FLOAT16, INT8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8


class Net:
    """Builds a graph node by node; every method returns the name of the tensor it makes."""

    def __init__(self, opset: int = 20) -> None:
        self.opset = opset
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.inputs = [helper.make_tensor_value_info("x", FLOAT, SHAPE)]

    def const(self, value: np.ndarray) -> str:
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, op: str, *inputs: str, **attributes: object) -> str:
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def qdq(
        self, x: str, scale: object = 0.1, zero_point: object = 0, kind: type = np.int8, **more: int
    ) -> str:
        scales = np.asarray(scale, np.float32) if not isinstance(scale, np.ndarray) else scale
        names = self.const(scales), self.const(np.full(scales.shape, zero_point, kind))
        return self.add("DequantizeLinear", self.add("QuantizeLinear", x, *names, **more), *names,
                        **more)  # fmt: skip

    def weight(
        self, shape: Sequence[int], axis: int = 0, scales: int | None = None, kind: type = np.int8
    ) -> str:
        """An int8 constant and its DequantizeLinear; `scales` 1 is per tensor."""
        count = shape[axis] if scales is None else scales
        scale = np.full(() if count == 1 else count, 0.02, np.float32)
        names = self.const(np.ones(shape, kind)), self.const(scale), self.const(scale.astype(kind))
        return self.add("DequantizeLinear", *names, axis=axis)

    def conv(self, x: str, w: str | None = None, channels: int = CHANNELS, size: int = 1) -> str:
        """A quantized convolution that keeps the image's size, with a float bias."""
        w = w or self.weight([channels, CHANNELS, size, size])
        bias = self.const(np.zeros(channels, np.float32))
        return self.add("Conv", x, w, bias, pads=[size // 2] * 4)

    def model(self, output: str, kind: int = FLOAT) -> ModelProto:
        graph = helper.make_graph(
            self.nodes, "net", self.inputs, [helper.make_tensor_value_info(output, kind, None)],
            self.initializers,
        )  # fmt: skip
        opsets = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        # onnx.checker wants an output to have a shape, whichever it is.
        model = shape_inference.infer_shapes(model)
        model.graph.output[0].type.tensor_type.shape.SetInParent()
        return model


def repvit() -> tuple[Net, str]:
    """A RepViT in small: stem, GELU, token mixer with squeeze-excite, residual, classifier.

    Every habit of edgevit's artifacts is in it: GELU and the sigmoid gate in float, a shortcut that
    shares its Q/DQ with the next convolution, no Q/DQ on the convolution's branch.
    """
    net = Net()
    x = net.conv(net.qdq("x"), size=3)
    x = net.qdq(net.add("Gelu", x))
    x = net.qdq(net.conv(x))
    mean = net.qdq(net.add("ReduceMean", x, net.const(np.array([2, 3])), keepdims=1))
    gate = net.conv(net.qdq(net.add("Relu", net.conv(mean))))
    x = net.qdq(net.add("Mul", x, net.add("Sigmoid", gate)))
    hidden = net.qdq(net.add("Gelu", net.conv(x)))
    x = net.qdq(net.add("Add", x, net.conv(hidden)))
    x = net.qdq(net.add("Add", net.conv(x, size=3), x))
    x = net.add("GlobalAveragePool", x)
    x = net.qdq(net.add("Flatten", x))
    logits = net.add("Gemm", x, net.weight([10, CHANNELS]), net.const(np.zeros(10, np.float32)),
                     transB=1)  # fmt: skip
    return net, net.qdq(logits)


def broken(model: ModelProto, **options: bool) -> list[str]:
    return [finding.rule for finding in lint(model, **options)]


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


@pytest.mark.parametrize(("rule", "make"), BROKEN)
def test_a_rule_is_found_alone(rule: str, make: Callable[[], ModelProto]) -> None:
    (finding,) = lint(make())
    assert finding.rule == rule and finding.level == RULES[rule].level
    assert finding.node and finding.what and finding.why and finding.fix


def test_every_rule_has_a_graph_that_breaks_it() -> None:
    assert {rule for rule, _ in BROKEN} == set(RULES)
    assert all(id == rule.id and rule.level in {"error", "warning"} for id, rule in RULES.items())


def test_functions_of_the_model_are_said_not_to_be_linted() -> None:
    body = [helper.make_node("Conv", ["a", "b"], ["c"])]
    opsets = [helper.make_opsetid("", 20)]
    net = Net()
    model = net.model(net.add("Mul", "x", net.const(np.ones([4, 4, 1, 1], np.float32))))
    model.graph.node[0].op_type, model.graph.node[0].domain = "Block", "local"
    model.opset_import.append(helper.make_opsetid("local", 1))
    model.functions.append(helper.make_function("local", "Block", ["a", "b"], ["c"], body, opsets))
    (finding,) = lint(model)
    assert finding.rule == "TRT018" and finding.what == "local::Block is a function of the model"


def test_output_dtype_stands_for_a_missing_zero_point() -> None:
    for kind, expected in ((INT8, []), (TensorProto.UINT8, ["TRT004"])):
        net = Net(opset=21)
        scale = net.const(np.float32(0.1))
        x = net.add("QuantizeLinear", "x", scale, output_dtype=kind)
        assert broken(net.model(net.add("DequantizeLinear", x, scale))) == expected


def test_a_finding_says_where_and_what() -> None:
    (finding,) = lint(weight_on_axis_1())
    assert finding.node == "DequantizeLinear_2"
    assert finding.what == "axis 1, and Conv has its output channels on axis 0"
    (finding,) = lint(scale_of(0.0))
    assert finding.node == "QuantizeLinear_0" and "0 at index 0" in finding.what
    (finding,) = lint(pair_on_convolution_branch())
    assert finding.node == "QuantizeLinear_4" and finding.what.endswith("read by Add Add_6")
    (finding,) = lint(float_shortcut())
    assert finding.node == "Add_4" and finding.what == "it reads x and Conv_3 in float"
    (finding,) = lint(float_weight())
    assert finding.what == "Conv: its activation is quantized, its weight is not"
    (finding,) = lint(activation_behind_pair("Div", "Erf"))
    assert finding.node == "QuantizeLinear_4"
    assert finding.what == "it stands between Conv and Erf"


def test_a_nameless_node_is_named_by_its_output() -> None:
    model = float_convolution()
    model.graph.node[0].name = ""
    assert lint(model)[0].node == "Conv of Conv_0"


def test_terminal_codes_in_names_do_not_reach_the_terminal() -> None:
    model = float_convolution()
    model.graph.node[0].name = "\x1b[2Jevil\n" * 100
    assert "\x1b" not in lint(model)[0].node and len(lint(model)[0].node) < 250


def test_strict_makes_float_convolutions_errors() -> None:
    assert [f.level for f in lint(float_convolution())] == ["warning"]
    assert [f.level for f in lint(float_convolution(), strict=True)] == ["error"]
    assert [f.level for f in lint(float_shortcut(), strict=True)] == ["warning"]


def test_products_of_two_activations_may_stay_float() -> None:
    net = Net()
    assert lint(net.model(net.add("MatMul", "x", "x"))) == []
    net = Net()
    assert broken(net.model(net.add("MatMul", net.qdq("x"), "x"))) == ["TRT008"]


def test_a_pair_that_others_read_is_not_in_the_way_of_an_add() -> None:
    net = Net()
    shortcut = net.qdq(net.conv(net.qdq("x")))
    x = net.qdq(net.add("Relu", net.conv(shortcut)))
    assert lint(net.model(net.add("Add", shortcut, net.conv(x)))) == []


def test_one_float_branch_beside_a_quantized_one_is_right() -> None:
    net = Net()
    x = net.qdq("x")
    assert lint(net.model(net.add("Add", net.conv(x), net.qdq(net.conv(x, size=3))))) == []


def test_a_shortcut_in_float_beside_a_pair_on_the_convolution_is_both_faults() -> None:
    net = Net()
    model = net.model(net.add("Add", "x", net.qdq(net.conv(net.qdq("x")))))
    assert broken(model) == ["TRT012", "TRT013"]


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


def refused(model: ModelProto | bytes | Path) -> str:
    with pytest.raises(InputError) as error:
        lint(model)
    return str(error.value)


def test_what_is_no_onnx_is_refused(tmp_path: Path) -> None:
    good = float_convolution().SerializeToString()
    for name, data in {"empty": b"", "text": b"not an onnx", "cut": good[:-7]}.items():
        path = tmp_path / name
        path.write_bytes(data)
        assert str(path) in refused(path)
        assert refused(data)
    assert "no file" in refused(tmp_path) and "no file" in refused(tmp_path / "gone.onnx")


def test_what_onnx_refuses_is_refused() -> None:
    model = activation_behind_pair("Gelu")
    model.opset_import[0].version = 13
    assert "not valid ONNX" in refused(model) and "Gelu" in refused(model)
    model = float_convolution()
    model.graph.node.append(model.graph.node[0])
    assert "not valid ONNX" in refused(model)
    net = Net()
    net.nodes = [helper.make_node("Relu", ["b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    assert "not valid ONNX" in refused(net.model("b"))


def test_models_beyond_the_bounds_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "huge.onnx"
    with path.open("wb") as file:
        os.truncate(file.fileno(), reading.MAX_BYTES + 1)
    assert "larger than" in refused(path)
    path.unlink()
    model = branch()
    monkeypatch.setattr(reading, "MAX_NODES", len(model.graph.node) + 2)
    lint(model)
    monkeypatch.setattr(reading, "MAX_NODES", len(model.graph.node) + 1)
    assert "nodes" in refused(model)
    monkeypatch.setattr(reading, "MAX_BYTES", 10)
    assert "larger than" in refused(model)


def test_external_data_is_refused_wherever_it_is(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"\0" * 64)

    def move_out(tensor: TensorProto) -> None:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=str(secret))

    model = float_convolution()
    move_out(model.graph.initializer[0])
    assert "in another file" in refused(model)
    net = Net()
    value = numpy_helper.from_array(np.array(0.5, np.float32))
    model = net.model(net.add("Add", "x", net.add("Constant", value=value)))
    move_out(model.graph.node[0].attribute[0].t)
    assert "in another file" in refused(model)
    model = branch()
    inner = model.graph.node[-1].attribute[0].g
    inner.initializer.append(numpy_helper.from_array(np.zeros(16, np.float32), "w"))
    move_out(inner.initializer[0])
    assert "in another file" in refused(model)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(lint_command, [str(argument) for argument in arguments])


def exit_code(result: Result) -> int:
    """The code that `edgevit` ends with: cli.main turns edgevit's errors into theirs."""
    error = result.exception
    return error.exit_code if isinstance(error, EdgevitError) else result.exit_code


def saved(model: ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_exit_codes(tmp_path: Path) -> None:
    net, output = repvit()
    good = run(saved(net.model(output), tmp_path))
    assert exit_code(good) == 0 and "none of 18 rules" in good.output
    warned = run(saved(float_convolution(), tmp_path))
    assert exit_code(warned) == 0 and "TRT009" in warned.output
    strict = run(saved(float_convolution(), tmp_path), "--strict")
    assert exit_code(strict) == 3 and "1 error(s)" in str(strict.exception)
    assert exit_code(run(tmp_path / "gone.onnx")) == 2
    assert exit_code(run(tmp_path)) == 2


def test_an_artifact_folder_is_read_by_its_manifest(tmp_path: Path) -> None:
    folder = write_artifact(tmp_path / "tensorrt")
    edit_manifest(folder, audit={"activations": 1, "weight_channels": 1, "exact": True})
    result = run(folder)
    assert exit_code(result) == 2 and "model.bin" in str(result.exception)
    data = saved(float_convolution(), folder).read_bytes()
    entry = {"file": "model.onnx", "sha256": hashlib.sha256(data).hexdigest()}
    edit_manifest(folder, target="tensorrt", artifact=entry | {"size_bytes": len(data)})
    result = run(folder)
    assert exit_code(result) == 0 and "TRT009" in result.output
    (folder / "model.onnx").write_bytes(data + b"\0")
    result = run(folder)
    assert exit_code(result) == 2 and "compile it again" in str(result.exception)


def test_the_report_has_every_rule_and_every_node(tmp_path: Path) -> None:
    net = Net()
    model = net.model(net.conv(net.conv(net.qdq("x", kind=np.uint8), float_c(net)), float_c(net)))
    result = run(saved(model, tmp_path))
    assert exit_code(result) == 3
    for finding in lint(model):
        for text in (finding.rule, finding.node, finding.what, finding.why, finding.fix):
            assert text in result.output
    assert result.output.count("  at   ") == 3


def float_c(net: Net) -> str:
    return net.const(np.ones([CHANNELS, CHANNELS, 1, 1], np.float32))


def test_json_holds_the_findings(tmp_path: Path) -> None:
    path = saved(unsigned(), tmp_path)
    result = run(path, "--json")
    assert exit_code(result) == 3
    found = json.loads(result.stdout)
    assert (found["path"], found["errors"], found["warnings"]) == (str(path), 1, 0)
    (row,) = found["findings"]
    assert row.keys() == {"rule", "level", "node", "what", "why", "fix"}
    assert row["rule"] == "TRT004"


def test_help_has_an_example() -> None:
    assert "Example:\n" in run("--help").output
