"""Files of version 1 are read as what they were: the same graph, the same logits, saved as new."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgevit.program import Metric, Program
from edgevit.program.v1.pt2_reader import read_pt2
from tests.program.test_file import SHA256, reference, same_graph
from tests.program.version1 import REAL, program_then, real, unpack, written
from tests.programs import make_program, seeded_images

CASES = [(p, a) for p in ("portable", "asymmetric") for a in ("gelu", "quick-gelu", "hard-swish")]


@pytest.fixture(params=REAL, ids="-".join)
def found(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str, str]:
    profile, activation = request.param
    path = tmp_path / "old.evq"
    path.write_bytes(real(profile, activation))
    return path, profile, activation


def test_a_file_of_before_is_the_program_of_now(found: tuple[Path, str, str]) -> None:
    path, profile, activation = found
    loaded, program = Program.load(path), program_then(profile, activation)
    same_graph(loaded.graph(), program.graph())
    assert loaded.info == program.info and loaded.reference is None
    images = seeded_images(4, 64)
    assert torch.equal(loaded.run(images), program.run(images))
    assert {q.how for q in loaded.graph().quantizers.values()} == {"calibrated", "fixed"}
    assert {node.int8.how for node in loaded.graph().weighted()} == {"calibrated"}


def test_it_is_known_by_the_sha256_of_its_file_and_saved_as_version_2(
    found: tuple[Path, str, str], tmp_path: Path
) -> None:
    path, profile, activation = found
    loaded = Program.load(path)
    program = program_then(profile, activation)
    assert loaded.file_name == "old.evq" and loaded.sha256 != program.sha256
    new = loaded.save(tmp_path / "new.evq")
    assert new.read_bytes() == program.to_bytes()
    assert loaded.sha256 == program.sha256
    assert "program.pt2" not in unpack(new.read_bytes())


def test_loading_it_needs_no_torch(found: tuple[Path, str, str]) -> None:
    code = (
        "import sys; from edgevit.program import Program; "
        f"Program.load({str(found[0])!r}).graph(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("profile", "activation"), CASES)
def test_what_could_be_written_then_is_read(tmp_path: Path, profile: str, activation: str) -> None:
    program = make_program(profile=profile, activation=activation)
    info = replace(program.info, metrics=(Metric("top1", 0.9, 3, SHA256),), provenance={"a": [1]})
    program = program.with_info(info, reference())
    (tmp_path / "old.evq").write_bytes(written(program))
    loaded = Program.load(tmp_path / "old.evq")
    same_graph(loaded.graph(), program.graph())
    assert loaded.info == info and loaded.reference is not None
    assert loaded.reference.paths == reference().paths


@pytest.mark.parametrize(("profile", "activation"), REAL)
def test_the_writer_here_writes_what_was_written_then(profile: str, activation: str) -> None:
    """The same members, and the same table of every scale; torch numbers the weights anew."""
    program = program_then(profile, activation)
    ours, theirs = unpack(written(program)), unpack(real(profile, activation))
    assert list(ours) == list(theirs) == ["evq.json", "program.pt2"]
    assert unpack(ours["program.pt2"]).keys() == unpack(theirs["program.pt2"]).keys()
    manifests = [json.loads(members["evq.json"]) for members in (ours, theirs)]
    assert all(manifest.pop("members").keys() == {"program.pt2"} for manifest in manifests)
    assert manifests[0] == manifests[1]


def test_the_export_is_read_back_as_the_graph() -> None:
    graph = make_program().graph()
    read = read_pt2(make_program().export("pt2"))
    assert [node.name for node in read.nodes] == [node.name for node in graph.nodes]
    for name, quantizer in graph.quantizers.items():
        assert quantizer.same_values(read.quantizers[name])
