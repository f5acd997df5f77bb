"""The Core ML target: the contract, the package's numbers, the reference interpreter."""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from edgevit.commands.compile import compile_command
from edgevit.errors import EdgevitError, InputError
from edgevit.files import read_tree
from edgevit.graph import float_graph
from edgevit.ops import INT8_MIN
from edgevit.options import option_fields
from edgevit.program import Program
from edgevit.program.torch_program import graph_module
from edgevit.targets.artifact import load_artifact
from edgevit.targets.coreml import audit_bytes, coreml_files, open_runner
from edgevit.targets.coreml.interpreter import Interpreter
from edgevit.targets.coreml.options import CoremlOptions
from edgevit.targets.coreml.package import (
    FILES,
    SPEC_NAME,
    WEIGHTS_NAME,
    MilProgram,
    Operation,
    Ref,
    read_package,
)
from edgevit.targets.coreml.toolkit import coremltools
from tests.programs import make_program, real_images, seeded_images, seeded_pixels, trained_program
from tests.target_contract import TargetContract

EXACT = CoremlOptions(compute_precision="float32", input_type="tensor")
ACTIVATION = "stages.0.blocks.0.channel_mixer.act"


converted = cache(coreml_files)
"""A conversion takes seconds; here one is made for each program and options."""


def files_of(profile: str = "portable", options: CoremlOptions | None = None) -> dict[str, bytes]:
    """The small program's package; the same arguments give the same object."""
    return converted(make_program(profile=profile), options or CoremlOptions())


# -- editing a package --------------------------------------------------------------------------


class Editor:
    """A package's specification and weights, opened to be changed behind the audit's back."""

    def __init__(self, files: dict[str, bytes]) -> None:
        coremltools()
        from coremltools import proto

        self.files = dict(files)
        self.spec = proto.Model_pb2.Model()
        self.spec.ParseFromString(files[SPEC_NAME])
        (block,) = self.spec.mlProgram.functions["main"].block_specializations.values()
        self.operations = block.operations
        self.makers = {out.name: op for op in block.operations for out in op.outputs}

    def of_kind(self, kind: str) -> list[Any]:
        return [op for op in self.operations if op.type == kind]

    def constant(self, op: Any, argument: str) -> Any:
        """The Value of a constant argument: a constexpr's own, or a const operation's."""
        if argument in op.attributes:
            return op.attributes[argument]
        (binding,) = op.inputs[argument].arguments
        return self.makers[binding.name].attributes["val"]

    def change(self, op: Any, argument: str) -> None:
        """The lowest bit or so of a constant's first value, wherever it is stored."""
        value = self.constant(op, argument)
        if value.WhichOneof("value") == "immediateValue":
            tensor = value.immediateValue.tensor
            if tensor.WhichOneof("value") == "floats":
                tensor.floats.values[0] *= 1.001
            else:
                first, *rest = tensor.bytes.values
                tensor.bytes.values = bytes([first ^ 1, *rest])
            return
        # The blob's header names where its data starts.
        offset = value.blobFileValue.offset
        data = bytearray(self.files[WEIGHTS_NAME])
        sentinel, _, _, start = struct.unpack_from("<IIQQ", data, offset)
        assert sentinel == 0xDEADBEEF
        data[start] ^= 1
        self.files[WEIGHTS_NAME] = bytes(data)

    def done(self) -> dict[str, bytes]:
        return {**self.files, SPEC_NAME: self.spec.SerializeToString(deterministic=True)}


