"""The TensorRT target: the contract, where Q/DQ stand, the ONNX under ONNX Runtime."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner

from edgevit.commands.compile import compile_command
from edgevit.commands.lint import lint_command
from edgevit.errors import EdgevitError, InputError, ToolMissing
from edgevit.graph import float_graph
from edgevit.ops import Add, Conv2d, Gelu, Sigmoid, Weighted
from edgevit.program import Program
from edgevit.program.torch_program import graph_module
from edgevit.targets.artifact import load_artifact
from edgevit.targets.tensorrt import TARGET, Tensorrt
from edgevit.targets.tensorrt.lint import lint
from edgevit.targets.tensorrt.options import TensorrtOptions
from edgevit.targets.tensorrt.place import BEFORE_ACTIVATION, GATE, RESIDUAL, dropped
from tests.programs import make_program, real_images, replace_node, seeded_pixels, trained_program
from tests.target_contract import TargetContract

EXACT = TensorrtOptions(io="float32", compute_precision="float32")


def model_of(options: TensorrtOptions | None = None) -> onnx.ModelProto:
    data = TARGET.write(make_program(), options or TensorrtOptions())
    return onnx.load_model_from_string(data)


class TestTensorrt(TargetContract):
    target = "tensorrt"
    toolkit_modules = ("qdq.toolkit",)
    options = ({}, {"io": "float32"}, {"io": "float32", "compute_precision": "float32"})
    logit_steps = 40  # a third of the pairs is left out: other roundings, and layers add up

    def golden_options(self, program: Program) -> tuple[dict[str, str], ...]:
        # No artifact of it has a zero-point.
        if program.info.profile != "portable":
            return ()
        floats = {"io": "float32", "compute_precision": "float32"}
        return ({}, floats, {"precision": "float16"})

    def tamper(self, data: bytes, program: Program) -> Iterator[tuple[str, bytes]]:
        def changed(edit: Any) -> bytes:
            model = onnx.load_model_from_string(data)
            edit(model.graph, {t.name: t for t in model.graph.initializer},
                 {n.name: n for n in model.graph.node})  # fmt: skip
            return model.SerializeToString()

        def bit(name: str) -> Any:
            def edit(graph: Any, constants: dict[str, Any], nodes: Any) -> None:
                raw = constants[name].raw_data
                constants[name].raw_data = bytes([raw[0] ^ 1]) + raw[1:]

            return edit

        kept = [n for n in program.graph().activations() if n not in dropped(program.graph())]
        for name in (kept[0], kept[5], kept[-1]):
            yield name, changed(bit(f"{name}.scale.float16"))
        for module in ("stem.conv1", "head"):
            for part in ("weight.q", "weight.scale", "weight.zero_point", "bias"):
                yield f"{module}.{part.partition('.')[0]}", changed(bit(f"{module}.{part}"))
        yield "zero-point", changed(bit("zero"))

        def move(graph: Any, constants: Any, nodes: Any) -> None:
            nodes["stem.conv2"].attribute[0].CopyFrom(onnx.helper.make_attribute("strides", [1, 1]))

        def drop(graph: Any, constants: Any, nodes: Any) -> None:
            """The pair behind stem.act1 goes, which the program has and TensorRT needs."""
            for name in ("stem.act1.q", "stem.act1.dq"):
                graph.node.remove(nodes[name])
            nodes["stem.conv2"].input[0] = "stem.act1"

        yield "stem.conv2", changed(move)
        yield "stem.act1", changed(drop)
        yield "not a readable model", data[:-10]
        yield "not a readable model", b"\xff" * 40


# -- where the pairs stand ------------------------------------------------------------------------


def test_the_pairs_left_out_are_those_of_the_rules() -> None:
    graph = make_program().graph()
    found, ops = dropped(graph), {node.name: node for node in graph.nodes}
    for name, reason in found.items():
        readers = [node for node in graph.nodes if name in node.inputs]
        if reason == BEFORE_ACTIVATION:
            assert isinstance(ops[name], Conv2d) and isinstance(readers[0], Gelu | Sigmoid)
        elif reason == RESIDUAL:
            assert isinstance(ops[name], Conv2d) and [type(r) for r in readers] == [Add]
        else:
            assert reason == GATE and isinstance(ops[name], Sigmoid)
    for node in graph.nodes:
        if isinstance(node, Add):
            assert sum(name in found for name in node.inputs) == 1, node.name
        if isinstance(node, Gelu):
            assert node.inputs[0] in found and node.name not in found
        if isinstance(node, Weighted):
            assert graph.quantizer(node.inputs[0]) and node.inputs[0] not in found
    gates = [n for n in graph.nodes if isinstance(n, Sigmoid)]
    assert {n.name for n in gates} <= set(found) and {n.inputs[0] for n in gates} <= set(found)


def test_every_artifact_passes_the_strict_lint() -> None:
    for options in (TensorrtOptions(), EXACT, TensorrtOptions(io="float32")):
        assert lint(model_of(options), strict=True) == []


def test_one_gelu_node_a_gelu_and_every_float_is_float16() -> None:
    model, graph = model_of(), make_program().graph()
    (opset,) = model.opset_import
    kinds = [node.op_type for node in model.graph.node]
    assert opset.version == 20
    assert kinds.count("Gelu") == sum(isinstance(node, Gelu) for node in graph.nodes)
    types = {onnx.TensorProto.DataType.Name(t.data_type) for t in model.graph.initializer}
    assert types == {"INT8", "FLOAT16", "INT64"}


def test_the_lint_stops_a_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A pair put back between convolution and GELU, which the audit is told to expect."""

    def only_gates(graph: Any) -> dict[str, str]:
        return {name: why for name, why in dropped(graph).items() if why == GATE}

    monkeypatch.setattr(Tensorrt, "drops", lambda _, graph: only_gates(graph))
    with pytest.raises(EdgevitError, match="lint: .*stem.conv1"):
        TARGET.compile(make_program(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_command_lints_a_folder(tmp_path: Path) -> None:
    TARGET.compile(make_program(), tmp_path / "out")
    result = CliRunner().invoke(lint_command, [str(tmp_path / "out"), "--strict", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["findings"] == []


# -- refusals -------------------------------------------------------------------------------------


def test_the_asymmetric_profile_is_refused_with_the_command_that_helps(tmp_path: Path) -> None:
    program = make_program(profile="asymmetric").save(tmp_path / "m.evq")
    arguments = [str(program), "--target", "tensorrt", "-o", str(tmp_path / "build")]
    result = CliRunner().invoke(compile_command, arguments)
    assert isinstance(result.exception, InputError) and result.exception.exit_code == 2
    assert "--profile portable" in str(result.exception)
    assert list(tmp_path.iterdir()) == [program]


def test_an_engine_without_torch_tensorrt_is_refused(tmp_path: Path) -> None:
    try:
        import torch_tensorrt  # noqa: F401
    except (ImportError, OSError, RuntimeError):
        pass
    else:
        pytest.skip("torch-tensorrt is installed here")
    program = make_program().save(tmp_path / "m.evq")
    arguments = [str(program), "--target", "tensorrt", "--engine", "-o", str(tmp_path / "build")]
    result = CliRunner().invoke(compile_command, arguments)
    assert isinstance(result.exception, ToolMissing) and result.exception.exit_code == 4
    assert "trtexec" in str(result.exception)
    assert list(tmp_path.iterdir()) == [program]


def test_an_element_type_of_another_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--io 'uint8' is not one of float16, float32"):
        TARGET.compile(make_program(), tmp_path / "out", io="uint8")


# -- numbers --------------------------------------------------------------------------------------


def test_a_float_model_is_the_net_without_quantizers(tmp_path: Path) -> None:
    program, pixels = make_program(), seeded_pixels(4)
    options = {"precision": "float16", "compute_precision": "float32", "io": "float32"}
    manifest = TARGET.compile(program, tmp_path / "out", **options)
    assert (manifest.profile, manifest.audit) == ("float32", None)
    assert list(manifest.drops) == list(program.graph().activations())
    assert "QuantizeLinear" not in manifest.ops
    with torch.no_grad():
        net = graph_module(float_graph(program.graph()))
        expected = net(program.info.preprocessing.normalise(pixels)).numpy()
    found = TARGET.open_runner(load_artifact(tmp_path / "out")).scores(pixels)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    TARGET.check_artifact(tmp_path / "out", program)


def test_the_manifest_has_an_exact_trtexec_line_for_both_versions(tmp_path: Path) -> None:
    manifest = TARGET.compile(make_program(), tmp_path / "out")
    ten, eleven = (manifest.commands[f"trtexec, TensorRT {major}"] for major in (10, 11))
    for line in (ten, eleven):
        assert line.startswith("trtexec --onnx=model.onnx --saveEngine=model.plan")
    assert "--stronglyTyped" in ten and "--stronglyTyped" not in eleven


def test_dropped_pairs_change_the_numbers_as_dropping_them_does(
    embedded_checkpoint: Path, embedded_val: Path, tmp_path: Path
) -> None:
    """ONNX Runtime against torch on the same graph, with the same pairs left out."""
    images = real_images(embedded_val, 32, 64)
    program = trained_program(embedded_checkpoint, images, "portable")
    options = {"io": "float32", "compute_precision": "float32"}
    TARGET.compile(program, tmp_path / "out", **options)
    runner = TARGET.open_runner(load_artifact(tmp_path / "out"))
    from edgevit.data.images import ImageSet

    dataset, rules = ImageSet.open(embedded_val), program.info.preprocessing
    pixels = dataset.pixels(range(0, 1000, 32), rules)
    found = runner.scores(pixels)
    expected = _without_pairs(program, rules.normalise(pixels)).numpy()
    assert float((found.argmax(1) == expected.argmax(1)).mean()) >= 0.9
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99


@torch.no_grad()
def _without_pairs(program: Program, images: torch.Tensor) -> torch.Tensor:
    module = graph_module(program.graph())
    for name in dropped(program.graph()):
        stem = name.replace(".", "_")
        nodes = {node.name: node for node in module.graph.nodes}
        nodes[f"{stem}_dq"].replace_all_uses_with(nodes[f"{stem}_q"].args[0])
    module.graph.eliminate_dead_code()
    module.recompile()
    return module(images)


def test_a_tampered_program_is_not_this_program(tmp_path: Path) -> None:
    TARGET.compile(make_program(), tmp_path / "out")
    graph = make_program().graph()
    node = graph.weighted()[0]
    other = Program(
        replace_node(graph, node.name, weights=replace(node.int8, weight=np.roll(node.weight, 1))),
        replace(make_program().info, profile="portable"),
    )
    with pytest.raises(EdgevitError):
        TARGET.check_artifact(tmp_path / "out", other)
