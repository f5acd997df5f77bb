"""OpenVINO's real plugin, where EDGEVIT_OPENVINO names its folder (`make test-openvino`)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgevit.targets import load_target
from edgevit.targets.npu.compiler import compile_model
from edgevit.targets.tflite.options import TfliteOptions
from tests.operation_programs import LABELS, operation_program
from tests.programs import m0_9, make_program

SDK = os.environ.get("EDGEVIT_OPENVINO", "")
pytestmark = pytest.mark.skipif(not SDK, reason="EDGEVIT_OPENVINO is not set: make test-openvino")
INTEL = load_target("intel")


@pytest.mark.parametrize("soc", INTEL.vendor.socs)
def test_every_operator_of_repvit_is_taken(soc: str, tmp_path: Path) -> None:
    program = make_program(config=m0_9())
    manifest = INTEL.compile(program, tmp_path / "out", soc=(soc,), sdk=Path(SDK))
    (placement,) = manifest.placement
    assert placement.npu_operators == placement.operators == sum(manifest.ops.values())
    assert placement.status == "placed, not compiled" and placement.file is None
    INTEL.check_artifact(tmp_path / "out", program)


@pytest.mark.parametrize("label", LABELS)
def test_every_operation_alone_is_taken(label: str) -> None:
    options = TfliteOptions(activations="operator")  # as the NPU targets write it
    data = load_target("tflite").write(operation_program(label, 0), options)
    made = compile_model(data, INTEL.vendor, "LNL", Path(SDK), divide_only=True)
    # A clamp that stands alone, as no net of ours has it, is left to the CPU.
    left = 1 if label == "relu6" else 0
    assert made.operators - made.npu_operators == left
