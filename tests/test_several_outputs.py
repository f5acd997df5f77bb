"""A net with outputs behind its logits goes all the way, with no line that knows of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import edgevit
from edgevit.targets import load_target
from edgevit.targets.artifact import load_artifact
from tests.npu import OWN_FORMAT
from tests.test_families import CLASSES, SIZE, labelled, pictures


class WithFeatures(nn.Module):
    """A classifier that returns its logits, a feature map and an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, stride=4, padding=1)
        self.body = nn.Conv2d(12, 24, 3, stride=2, padding=1)
        self.head = nn.Linear(24, CLASSES)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = torch.relu(self.stem(x))
        embedding = nn.functional.gelu(self.body(features)).mean((2, 3))
        return self.head(embedding), features, embedding


def images(count: int, seed: int) -> edgevit.ImageSource:
    names = [f"class {i}" for i in range(CLASSES)]
    return edgevit.from_sequence(labelled(count, seed), size=SIZE, classes=names)


@pytest.fixture(scope="module")
def program() -> edgevit.Program:
    torch.manual_seed(0)
    return edgevit.quantize(
        WithFeatures().eval(), images(40, 1), images(20, 2), epochs=1, batch_size=8,
        calibration_images=16, max_drop=100, allow_poor_float=True,
    ).program  # fmt: skip


@pytest.mark.parametrize("target", OWN_FORMAT)
def test_every_output_is_handed_over(target: str, program: edgevit.Program, tmp_path: Path) -> None:
    pixels = pictures(8, 3)
    artifact = program.compile(target, tmp_path / target)
    assert [len(output.shape) for output in artifact.manifest.outputs] == [2, 4, 2]
    found = load_target(target).open_runner(load_artifact(tmp_path / target)).outputs(pixels)
    expected = program.outputs(program.info.preprocessing.normalise(pixels))
    for mine, theirs in zip(found.values(), expected.values(), strict=True):
        reference = theirs.numpy()
        if mine.shape != reference.shape:  # TFLite's maps have their channels last
            mine = mine.transpose(0, 3, 1, 2)
        # TensorRT leaves pairs out and Core ML computes in float16: they round elsewhere.
        assert ((mine - reference) ** 2).sum() < 1e-2 * (reference**2).sum()
        assert target != "tflite" or np.array_equal(mine, reference)


@pytest.mark.parametrize("target", OWN_FORMAT)
def test_the_logits_are_what_is_judged(
    target: str, program: edgevit.Program, tmp_path: Path
) -> None:
    artifact = program.compile(target, tmp_path / target)
    parity = artifact.parity(images(20, 2))
    assert parity.images == 20 and parity.agreement_percent >= 90
    assert {"head", "gelu"} <= {layer.name for layer in parity.layers}
    if target == "tflite":
        assert parity.first_departure is None and parity.agreement_percent == 100
        validation = edgevit.validate(artifact, images(20, 2))
        assert validation.passed and validation.agreement.agreement == 100
