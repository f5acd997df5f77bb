"""The ONNX target: the contract, a pair on every tensor, edges of every type, the numbers."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from edgevit.data.images import ImageSet
from edgevit.errors import EdgevitError, InputError
from edgevit.graph import float_graph
from edgevit.measure.harness import run_harness
from edgevit.measure.request import HarnessRequest
from edgevit.ops import Relu
from edgevit.program import Program
from edgevit.program.torch_program import graph_module
from edgevit.targets import load_target
from edgevit.targets.artifact import load_artifact
from edgevit.targets.onnx import TARGET
from edgevit.targets.onnx.options import OnnxOptions
from edgevit.targets.onnx.session import SETTINGS
from tests.programs import make_program, real_images, seeded_pixels, trained_program
from tests.target_contract import TargetContract
from tests.test_harness import edit_manifest

PROFILES = ("portable", "asymmetric")
ACTIVATION = "stages.0.blocks.0.channel_mixer.act"
SQUEEZE = "stages.0.blocks.0.se.act"
EDGES = tuple({"io": io, "activation_type": kind} for io in ("int8", "uint8", "float32")
              for kind in ("int8", "uint8"))  # fmt: skip


def model_of(program: Program | None = None, **options: str) -> onnx.ModelProto:
    data = TARGET.write(program or make_program(), OnnxOptions(**options))
    return onnx.load_model_from_string(data)


Edit = Callable[[Any, dict[str, Any], dict[str, Any]], None]


def edited(data: bytes, edit: Edit) -> bytes:
    """The file after `edit` of its graph, its constants by name and its nodes by name."""
    model = onnx.load_model_from_string(data)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    edit(model.graph, constants, {node.name: node for node in model.graph.node})
    return model.SerializeToString()


def bit(name: str) -> Edit:
    """Flips a bit of a constant."""

    def edit(graph: Any, constants: dict[str, Any], nodes: dict[str, Any]) -> None:
        raw = constants[name].raw_data
        constants[name].raw_data = bytes([raw[0] ^ 1]) + raw[1:]

    return edit


def without_pair(name: str) -> Edit:
    """Takes the pair NAME.q, NAME.dq out."""

    def edit(graph: Any, constants: dict[str, Any], nodes: dict[str, Any]) -> None:
        before, after = nodes[f"{name}.q"].input[0], nodes[f"{name}.dq"].output[0]
        for node in graph.node:
            for place, source in enumerate(node.input):
                if source == after:
                    node.input[place] = before
        for end in ("q", "dq"):
            graph.node.remove(nodes[f"{name}.{end}"])

    return edit


class TestOnnx(TargetContract):
    target = "onnx"
    profiles = PROFILES
    options = ({}, {"io": "int8", "opset": "22"}, {"io": "uint8", "activation_type": "uint8"})
    toolkit_modules = ("qdq.toolkit",)
    logit_steps = 0

    def golden_options(self, program: Program) -> tuple[dict[str, str], ...]:
        return (*self.options, {"precision": "float32"})

    def tamper(self, data: bytes, program: Program) -> Iterator[tuple[str, bytes]]:
        activations = list(program.graph().activations())
        for name in (activations[0], activations[5], SQUEEZE, activations[-1]):
            yield name, edited(data, bit(f"{name}.scale"))
            yield name, edited(data, bit(f"{name}.zero_point"))
        for module in ("stem.conv1", "head"):
            for part in ("weight", "bias"):
                for end in ("q", "scale", "zero_point"):
                    yield f"{module}.{part}", edited(data, bit(f"{module}.{part}.{end}"))
        for name in (ACTIVATION, "flatten"):
            yield name, edited(data, without_pair(name))
        clamp = next(n for n in program.graph().weighted() if n.activation is Relu)
        yield clamp.name, edited(data, without_pair(f"{clamp.module}.raw"))

        def stride(graph: Any, constants: Any, nodes: dict[str, Any]) -> None:
            nodes["stem.conv2"].attribute[0].CopyFrom(onnx.helper.make_attribute("strides", [1, 1]))

        def cross(graph: Any, constants: Any, nodes: dict[str, Any]) -> None:
            """A pair whose two ends are not of one scale."""
            nodes[f"{ACTIVATION}.dq"].input[1] = "input.scale"

        def other_type(graph: Any, constants: dict[str, Any], nodes: Any) -> None:
            values = np.array(128, np.uint8)
            name = f"{ACTIVATION}.zero_point"
            constants[name].CopyFrom(onnx.numpy_helper.from_array(values, name))

        yield "stem.conv2", edited(data, stride)
        yield ACTIVATION, edited(data, cross)
        yield "another type", edited(data, other_type)
        for key in ("labels", "program_sha256", "preprocessing", "profile"):
            model = onnx.load_model_from_string(data)
            (row,) = [r for r in model.metadata_props if r.key == f"edgevit.{key}"]
            row.value = '["others"]'
            yield f"metadata {key}", model.SerializeToString()
        model = onnx.load_model_from_string(data)
        model.opset_import[0].version = 23
        yield "opset", model.SerializeToString()
        yield "not a readable model", data[:-10]
        yield "not a readable model", b"\xff" * 40


# -- the file -------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_a_pair_stands_on_every_input_and_output_of_an_operator(kind: str, profile: str) -> None:
    """No operator but Q and DQ makes or reads a real tensor that is not a pair's."""
    model = model_of(make_program(profile=profile), activation_type=kind)
    makers = {node.output[0]: node.op_type for node in model.graph.node}
    readers: dict[str, list[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        real = [name for name in node.input if name in makers or name == "input"]
        assert real and {makers[name] for name in real} == {"DequantizeLinear"}, node.name
        assert readers[node.output[0]] == ["QuantizeLinear"], node.name
    types = Counter(onnx.TensorProto.DataType.Name(t.data_type) for t in model.graph.initializer)
    assert set(types) == {"INT8", "INT32", "INT64", "FLOAT"} | {kind.upper()}


@pytest.mark.parametrize("opset", ["20", "21", "22"])
def test_every_opset_is_what_was_asked_for_and_passes_the_checker(opset: str) -> None:
    model = model_of(opset=opset)
    (found,) = model.opset_import
    assert (found.domain, found.version) == ("", int(opset))
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize("options", EDGES, ids=lambda o: f"{o['io']} {o['activation_type']}")
@pytest.mark.parametrize("profile", PROFILES)
def test_every_edge_gives_the_programs_logits(
    options: dict[str, str], profile: str, tmp_path: Path
) -> None:
    program, pixels = make_program(profile=profile), seeded_pixels(4)
    manifest = TARGET.compile(program, tmp_path / "out", **options)
    model = onnx.load(tmp_path / "out" / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    kind = getattr(
        onnx.TensorProto, "FLOAT" if options["io"] == "float32" else options["io"].upper()
    )
    edges = (*model.graph.input, *model.graph.output)
    assert [edge.type.tensor_type.elem_type for edge in edges] == [kind, kind]
    assert {manifest.input.dtype, manifest.outputs[0].dtype} == {options["io"]}
    expected = program.run(program.info.preprocessing.normalise(pixels)).numpy()
    runner = TARGET.open_runner(load_artifact(tmp_path / "out"))
    assert np.array_equal(runner.scores(pixels), expected)
    tensors = dict(program.tensors(program.info.preprocessing.normalise(pixels)))
    for name, values in runner.tensors(pixels, program):
        assert np.array_equal(values, tensors[name].numpy()), name


def tampered_pixels() -> Iterator[tuple[str, Edit]]:
    for name in ("input.weight.q", "input.bias.q", "input.weight.scale", "pixels.scale",
                 "input.pixels.zero_point", "input.shifted.zero_point"):  # fmt: skip
        yield name, bit(name)

    def kernel(graph: Any, constants: Any, nodes: dict[str, Any]) -> None:
        (group,) = [a for a in nodes["input.normalised"].attribute if a.name == "group"]
        group.i = 1

    yield "group", kernel


def test_pixels_that_become_another_input_are_found() -> None:
    program = make_program()
    data = TARGET.write(program, OnnxOptions(io="uint8"))
    TARGET.audit(data, program)
    for what, edit in tampered_pixels():
        with pytest.raises(EdgevitError, match="input"):
            TARGET.audit(edited(data, edit), program)
            pytest.fail(f"{what} was not found")


def test_an_integer_output_of_another_scale_or_type_is_found() -> None:
    program = make_program()
    name = program.graph().output_name
    for options in (OnnxOptions(io="int8"), OnnxOptions(io="uint8")):
        data = TARGET.write(program, options)

        def scale(graph: Any, constants: Any, nodes: dict[str, Any]) -> None:
            (last,) = [node for node in graph.node if node.output[0] == "logits"]
            last.input[1] = "input.scale"

        def kind(graph: Any, constants: Any, nodes: Any) -> None:
            graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT32

        with pytest.raises(EdgevitError, match=name):
            TARGET.audit(edited(data, scale), program)
        with pytest.raises(EdgevitError, match="logits"):
            TARGET.audit(edited(data, kind), program)


def test_a_float_artifact_takes_floats(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--io uint8 needs --precision int8"):
        TARGET.compile(make_program(), tmp_path / "out", io="uint8", precision="float32")
    assert list(tmp_path.iterdir()) == []


def test_the_metadata_has_what_an_app_needs() -> None:
    program = make_program()
    for kind, settings in SETTINGS.items():
        model = model_of(activation_type=kind)
        rows = {row.key: row.value for row in model.metadata_props}
        assert json.loads(rows["edgevit.labels"]) == list(program.info.labels)
        assert json.loads(rows["edgevit.preprocessing"]) == program.info.preprocessing.to_json()
        assert json.loads(rows["edgevit.onnxruntime"]) == settings
        assert rows["edgevit.profile"] == program.info.profile


# -- the harness ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of pictures of the program's size."""
    folder = tmp_path_factory.mktemp("photos")
    for place, pixels in enumerate(seeded_pixels(6)):
        (folder / f"class {place}").mkdir()
        Image.fromarray(pixels).save(folder / f"class {place}" / "a.png")
    return folder


@pytest.mark.parametrize("options", EDGES, ids=lambda o: f"{o['io']} {o['activation_type']}")
@pytest.mark.parametrize("profile", PROFILES)
def test_the_harness_gives_the_programs_logits(
    options: dict[str, str], profile: str, photos: Path, tmp_path: Path
) -> None:
    program = make_program(profile=profile)
    TARGET.compile(program, tmp_path / "out", **options)
    result = run_harness(HarnessRequest(tmp_path / "out", photos, logits=tmp_path / "logits"))
    assert (result["backend"], result["runtime"]["name"]) == ("onnx", "ONNX Runtime")
    found = load_file(tmp_path / "logits")["logits"]
    pixels = seeded_pixels(6)
    expected = program.run(program.info.preprocessing.normalise(pixels)).numpy()
    assert np.array_equal(found, expected)


def test_the_harness_refuses_a_manifest_with_another_type(photos: Path, tmp_path: Path) -> None:
    TARGET.compile(make_program(), tmp_path / "out")
    edit_manifest(tmp_path / "out", options={"activation_type": "int4", "precision": "int8"})
    with pytest.raises(InputError, match='activation_type is "int4"'):
        run_harness(HarnessRequest(tmp_path / "out", photos))


# -- numbers ----------------------------------------------------------------------------------


def test_a_float_model_is_the_net_without_quantizers(tmp_path: Path) -> None:
    program, pixels = make_program(), seeded_pixels(4)
    manifest = TARGET.compile(program, tmp_path / "out", precision="float32")
    assert (manifest.profile, manifest.audit) == ("float32", None)
    assert list(manifest.drops) == list(program.graph().activations())
    assert "QuantizeLinear" not in manifest.ops
    with torch.no_grad():
        net = graph_module(float_graph(program.graph()))
        expected = net(program.info.preprocessing.normalise(pixels)).numpy()
    found = TARGET.open_runner(load_artifact(tmp_path / "out")).scores(pixels)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    TARGET.check_artifact(tmp_path / "out", program)


@pytest.mark.parametrize("kind", ["int8", "uint8"])
@pytest.mark.parametrize(
    ("profile", "activation"),
    [("portable", "gelu"), ("asymmetric", "gelu"), ("portable", "quick-gelu")],
)
def test_the_trained_nets_logits_are_tflites_bit_for_bit(
    profile: str, activation: str, kind: str,
    embedded_checkpoint: Path, embedded_val: Path, tmp_path: Path,
) -> None:  # fmt: skip
    images = real_images(embedded_val, 32, 64)
    program = trained_program(embedded_checkpoint, images, profile, activation)
    pixels = ImageSet.open(embedded_val).pixels(range(0, 1000, 25), program.info.preprocessing)
    found = {}
    for name, options in (("tflite", {}), ("onnx", {"activation_type": kind})):
        load_target(name).compile(program, tmp_path / name, **options)
        runner = load_target(name).open_runner(load_artifact(tmp_path / name))
        found[name] = runner.scores(pixels)
    assert np.array_equal(found["onnx"], found["tflite"])
    expected = program.run(program.info.preprocessing.normalise(pixels)).numpy()
    assert np.array_equal(found["onnx"], expected)


# -- an x86 without VNNI --------------------------------------------------------------------------

OLD_CPU = """
import sys
sys.path[:0] = sys.argv[3:]
import json, numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.log_severity_level, options.intra_op_num_threads = 3, 1
for key, value in json.loads(sys.argv[2]).items():
    options.add_session_config_entry(key, value)
session = onnxruntime.InferenceSession(sys.argv[1] + "/model.onnx", options)
images = numpy.load(sys.argv[1] + "/images.npy")
rows = [session.run(None, {"input": image[None]})[0] for image in images]
numpy.save(sys.argv[1] + "/logits.npy", numpy.concatenate(rows))
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="of x86-64")
@pytest.mark.skipif(not shutil.which("qemu-x86_64"), reason="needs qemu-user: qemu-x86_64")
@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_an_x86_without_vnni_is_exact_with_the_settings_and_only_then(
    kind: str, tmp_path: Path
) -> None:
    program = make_program()
    images = program.info.preprocessing.normalise(seeded_pixels(2))
    (tmp_path / "model.onnx").write_bytes(TARGET.write(program, OnnxOptions(activation_type=kind)))
    np.save(tmp_path / "images.npy", images.numpy())

    def logits(settings: dict[str, str]) -> np.ndarray:
        python = [os.path.realpath(sys.executable), "-c", OLD_CPU]
        command = ["qemu-x86_64", "-cpu", "Haswell", *python, str(tmp_path), json.dumps(settings)]
        subprocess.run([*command, *sys.path], check=True, capture_output=True)
        return np.load(tmp_path / "logits.npy")

    expected = program.run(images).numpy()
    assert np.array_equal(logits(SETTINGS[kind]), expected)
    assert not np.array_equal(logits({}), expected)
