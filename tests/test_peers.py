"""benchmarks/peers.py: the runner, with stand-ins for the peers. No peer's package is needed."""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgevit.data.images import ImageSet
from edgevit.ops import Quantizer
from edgevit.program import Program
from edgevit.targets import load_target
from tests.conftest import ROOT
from tests.image_sets import subset
from tests.programs import make_program, seeded_images, seeded_net

sys.path.append(str(ROOT / "benchmarks"))

import peer_environments  # pyright: ignore[reportMissingImports]
import peer_files  # pyright: ignore[reportMissingImports]
import peers  # pyright: ignore[reportMissingImports]
from peer_environments import (  # pyright: ignore[reportMissingImports]
    NotRun,
    Peer,
    environment,
    make_artifact,
)

REAL = peer_environments.FOLDER
STANDIN = '''"""A stand-in for a peer: it hands back the float file that it was given."""
from _job import Job, run
TITLE = "stand-in"
REQUIREMENTS = ("numpy==2",)
FORMAT = "tflite"
SCALES = "{scales}"

def make(job: Job) -> None:
    with job.timed("convert"):
        {body}
    (job.out.parent / "runs").open("a").write("x")

if __name__ == "__main__":
    run(make)
'''
COPIES = "job.out.write_bytes(job.inputs['float_tflite'].read_bytes())"


class Standins:
    """A folder of stand-in peers, whose environment is this very one."""

    def __init__(self, folder: Path) -> None:
        self.programs, self.envs, self.work = (folder / n for n in ("peers", "envs", "work"))
        self.programs.mkdir()
        self.work.mkdir()
        shutil.copy(REAL / "_job.py", self.programs)
        python = self.envs / sha256(b"numpy==2").hexdigest()[:12] / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
        (python.parent.parent / peer_environments.MARKER).write_text("numpy==2\n")

    def add(self, name: str, body: str = COPIES, scales: str = "calibrates anew") -> Peer:
        program = self.programs / f"{name}.py"
        program.write_text(STANDIN.format(body=body, scales=scales))
        return Peer.of(program)

    def make(self, peer: Peer, inputs: dict[str, Path], key: str = "k", **more: Any) -> Any:
        options = {"envs": self.envs, "work": self.work, "threads": 1, "timeout_s": 100.0}
        return make_artifact(peer, inputs, key, **{**options, **more})


@pytest.fixture
def standins(tmp_path: Path) -> Standins:
    return Standins(tmp_path)


def test_every_peer_says_what_it_is_and_pins_its_versions() -> None:
    found = peer_environments.peers()
    assert {"ai_edge_quantizer_ptq", "onnxruntime_ptq"} <= {peer.name for peer in found}
    for peer in found:
        assert all("==" in each for each in peer.requirements), peer.name
        assert peer.format in peers.FORMATS
        assert peer.scales in ("calibrates anew", "given")


def test_a_peer_that_does_not_say_its_versions_is_named(tmp_path: Path) -> None:
    (tmp_path / "mute.py").write_text('TITLE = "mute"\nFORMAT = "tflite"\nSCALES = "given"\n')
    with pytest.raises(ValueError, match="mute.py lacks REQUIREMENTS"):
        peer_environments.peers(tmp_path)


def test_a_peer_is_run_once_for_what_it_was_given(standins: Standins, tmp_path: Path) -> None:
    peer, source = standins.add("copies"), tmp_path / "float.tflite"
    source.write_bytes(b"a model")
    path, answer = standins.make(peer, {"float_tflite": source})
    assert path.read_bytes() == b"a model" and path.name == "model.tflite"
    assert answer["versions"] == {"numpy": np.__version__}
    assert set(answer["seconds"]) == {"convert"}
    runs = path.with_name("runs")
    assert standins.make(peer, {"float_tflite": source}) == (path, answer)
    assert runs.read_text() == "x"
    standins.make(peer, {"float_tflite": source}, key="another")
    assert runs.read_text() == "xx"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise RuntimeError('no such operator: GELU')", "no such operator: GELU"),
        ("__import__('os')._exit(9)", "exit code 9"),
        ("pass", "ended without an artifact"),
        ("__import__('time').sleep(60)", "took over 2 s"),
    ],
)
def test_a_peer_that_fails_says_why(standins: Standins, body: str, reason: str) -> None:
    peer = standins.add("fails", body)
    for _ in range(2):  # nothing of the failure counts as made
        with pytest.raises(NotRun, match=reason):
            standins.make(peer, {}, timeout_s=2.0 if "sleep" in body else 100.0)


