"""The TFLite target: its contract, what the file holds, and what the audit sees of it."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgevit.errors import EdgevitError, InputError
from edgevit.program import Program
from edgevit.targets import load_target
from edgevit.targets.tflite import TARGET
from edgevit.targets.tflite.options import IO_TYPES
from tests.programs import make_program, seeded_images
from tests.target_contract import TargetContract
from tests.targets.tflite_files import (
    Change,
    Model,
    Places,
    int8_input,
    next_float,
    operator_names,
    read_model,
    replaced,
    rewired,
    tflite_bytes,
)

PROFILES = ("portable", "asymmetric")


class TestTflite(TargetContract):
    target = "tflite"
    profiles = PROFILES
    options = tuple({"io": io} for io in IO_TYPES)
    toolkit_modules = ("tflite.schema",)

    def tamper(self, data: bytes, program: Program) -> Iterator[tuple[str, bytes]]:
        places = Places(data)
        activation = "stages.0.blocks.0.channel_mixer.act"
        for name in ("input", activation, "stem.conv1.pad", "logits"):
            yield name, next_float(data, places.scale(name))
            yield name, replaced(data, places.zero_point(name), struct.pack("<q", 5))
        for module in ("stem.conv1", "stages.1.downsample.spatial_downsample", "head"):
            for part, channel in (("weight", 0), ("weight", 3), ("bias", 1)):
                name = f"{module}.{part}"
                yield name, next_float(data, places.scale(name) + 4 * channel)
                at = places.data(name) + 4 * channel
                yield name, replaced(data, at, bytes([data[at] ^ 1]))
        renamed = data.replace(b"stages.1.blocks.0.se.mean", b"stages.1.blocks.0.se.xxxx")
        yield "stages.1.blocks.0.se", renamed
        yield "not a readable model", data[:1000]
        yield "not a readable model", b"\0" * 1000

    def tamper_weights(self, data: bytes, program: Program) -> Iterator[tuple[str, bytes]]:
        places = Places(data)
        for module in ("stem.conv1", "stages.1.downsample.spatial_downsample", "head"):
            weight, bias = f"{module}.weight", f"{module}.bias"
            yield weight, next_float(data, places.scale(weight) + 4 * 3)
            yield weight, replaced(data, places.zero_point(weight), struct.pack("<q", 5))
            for name in (weight, bias):
                at = places.data(name) + 4 * 2
                yield name, replaced(data, at, bytes([data[at] ^ 1]))
        renamed = data.replace(b"stages.1.blocks.0.se.mean", b"stages.1.blocks.0.se.xxxx")
        yield "stages.1.blocks.0.se", renamed
        yield "not a readable model", data[:1000]


# -- the file --------------------------------------------------------------------------------


def test_the_int8_model_is_int8_throughout() -> None:
    """Every operator of it, where an activation is one; see test_tflite_speed for the tables."""
    model = read_model(tflite_bytes(make_program(), activations="operator"))
    kinds = {tensor.type for tensor in model.subgraphs[0].tensors}
    assert kinds == {schema.TensorType.INT8, schema.TensorType.INT32}
    names = operator_names(model)
    assert not {"QUANTIZE", "DEQUANTIZE", "CAST", "CUSTOM"} & set(names)
    graph = make_program().graph()
    count = {op: sum(n.kind == op for n in graph.nodes) for op in ("gelu", "add", "sigmoid")}
    assert names.count("GELU") == count["gelu"] and names.count("ADD") == count["add"]
    assert names.count("LOGISTIC") == count["sigmoid"] and names.count("RESHAPE") == 1


@pytest.mark.parametrize(
    ("io", "first", "last"),
    [("uint8", ["QUANTIZE", "DEPTHWISE_CONV_2D"], "QUANTIZE"),
     ("float32", ["QUANTIZE"], "DEQUANTIZE")],
)  # fmt: skip
def test_other_inputs_and_outputs_are_converted_at_the_very_edge(
    io: str, first: list[str], last: str
) -> None:
    inner = operator_names(read_model(tflite_bytes(make_program())))
    assert operator_names(read_model(tflite_bytes(make_program(), io))) == [*first, *inner, last]


def test_buffers_are_aligned_as_the_schema_demands() -> None:
    data = tflite_bytes(make_program())
    model = schema.Model.GetRootAs(data, 0)
    for index in range(model.BuffersLength()):
        buffer = model.Buffers(index)
        if buffer.DataLength():
            assert buffer._tab.Vector(buffer._tab.Offset(4)) % 16 == 0


def test_small_constants_are_stored_once() -> None:
    tensors = read_model(tflite_bytes(make_program())).subgraphs[0].tensors
    names = [tensor.name.decode() for tensor in tensors]
    assert len(set(names)) == len(names)
    assert sum(name.endswith(("axes", "amounts", "shape")) for name in names) == 3


def test_both_apis_of_litert_find_the_signature(tmp_path: Path) -> None:
    from ai_edge_litert.compiled_model import CompiledModel

    data = tflite_bytes(make_program())
    expected = {"serving_default": {"inputs": ["input"], "outputs": ["logits"]}}
    assert Model(data).interpreter.get_signature_list() == expected
    path = tmp_path / "model.tflite"
    path.write_bytes(data)
    compiled = CompiledModel.from_file(str(path))
    assert compiled.get_signature_list() == expected
    inputs, outputs = compiled.create_input_buffers(0), compiled.create_output_buffers(0)
    images = int8_input(make_program(), seeded_images(1, 64))
    inputs[0].write(images)
    compiled.run_by_index(0, inputs, outputs)
    assert np.array_equal(outputs[0].read(10, np.int8), Model(data)(images)[0])


def test_an_unknown_io_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'int4' is not one of int8, uint8, float32"):
        load_target("tflite").compile(make_program(), tmp_path / "out", io="int4")


# -- the audit -------------------------------------------------------------------------------

STEM, ADD, RELU = "stem.conv2", "stages.0.blocks.0.add", "stages.0.blocks.0.se.act"
MIXER = "stages.0.blocks.0.token_mixer"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (STEM, lambda o, t: setattr(o[STEM].builtinOptions, "strideH", 1)),
        (STEM, lambda o, t: setattr(o[STEM].builtinOptions, "dilationWFactor", 2)),
        (STEM, lambda o, t: setattr(o[STEM].builtinOptions, "padding", schema.Padding.SAME)),
        (MIXER, lambda o, t: setattr(o[MIXER].builtinOptions, "padding", schema.Padding.VALID)),
        (RELU, lambda o, t: setattr(o[RELU].builtinOptions, "fusedActivationFunction", 0)),
        ("stem.act1", lambda o, t: setattr(o["stem.act1"].builtinOptions, "approximate", True)),
        ("stem.conv2", lambda o, t: setattr(o[ADD], "inputs", [t["stem.conv2"], t[MIXER]])),
        ("stem.act1", lambda o, t: setattr(o["stem.act1"], "opcodeIndex", 0)),
        ("stem.act1", lambda o, t: setattr(o[ADD], "outputs", [t["stem.act1"]])),
        ("mean", lambda o, t: setattr(o["logits"], "inputs", [t["mean"], t["logits.shape"]])),
    ],
)
def test_the_audit_sees_how_operators_are_wired(name: str, change: Change) -> None:
    program = make_program()
    with pytest.raises(EdgevitError, match=f"scale audit: {name}: "):
        TARGET.audit(rewired(change, program, "operator"), program)
    TARGET.audit(rewired(lambda o, t: None, program, "operator"), program)


def test_the_audit_recomputes_the_pixel_convolution() -> None:
    program = make_program()
    data = tflite_bytes(program, "uint8")
    at = Places(data).data("input.bias")
    (bias,) = struct.unpack_from("<i", data, at)
    changed = replaced(data, at, struct.pack("<i", bias + 200))
    with pytest.raises(EdgevitError, match="scale audit: input: raw pixels do not become"):
        TARGET.audit(changed, program)


# -- the command -----------------------------------------------------------------------------


def test_the_command_takes_the_targets_options(tmp_path: Path) -> None:
    contract = TestTflite()
    program = make_program().save(tmp_path / "m.evq")
    out = tmp_path / "build"
    result = contract.run(program, "--target", "tflite", "--io", "uint8", "-o", out, "--json")
    assert json.loads(result.stdout)["tflite"]["input"]["dtype"] == "uint8"
    result = contract.run("--help")
    assert "Example" in result.stdout and "int8 for tflite" in " ".join(result.stdout.split())
    result = contract.run(program, "--target", "nothing", "-o", out)
    assert result.exit_code == 2
