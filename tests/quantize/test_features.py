"""The task features, from a checkpoint and a folder of images to artifacts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import save_file

import edgevit
from edgevit.cli import cli
from edgevit.data.images import ImageSet
from edgevit.errors import GateFailed, InputError
from edgevit.models.repvit import RepViT
from edgevit.program import Program
from edgevit.targets import load_target
from edgevit.targets.artifact import load_artifact
from tests.npu import OWN_FORMAT
from tests.programs import SMALL
from tests.random_nets import trained_looking

SIZE = "64x48"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in no class folder, and one in a folder of folders."""
    root = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for i in range(40):
        coarse = random.integers(0, 256, (6, 5, 3), dtype=np.uint8)
        path = root / (f"deep/er/{i:02d}.png" if i == 3 else f"{i:02d}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((60, 80), Image.Resampling.BICUBIC).save(path)
    return root


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    net = trained_looking(RepViT(replace(SMALL, num_classes=10)))
    path = tmp_path_factory.mktemp("net") / "net.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, path)
    return path


@pytest.fixture(scope="module")
def program(folder: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("program") / "m.evq"
    result = run(
        "quantize", checkpoint, "--task", "features", "--stages", "1,2", "--data", folder,
        "--image-size", SIZE, "--epochs", 2, "--batch-size", 8, "--calibration-images", 16,
        "--min-sqnr", 5, "--min-cosine", 0.8, "--evaluations", 2, "-o", out,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return out


def run(*arguments: object):
    return CliRunner().invoke(cli, [str(each) for each in arguments])


def test_a_folder_of_images_is_a_set_without_classes(folder: Path) -> None:
    images = ImageSet.open(folder, labelled=False)
    assert images.classes == [] and len(images) == 40 and not images.labels.any()
    assert list(images.names)[-1] == "deep/er/03.png" and images.empty == []
    with pytest.raises(InputError, match="in no class folder"):
        ImageSet.open(folder)
    holes = images.with_holes([("00.png", images.size_of(0))])
    assert len(holes.holes) == 1 and len(holes) == 40


def test_the_program_says_what_it_is(program: Path) -> None:
    info = Program.load(program).info
    assert info.task == "features" and info.labels == () and info.model.classes == 0
    metrics = {metric.name: metric.value for metric in info.metrics}
    assert {"ptq_cosine", "program_cosine", "program_stage2_sqnr_db"} <= set(metrics)
    assert 0.8 <= metrics["program_cosine"] <= 1
    graph = Program.load(program).graph()
    assert [graph.shape(output)[2:] for output in graph.outputs] == [(16, 12), (8, 6)]
    assert graph.public_names == ("stage1", "stage2")


@pytest.mark.parametrize("target", OWN_FORMAT)
def test_every_target_hands_over_every_output(
    target: str, program: Path, folder: Path, tmp_path: Path
) -> None:
    loaded = Program.load(program)
    manifest = load_target(target).compile(loaded, tmp_path / target)
    assert manifest.task == "features"
    assert [output.name for output in manifest.outputs] == ["stage1", "stage2"]
    result = run(
        "parity", tmp_path / target, "--program", program, "--data", folder,
        "--images", 8, "--layer-images", 2, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout).values()
    assert found["top1_percent"] is None
    assert [each["name"] for each in found["outputs"]] == ["stage1", "stage2"]
    for each in found["outputs"]:
        assert each["cosine"] > (0.9999 if target in ("tflite", "onnx") else 0.9)
        assert each["sqnr_db"] == 200 or target not in ("tflite", "onnx")
    table = run(
        "parity", tmp_path / target, "--program", program, "--data", folder, "--images", 4,
        "--layer-images", 1, "--force",
    )  # fmt: skip
    assert "stage2 " in table.stdout and "predictions" not in table.stdout


def test_a_square_map_of_as_many_channels_is_not_taken_for_another_layout(
    checkpoint: Path, folder: Path, tmp_path: Path
) -> None:
    """(1, C, C, C): its shape does not tell where the channels are."""
    width = edgevit.load(checkpoint).config.widths[0]
    images = edgevit.ImageFolder(folder, size=4 * width, labelled=False)
    result = edgevit.quantize(
        edgevit.load(checkpoint).features([0]), images, task="features", epochs=0,
        calibration_images=16, min_sqnr=0, min_cosine=0,
    )  # fmt: skip
    artifact = result.program.compile("tflite", tmp_path / "tflite")
    assert artifact.manifest.outputs[0].shape == (1, width, width, width)
    (found,) = artifact.parity(images, limit=4, layer_images=1).outputs
    assert found.sqnr_db == 200 and found.cosine == pytest.approx(1)


def test_images_may_stand_alone(checkpoint: Path) -> None:
    random = np.random.default_rng(1)
    pictures = [random.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(24)]
    images = edgevit.from_sequence(pictures, size=64, classes=())
    assert images.classes == [] and images.names[0] == "images/0000000.png"
    net = edgevit.load(checkpoint).features()
    result = edgevit.quantize(
        net, images, task="features", epochs=0, calibration_images=8, min_sqnr=-10, min_cosine=0
    )
    assert len(result.gate.outputs) == len(SMALL.widths)


def test_an_array_of_square_images_brings_its_size_along() -> None:
    pictures = np.random.default_rng(1).integers(0, 256, (9, 48, 48, 3), dtype=np.uint8)
    images = edgevit.from_sequence(pictures, classes=())
    assert images.preprocessing == edgevit.Preprocessing(48, 48)
    assert np.array_equal(images.pixels(range(9)), pictures)
    with pytest.raises(InputError, match="do not tell the network's input size"):
        edgevit.from_sequence(pictures[:, :32], classes=())
    with pytest.raises(InputError, match=r"item 0 is ndarray, expected \(image, class\)"):
        edgevit.from_sequence(pictures)


def test_a_gate_that_is_missed_names_the_outputs(checkpoint: Path, folder: Path) -> None:
    images = edgevit.ImageFolder(folder, size=64, labelled=False)
    with pytest.raises(GateFailed, match="stage2: SQNR .* at least 90.0 dB") as error:
        edgevit.quantize(
            edgevit.load(checkpoint).features(), images, task="features", epochs=0,
            calibration_images=8, min_sqnr=90,
        )  # fmt: skip
    assert error.value.result.program.info.task == "features"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--stages", "1,9"), r"stage 9 is none of .* it has the stages 1 to \d"),
        (("--stages", "1,1"), "each once"),
        (("--stages", "0"), "--stages"),
        (("--labels", "labels.txt"), "names classes, which the task features does not have"),
    ],
)
def test_bad_input_is_named(
    arguments: tuple[str, ...], message: str, checkpoint: Path, folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.txt").write_text("a\nb\n")
    result = run(
        "quantize", checkpoint, "--task", "features", "--data", folder, "--image-size", 64,
        "--epochs", 0, "-o", tmp_path / "m.evq", *arguments,
    )  # fmt: skip
    assert result.exit_code != 0
    assert pytest.raises(Exception, match=message).matches(result.exception) or (
        result.exit_code == 2 and message.strip("-") in result.output
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.txt"]


def test_what_speaks_of_classes_says_that_there_are_none(
    program: Path, folder: Path, tmp_path: Path
) -> None:
    load_target("tflite").compile(Program.load(program), tmp_path / "tflite")
    result = run("run", tmp_path / "tflite", folder / "00.png")
    assert isinstance(result.exception, InputError)
    assert "its task is features" in str(result.exception)
    assert "edgevit parity" in str(result.exception)
    assert load_artifact(tmp_path / "tflite").manifest.model.classes == 0


def test_a_task_that_nobody_knows_is_refused(program: Path) -> None:
    info = Program.load(program).info
    with pytest.raises(InputError, match="task 'juggling' is not one of classification, features"):
        replace(info, task="juggling")
