"""Saving and loading: what is written is what is read, and it needs no torch."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgevit.errors import InputError
from edgevit.graph import Graph
from edgevit.ops import Weighted
from edgevit.program import Metric, Program, Reference, evq
from edgevit.program.evq import schema
from edgevit.program.graph_file import MAX_NAME
from edgevit.program.tensors import read_tensors
from edgevit.program.torch_program import graph_module
from edgevit.schema import check_json
from tests.programs import make_program, seeded_images, with_graph
from tests.random_graphs import IMAGE_SIZE, random_program

PROFILES = ("portable", "asymmetric")
SHA256 = "0" * 64
GATE = "stages.0.blocks.0.se.gate"


def reference(count: int = 3) -> Reference:
    logits = np.arange(count * 10, dtype=np.float32).reshape(count, 10)
    return Reference(logits, tuple(f"a/{i}.jpg" for i in range(count)), SHA256, -logits)


def same_graph(first: Graph, second: Graph) -> None:
    """Every field of every node, every array by its bytes, every quantizer and its provenance."""
    assert first.input_shape == second.input_shape and first.outputs == second.outputs
    assert list(first.quantizers.items()) == list(second.quantizers.items())
    for before, after in zip(first.nodes, second.nodes, strict=True):
        assert type(before) is type(after)
        own, other = vars(before), vars(after)
        for name in own.keys() | other.keys():
            if name != "weights":
                assert own[name] == other[name], (before.name, name)
        if isinstance(before, Weighted) and isinstance(after, Weighted):
            for name, value in vars(before.int8).items():
                found = vars(after.int8)[name]
                if isinstance(value, np.ndarray):
                    assert value.dtype == found.dtype and np.array_equal(value, found), before.name
                else:
                    assert value == found, (before.name, name)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_loaded_program_is_the_saved_one(tmp_path: Path, profile: str) -> None:
    program = make_program(profile=profile)
    metrics = (Metric("qat_top1", 0.94, 5400, SHA256), Metric("ptq_top1", 0.93, 5400))
    info = replace(program.info, metrics=metrics, provenance={"seed": 3, "nested": {"a": [1]}})
    program = program.with_info(info, reference())
    path = program.save(tmp_path / "m.evq")
    loaded = Program.load(path)
    assert loaded.sha256 == program.sha256 and loaded.file_name == "m.evq"
    assert loaded.info == program.info
    assert loaded.reference is not None and program.reference is not None
    assert loaded.reference.paths == program.reference.paths
    assert np.array_equal(loaded.reference.float_logits, program.reference.float_logits)
    same_graph(program.graph(), loaded.graph())
    images = seeded_images(4, 64)
    assert torch.equal(loaded.run(images), program.run(images))
    assert loaded.to_bytes() == path.read_bytes()


@pytest.mark.parametrize("activation", ["quick-gelu", "hard-swish"])
def test_a_program_of_another_activation_survives_its_file(tmp_path: Path, activation: str) -> None:
    program = make_program(activation=activation)
    loaded = Program.load(program.save(tmp_path / "m.evq"))
    same_graph(program.graph(), loaded.graph())
    images = seeded_images(4, 64)
    assert torch.equal(loaded.run(images), program.run(images))
    assert "gelu" not in {node.kind for node in loaded.graph().nodes}


@pytest.mark.parametrize("seed", range(8))
def test_every_operation_survives_its_file(tmp_path: Path, seed: int) -> None:
    """The random nets have every operation that a program may hold (see test_execute)."""
    profile = PROFILES[seed % 2]
    program = random_program(seed, profile, operations=10, softmax=seed % 3 == 0)
    loaded = Program.load(program.save(tmp_path / "m.evq"))
    same_graph(program.graph(), loaded.graph())
    images = seeded_images(2, IMAGE_SIZE)
    assert torch.equal(loaded.run(images), program.run(images))
    assert loaded.to_bytes() == program.to_bytes()


def test_writing_what_was_read_gives_the_same_bytes(tmp_path: Path) -> None:
    program = make_program()
    loaded = Program.load(program.save(tmp_path / "m.evq"))
    again = Program(loaded.graph(), loaded.info)
    assert again.to_bytes() == program.to_bytes()


def test_the_members_are_stored_plain_and_without_a_date(tmp_path: Path) -> None:
    program = make_program().with_info(make_program().info, reference())
    with zipfile.ZipFile(program.save(tmp_path / "m.evq")) as archive:
        infos = archive.infolist()
    assert [info.filename for info in infos] == [
        "evq.json", "graph.json", "weights.safetensors", "reference.safetensors"
    ]  # fmt: skip
    assert {info.compress_type for info in infos} == {zipfile.ZIP_STORED}
    assert {info.date_time for info in infos} == {(1980, 1, 1, 0, 0, 0)}


def test_the_file_holds_no_pickle_and_no_path_of_this_machine(tmp_path: Path) -> None:
    data = make_program().save(tmp_path / "m.evq").read_bytes()
    for folder in (Path.cwd(), Path(torch.__file__).parent, Path.home()):
        assert str(folder).encode() not in data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == ["evq.json", "graph.json", "weights.safetensors"]


def test_the_readable_parts_tell_every_scale_once(tmp_path: Path) -> None:
    program = make_program()
    with zipfile.ZipFile(program.save(tmp_path / "m.evq")) as archive:
        manifest = json.loads(archive.read("evq.json"))
        structure = json.loads(archive.read("graph.json"))
        weights, metadata = read_tensors(archive.read("weights.safetensors"), "weights")
    check_json(manifest, "evq.json", schema())
    graph = program.graph()
    rows = {row["name"]: row for row in structure["quantizers"]}
    assert rows["input"]["scale"] == graph.quantizer("input").scale
    assert rows[GATE] == {"name": GATE, "scale": 1 / 256, "zero_point": -128, "how": "fixed"}
    assert list(rows) == list(graph.activations()) == graph.owners()
    nodes = {row["name"]: row for row in structure["nodes"]}
    assert nodes["stages.0.blocks.0.se.act"] == {
        "op": "conv2d", "name": "stages.0.blocks.0.se.act",
        "inputs": ["stages.0.blocks.0.se.mean"], "module": "stages.0.blocks.0.se.fc1",
        "stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 1,
        "activation": "relu", "weight_how": "calibrated",
    }  # fmt: skip
    for node in graph.weighted():
        assert np.array_equal(weights[f"{node.module}.weight"], node.weight)
        assert np.array_equal(weights[f"{node.module}.weight_scale"], node.weight_scale)
        assert np.array_equal(weights[f"{node.module}.bias"], node.bias_q)
    assert len(weights) == 3 * len(graph.weighted()) and metadata == {"schema_version": "2"}


def test_loading_needs_no_torch(tmp_path: Path) -> None:
    path = make_program().save(tmp_path / "m.evq")
    code = (
        "import sys; from edgevit.program import Program; "
        f"Program.load({str(path)!r}).graph(); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_saving_does_not_overwrite_unless_told_to(tmp_path: Path) -> None:
    path = tmp_path / "m.evq"
    path.write_text("mine")
    with pytest.raises(InputError, match="exists"):
        make_program().save(path)
    assert path.read_text() == "mine" and list(tmp_path.iterdir()) == [path]
    make_program().save(path, force=True)
    assert Program.load(path).info == make_program().info


# -- what could not be read back is not written -------------------------------------------------


def renamed(program: Program, name: str) -> Program:
    """The program with another name for its last tensor and module, past every check."""
    graph = program.graph()
    *others, head = graph.nodes
    nodes = (*others, replace(head, name=name))
    quantizers = dict(graph.quantizers)
    quantizers[name] = quantizers.pop("head")
    return with_graph(program, replace(graph, nodes=nodes, outputs=(name,), quantizers=quantizers))


@pytest.mark.parametrize("name", ["x" * (MAX_NAME + 1), "", " a", "a\nb", "a\0", "/a"])
def test_a_name_that_could_not_be_read_back_is_not_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="is not a name"):
        renamed(make_program(), name).save(tmp_path / "m.evq")
    assert list(tmp_path.iterdir()) == []
    longest = renamed(make_program(), "é" * MAX_NAME).save(tmp_path / "m.evq")
    assert Program.load(longest).graph().output_name == "é" * MAX_NAME


def test_more_than_a_file_may_hold_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(evq._LIMITS, r"weights\.safetensors", 1000)
    with pytest.raises(InputError, match=r"weights.safetensors would have \d+ bytes"):
        make_program().save(tmp_path / "m.evq")
    assert list(tmp_path.iterdir()) == []


def test_provenance_that_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    program = make_program()
    nested: list = []
    for _ in range(100):
        nested = [nested]
    for provenance in ({"a": "\ud800"}, {"a": nested}):
        info = replace(program.info, provenance=provenance)
        with pytest.raises(InputError, match=r"evq\.json"):
            program.with_info(info).save(tmp_path / "m.evq")
    assert list(tmp_path.iterdir()) == []


# -- the export -------------------------------------------------------------------------------


def test_the_export_is_a_torch_export_archive(tmp_path: Path) -> None:
    program = make_program()
    (tmp_path / "program.pt2").write_bytes(program.export("pt2"))
    exported = torch.export.load(tmp_path / "program.pt2")
    image = seeded_images(1, 64)
    with torch.no_grad():
        theirs = exported.module()(image)
        ours = graph_module(program.graph())(image)
    assert torch.equal(theirs, ours)
    names = {node.name for node in exported.graph.nodes}
    assert {"stem_conv1", "stem_conv1_q", "stages_0_blocks_0_se_gate_dq"} <= names
    assert exported.state_dict["stem.conv1.weight"].dtype == torch.int8
    with pytest.raises(InputError, match="can be exported as \"pt2\", not as 'onnx'"):
        program.export("onnx")


def test_the_export_holds_no_pickle_and_no_path_of_this_machine() -> None:
    data = make_program().export("pt2")
    assert data == make_program().export("pt2")
    for folder in (Path.cwd(), Path(torch.__file__).parent, Path.home()):
        assert str(folder).encode() not in data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        assert b'"stack_trace"' not in archive.read("archive/models/model.json")
    assert sizes["archive/data/sample_inputs/model.pt"] == 0
    assert not [name for name in sizes if name.endswith((".pkl", ".so", ".py"))]


@pytest.mark.parametrize("seed", range(8))
def test_every_operation_can_be_exported(tmp_path: Path, seed: int) -> None:
    program = random_program(seed, PROFILES[seed % 2], operations=10, softmax=seed % 3 == 0)
    (tmp_path / "program.pt2").write_bytes(program.export("pt2"))
    image = seeded_images(1, IMAGE_SIZE)
    with torch.no_grad():
        theirs = torch.export.load(tmp_path / "program.pt2").module()(image)
        assert torch.equal(theirs, graph_module(program.graph())(image))
