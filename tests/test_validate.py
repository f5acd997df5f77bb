"""`edgevit validate` and `edgevit report` on a real artifact, through the real harness."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from edgevit.data.images import ImageSet, Preprocessing
from edgevit.errors import GateFailed, InputError
from edgevit.measure.report.page import collect, write_report
from edgevit.measure.request import GateLimits, HarnessRequest, ValidateOptions
from edgevit.measure.validate import validate
from edgevit.program import Program, Reference
from edgevit.targets import load_target
from edgevit.targets.manifest import Manifest
from tests.image_sets import subset
from tests.programs import real_images, trained_program
from tests.sshd import start_sshd

EVERY = 8


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, embedded_val: Path) -> Path:
    """125 images of the embedded set."""
    return subset(embedded_val, tmp_path_factory.mktemp("images") / "val.tar", EVERY)


@pytest.fixture(scope="module")
def program(
    tmp_path_factory: pytest.TempPathFactory,
    embedded_checkpoint: Path,
    embedded_train: Path,
    images: Path,
) -> Path:
    """The trained net with max-abs scales and its logits on the images recorded."""
    from edgevit.models.checkpoint import load

    made = trained_program(embedded_checkpoint, real_images(embedded_train, 16, 64), "portable")
    source = ImageSet.open(images)
    preprocessing = Preprocessing(64)
    pixels = preprocessing.normalise(source.pixels(range(len(source)), preprocessing))
    net = load(embedded_checkpoint).model.fuse()
    with torch.no_grad():
        float_logits = net(pixels).numpy()
    reference = Reference(
        made.run(pixels).numpy(),
        tuple(name for name, _ in source.entries),
        source.sha256,
        float_logits,
    )
    info = replace(made.info, labels=tuple(source.classes))
    path = tmp_path_factory.mktemp("program") / "m.evq"
    made.with_info(info, reference).save(path)
    return path


@pytest.fixture
def artifact(tmp_path: Path, program: Path) -> Path:
    folder = tmp_path / "run" / "tflite"
    load_target("tflite").compile(Program.load(program), folder)
    shutil.copy(program, tmp_path / "run")
    return folder


def test_a_good_artifact_passes_and_the_report_shows_it(
    artifact: Path, program: Path, images: Path
) -> None:
    found = validate(
        HarnessRequest(artifact, images), ValidateOptions(max_drop=5.0, min_agreement=95.0)
    )
    assert found.passed and found.compared_with == "float"
    assert found.result["accuracy"]["count"] == 125
    assert found.result["accuracy"]["top1_percent"] == pytest.approx(found.accuracy.top1)
    assert found.result["agreement"]["top1_percent"] == pytest.approx(found.agreement.agreement)
    baseline = artifact.parent / "float"
    load_target("tflite").compile(Program.load(program), baseline, precision="float32")
    floats = validate(HarnessRequest(baseline, images), ValidateOptions(gate=False))
    # The program's weights without activation quantizers: weights of 8 bits cost next to nothing.
    assert floats.result["agreement_float"]["top1_count"] == 125
    report = write_report(artifact.parent)
    assert report["passed"]
    gates = {row["name"]: row["passed"] for row in report["rows"]}
    # Measured without a gate is not "passed".
    assert gates == {"artifact float": None, "artifact tflite": True}
    page = (artifact.parent / "report.html").read_text()
    assert "passed" in page and f"{found.accuracy.top1:.2f}" in page
    with pytest.raises(InputError, match="--force"):
        write_report(artifact.parent)


def test_a_gate_that_fails_writes_its_figures_and_says_which(artifact: Path, images: Path) -> None:
    with pytest.raises(GateFailed, match=r"accuracy against float.*allowed -50.00"):
        validate(HarnessRequest(artifact, images), ValidateOptions(max_drop=-50.0))
    written = json.loads((artifact / "validation.json").read_text())
    assert written["passed"] is False and len(written["failures"]) >= 1
    report = collect(artifact.parent)
    assert report["passed"] is False
    # Its own file is replaced, another's is not.
    (artifact / "validation.json").write_text('{"kind": "mine"}')
    with pytest.raises(InputError, match="--force"):
        validate(HarnessRequest(artifact, images))
    (artifact / "validation.json").write_text(json.dumps(written))
    with pytest.raises(GateFailed, match="agreement with the program is"):
        validate(
            HarnessRequest(artifact, images),
            ValidateOptions(max_drop=100.0, min_agreement=100.1),
        )


def test_other_images_need_the_program(
    artifact: Path, program: Path, embedded_train: Path, tmp_path: Path
) -> None:
    source = ImageSet.open(embedded_train)
    other = tmp_path / "other"
    for i in range(0, len(source), 100):
        path = other / source.entries[i][0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.read_bytes(i))
    with pytest.raises(InputError, match="--program"):
        validate(HarnessRequest(artifact, other))
    assert not (artifact / "validation.json").exists()
    found = validate(
        HarnessRequest(artifact, other),
        ValidateOptions(program=program, max_drop=10.0, min_agreement=80.0),
    )
    assert found.compared_with == "the quantized program"
    assert found.agreement.count == 16
    measured = validate(HarnessRequest(artifact, other), ValidateOptions(gate=False), force=True)
    assert measured.accuracy is None and measured.passed
    changed = tmp_path / "changed.evq"
    Program.load(program).with_info(Program.load(program).info).save(changed)
    with pytest.raises(InputError, match="was not compiled from"):
        validate(HarnessRequest(artifact, other), ValidateOptions(program=changed), force=True)


def test_an_artifact_that_was_changed_is_refused(artifact: Path, images: Path) -> None:
    model = artifact / "model.tflite"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    with pytest.raises(InputError, match="sha256"):
        validate(HarnessRequest(artifact, images))
    assert not (artifact / "validation.json").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"kind": 1, "kind": 2}', "a key occurs twice"),
        (b'{"schema_version": NaN}', "NaN is not JSON"),
        (b'{"target": "tflite"}', "top level: .* is a required property"),
        (b"[1]", "is not of type 'object'"),
        (b" " * 5000, "is too large for a manifest"),
    ],
)
def test_validate_report_and_the_targets_refuse_the_same_manifests(
    text: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = max(len(text.strip()), 4096)
    monkeypatch.setattr("edgevit.targets.manifest.MAX_MANIFEST_BYTES", limit)
    folder = tmp_path / "run" / "tflite"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_bytes(text)
    for read in (Manifest.load, lambda f: validate(HarnessRequest(f, tmp_path)), collect):
        with pytest.raises(InputError, match=f"manifest.json.*{message}"):
            read(folder)


def test_logits_are_compared_image_by_image_not_by_position(artifact: Path, images: Path) -> None:
    """A limited run compares each of its images with that image's own row of the reference."""
    whole = validate(HarnessRequest(artifact, images), ValidateOptions(gate=False), force=True)
    part = validate(
        HarnessRequest(artifact, images, limit=40),
        ValidateOptions(max_drop=100.0, min_agreement=90.0),
        force=True,
    )
    assert part.agreement.count == 40
    assert part.result["agreement"]["count"] == 40
    assert part.agreement.agreement >= 90
    assert whole.result["agreement"]["count"] == 125
    assert np.isfinite(whole.result["agreement"]["mean_abs_logit"])


