"""The Python API: what `import edgevit` offers."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgevit
from edgevit.errors import InputError
from tests.image_sets import subset
from tests.programs import real_images, trained_program

ROOT = Path(__file__).resolve().parent.parent


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture(scope="module")
def val(tmp_path_factory: pytest.TempPathFactory, embedded_val: Path) -> edgevit.ImageFolder:
    tar = subset(embedded_val, tmp_path_factory.mktemp("val") / "val.tar", 50)
    return edgevit.ImageFolder(tar, size=64)


@pytest.fixture(scope="module")
def program(
    embedded_checkpoint: Path, embedded_val: Path, val: edgevit.ImageFolder
) -> edgevit.Program:
    found = trained_program(embedded_checkpoint, real_images(embedded_val, 16, 64), "portable")
    info = replace(found.info, labels=tuple(val.classes), preprocessing=val.preprocessing)
    return found.with_info(info)


@pytest.fixture(scope="module")
def artifact(
    program: edgevit.Program, tmp_path_factory: pytest.TempPathFactory
) -> edgevit.Artifact:
    return program.compile("tflite", tmp_path_factory.mktemp("build") / "tflite")


def test_every_public_name_is_there_and_no_other() -> None:
    for name in edgevit.__all__:
        assert getattr(edgevit, name) is not None
    assert len(set(edgevit.__all__)) == len(edgevit.__all__)
    assert set(edgevit.__all__) <= set(dir(edgevit))
    homes = {name for names in edgevit._MODULES.values() for name in names}
    assert homes | {"__version__", "quantize"} == set(edgevit.__all__)
    with pytest.raises(AttributeError, match="no attribute 'quantise'"):
        edgevit.quantise  # noqa: B018
    assert (Path(edgevit.__file__).parent / "py.typed").exists()


def test_names_are_imported_when_they_are_used() -> None:
    found = run(
        "import sys, edgevit; before = set(sys.modules); edgevit.ImageFolder;"
        "print(*(set(sys.modules) - before)); print('torch' in sys.modules)"
    ).splitlines()
    assert "edgevit.data.source" in found[0].split() and found[1] == "False"


@pytest.mark.parametrize("before", ["", "import edgevit.quantize.options;"])
def test_quantize_is_the_function_whatever_is_imported_first(before: str) -> None:
    assert run(f"{before}import edgevit; print(callable(edgevit.quantize))").strip() == "True"


def test_load_gives_the_net_and_what_it_was_loaded_from(embedded_checkpoint: Path) -> None:
    model = edgevit.load(embedded_checkpoint)
    assert model.checkpoint_info is not None
    assert model.checkpoint_info.variant == "repvit_m0_9" and not model.training
    with pytest.raises(InputError, match="repvit_m1_0"):
        edgevit.load(embedded_checkpoint, variant="repvit_m1_0")


def test_a_program_compiles_into_an_artifact(
    artifact: edgevit.Artifact, program: edgevit.Program, val: edgevit.ImageFolder
) -> None:
    found = artifact.parity(val, layer_images=2, limit=10)
    assert found.images == 10 and found.program_sha256 == program.sha256
    assert found.first_departure is None
    assert artifact.labels == val.classes and artifact.preprocessing == val.preprocessing
    assert not (artifact.folder / "parity.json").exists(), "a library writes what it is asked to"


def test_parity_of_images_in_memory(artifact: edgevit.Artifact, val: edgevit.ImageFolder) -> None:
    images = [(val.images.load_rgb(i), int(val.labels[i])) for i in range(4)]
    found = artifact.parity(images, layer_images=1)
    expected = artifact.parity(val, layer_images=1)
    assert found.images == 4 and found.agreement_percent == 100
    assert found.layers[0].values == expected.layers[0].values


def test_an_artifacts_outputs_are_the_programs(
    artifact: edgevit.Artifact, val: edgevit.ImageFolder, program: edgevit.Program
) -> None:
    expected = program.run(val.preprocessing.normalise(val.pixels(range(len(val))))).numpy()
    (name,) = (output.name for output in artifact.manifest.outputs)
    for images in (val, list(val.pixels(range(len(val)))), val.pixels(range(len(val)))):
        found = artifact.outputs(images)
        assert list(found) == [name] and np.array_equal(found[name], expected)
    with pytest.raises(InputError, match="is not an option of tflite"):
        artifact.outputs(val, compute_units="cpu")
    other = edgevit.from_sequence(val.pixels(range(3)), size=32, classes=())
    with pytest.raises(InputError, match="32"):
        artifact.outputs(other)


def test_images_that_are_not_the_programs_are_refused(
    artifact: edgevit.Artifact, val: edgevit.ImageFolder, tmp_path: Path
) -> None:
    other = edgevit.ImageFolder(val.path, 64, resize=72, mean=(0.5, 0.5, 0.5))
    with pytest.raises(InputError, match=r"resize_size 72 instead of 64, mean"):
        artifact.parity(other)
    with pytest.raises(InputError, match="other classes"):
        artifact.parity(edgevit.ImageFolder(val.path, like=val, classes=[*val.classes, "more"]))


def test_an_opened_artifact_classifies(
    artifact: edgevit.Artifact, val: edgevit.ImageFolder, program: edgevit.Program, tmp_path: Path
) -> None:
    opened = edgevit.open(artifact.folder)
    image = val.images.load_rgb(3)
    path = tmp_path / "photo.png"
    image.save(path)
    (first, second, _third) = opened.classify(path)
    assert first.probability >= second.probability > 0
    logits = program.run(val.preprocessing.normalise(val.pixels([3])))
    assert first.label == val.classes[int(logits.argmax())]
    several = opened.classify([str(path), image, np.asarray(image)], top_k=1)
    assert several == [[first]] * 3
    with pytest.raises(InputError, match=r"gone.png cannot be read"):
        opened.classify(tmp_path / "gone.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(InputError, match=r"text.png cannot be decoded"):
        opened.classify(tmp_path / "text.png")
    with pytest.raises(InputError, match="--top-k is 0"):
        opened.classify(path, top_k=0)
    with pytest.raises(InputError, match="--rounding"):
        opened.classify(path, rounding="reciprocal")


def test_parity_of_an_opened_artifact_needs_its_program(
    artifact: edgevit.Artifact, program: edgevit.Program, val: edgevit.ImageFolder, tmp_path: Path
) -> None:
    opened = edgevit.open(artifact.folder)
    with pytest.raises(InputError, match="never saved"):
        opened.parity(val)
    assert opened.parity(val, program=program, layer_images=1, limit=1).images == 1
    with pytest.raises(InputError, match="not compiled from this program"):
        opened.parity(val, program=program.with_info(replace(program.info, provenance={})))


def test_compile_takes_a_file_and_refuses_what_is_not_there(
    program: edgevit.Program, tmp_path: Path
) -> None:
    path = program.save(tmp_path / "m.evq")
    made = edgevit.compile(path, "tflite", tmp_path / "a", io="uint8")
    assert made.manifest.options["io"] == "uint8" and "tflite" in repr(made)
    with pytest.raises(InputError, match="exists already"):
        program.compile("tflite", tmp_path / "a")
    with pytest.raises(InputError, match="'abacus' is not one of"):
        program.compile("abacus", tmp_path / "b")
    with pytest.raises(InputError, match="not an artifact folder"):
        edgevit.open(tmp_path)


def test_a_small_picture_is_named(artifact: edgevit.Artifact, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "x.png")
    assert len(artifact.classify(tmp_path / "x.png", top_k=20)) == 10


@pytest.fixture(scope="module")
def recorded(
    program: edgevit.Program, val: edgevit.ImageFolder, tmp_path_factory: pytest.TempPathFactory
) -> edgevit.Artifact:
    """An artifact with the program's answers on `val`."""
    from edgevit.measure.validate import program_reference
    from edgevit.tasks import load_task

    reference = program_reference(program, val, load_task("classification"))
    known = program.with_info(program.info, reference)
    return known.compile("tflite", tmp_path_factory.mktemp("recorded") / "tflite")


