"""What the lint refuses to read."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edgevit.errors import InputError
from edgevit.targets.tensorrt.lint import lint, reading
from tests.lint.faults import (
    activation_behind_pair,
    branch,
    float_convolution,
)
from tests.lint.nets import Net


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
