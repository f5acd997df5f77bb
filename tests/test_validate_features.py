"""`edgevit validate` of an encoder: every output of every image, by the real harness."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.numpy import load_file

import edgevit
from edgevit.cli import cli
from edgevit.data.images import Preprocessing
from edgevit.errors import GateFailed, InputError
from edgevit.limits import FEATURE_SAMPLES
from edgevit.measure import outputs as outputs_module
from edgevit.measure.proof import proof_of
from edgevit.measure.report.page import write_report
from edgevit.measure.request import HarnessRequest, ValidateOptions
from edgevit.measure.validate import validate
from edgevit.models.repvit import RepViT
from edgevit.program import Program
from edgevit.targets import load_target
from edgevit.tasks.features import TASK
from tests.programs import SMALL
from tests.random_nets import trained_looking
from tests.sshd import start_sshd

COUNT = 24
RULES = Preprocessing((64, 48))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in no class folder, and some in folders that look like parts of a set."""
    root = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for i in range(COUNT):
        coarse = random.integers(0, 256, (6, 5, 3), dtype=np.uint8)
        path = root / (f"train/{i:02d}.png" if i % 4 == 3 else f"{i:02d}.png")
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(coarse).resize((60, 80), Image.Resampling.BICUBIC).save(path)
    return root


