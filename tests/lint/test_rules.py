"""The lint for TensorRT: each rule on a graph that breaks it alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from edgevit.targets.tensorrt.lint import RULES, lint
from tests.lint.faults import (
    BROKEN,
    activation_behind_pair,
    float_convolution,
    float_shortcut,
    float_weight,
    pair_on_convolution_branch,
    scale_of,
    weight_on_axis_1,
)
from tests.lint.nets import INT8, Net, broken


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
