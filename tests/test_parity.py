"""`edgevit parity` and `edgevit run`: artifacts against their program, on real runtimes."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from edgevit.commands.parity import parity_command
from edgevit.commands.run import run_command
from edgevit.data.images import ImageSet
from edgevit.errors import GateFailed, InputError
from edgevit.files import sha256_file
from edgevit.measure.parity import _Difference, check_agreement, compare
from edgevit.measure.report.page import collect
from edgevit.ops import Quantizer
from edgevit.program import Program
from edgevit.targets import load_target
from tests.image_sets import subset
from tests.programs import real_images, trained_program


@dataclass(frozen=True)
class Build:
    """A run folder: m.evq, tflite/, coreml/ (float16 image input), exact/ (float32 tensor)."""

    folder: Path
    program: Program
    images: Path


@pytest.fixture(scope="module")
def build(
    tmp_path_factory: pytest.TempPathFactory, embedded_checkpoint: Path, embedded_val: Path
) -> Build:
    folder = tmp_path_factory.mktemp("build")
    images = real_images(embedded_val, 64, 64)
    program = trained_program(embedded_checkpoint, images, "portable")
    labels = tuple(ImageSet.open(embedded_val).classes)
    program = program.with_info(replace(program.info, labels=labels))
    program.save(folder / "m.evq")
    load_target("tflite").compile(program, folder / "tflite")
    coreml = load_target("coreml")
    coreml.compile(program, folder / "coreml")
    exact = {"compute_precision": "float32", "input_type": "tensor"}
    coreml.compile(program, folder / "exact", **exact)
    return Build(folder, program, subset(embedded_val, folder / "images.tar", 20))


def parity(build: Build, *arguments: object) -> Result:
    given = ["--data", build.images, "--layer-images", 2, "--force", *arguments]
    return CliRunner().invoke(parity_command, [str(a) for a in given])


def test_the_exact_package_is_the_program_in_every_layer(build: Build) -> None:
    found = compare(
        build.folder / "exact", build.images, layer_images=4, force=True,
        arithmetic="float32", rounding="fused",
    )  # fmt: skip
    assert [row.name for row in found.layers] == list(build.program.graph().activations())
    assert found.first_departure is None and found.agreement_percent == 100
    assert all(row.max_steps == 0 and row.sqnr_db is None for row in found.layers)
    assert found.images == 50 and found.top1_percent == found.program_top1_percent > 50


def test_two_targets_stand_side_by_side(build: Build) -> None:
    result = parity(build, build.folder / "tflite", build.folder / "coreml", "--images", 20)
    assert result.exit_code == 0, result.output
    assert "XNNPACK" in result.stdout and "reference interpreter, float16" in result.stdout
    assert "tflite" in result.stdout and "SQNR dB" in result.stdout
    names = list(build.program.graph().activations())
    for target in ("tflite", "coreml"):
        written = json.loads((build.folder / target / "parity.json").read_text())
        assert [row["name"] for row in written["layers"]] == names
        assert written["kind"] == "edgevit-parity" and written["images"] == 20
        assert written["program_sha256"] == build.program.sha256
    rounded = json.loads((build.folder / "coreml" / "parity.json").read_text())
    assert rounded["layers"][0]["max_steps"] == 0, "the input is exact"
    assert rounded["first_departure"] == next(
        row["name"] for row in rounded["layers"] if row["max_steps"]
    )


def test_json_holds_every_artifact(build: Build) -> None:
    result = parity(build, build.folder / "coreml", "--images", 4, "--json")
    found = json.loads(result.stdout)
    assert found[str(build.folder / "coreml")]["images"] == 4


def test_a_gate_below_which_the_exit_code_is_3(build: Build) -> None:
    folder = build.folder / "exact"
    given = ["--images", 4, "--rounding", "fused", "--min-agreement", 100]
    assert parity(build, folder, *given).exit_code == 0
    found = compare(folder, build.images, images=4, layer_images=1, force=True)
    check_agreement({"exact": found}, 100)
    worse = replace(found, agreement_percent=75.0)
    check_agreement({"exact": worse}, None)
    with pytest.raises(GateFailed, match=r"exact: 75.00 % of 4 predictions") as error:
        check_agreement({"exact": worse}, 75.1)
    # A target's stated tolerance is one of predictions: outputs without classes have none.
    npu = replace(worse, target="qnn")
    with pytest.raises(GateFailed, match=r"at least 98\.00 % are asked for"):
        check_agreement({"npu": npu}, None)
    check_agreement({"npu": replace(npu, top1_percent=None)}, None)
    assert error.value.exit_code == 3


def test_an_artifact_that_computes_no_numbers_is_refused(
    build: Build, tmp_path: Path, photos: list[Path]
) -> None:
    """NaN is equal to nothing, and above no bound: a maximum passes over it."""
    folder = tmp_path / "nan"
    load_target("tflite").compile(build.program, folder, precision="float32")
    node = next(node for node in build.program.graph().weighted())
    path = folder / "model.tflite"
    data, bias = path.read_bytes(), np.asarray(node.int8.bias, np.float32).tobytes()
    assert data.count(bias) == 1
    path.write_bytes(data.replace(bias, np.full(len(bias) // 4, np.nan, np.float32).tobytes()))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["artifact"]["sha256"] = sha256_file(path)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="not finite"):
        compare(folder, build.images, program=build.folder / "m.evq", layer_images=1, images=1)
    assert not (folder / "parity.json").exists()
    for more in ((), ("--json",)):
        result = CliRunner().invoke(run_command, [str(folder), str(photos[0]), *more])
        assert isinstance(result.exception, InputError) and "not finite" in str(result.exception)


def test_differences_are_counted_in_steps_and_decibels() -> None:
    total = _Difference(Quantizer(0.5, 3))
    expected = np.array([[3, 13, -7]], np.int8)  # 0, 5 and -5 in real values
    total.add(np.array([[3, 13, -6]], np.int8), expected)
    layer = total.layer("x", "add")
    assert (layer.values, layer.max_steps) == (3, 1.0)
    assert layer.differing_percent == pytest.approx(100 / 3)
    assert layer.sqnr_db == pytest.approx(10 * np.log10(200 / 1))
    real = _Difference(Quantizer(0.5, 3))
    real.add(np.array([[0.0, 5.0, -4.5]], np.float32), expected)
    assert real.layer("x", "add") == layer


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda folder: (folder / "model.mlpackage/Manifest.json").write_text("{}"), "sha256"),
        (lambda folder: (folder / "manifest.json").unlink(), "no manifest.json"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "manifest.json"),
        (lambda folder: shutil.rmtree(folder / "model.mlpackage"), "cannot be read"),
    ],
)
def test_an_artifact_that_is_not_whole_is_refused(
    build: Build, tmp_path: Path, change: Any, match: str
) -> None:
    folder = tmp_path / "coreml"
    shutil.copytree(build.folder / "coreml", folder)
    (folder / "parity.json").unlink(missing_ok=True)
    change(folder)
    with pytest.raises(InputError, match=match) as error:
        compare(folder, build.images, program=build.folder / "m.evq")
    assert error.value.exit_code == 2
    assert not (folder / "parity.json").exists()


def test_the_program_is_found_beside_the_folder_or_asked_for(build: Build, tmp_path: Path) -> None:
    shutil.copytree(build.folder / "coreml", tmp_path / "a" / "b" / "coreml")
    with pytest.raises(InputError, match="--program M.evq"):
        compare(tmp_path / "a" / "b" / "coreml", build.images, out=tmp_path / "p.json")
    other = tmp_path / "other.evq"
    other.write_bytes((build.folder / "m.evq").read_bytes() + b"x")
    with pytest.raises(InputError, match="was not compiled from"):
        compare(build.folder / "coreml", build.images, program=other, out=tmp_path / "p.json")


def test_parity_is_not_overwritten_unasked(build: Build, tmp_path: Path) -> None:
    out = tmp_path / "parity.json"
    out.write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        compare(build.folder / "coreml", build.images, out=out)
    assert out.read_text() == "mine"


def test_an_option_of_another_target_is_refused(build: Build) -> None:
    with pytest.raises(InputError, match="--rounding is not an option of tflite"):
        compare(build.folder / "tflite", build.images, force=True, rounding="division")
    result = parity(build, build.folder / "tflite", "--rounding", "division")
    assert isinstance(result.exception, InputError) and result.exception.exit_code == 2
    assert "--rounding is not an option of tflite; it is one of coreml" in str(result.exception)
    # Together with a target that has it, the other one goes without.
    both = parity(build, build.folder / "tflite", build.folder / "coreml", "--images", 2,
                  "--rounding", "reciprocal")  # fmt: skip
    assert both.exit_code == 0, both.output


def test_the_report_shows_what_no_harness_ran_here(build: Build) -> None:
    compare(build.folder / "coreml", build.images, layer_images=1, force=True)
    for odd in ("exact", "tflite", "other"):
        shutil.rmtree(build.folder / odd, ignore_errors=True)
    report = collect(build.folder)
    (row,) = [row for row in report["rows"] if "coreml" in row["name"]]
    assert row["name"] == "artifact coreml (not by its runtime)"
    assert row["images"] == 50 and row["program_agreement"] and row["passed"] is None
    assert row["invoke_p50_us"] is None


# -- run ------------------------------------------------------------------------------------------


@pytest.fixture
def photos(embedded_val: Path, tmp_path: Path) -> list[Path]:
    images = ImageSet.open(embedded_val)
    paths = []
    for index in (0, 500):
        path = tmp_path / f"{index}.jpg"
        path.write_bytes(images.read_bytes(index))
        paths.append(path)
    return paths


def test_run_says_what_is_in_a_picture(
    tmp_path: Path, photos: list[Path], embedded_checkpoint: Path, embedded_val: Path
) -> None:
    images = real_images(embedded_val, 32, 64)
    program = trained_program(embedded_checkpoint, images, "portable")
    for target, options in (("tflite", {}), ("coreml", {"output_type": "classifier"})):
        folder = tmp_path / target
        load_target(target).compile(program, folder, **options)
        arguments = [folder, *photos, "--top-k", 2, "--json"]
        result = CliRunner().invoke(run_command, [str(a) for a in arguments])
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)["images"]
        truth = ImageSet.open(embedded_val).entries
        for path, index in zip(photos, (0, 500)):
            best, second = found[str(path)]
            assert best["label"] == f"class {truth[index][1]}"
            assert 1 >= best["probability"] > second["probability"] >= 0
        plain = CliRunner().invoke(run_command, [str(folder), str(photos[0])])
        assert f"{photos[0]}: class {truth[0][1]}" in plain.stdout


def test_run_refuses_what_it_cannot_read(tmp_path: Path, photos: list[Path]) -> None:
    foreign = tmp_path / "foreign.mlpackage"
    foreign.mkdir()
    result = CliRunner().invoke(run_command, [str(foreign), str(photos[0])])
    assert isinstance(result.exception, InputError)
    assert "not an artifact folder" in str(result.exception)
