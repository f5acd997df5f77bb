"""What the TFLite audit sees of the operations: attributes, order, constants, outputs."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgevit.errors import EdgevitError
from edgevit.program import Program
from edgevit.targets.tflite import TARGET
from tests.operation_programs import operation_program
from tests.programs import make_program, with_graph, with_real_outputs
from tests.targets.tflite_files import (
    Change,
    Places,
    read_model,
    read_values,
    replaced,
    rewired,
    tflite_bytes,
)


def _two_outputs() -> Program:
    """A map and a vector."""
    graph = operation_program("linear", 0).graph()
    names = ("n0.conv2d", graph.output_name)
    return with_graph(make_program(16), replace(graph, outputs=names))


def _options(name: str, **values: Any) -> Change:
    """Other options of the operator that makes a tensor."""

    def change(o: dict[str, Any], t: dict[str, int]) -> None:
        for key, value in values.items():
            assert getattr(o[name].builtinOptions, key) != value
            setattr(o[name].builtinOptions, key, value)

    return change


def _swap_outputs(o: dict[str, Any], t: dict[str, int]) -> None:
    o[""].outputs = list(reversed(o[""].outputs))


def _swap_inputs(name: str) -> Change:
    def change(o: dict[str, Any], t: dict[str, int]) -> None:
        first, second, *rest = o[name].inputs
        o[name].inputs = [second, first, *rest]

    return change


def _one_more(name: str) -> Change:
    """A second operator of the same kind, whose result nothing reads."""

    def change(o: dict[str, Any], t: dict[str, int]) -> None:
        graph, first = o[""], o[name]
        tensor = copy.copy(graph.tensors[first.outputs[0]])
        tensor.name = b"more"
        graph.tensors.append(tensor)
        more = copy.copy(first)
        more.outputs = [len(graph.tensors) - 1]
        graph.operators.append(more)

    return change


@pytest.mark.parametrize(
    ("label", "name", "change"),
    [
        ("add", "n2.add", _options("n2.add", fusedActivationFunction=1)),
        ("add", "n1.conv2d", _swap_inputs("n2.add")),
        ("add", "more", _one_more("n2.add")),
        ("mul", "n2.mul", _options("n2.mul", fusedActivationFunction=3)),
        ("conv and relu6", "n1.conv2d", _options("n1.conv2d", fusedActivationFunction=1)),
        ("conv and relu6", "n1.conv2d", _options("n1.conv2d", fusedActivationFunction=4)),
        ("conv dilated", "n1.conv2d", _options("n1.conv2d", dilationHFactor=3)),
        ("conv depthwise, twofold", "n1.conv2d", _options("n1.conv2d", depthMultiplier=1)),
        ("concat", "n1.conv2d", _swap_inputs("n4.concat")),
        ("concat", "n4.concat", _options("n4.concat", axis=2)),
        ("mean", "n1.mean", _options("n1.mean", keepDims=False)),
        ("max_pool2d", "n1.max_pool2d", _options("n1.max_pool2d", filterWidth=1)),
        ("max_pool2d 3/2", "n1.max_pool2d", _options("n1.max_pool2d", strideH=1)),
        ("avg_pool2d", "n1.avg_pool2d", _options("n1.avg_pool2d", strideW=1)),
        ("resize nearest", "n1.resize", _options("n1.resize", alignCorners=True)),
        ("resize bilinear", "n1.resize", _options("n1.resize", halfPixelCenters=False)),
        ("slice rows", "n1.slice", _options("n1.slice", beginMask=15, endMask=15)),
        ("slice columns", "n1.slice", _options("n1.slice", endMask=15)),
        ("softmax", "n4.softmax", _options("n4.softmax", beta=2.0)),
        ("conv_transpose 4/2", "n1.conv_transpose2d", _options("n1.conv_transpose2d", strideW=1)),
        ("conv_transpose 3/2", "n1.conv_transpose2d", _options("n1.conv_transpose2d", endMask=15)),
        ("two outputs", "n0.conv2d", _swap_outputs),
    ],
)  # fmt: skip
def test_the_audit_sees_attributes_order_and_more(label: str, name: str, change: Change) -> None:
    program = _two_outputs() if label == "two outputs" else operation_program(label, 0)
    TARGET.audit(rewired(lambda o, t: None, program), program)
    with pytest.raises(EdgevitError, match=f"scale audit: {name}: "):
        TARGET.audit(rewired(change, program), program)


@pytest.mark.parametrize(
    ("label", "name", "constant"),
    [
        ("max_pool2d 3/2", "n1.max_pool2d.pad", "n1.max_pool2d.pad.value"),
        ("max_pool2d 3/2", "n1.max_pool2d.pad", "n1.max_pool2d.pad.amounts"),
        ("resize nearest", "n1.resize", "n1.resize.size"),
        ("slice channels", "n1.slice", "n1.slice.steps"),
        ("slice channels", "n1.slice", "n1.slice.begin"),
        ("pad", "n1.pad", "n1.pad.amounts"),
        ("linear of maps", "n1.flatten", "flatten.order"),
        ("mean", "n1.mean", "mean.axes"),
        ("hard_sigmoid", "n1.hard_sigmoid", "n1.hard_sigmoid.slope"),
        ("hard_sigmoid", "n1.hard_sigmoid", "n1.hard_sigmoid.offset"),
        ("conv_transpose 3/2", "n1.conv_transpose2d", "n1.conv_transpose2d.cut.begin"),
        ("conv_transpose 2/2", "n1.conv_transpose2d", "n1.conv_transpose2d.shape"),
        ("conv_transpose 2/2", "n1.conv_transpose2d.weight", "n1.conv_transpose2d.weight"),
        ("conv of 2 groups", "n1.conv2d.weight", "n1.conv2d.weight"),
    ],
)
def test_the_audit_sees_every_constant(label: str, name: str, constant: str) -> None:
    program = operation_program(label, 0)
    data = tflite_bytes(program)
    values = read_values(data, constant)
    index = int(np.flatnonzero(values)[-1])  # zeros may stand for whole axes
    at = Places(data).data(constant) + index * values.itemsize
    changed = replaced(data, at, bytes([data[at] ^ 12]))  # a slope has a margin
    with pytest.raises(EdgevitError, match=f"scale audit: {name}"):
        TARGET.audit(changed, program)


def test_an_output_too_few_or_too_many_is_found() -> None:
    program = _two_outputs()
    for outputs, name in ((slice(1), "n3.linear.output"), (slice(1, 2), "n0.conv2d")):
        changed = rewired(lambda o, t: setattr(o[""], "outputs", o[""].outputs[outputs]), program)  # noqa: B023
        with pytest.raises(EdgevitError, match=f"scale audit: {name}: "):
            TARGET.audit(changed, program)


def test_whatever_bytes_are_wrong_is_an_error_of_edgevits() -> None:
    """Hostile files end in a message, not in a traceback; most bytes of a file mean something."""
    random, found = np.random.default_rng(0), 0
    for label in ("kept quantizers", "linear of maps", "conv_transpose 3/2", "hard_sigmoid"):
        program = operation_program(label, 0)
        data = tflite_bytes(program, "uint8")
        for _ in range(60):
            changed = bytearray(data)
            for place in random.integers(0, len(data), 3):
                changed[place] = int(random.integers(0, 256))
            try:
                TARGET.audit(bytes(changed), program)
            except EdgevitError:
                found += 1
    assert found > 180


def test_an_operator_without_inputs_is_an_error() -> None:
    program = make_program()
    for name in ("logits", "stem.act1", "stem.conv1.pad"):
        for inputs in ([], [0]):
            changed = rewired(lambda o, t: setattr(o[name], "inputs", inputs), program)  # noqa: B023
            with pytest.raises(EdgevitError, match="scale audit"):
                TARGET.audit(changed, program)


@pytest.mark.parametrize(
    "label",
    [
        "conv strided", "max_pool2d 3/2", "linear of maps", "layer_norm", "conv_transpose 3/2",
        "hard_sigmoid", "pad", "mean", "real output",
    ],
)  # fmt: skip
def test_every_tensor_has_the_shape_that_its_operator_makes(label: str) -> None:
    """LiteRT takes the file's word for some: it computes on other pixels then, in silence."""
    real = label == "real output"
    program = with_real_outputs(make_program()) if real else operation_program(label, 0)
    data = tflite_bytes(program)
    made = read_model(data).subgraphs[0]
    names = [tensor.name.decode() for tensor in made.tensors]
    for index in {output for operator in made.operators for output in operator.outputs}:
        for axis in range(len(made.tensors[index].shape)):

            def other(o: dict[str, Any], t: dict[str, int], i: int = index, a: int = axis) -> None:
                shape = list(o[""].tensors[i].shape)
                shape[a] += 1
                o[""].tensors[i].shape = shape

            with pytest.raises(EdgevitError, match="scale audit"):
                TARGET.audit(rewired(other, program), program)
                pytest.fail(f"{names[index]}, axis {axis}")


def test_damaged_labels_are_an_error_of_edgevits() -> None:
    program = make_program()
    data = bytearray(tflite_bytes(program))
    begin, found = data.rindex(b"PK\x03\x04"), 0
    for at in range(begin, len(data)):
        changed = bytearray(data)
        changed[at] ^= 0x55
        try:
            TARGET.audit(bytes(changed), program)
        except EdgevitError:
            found += 1
    assert found > 100