def test_validate_runs_the_harness_and_gates(
    recorded: edgevit.Artifact, val: edgevit.ImageFolder, tmp_path: Path
) -> None:
    found = edgevit.validate(recorded.folder, val, max_drop=0.0, warmup=0)
    assert found.passed and found.gate is not None and found.gate.count == len(val)
    assert found.agreement is not None and found.agreement.agreement == 100
    assert not (recorded.folder / "validation.json").exists()
    out = tmp_path / "v.json"
    with pytest.raises(edgevit.GateFailed, match="allowed -100") as failed:
        edgevit.validate(recorded, val, max_drop=-100.0, out=out, warmup=0)
    assert failed.value.result.gate.count == len(val) and out.exists()
    with pytest.raises(InputError, match="exists already"):
        edgevit.validate(recorded, val, out=out)
    with pytest.raises(InputError, match="validate has no option wormup"):
        edgevit.validate(recorded, val, wormup=0)


def test_validate_takes_images_in_memory(
    artifact: edgevit.Artifact, program: edgevit.Program, val: edgevit.ImageFolder
) -> None:
    images = [(val.images.load_rgb(i), int(val.labels[i])) for i in range(6)]
    found = edgevit.validate(artifact, images, warmup=0)
    assert found.passed and found.result["accuracy"]["count"] == 6
    opened = edgevit.open(artifact.folder)
    with pytest.raises(InputError, match="nothing to gate on"):
        edgevit.validate(opened, images)
    assert edgevit.validate(opened, images, gate=False, warmup=0).gate is None
    assert edgevit.validate(opened, images, program=program, warmup=0).passed