def test_what_an_earlier_version_made_is_not_taken_for_a_failure(standins: Standins) -> None:
    peer = standins.add("changes", "job.out.write_bytes(b'old')")
    path, _ = standins.make(peer, {})
    peer = standins.add("changes", "raise RuntimeError('new')")
    with pytest.raises(NotRun, match="new"):
        standins.make(peer, {})
    assert not path.exists()


def test_an_environment_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    peer = Peer(tmp_path / "p.py", "p", ("edgevit-stand-in==1",), "tflite", "given")
    envs = tmp_path / "envs"
    with pytest.raises(NotRun, match="its environment cannot be made.*edgevit-stand-in==1"):
        environment(peer, envs)
    assert not list(envs.glob(f"*/{peer_environments.MARKER}"))


def test_rounds_are_interleaved_and_each_begins_with_another() -> None:
    order: list[str] = []
    runs = {name: (lambda name=name: order.append(name)) for name in "abc"}
    times = peers.interleaved(runs, 4, lambda run: run() or (1.0, 0.5))
    assert "".join(order) == "abcbcacababc"
    assert times == {name: [(1.0, 0.5)] * 4 for name in "abc"}


def test_latency_is_the_rounds_own_ratios() -> None:
    ours, theirs = [(1.0, 1.0), (2.0, 1.0), (4.0, 1.0)], [(2.0, 2.0), (3.0, 3.0), (16.0, 2.5)]
    found = peers.latency({"ours": ours, "theirs": theirs}, "ours")
    assert found["theirs"]["invoke_against_edgevit"] == {"median": 2.0, "min": 1.5, "max": 4.0}
    assert found["theirs"]["cpu_against_edgevit"] == {"median": 2.5, "min": 2.0, "max": 3.0}
    assert found["ours"]["cpu_against_edgevit"] == {"median": 1.0, "min": 1.0, "max": 1.0}
    assert (found["theirs"]["invoke_p50_us"], found["theirs"]["cpu_p50_us"]) == (3.0, 2.5)


def test_waiting_is_no_cpu_time() -> None:
    clock, cpu = peers.median_us(lambda: time.sleep(0.02))
    assert clock >= 20_000 and cpu < 10_000


def test_quality_counts_images_and_logits() -> None:
    truth = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], np.float32)
    other = truth.copy()
    other[0] = [0.0, 2.0]
    assert peers.quality(other, np.array([0, 0, 1, 0]), truth) == {
        "images": 4, "top1_percent": 50.0, "agreement_float_percent": 75.0,
        "logit_rmse": round((5 / 8) ** 0.5, 4),
    }  # fmt: skip


# -- artifacts ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """int8 and float32 artifacts of the seeded net, of both formats."""
    folder, made = tmp_path_factory.mktemp("files"), {}
    for form in peers.FORMATS:
        for precision in ("int8", "float32"):
            target = load_target(form)
            target.compile(make_program(), folder / f"{form}-{precision}", precision=precision)
            made[f"{form}-{precision}"] = folder / f"{form}-{precision}" / target.file
    return made


@pytest.mark.parametrize("form", peers.FORMATS)
def test_an_artifact_answers_and_its_operators_are_counted(
    files: dict[str, Path], form: str
) -> None:
    program, images = make_program(), seeded_images(4, 64)
    settings = {"session.x64quantprecision": "1"}
    opened = peer_files.open_artifact(files[f"{form}-int8"], settings)
    found = np.stack([opened.answer(image) for image in images.numpy()])
    assert np.array_equal(found, program.run(images).numpy())
    operators = opened.operators()
    assert operators["float"] == 0 and operators["total"] >= len(program.graph().nodes) - 2
    real = peer_files.open_artifact(files[f"{form}-float32"]).operators()
    assert real["float"] == real["total"] and real["conversions"] == 0
    assert ("run" in operators) == (form == "onnx")