@pytest.fixture(scope="module")
def program(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    net = trained_looking(RepViT(replace(SMALL, num_classes=10))).features([0, 1])
    images = edgevit.ImageFolder(folder, like=RULES, labelled=False)
    found = edgevit.quantize(
        net, images, task="features", epochs=0, calibration_images=16, min_sqnr=-50, min_cosine=-1
    )
    return found.program.save(tmp_path_factory.mktemp("program") / "m.evq")


@pytest.fixture(scope="module")
def run_folder(program: Path) -> Path:
    """The program with two artifacts beside it."""
    for target in ("tflite", "onnx"):
        load_target(target).compile(Program.load(program), program.parent / target)
    return program.parent


def run(*arguments: object):
    return CliRunner().invoke(cli, [str(each) for each in arguments])


@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_every_output_is_compared(
    target: str, run_folder: Path, folder: Path, tmp_path: Path
) -> None:
    """TFLite's maps have their channels last, ONNX's first: both are the program's."""
    kept = tmp_path / "samples.safetensors"
    request = HarnessRequest(run_folder / target, folder, logits=kept)
    found = validate(request, out=tmp_path / "v.json")
    assert found.passed and found.accuracy is None and found.agreement is None
    gate = found.outputs
    assert gate is not None and gate.count == COUNT
    assert [each.name for each in gate.outputs] == ["stage1", "stage2"]
    assert all(each.sqnr_db > 30 and each.cosine > 0.999 for each in gate.outputs)
    if target == "tflite":
        assert all(each.sqnr_db == 200 for each in gate.outputs)
    assert found.result["accuracy"] is None
    assert found.result["latency_us"]["invoke"]["count"] == COUNT
    written = json.loads((tmp_path / "v.json").read_text())
    assert written["output_gate"]["against"] == "the quantized program" and written["passed"]
    samples = load_file(kept)["samples"]
    assert samples.shape == (COUNT, 2 * FEATURE_SAMPLES)


def test_a_subset_is_compared_with_the_same_images(run_folder: Path, folder: Path) -> None:
    images = edgevit.ImageFolder(folder, like=RULES, labelled=False)
    found = edgevit.validate(run_folder / "tflite", images, limit=5)
    assert found.outputs is not None and found.outputs.count == 5
    assert all(each.sqnr_db == 200 for each in found.outputs.outputs)


@pytest.mark.parametrize(
    ("options", "decibels"), [({"weights_only": "on"}, 30.0), ({"precision": "float32"}, 60.0)]
)
def test_what_computes_in_floats_is_compared_with_the_weights_alone(
    options: dict[str, str], decibels: float, program: Path, folder: Path, tmp_path: Path
) -> None:
    """LiteRT's kernels of int8 weights round the activations of each image on the way."""
    load_target("tflite").compile(Program.load(program), tmp_path / "tflite", **options)
    asked = ValidateOptions(program=program, min_sqnr=decibels)
    found = validate(HarnessRequest(tmp_path / "tflite", folder, limit=4), asked)
    assert found.outputs is not None and "weights in float32" in found.outputs.against


def test_an_artifact_of_another_net_fails_by_name(
    run_folder: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference is moved a little in the second output alone: only that one is named low."""
    kept = TASK.kept

    def moved(self: Any, outputs: Any) -> Any:
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(outputs[1].shape, generator=generator) * outputs[1].std()
        return kept((outputs[0], outputs[1] + noise))

    monkeypatch.setattr(type(TASK), "kept", moved)
    request = HarnessRequest(run_folder / "tflite", folder)
    with pytest.raises(GateFailed, match=r"stage1: SQNR 200.0 dB.*stage2: SQNR -?\d\.") as error:
        validate(request, out=tmp_path / "v.json")
    assert error.value.result.outputs.outputs[1].sqnr_db < 10
    assert not json.loads((tmp_path / "v.json").read_text())["passed"]


def test_an_output_may_have_a_limit_of_its_own(
    run_folder: Path, folder: Path, tmp_path: Path
) -> None:
    float_form = tmp_path / "tflite"
    load_target("tflite").compile(
        Program.load(run_folder / "m.evq"), float_form, precision="float32"
    )
    asked = (
        "validate", float_form, "--program", run_folder / "m.evq", "--data", folder, "--limit", 3,
        "--force", "--min-sqnr", 50,
    )  # fmt: skip
    assert run(*asked, "--min-sqnr-of", "stage1=60").exit_code == 0
    failing = run(*asked, "--min-sqnr-of", "stage2=199.5")
    assert isinstance(failing.exception, GateFailed)
    assert "at least 50.0 dB (stage2: 199.5 dB)" in str(failing.exception)


def test_the_command_says_each_output_and_ends_with_3(run_folder: Path, folder: Path) -> None:
    asked = ("validate", run_folder / "onnx", "--data", folder, "--force")
    result = run(*asked)
    assert result.exit_code == 0, result.output
    assert "stage1: SQNR" in result.stdout and "stage2: SQNR" in result.stdout
    assert "top-1" not in result.stdout and "invoke p50" in result.stdout
    failing = run(*asked, "--min-agreement", 101)  # both are exact: nothing less fails
    assert isinstance(failing.exception, GateFailed) and failing.exception.exit_code == 3
    assert proof_of(run_folder / "onnx").passed is False
    assert run(*asked, "--no-gate").exit_code == 0
    assert proof_of(run_folder / "onnx").problem == "no gate"


def test_the_report_lists_every_output(run_folder: Path, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(run_folder / "tflite", tmp_path / "tflite")
    shutil.copy(run_folder / "m.evq", tmp_path)
    validate(HarnessRequest(tmp_path / "tflite", folder), force=True)
    assert proof_of(tmp_path / "tflite").passed
    report = write_report(tmp_path)
    (row,) = (row for row in report["rows"] if row["name"] == "artifact tflite")
    assert row["passed"] and row["top1"] is None and row["images"] == COUNT
    assert row["program_agreement"] == 100
    page = (tmp_path / "report.html").read_text()
    assert "<td>stage2<td class=n>200.0<td class=n>1.0000" in page
    assert "Outputs against float" in page and page.count("<td>stage1") == 2


def test_a_tar_with_a_broken_image_and_odd_names_in_a_long_run(
    run_folder: Path, folder: Path, tmp_path: Path
) -> None:
    """What is left out here is left out by the harness; rows are found by their names."""
    path = tmp_path / "some.tar"
    with tarfile.open(path, "w") as archive:
        for i, name in enumerate(["a b.png", "ü/ß.png", "train/x.png", "plain.png"]):
            archive.add(folder / f"{4 * i:02d}.png", name)
        broken = tarfile.TarInfo("broken.png")
        broken.size = 40
        archive.addfile(broken, io.BytesIO((folder / "00.png").read_bytes()[:40]))
    request = HarnessRequest(run_folder / "tflite", path, duration_s=0.5)
    with pytest.raises(InputError, match="broken.png"):
        validate(request, out=tmp_path / "v.json")
    found = validate(request, ValidateOptions(skip_broken=True), out=tmp_path / "v.json")
    assert found.outputs is not None and found.outputs.count == 4
    assert [each.sqnr_db for each in found.outputs.outputs] == [200, 200]
    assert found.result["long_run"]["samples"] >= 4


def test_over_ssh_the_same_images_are_run(
    run_folder: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sshd = start_sshd(tmp_path / "sshd")
    monkeypatch.setenv("PATH", f"{sshd.folder / 'bin'}:{os.environ['PATH']}")
    try:
        found = validate(
            HarnessRequest(run_folder / "tflite", folder),
            ValidateOptions(device=sshd.address),
            out=tmp_path / "v.json",
        )
    finally:
        sshd.close()
    assert found.device == "ssh" and found.outputs is not None
    assert [each.sqnr_db for each in found.outputs.outputs] == [200, 200]


def test_what_is_in_no_file_is_validated_too(program: Path, tmp_path: Path) -> None:
    """A sequence of arrays, and a program that was compiled in this process and never saved."""
    random = np.random.default_rng(2)
    pictures = [random.integers(0, 256, (64, 48, 3), dtype=np.uint8) for _ in range(6)]
    artifact = Program.load(program).compile("tflite", tmp_path / "tflite")
    found = edgevit.validate(artifact, pictures)
    assert found.outputs is not None and found.outputs.count == 6
    assert found.outputs.outputs[0].sqnr_db == 200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_drop": 1.0}, "has no classes for --max-drop; its gates are --min-sqnr"),
        ({"early_stop": True}, "has no classes for --early-stop"),
        ({"gate": False, "min_sqnr": 3.0}, "--min-sqnr is a gate's; --no-gate has none"),
        ({"min_cosine": 2.0}, "--min-cosine"),
        ({"min_sqnr_of": {"stage7": "3"}}, "no output 'stage7'; the outputs are stage1, stage2"),
        ({"min_sqnr_of": {"stage2": "many"}}, "'many' is no number from -100 to 200"),
        ({"min_sqnr_of": {"stage2": "3"}, "gate": False}, "--min-sqnr-of is a gate's"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    options: dict[str, Any], message: str, run_folder: Path, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        validate(
            HarnessRequest(run_folder / "tflite", folder),
            ValidateOptions(**options),
            out=tmp_path / "v.json",
        )
    assert not (tmp_path / "v.json").exists()


def test_without_the_program_there_is_nothing_to_gate_on(
    run_folder: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = shutil.copytree(run_folder / "tflite", tmp_path / "deep" / "alone")
    request = HarnessRequest(alone, folder)
    with pytest.raises(InputError, match=r"the program is not beside it.*--program M\.evq"):
        validate(request, force=True)
    other = tmp_path / "other.evq"
    other.write_bytes(b"another")
    with pytest.raises(InputError, match="was not compiled from"):
        validate(request, ValidateOptions(program=other), force=True)
    found = validate(request, ValidateOptions(gate=False), force=True)
    assert found.outputs is None and found.passed
    named = validate(request, ValidateOptions(program=run_folder / "m.evq"), force=True)
    assert named.outputs is not None
    monkeypatch.setattr(outputs_module, "MAX_SAMPLE_BYTES", 5 * 2 * FEATURE_SAMPLES * 4)
    with pytest.raises(InputError, match=r"run 5 images or fewer \(--limit\)"):
        validate(request, force=True)
    asked = replace(request, limit=5)
    assert validate(asked, ValidateOptions(program=run_folder / "m.evq"), force=True).passed


def test_a_classifier_has_no_gate_of_outputs(run_folder: Path, folder: Path) -> None:
    from tests.programs import make_program

    artifact = make_program().compile("tflite", run_folder / "classes", force=True)
    with pytest.raises(InputError, match="gate features; this artifact answers with classes"):
        validate(HarnessRequest(artifact.folder, folder), ValidateOptions(min_sqnr=3.0))
