"""A model on the HTP's x86 emulator: what runs, what is refused, and what it writes."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from edgevit.errors import InputError, ToolMissing
from edgevit.targets.qnn import emulator as module
from edgevit.targets.qnn.emulator import ARCHS, HtpEmulator, HtpSettings, versions

pytest.importorskip("onnxruntime_qnn", reason="needs the extra: pip install onnxruntime-qnn")

SCALE = np.float32(0.0123)


def model(operator: str, *, float_edges: bool = False) -> bytes:
    """DequantizeLinear, an operator, QuantizeLinear on uint8 (1, 1, 16, 16)."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    constants = [
        numpy_helper.from_array(np.array(SCALE), "scale"),
        numpy_helper.from_array(np.array(128, np.uint8), "zero"),
    ]
    pair = ["scale", "zero"]
    nodes = [
        helper.make_node("DequantizeLinear", ["x.q", *pair], ["x.dq"], name="before"),
        helper.make_node(operator, ["x.dq"], ["y"], name="the operator"),
        helper.make_node("QuantizeLinear", ["y", *pair], ["y.q"], name="behind"),
    ]
    kind, ends = TensorProto.UINT8, ("x.q", "y.q")
    if float_edges:
        nodes.insert(0, helper.make_node("QuantizeLinear", ["x", *pair], ["x.q"]))
        nodes.append(helper.make_node("DequantizeLinear", ["y.q", *pair], ["y.dq"]))
        kind, ends = TensorProto.FLOAT, ("x", "y.dq")
    first, last = ([helper.make_tensor_value_info(end, kind, [1, 1, 16, 16])] for end in ends)
    graph = helper.make_graph(nodes, "g", first, last, constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    made.ir_version = 10
    assert isinstance(made, onnx.ModelProto)
    return made.SerializeToString()


EVERY = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)


@pytest.mark.parametrize("arch", ARCHS)
def test_a_model_runs_on_every_version(arch: Any) -> None:
    emulator = HtpEmulator(model("Relu"), "m.onnx", HtpSettings(arch))
    assert (emulator.inputs, emulator.outputs) == (("x.q",), ("y.q",))
    assert f"emulated HTP v{arch}" in emulator.engine and versions() in emulator.engine
    assert (emulator({"x.q": EVERY})["y.q"] == np.maximum(EVERY, 128)).all()


def test_a_float_input_is_quantized_in_half_precision() -> None:
    emulator = HtpEmulator(model("Relu", float_edges=True), "m.onnx")
    x = np.random.default_rng(0).normal(0, 0.8, (64, 1, 1, 16, 16)).astype(np.float32)
    found = np.concatenate([emulator({"x": image})["y.dq"] for image in x])
    halves = (x[:, 0] * (1 / SCALE)).astype(np.float16).astype(np.float64)
    steps = np.clip(np.trunc(halves + np.copysign(0.5, halves)), 0, 127)
    assert (np.rint(found / SCALE) == steps).all()
    assert (steps != np.clip(np.rint(x[:, 0] / SCALE), 0, 127)).any()


def test_what_the_htp_leaves_to_the_cpu_is_named() -> None:
    with pytest.raises(InputError, match=r"m\.onnx: the HTP refuses it: it leaves to the CPU .*"
                       r"the operator \(Asinh\)"):  # fmt: skip
        HtpEmulator(model("Asinh"), "m.onnx")


@pytest.mark.parametrize("data", [b"", b"nothing", model("Relu")[:-40]])
def test_what_is_no_model_is_refused(data: bytes) -> None:
    with pytest.raises(InputError, match=r"m\.onnx: the HTP refuses it: .*"):
        HtpEmulator(data, "m.onnx")


def test_an_unknown_version_is_refused_with_the_list() -> None:
    with pytest.raises(InputError, match="'70' is not one of 68, 69, 73, 75, 79, 81"):
        HtpSettings("70")  # pyright: ignore[reportArgumentType]


def test_nothing_is_written_to_standard_output() -> None:
    """The library greets there when a process loads it; a command's JSON goes there too."""
    script = (
        "from tests.targets.test_qnn_emulator import *\n"
        "print('before')\nHtpEmulator(model('Relu'), 'm')({'x.q': EVERY})\nprint('behind')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "before\nbehind\n"


def test_without_the_package_the_message_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    module._packages.cache_clear()
    monkeypatch.setitem(sys.modules, "onnxruntime_qnn", None)
    try:
        with pytest.raises(ToolMissing, match=r"pip install onnxruntime-qnn=="):
            HtpEmulator(model("Relu"), "m.onnx")
    finally:
        module._packages.cache_clear()
