"""Nets with other inputs than a square of RGB, from quantize to the C++ harness."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from torch import nn

import edgevit
from edgevit.data.images import Preprocessing
from edgevit.errors import InputError
from edgevit.measure.request import HarnessRequest, ValidateOptions
from edgevit.measure.validate import validate
from edgevit.models.fuse import noise_images
from edgevit.models.repvit import count_macs, skeleton
from edgevit.models.variants import variant_config
from edgevit.program import Program
from edgevit.targets import load_target
from edgevit.targets.artifact import load_artifact
from tests.manifests.make import put

CLASSES, EACH = 3, 12
RULES = {
    "grey-96x64-letterbox": Preprocessing(
        (96, 64), interpolation="bilinear", resize="fit", antialias=False, channels="L",
        pad_color=(114,), pad_position="top-left",
    ),
    "rgba-exact": Preprocessing(
        (40, 56), resize="exact", channels="RGBA", mean=(0.5, 0.5, 0.5, 0.0),
        std=(0.25, 0.25, 0.25, 1.0),
    ),
    "bgr-area": Preprocessing((48, 64), (50, 70), "area", channels="BGR"),
}  # fmt: skip


def net_of(channels: int) -> nn.Module:
    torch.manual_seed(channels)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, CLASSES),
    ).eval()  # fmt: skip


def write_images(folder: Path, alpha: bool) -> Path:
    """Pictures of many shapes, tall and wide, large and small; JPEGs among them."""
    rng = np.random.default_rng(3)
    for label in range(CLASSES):
        (folder / f"c{label}").mkdir(parents=True)
        for i in range(EACH):
            height, width = (int(side) for side in rng.integers(20, 200, 2))
            colour = rng.integers(0, 256, 4 if alpha else 3)
            noise = rng.normal(0, 40, (height, width, len(colour)))
            picture = Image.fromarray(np.clip(colour + noise, 0, 255).astype(np.uint8))
            if i % 4 == 0:
                picture.convert("RGB").save(folder / f"c{label}/{i}.jpg")
            else:
                picture.save(folder / f"c{label}/{i}.png")
    return folder


@pytest.fixture(scope="module", params=RULES)
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, Program]:
    """A folder to work in, its images, and the program that was quantized on them."""
    folder, rules = tmp_path_factory.mktemp(request.param), RULES[request.param]
    images = write_images(folder / "images", rules.channels == "RGBA")
    source = edgevit.ImageFolder(images, like=rules)
    result = edgevit.quantize(
        net_of(rules.channel_count),
        source,
        None,
        epochs=0,
        calibration_images=16,
        max_drop=100,
        allow_poor_float=True,
    )
    result.program.save(folder / "m.evq")
    program = Program.load(folder / "m.evq")
    assert program.info.preprocessing == rules
    assert program.graph().input_shape == (1, *rules.input_shape)
    return folder, images, program


@pytest.mark.parametrize("io", ["int8", "uint8", "float32"])
def test_the_harness_answers_the_programs_logits(made: tuple[Path, Path, Program], io: str) -> None:
    folder, images, program = made
    artifact = folder / f"tflite-{io}"
    manifest = load_target("tflite").compile(program, artifact, io=io)
    rules = program.info.preprocessing
    assert manifest.schema_version == 3 and manifest.preprocessing == rules
    assert manifest.input.shape == (1, *rules.pixel_shape)
    validate(
        HarnessRequest(artifact, images, logits=folder / f"{io}.safetensors"),
        ValidateOptions(program=folder / "m.evq", max_drop=100.0, min_agreement=100.0),
    )
    source = edgevit.ImageFolder(images, like=rules)
    pixels = source.pixels(range(len(source)))
    expected = program.run(rules.normalise(pixels)).numpy()
    np.testing.assert_array_equal(load_file(folder / f"{io}.safetensors")["logits"], expected)
    runner = load_target("tflite").open_runner(load_artifact(artifact))
    np.testing.assert_array_equal(runner.scores(pixels), expected)


@pytest.mark.parametrize(
    ("target", "options"),
    [("tensorrt", {}), ("coreml", {"input_type": "tensor"}), ("coreml", {"input_type": "image"})],
)
def test_the_other_targets_hold_them_or_say_why_not(
    made: tuple[Path, Path, Program], target: str, options: dict[str, Any], tmp_path: Path
) -> None:
    _, images, program = made
    rules = program.info.preprocessing
    if rules.channels == "RGBA" and options.get("input_type") == "image":
        with pytest.raises(InputError, match="Core ML's images have no alpha.*input-type tensor"):
            load_target(target).compile(program, tmp_path / "a", **options)
        return
    load_target(target).compile(program, tmp_path / "a", **options)
    source = edgevit.ImageFolder(images, like=rules)
    pixels = source.pixels(range(len(source)))
    runner = load_target(target).open_runner(load_artifact(tmp_path / "a"))
    expected = program.run(rules.normalise(pixels)).numpy()
    steps = np.abs(runner.scores(pixels) - expected) / _step(program)
    assert steps.max() <= 2 + 1e-2


def _step(program: Program) -> float:
    """Of the logits."""
    graph = program.graph()
    return graph.quantizer(graph.outputs[0]).scale


def test_a_stretched_picture_shows_its_ends() -> None:
    """What tells the classes lies at both ends of a wide picture: a crop never sees it."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (CLASSES, 3))
    picture = np.full((64, 192, 3), 128.0)
    ends = [picture.copy() for _ in range(CLASSES)]
    for label, each in enumerate(ends):
        each[:, :64] = each[:, 128:] = colours[label]
    pictures = [Image.fromarray(each.astype(np.uint8)) for each in ends]
    cropped = {Preprocessing(64, 64).crop(each).tobytes() for each in pictures}
    seen = {Preprocessing(64, resize="exact").crop(each).tobytes() for each in pictures}
    assert (len(cropped), len(seen)) == (1, CLASSES)