def test_the_requests_files_are_written_and_its_reference_is_gated_on(
    artifact: Path, images: Path, tmp_path: Path
) -> None:
    recorded = artifact / Manifest.load(artifact).reference.file
    reference = Path(shutil.copy(recorded, tmp_path / "r.safetensors"))
    request = HarnessRequest(artifact, images, logits=tmp_path / "l", profile=tmp_path / "p.json")
    limits = ValidateOptions(max_drop=5.0, min_agreement=95.0)
    found = validate(request, limits)
    assert len(load_file(tmp_path / "l")["logits"]) == 125
    assert json.loads((tmp_path / "p.json").read_text())["kind"] == "edgevit-profile"
    with pytest.raises(InputError, match="--force"):
        validate(request, limits, out=tmp_path / "v.json")
    named = validate(HarnessRequest(artifact, images, reference=reference), limits, force=True)
    assert (named.accuracy, named.agreement) == (found.accuracy, found.agreement)
    with pytest.raises(InputError, match="ask for it with early_stop"):
        validate(HarnessRequest(artifact, images, early_stop=GateLimits(1, 99)), force=True)


def test_an_early_stop_says_what_the_whole_run_says(
    artifact: Path, images: Path, tmp_path: Path
) -> None:
    whole = validate(
        HarnessRequest(artifact, images), ValidateOptions(max_drop=100.0, min_agreement=0.0)
    )
    same, count = whole.result["agreement"]["top1_count"], 125
    # Two of three agreeing are enough, whatever comes after them.
    limits = {"max_drop": 100.0, "min_agreement": 100.0 * (2 * same // 3) / count}
    early = validate(
        HarnessRequest(artifact, images),
        ValidateOptions(early_stop=True, **limits),
        out=tmp_path / "e.json",
    )
    stop = early.result["early_stop"]
    assert stop["stopped"] and stop["verdict"] == "holds" and early.passed
    assert early.result["accuracy"]["count"] == stop["images_run"] < count
    # The gate counts the rest as wrong: its figures bound those of the whole run.
    assert early.agreement.count == count
    assert limits["min_agreement"] <= early.agreement.agreement <= whole.agreement.agreement
    assert early.accuracy.drop >= whole.accuracy.drop
    with pytest.raises(GateFailed, match="agreement with the program"):
        validate(
            HarnessRequest(artifact, images),
            ValidateOptions(early_stop=True, max_drop=100.0, min_agreement=100.1),
            out=tmp_path / "f.json",
        )
    failed = json.loads((tmp_path / "f.json").read_text())["result"]
    assert failed["early_stop"]["verdict"] == "fails" and failed["accuracy"]["count"] == 1
    with pytest.raises(InputError, match="--no-gate has none"):
        validate(
            HarnessRequest(artifact, images),
            ValidateOptions(early_stop=True, gate=False),
            force=True,
        )


def test_a_long_run_with_the_real_runtime_over_ssh(
    artifact: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LiteRT's library, harness, artifact and images go to a real sshd and run there."""
    sshd = start_sshd(tmp_path / "sshd")
    monkeypatch.setenv("PATH", f"{sshd.folder / 'bin'}:{os.environ['PATH']}")
    limits = {"max_drop": 5.0, "min_agreement": 95.0}
    local = validate(HarnessRequest(artifact, images), ValidateOptions(**limits))
    try:
        there = validate(
            HarnessRequest(artifact, images, duration_s=3.0, bucket_s=1.0),
            ValidateOptions(device=sshd.address, **limits),
            out=tmp_path / "there.json",
        )
        with pytest.raises(InputError, match="--plan-cache names a folder of this machine"):
            validate(
                HarnessRequest(artifact, images, runtime_options={"plan_cache": str(tmp_path)}),
                ValidateOptions(device=sshd.address),
                force=True,
            )
    finally:
        sshd.close()
    written = json.loads((tmp_path / "there.json").read_text())
    assert (local.to_json()["device"], written["device"]) == ("local", "ssh")
    for name in ("accuracy", "agreement", "agreement_float", "dataset", "artifact"):
        assert there.result[name] == local.result[name]
    # The version is read from the wheel around the library, which stays here.
    assert there.result["runtime"] == local.result["runtime"] | {"version": None}
    run = there.result["long_run"]
    assert run["duration_s"] >= 3 and run["samples"] > 125 and len(run["buckets"]) >= 3
    assert there.accuracy == local.accuracy and there.agreement == local.agreement


def test_answers_that_stay_in_the_program_are_found_there(
    program: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgevit.targets.artifact.MAX_COPIED_REFERENCE_BYTES", 0)
    folder, limits = tmp_path / "run" / "tflite", {"max_drop": 5.0, "min_agreement": 95.0}
    load_target("tflite").compile(Program.load(program), folder)
    assert sorted(os.listdir(folder)) == ["manifest.json", "model.tflite"]
    with pytest.raises(InputError, match="--program"):
        validate(HarnessRequest(folder, images), ValidateOptions(**limits))
    given = validate(HarnessRequest(folder, images), ValidateOptions(program=program, **limits))
    beside = shutil.copy(program, tmp_path / "run")
    found = validate(HarnessRequest(folder, images), ValidateOptions(**limits), force=True)
    for each in (given, found):
        assert each.compared_with == "float" and each.result["agreement"]["count"] == 125
    assert (found.accuracy, found.agreement) == (given.accuracy, given.agreement)
    Path(beside).write_bytes(b"another program")
    with pytest.raises(InputError, match="--program"):
        validate(HarnessRequest(folder, images), ValidateOptions(**limits), force=True)