@pytest.mark.parametrize("form", peers.FORMATS)
def test_scales_that_are_not_the_given_ones_are_counted(files: dict[str, Path], form: str) -> None:
    graph = make_program().graph()
    scales = peer_files.open_artifact(files[f"{form}-int8"]).scales()
    right = peer_files.other_scales(graph, scales)
    assert right["activations"] == len(graph.owners()) and right["weights"] > 10
    assert right["other_activations"] == right["other_weights"] == 0
    name = graph.owners()[3]
    other = Quantizer(graph.quantizer(name).scale * 1.5, graph.quantizer(name).zero_point)
    node = graph.weighted()[2]
    changed = replace(node.int8, scale=node.weight_scale * np.float32(1.001))
    nodes = [replace(n, weights=changed) if n is node else n for n in graph.nodes]
    moved = replace(graph, nodes=tuple(nodes), quantizers={**graph.quantizers, name: other})
    wrong = peer_files.other_scales(moved, scales)
    assert (wrong["other_activations"], wrong["other_weights"], wrong["far_weights"]) == (1, 1, 0)


def test_a_dropped_pair_is_a_float_operator(files: dict[str, Path]) -> None:
    import onnx

    model = onnx.load(str(files["onnx-int8"]))
    gelu = next(node for node in model.graph.node if node.op_type == "Gelu")
    (pair,) = [node for node in model.graph.node if gelu.output[0] in node.input]
    (behind,) = [node for node in model.graph.node if pair.output[0] in node.input]
    for reader in model.graph.node:  # the pair behind the GELU is left out
        reader.input[:] = [gelu.output[0] if n == behind.output[0] else n for n in reader.input]
    found = peer_files.onnx_operators(model)
    assert found.floats["Gelu"] == 1 and found.floats["Conv"] >= 1


# -- the whole run ------------------------------------------------------------------------------


def _program(labels: Path) -> Program:
    program = make_program()
    names = tuple(ImageSet.open(labels).classes)
    return program.with_info(replace(program.info, labels=names))


def test_a_run_has_a_row_for_every_peer(
    standins: Standins, embedded_train: Path, embedded_val: Path, tmp_path: Path
) -> None:
    standins.add("copies")
    standins.add("fails", "raise RuntimeError('it cannot')")
    standins.add("given", scales="given")
    standins.add("rubbish", "job.out.write_bytes(b'no model')")
    standins.add("left_out")
    only = [each for name in ("copies", "fails", "given", "rubbish") for each in ("--only", name)]
    val = subset(embedded_val, tmp_path / "val.tar", 50)
    given = peers.parse(
        [
            "--name", "test", "--checkpoint", "none", "--train", str(embedded_train), "--val",
            str(val), "--tuned", "none", "--image-size", "64", "--images", "12", "--rounds", "2",
            "--work", str(standins.work), "--envs", str(standins.envs), "--peers",
            str(standins.programs), *only,
        ]
    )  # fmt: skip
    program = _program(val)
    figures = json.loads(json.dumps(peers.compare(given, seeded_net(), program, program)))
    rows = figures["rows"]
    ours = {f"{name}_{form}" for name in ("edgevit_ptq", "edgevit_tuned") for form in peers.FORMATS}
    theirs = {"copies", "fails", "given", "left_out", "rubbish"}
    assert set(rows) == {"float_tflite", "float_onnx"} | ours | theirs
    for name in ("float_tflite", "float_onnx", "copies"):
        assert rows[name]["agreement_float_percent"] == 100 and rows[name]["logit_rmse"] < 1e-4
    for name in (*ours, "copies"):
        row = rows[name]
        assert row["state"] == "run" and row["images"] == 12 and row["size_bytes"] > 1000
        assert row["invoke_p50_us"] > 0 and row["cpu_against_edgevit"]["min"] > 0
    for name in ours:
        scales = rows[name]["scales"]
        assert scales["other_activations"] == scales["other_weights"] == 0
        assert rows[name]["operators"]["float"] == 0
    # The stand-in hands a float file back: none of the scales that it was given is in it.
    scales = rows["given"]["scales"]
    assert scales["other_activations"] == scales["activations"] > 0
    assert rows["copies"]["scales"] == {"how": "calibrates anew"}
    for name, reason in (
        ("fails", "it cannot"), ("rubbish", "cannot be read"), ("left_out", "--only"),
    ):  # fmt: skip
        assert rows[name]["state"] == "not run" and reason in rows[name]["reason"]
        assert not {"top1_percent", "invoke_p50_us"} & set(rows[name])
    table = peers.markdown(rows)
    assert len(table.splitlines()) == 2 + len(rows)
    assert "not run: its program failed, exit code 1: RuntimeError: it cannot" in table