class TestCoreml(TargetContract):
    target = "coreml"
    profiles = ("portable", "asymmetric")
    options = (
        {},
        {"deployment_target": "iOS18", "output_type": "classifier"},
        {"compute_precision": "float32", "input_type": "tensor"},
    )
    logit_steps = 40  # float16 storage moves values by a step here and there, and layers add up

    @pytest.fixture(autouse=True)
    def _convert_once(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if request.function.__name__ != "test_the_same_program_gives_the_same_bytes":
            monkeypatch.setattr(self.module, "coreml_files", converted)

    def tamper(self, data: dict[str, bytes], program: Program) -> Iterator[tuple[str, Any]]:
        activations = list(program.graph().activations())
        weighted = program.graph().weighted()
        for place in (0, 1, len(activations) - 1):
            for kind in ("quantize", "dequantize"):
                editor = Editor(data)
                editor.change(editor.of_kind(kind)[place], "scale")
                yield activations[place], editor.done()
        for place in (0, len(weighted) - 1):
            for argument in ("quantized_data", "scale", "zero_point"):
                editor = Editor(data)
                editor.change(editor.of_kind("constexpr_affine_dequantize")[place], argument)
                yield f"{weighted[place].module}: its weight", editor.done()
        editor = Editor(data)
        added = editor.of_kind("add")[-1].inputs  # the first one is the normalisation's
        x, y = (added[name].arguments[0] for name in ("x", "y"))
        x.name, y.name = y.name, x.name
        yield [n.name for n in program.graph().nodes if n.op == "add"][-1], editor.done()
        editor = Editor(data)
        pad = editor.constant(editor.of_kind("conv")[0], "pad").immediateValue.tensor.ints.values
        assert list(pad) == [1, 1, 1, 1]
        pad[0] = pad[2] = 0  # over an even size with stride 2 the result's shape stays
        yield "stem.conv1", editor.done()
        editor = Editor(data)
        editor.spec.description.metadata.userDefined["edgevit.labels"] = '["others"]'
        yield "metadata edgevit.labels", editor.done()
        editor = Editor(data)
        editor.spec.description.input[0].type.imageType.width += 1
        yield "input", editor.done()
        yield "cannot read", {**data, WEIGHTS_NAME: data[WEIGHTS_NAME][:200]}
        yield "not a Core ML specification", {**data, SPEC_NAME: b"\xff" * 100}
        yield "is missing", {name: data[name] for name in FILES - {WEIGHTS_NAME}}
        yield "is not one of its files", {**data, "Data/odd": b""}


# -- options ------------------------------------------------------------------------------------


def test_the_deployment_target_is_what_the_specification_says() -> None:
    for target, version in (("iOS17", 8), ("iOS18", 9)):
        package = read_package(files_of(options=CoremlOptions(deployment_target=target)))
        assert package.spec_version == version
    old = CoremlOptions(deployment_target="iOS16", precision="float16")
    assert read_package(files_of(options=old)).spec_version == 7


def test_a_deployment_target_without_the_operations_is_refused(tmp_path: Path) -> None:
    program = make_program().save(tmp_path / "m.evq")
    result = CliRunner().invoke(
        compile_command,
        [str(program), "--target", "coreml", "--deployment-target", "iOS16", "-o",
         str(tmp_path / "build")],
    )  # fmt: skip
    assert isinstance(result.exception, InputError) and result.exception.exit_code == 2
    assert "iOS17" in str(result.exception) and "--precision float16" in str(result.exception)
    assert list(tmp_path.iterdir()) == [program]


@pytest.mark.parametrize("name", ["deployment_target", "precision", "input_type"])
def test_an_unknown_choice_is_named(name: str) -> None:
    with pytest.raises(InputError, match=f"--{name.replace('_', '-')} 'abacus'"):
        CoremlOptions(**{name: "abacus"})


@pytest.mark.full
def test_every_combination_of_options_converts_and_passes_the_audit() -> None:
    count = 0
    choices = {each.name: each.option.choices for each in option_fields(CoremlOptions)}
    for values in itertools.product(*choices.values()):
        chosen = dict(zip(choices, values))
        if chosen["deployment_target"] == "iOS16" and chosen["precision"] == "int8":
            continue
        files = coreml_files(make_program(), CoremlOptions(**chosen))
        audited = audit_bytes(files, make_program())
        assert bool(audited.activations) == (chosen["precision"] == "int8"), chosen
        count += 1
    assert count == 40


def test_a_float_package_has_no_quantizer_and_says_so(tmp_path: Path) -> None:
    module = TestCoreml().module
    program = make_program()
    manifest = module.compile_program(program, tmp_path / "out", False, precision="float16")
    assert (manifest.profile, manifest.audit) == ("float16", None)
    assert list(manifest.drops) == sorted(program.graph().activations())
    assert not {"quantize", "dequantize", "constexpr_affine_dequantize"} & set(manifest.ops)
    pixels = seeded_pixels(4)
    runner = open_runner(load_artifact(tmp_path / "out"))
    with torch.no_grad():
        net = graph_module(float_graph(program.graph()))
        expected = net(program.info.preprocessing.normalise(pixels)).numpy()
    assert np.abs(runner.scores(pixels) - expected).max() < 0.01 * np.abs(expected).max()
    found = dict(runner.tensors(pixels, program))
    assert all(values.dtype == np.float32 for values in found.values())
    module.check_artifact(tmp_path / "out", program)


def test_the_metadata_tells_what_the_model_is() -> None:
    program = make_program()
    info = replace(program.info, provenance={"author": "Ada", "license": "MIT"})
    named = program.with_info(info)
    metadata = read_package(coreml_files(named, CoremlOptions())).metadata
    assert (metadata["author"], metadata["license"]) == ("Ada", "MIT")
    assert json.loads(metadata["edgevit.labels"]) == list(program.info.labels)
    assert json.loads(metadata["edgevit.preprocessing"]) == program.info.preprocessing.to_json()
    assert metadata["edgevit.program_sha256"] == named.sha256
    assert read_package(files_of()).metadata["author"] == "not stated"


def test_every_variable_of_a_layer_has_its_canonical_name() -> None:
    names = {op.name for op in read_package(files_of(options=EXACT)).operations}
    graph = make_program().graph()
    convolutions = [node.module.replace(".", "_") for node in graph.weighted()]
    assert set(convolutions) <= names


# -- the interpreter against the program ----------------------------------------------------------


@pytest.mark.parametrize("profile", ["portable", "asymmetric"])
@pytest.mark.parametrize("input_type", ["tensor", "image"])
def test_float32_with_reciprocals_is_the_program_bit_for_bit(profile: str, input_type: str) -> None:
    program, pixels = make_program(profile=profile), seeded_pixels(8)
    images = program.info.preprocessing.normalise(pixels)
    options = CoremlOptions(compute_precision="float32", input_type=input_type)
    package = read_package(files_of(profile, options))
    audited = audit_bytes(files_of(profile, options), program).tensors
    source = images
    if input_type == "image":
        source = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    found = dict(Interpreter(package, "float32", "reciprocal").values(source))
    dtypes = {op.name: op.dtype for op in package.operations}
    for name, expected in program.tensors(images):
        values = found[audited[name]]
        if dtypes[audited[name]] == "uint8":
            values = values + INT8_MIN
        assert torch.equal(values, expected.float()), name
    assert torch.equal(found["logits"], program.run(images))


def test_real_images_through_the_trained_net(embedded_checkpoint: Path, embedded_val: Path) -> None:
    images = real_images(embedded_val, 64, 64)
    program = trained_program(embedded_checkpoint, images, "portable")
    package = read_package(coreml_files(program, EXACT))
    expected = program.run(images)
    found = Interpreter(package, "float32", "reciprocal")(images)["logits"]
    assert torch.equal(found, expected)
    rounded = Interpreter(package, "float16", "division")(images)["logits"]
    assert not torch.equal(rounded, expected)
    assert float((rounded.argmax(1) == expected.argmax(1)).float().mean()) >= 0.9


def test_division_and_reciprocal_differ_where_a_step_is_at_stake() -> None:
    """0.5 steps and a half: one scale for which x / s and x * (1 / s) fall on two sides."""
    rng = np.random.default_rng(0)
    scales = np.float32(rng.uniform(0.01, 1, 20_000).astype(np.float16))
    x = scales * np.float32(2.5)
    divided, times = np.rint(x / scales), np.rint(x * (np.float32(1) / scales))
    scale, value = next((s, v) for s, v, d, t in zip(scales, x, divided, times) if d != t)
    results = {}
    for rounding in ("division", "reciprocal"):
        run = Interpreter(_one("quantize", {"scale": scale}, "int8"), "float32", rounding)
        results[rounding] = float(run(torch.full((1, 1), float(value)))["y"])
    assert results == {"division": float(divided[x == value][0]),
                       "reciprocal": float(times[x == value][0])}  # fmt: skip


def _one(kind: str, arguments: dict[str, Any], dtype: str, argument: str = "x") -> MilProgram:
    from edgevit.targets.coreml.package import Feature

    argument = "input" if kind in ("quantize", "dequantize") else argument
    op = Operation(kind, {argument: Ref("image"), **arguments}, (("y", dtype, (1, 1)),))
    feature = Feature("image", "multiArray float32", (1, 1))
    return MilProgram((op,), feature, "fp32", (feature,), ("y",), 8)


def test_float16_storage_rounds_every_result_to_its_declared_type() -> None:
    value = torch.tensor([[1.0 + 2**-12]])
    package = _one("relu", {}, "fp16")
    assert Interpreter(package, "float16", "division")(value)["y"].item() == 1.0
    assert Interpreter(package, "float32", "division")(value)["y"].item() == value.item()
    exact = _one("relu", {}, "fp32")
    assert Interpreter(exact, "float16", "division")(value)["y"].item() == value.item()


def test_an_unknown_operation_is_named() -> None:
    with pytest.raises(InputError, match="does not know the operation einsum"):
        Interpreter(_one("einsum", {}, "fp16"), "float16", "division")


@pytest.mark.parametrize(
    ("kind", "arguments", "match"),
    [
        ("gelu", {"mode": "SIGMOID_APPROXIMATION"}, "SIGMOID_APPROXIMATION"),
        ("conv", {"weight": np.ones((1, 1, 1, 1)), "pad_type": "same"}, "'same'"),
        ("conv", {"weight": np.ones((1, 1, 1, 1)), "pad_type": "custom", "pad": (0, 1, 0, 0)},
         "differently on two sides"),
    ],
)  # fmt: skip
def test_a_variant_it_does_not_know_is_refused(
    kind: str, arguments: dict[str, Any], match: str
) -> None:
    run = Interpreter(_one(kind, arguments, "fp32"), "float32", "division")
    with pytest.raises(InputError, match=match):
        run(torch.zeros(1, 1, 2, 2))


def test_the_batch_does_not_matter() -> None:
    package = read_package(files_of())
    images = seeded_images(5, 64).mul(50).add(120).clamp(0, 255).round()
    run = Interpreter(package, "float32", "reciprocal")
    together = run(images)["logits"]
    apart = torch.cat([run(image[None])["logits"] for image in images])
    assert torch.equal(together, apart)


# -- packages that are not ours -------------------------------------------------------------------


def test_a_newer_specification_is_refused() -> None:
    editor = Editor(files_of())
    editor.spec.specificationVersion = 99
    with pytest.raises(InputError, match="version 99, newer than 9"):
        read_package(editor.done())


def test_a_package_of_another_kind_is_refused() -> None:
    coremltools()
    from coremltools import proto

    spec = proto.Model_pb2.Model(specificationVersion=4)
    spec.neuralNetwork.SetInParent()
    files = {**files_of(), SPEC_NAME: spec.SerializeToString()}
    with pytest.raises(InputError, match="neuralNetwork, not an ML Program"):
        read_package(files)
    with pytest.raises(InputError, match="without a model"):
        read_package({**files, SPEC_NAME: b""})


def test_weights_that_end_too_soon_are_refused_at_every_length() -> None:
    files = files_of()
    size = len(files[WEIGHTS_NAME])
    for kept in (0, 1, 63, 64, 100, size // 2, size - 64):
        with pytest.raises(InputError, match="cannot read"):
            read_package({**files, WEIGHTS_NAME: files[WEIGHTS_NAME][:kept]})


def test_an_operation_that_is_not_the_programs_fails_the_audit() -> None:
    program = make_program()
    editor = Editor(files_of())
    relu = editor.of_kind("relu")[0]
    relu.type = "sigmoid"
    with pytest.raises(EdgevitError, match="sigmoid .* stands where relu is expected"):
        audit_bytes(editor.done(), program)


def test_a_written_folder_is_read_back_as_it_was(tmp_path: Path) -> None:
    module, program = TestCoreml().module, make_program()
    module.compile_program(program, tmp_path / "out", False)
    artifact = load_artifact(tmp_path / "out")
    assert artifact.data == read_tree(artifact.path) == files_of()
    (artifact.path / "notes.txt").symlink_to("/etc/hostname")
    with pytest.raises(InputError, match="link"):
        load_artifact(tmp_path / "out")