@pytest.mark.parametrize(
    ("target", "change"),
    [
        ("tflite", {"/input/scale": 0.5}),
        ("tflite", {"/outputs/0/zero_point": 3}),
        ("tflite", {"/outputs/0/name": "logits", "/outputs/0/dtype": "uint8",
                    "/outputs/0/zero_point": 128}),
        ("coreml", {"/input/layout": "NCHW", "/input/shape": [1, 3, 48, 64]}),
        ("tensorrt", {"/input/dtype": "float32"}),
        ("tensorrt", {"/outputs/0/dtype": "float32"}),
    ],
)  # fmt: skip
def test_a_manifest_of_another_artifact_is_refused_by_run_and_parity(
    tmp_path: Path, target: str, change: dict[str, Any]
) -> None:
    rules = RULES["bgr-area"]
    source = edgevit.ImageFolder(write_images(tmp_path / "images", False), like=rules)
    result = edgevit.quantize(
        net_of(3), source, None, epochs=0, calibration_images=8, max_drop=100, allow_poor_float=True
    )
    load_target(target).compile(result.program, tmp_path / "a")
    path = tmp_path / "a/manifest.json"
    document = json.loads(path.read_bytes())
    for pointer, value in change.items():
        document = put(document, pointer, value)
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match="its manifest says .*; compile it again"):
        load_target(target).open_runner(load_artifact(tmp_path / "a"))


def test_images_that_are_not_square_cannot_be_turned(tmp_path: Path) -> None:
    rules = RULES["bgr-area"]
    source = edgevit.ImageFolder(write_images(tmp_path, False), like=rules)
    with pytest.raises(InputError, match="--augment dihedral turns images by 90 degrees"):
        edgevit.quantize(net_of(3), source, None, augment="dihedral")


def test_macs_and_noise_of_a_wide_input() -> None:
    net = skeleton(variant_config("repvit_m0_6", num_classes=CLASSES), fused=True)
    square, wide = count_macs(net, 64), count_macs(net, (64, 128))
    head = sum(layer.weight.numel() for layer in net.modules() if isinstance(layer, nn.Linear))
    assert square == count_macs(net, (64, 64)) and count_macs(net, (128, 64)) == wide
    gates = square * 2 - wide  # what does not grow with the map: the head and the SE's
    assert head <= gates < square / 10
    assert noise_images((32, 96)).shape == (8, 3, 32, 96)
