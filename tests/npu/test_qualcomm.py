"""Qualcomm's real compiler and emulator, where onnxruntime-qnn is installed (`make test-qnn`)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgevit.data.images import ImageSet
from edgevit.errors import GateFailed, ToolMissing
from edgevit.measure.parity import compare
from edgevit.program import Program
from edgevit.targets import load_target
from edgevit.targets.artifact import load_artifact
from edgevit.targets.npu.compiler import compile_model
from edgevit.targets.tflite.options import TfliteOptions
from tests.operation_programs import LABELS, operation_program
from tests.programs import m0_9, make_program, real_images, seeded_pixels, trained_program

pytest.importorskip("onnxruntime_qnn", reason="onnxruntime-qnn is not installed: make test-qnn")

QNN = load_target("qnn")


@pytest.mark.parametrize("soc", QNN.vendor.socs)
def test_every_operator_of_repvit_goes_to_the_npu_of_every_soc(soc: str, tmp_path: Path) -> None:
    program = make_program(config=m0_9())
    manifest = QNN.compile(program, tmp_path / "out", soc=(soc,))
    (placement,) = manifest.placement
    assert placement.npu_operators == placement.operators == sum(manifest.ops.values())
    assert placement.partitions == 1 and placement.cpu == ()
    assert set(placement.compiler) >= {"ai-edge-litert", "sdk", "qnn", "qnn wanted", "htp"}
    QNN.check_artifact(tmp_path / "out", program)


@pytest.mark.parametrize("options", [{"io": "uint8"}, {"io": "float32"}, {"precision": "float16"}])
def test_every_form_goes_to_the_npu_whole(options: dict[str, str], tmp_path: Path) -> None:
    (placement,) = QNN.compile(make_program(), tmp_path / "out", **options).placement
    assert placement.npu_operators == placement.operators and placement.partitions == 1


def test_the_same_program_gives_the_same_context_binary(tmp_path: Path) -> None:
    found = [QNN.compile(make_program(), tmp_path / each).artifact for each in "ab"]
    assert found[0] == found[1]


@pytest.mark.parametrize("label", LABELS)
def test_every_operation_alone_goes_to_the_npu(label: str) -> None:
    options = TfliteOptions(activations="operator")  # as the NPU targets write it
    data = load_target("tflite").write(operation_program(label, 0), options)
    made = compile_model(data, QNN.vendor, "SM8750")
    assert made.npu_operators == made.operators and made.partitions == 1


def test_an_operator_that_the_compiler_refuses_is_named_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A GELU replaced by a SIGN, which QNN knows of and the HTP does not take in int8."""
    program = make_program()
    gelu = next(node.name for node in program.graph().nodes if node.kind == "gelu")

    def write(self: Any, program: Program, options: Any) -> dict[str, bytes]:
        return {"portable.tflite": _with_sign(original(self, program, options), gelu)}

    def original(self: Any, program: Program, options: Any) -> bytes:
        return kind_write(self, program, options)["portable.tflite"]

    kind_write = type(QNN).write
    monkeypatch.setattr(type(QNN), "write", write)
    with pytest.raises(GateFailed) as error:
        QNN.compile(program, tmp_path / "out")
    assert f"SIGN {gelu}: QNN refuses ElementWiseUnary (Sign): error 3110" in str(error.value)
    assert "1 of" in str(error.value) and "in 2 parts" in str(error.value)
    assert not (tmp_path / "out").exists()


def _with_sign(data: bytes, name: str) -> bytes:
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    code = schema.OperatorCodeT()
    code.builtinCode, code.version = schema.BuiltinOperator.SIGN, 1
    code.deprecatedBuiltinCode = 127
    model.operatorCodes.append(code)
    (graph,) = model.subgraphs
    for operator in graph.operators:
        if graph.tensors[operator.outputs[0]].name == name.encode():
            operator.opcodeIndex = len(model.operatorCodes) - 1
            operator.builtinOptions, operator.builtinOptionsType = None, 0
    builder = flatbuffers.Builder(len(data))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_libraries_of_another_qnn_are_exit_code_4(tmp_path: Path) -> None:
    """An SDK whose libQnnHtp.so is no library of QNN's."""
    sdk = tmp_path / "sdk"
    sdk.mkdir()
    for name in ("libQnnHtp.so", "libQnnSystem.so"):
        (sdk / name).write_bytes(b"\x7fELF of something else")
    with pytest.raises(ToolMissing, match="Qualcomm's compiler"):
        QNN.compile(make_program(), tmp_path / "out", sdk=sdk)
    assert not (tmp_path / "out").exists()


def test_the_emulator_is_near_the_program_layer_by_layer(tmp_path: Path) -> None:
    program, pixels = make_program(), seeded_pixels(4)
    QNN.compile(program, tmp_path / "out")
    runner = QNN.open_runner(load_artifact(tmp_path / "out"))
    assert "emulated HTP v79" in runner.engine
    scores = runner.scores(pixels)
    normalised = program.info.preprocessing.normalise(pixels)
    # Random nets carry every rounding on: what counts is that these are the net's logits.
    assert np.corrcoef(scores.ravel(), program.run(normalised).numpy().ravel())[0, 1] > 0.9
    found = dict(runner.tensors(pixels, program))
    expected = {name: values.numpy() for name, values in program.tensors(normalised)}
    assert set(found) == set(program.graph().owners())
    for name, values in found.items():
        assert values.dtype == np.int8 and values.shape == expected[name].shape
    assert np.array_equal(found[program.graph().input_name], expected[program.graph().input_name])


def test_a_trained_net_predicts_what_its_program_does(
    embedded_checkpoint: Path, embedded_val: Path, tmp_path: Path
) -> None:
    images = real_images(embedded_val, 16, 64)
    program = trained_program(embedded_checkpoint, images, "portable")
    labels = tuple(ImageSet.open(embedded_val).classes)
    path = program.with_info(replace(program.info, labels=labels)).save(tmp_path / "m.evq")
    QNN.compile(Program.load(path), tmp_path / "qnn")
    parity = compare(tmp_path / "qnn", embedded_val, images=60, layer_images=1)
    assert parity.agreement_percent >= 90 and parity.first_departure != "input"
    assert "emulated HTP" in parity.engine
    by_rule = compare(
        tmp_path / "qnn", embedded_val, images=60, layer_images=1, force=True,
        runner="htp-reference",
    )  # fmt: skip
    assert "rules found" in by_rule.engine
    figures = {"engine", "layers"}  # each layer given out is compiled otherwise than the whole net
    assert {k: v for k, v in vars(by_rule).items() if k not in figures} == {
        k: v for k, v in vars(parity).items() if k not in figures
    }
    assert by_rule.layers == parity.layers
