"""The Core ML target: the contract, its options, and packages that were changed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
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
from edgevit.options import option_fields
from edgevit.program import Program
from edgevit.program.torch_program import graph_module
from edgevit.targets.artifact import load_artifact
from edgevit.targets.coreml import TARGET
from edgevit.targets.coreml.options import CoremlOptions
from edgevit.targets.coreml.package import FILES, SPEC_NAME, WEIGHTS_NAME, read_package
from edgevit.targets.coreml.toolkit import coremltools
from tests.programs import make_program, seeded_pixels
from tests.target_contract import TargetContract
from tests.targets.coreml_editor import Editor, converted, files_of

EXACT = CoremlOptions(compute_precision="float32", input_type="tensor")


class TestCoreml(TargetContract):
    target = "coreml"
    profiles = ("portable", "asymmetric")
    options = (
        {},
        {"deployment_target": "iOS18", "output_type": "classifier"},
        {"compute_precision": "float32", "input_type": "tensor"},
    )
    toolkit_modules = ("coreml.toolkit",)
    logit_steps = 40  # float16 storage moves values by a step here and there, and layers add up

    def golden_options(self, program: Program) -> tuple[dict[str, str], ...]:
        # A float package of a quick-GELU program could not be made when the goldens were:
        # coremltools writes silu for it.
        silu = any(node.name.endswith("act1.mul") for node in program.graph().nodes)
        quantized: tuple[dict[str, str], ...] = (
            {},
            {"compute_precision": "float32", "input_type": "tensor", "output_type": "classifier"},
        )
        floats = {"precision": "float16", "deployment_target": "iOS16"}
        return quantized if silu else (*quantized, floats)

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
                yield f"{weighted[place].module}.weight", editor.done()
        editor = Editor(data)
        added = editor.of_kind("add")[-1].inputs  # the first one is the normalisation's
        x, y = (added[name].arguments[0] for name in ("x", "y"))
        x.name, y.name = y.name, x.name
        yield [n.name for n in program.graph().nodes if n.kind == "add"][-1], editor.done()
        editor = Editor(data)
        pad = editor.constant(editor.of_kind("conv")[0], "pad").immediateValue.tensor.ints.values
        assert list(pad) == [1, 1, 1, 1]
        pad[0] = pad[2] = 0  # over an even size with stride 2 the result's shape stays
        yield "stem.conv1", editor.done()
        editor = Editor(data)
        editor.spec.description.metadata.userDefined["edgevit.labels"] = '["others"]'
        yield "metadata labels", editor.done()
        for key in ("program_sha256", "profile", "preprocessing"):
            editor = Editor(data)
            editor.spec.description.metadata.userDefined[f"edgevit.{key}"] = '["others"]'
            yield f"metadata {key}", editor.done()
        editor = Editor(data)
        editor.spec.description.input[0].type.imageType.width += 1
        yield "input", editor.done()
        yield "cannot read", {**data, WEIGHTS_NAME: data[WEIGHTS_NAME][:200]}
        yield "not a Core ML specification", {**data, SPEC_NAME: b"\xff" * 100}
        yield "is missing", {name: data[name] for name in FILES - {WEIGHTS_NAME}}
        yield "is not one of its files", {**data, "Data/odd": b""}

    def tamper_weights(self, data: dict[str, bytes], program: Program) -> Iterator[tuple[str, Any]]:
        weighted = program.graph().weighted()
        for place in (0, len(weighted) - 1):
            for argument in ("quantized_data", "scale", "zero_point"):
                editor = Editor(data)
                editor.change(editor.of_kind("constexpr_affine_dequantize")[place], argument)
                yield f"{weighted[place].module}.weight", editor.done()
            editor = Editor(data)
            editor.change(editor.of_kind(("conv", "linear")[bool(place)])[0], "bias")
            yield f"{weighted[place].module}.bias", editor.done()
        editor = Editor(data)
        editor.change(editor.of_kind("mul")[0], "y")  # the normalisation's factor
        yield "raw pixels do not become the program's input", editor.done()
        editor = Editor(data)
        editor.spec.description.metadata.userDefined["edgevit.profile"] = "portable"
        yield "metadata profile", editor.done()


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
        _, audited = TARGET.audit(
            TARGET.write(make_program(), CoremlOptions(**chosen)), make_program()
        )
        assert bool(audited.activations) == (chosen["precision"] == "int8"), chosen
        count += 1
    assert count == 40


def test_a_float_package_has_no_quantizer_and_says_so(tmp_path: Path) -> None:
    program = make_program()
    manifest = TARGET.compile(program, tmp_path / "out", precision="float16")
    assert (manifest.profile, manifest.audit) == ("float16", None)
    assert list(manifest.drops) == list(program.graph().activations())
    assert not {"quantize", "dequantize", "constexpr_affine_dequantize"} & set(manifest.ops)
    pixels = seeded_pixels(4)
    runner = TARGET.open_runner(load_artifact(tmp_path / "out"))
    with torch.no_grad():
        net = graph_module(float_graph(program.graph()))
        expected = net(program.info.preprocessing.normalise(pixels)).numpy()
    assert np.abs(runner.scores(pixels) - expected).max() < 0.01 * np.abs(expected).max()
    found = dict(runner.tensors(pixels, program))
    assert list(found) == list(program.graph().activations())
    assert all(values.dtype == np.float32 for values in found.values())
    TARGET.check_artifact(tmp_path / "out", program)


def test_the_metadata_tells_what_the_model_is() -> None:
    program = make_program()
    info = replace(program.info, provenance={"author": "Ada", "license": "MIT"})
    named = program.with_info(info)
    metadata = read_package(converted(named)).metadata
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
    with pytest.raises(EdgevitError, match="stages.0.blocks.0.se.act: .* is none, program relu"):
        TARGET.audit(editor.done(), program)


def test_a_written_folder_is_read_back_as_it_was(tmp_path: Path) -> None:
    TARGET.compile(make_program(), tmp_path / "out")
    artifact = load_artifact(tmp_path / "out")
    assert artifact.data == read_tree(artifact.path) == files_of()
    (artifact.path / "notes.txt").symlink_to("/etc/hostname")
    with pytest.raises(InputError, match="link"):
        load_artifact(tmp_path / "out")
